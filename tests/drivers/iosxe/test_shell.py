"""The command line on a channel that is not the kindest. The channel is synthetic; nothing of a network is used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from relaymgr.domain.platforms import Platform
from relaymgr.drivers.errors import ConfigurationRefused, DeadlineExceeded, DriverError, Garbage, SessionLost
from relaymgr.drivers.iosxe import shell
from relaymgr.drivers.iosxe.shell import Shell
from relaymgr.drivers.protocol import Credential, DeviceTarget

TARGET = DeviceTarget("xe", Platform.IOSXE, "192.0.2.1", host_key="ssh-ed25519 AAAA")
EXEC, CONFIG = b"relay#", b"relay(config)#"


class Channel:
    """Answers each line typed by what `answer` makes of it, in pieces of `piece` octets."""

    def __init__(self, answer: Callable[[bytes], bytes], piece: int = 65_536) -> None:
        self.answer, self.piece = answer, piece
        self.typed: list[bytes] = []
        self.waiting = bytearray()
        self.closed = self.eof_received = False

    def sendall(self, data: bytes) -> None:
        if self.closed:
            raise OSError("closed")
        self.typed.append(data)
        self.waiting += self.answer(data)

    def recv_ready(self) -> bool:
        return bool(self.waiting)

    def recv(self, most: int) -> bytes:
        data = bytes(self.waiting[: min(most, self.piece)])
        del self.waiting[: len(data)]
        return data


class Session:
    """What is used of netmiko."""

    base_prompt = "relay"

    def __init__(self, channel: Channel) -> None:
        self.remote_conn = channel
        self.remote_conn_pre = self
        self.logging_in: Callable[[], None] = lambda: None

    def log_in(self) -> None:
        self.logging_in()

    def close(self) -> None:
        self.remote_conn.closed = True


def opened(monkeypatch: pytest.MonkeyPatch, channel: Channel, **attributes: Any) -> Shell:
    session = Session(channel)
    for name, value in attributes.items():
        setattr(session, name, value)
    monkeypatch.setattr(shell, "_Netmiko", lambda **_: session)
    made = Shell(TARGET, Credential("isthmus", "synthetic"))
    made.open()
    return made


def echoing(body: bytes, prompt: bytes = EXEC) -> Callable[[bytes], bytes]:
    return lambda line: line.replace(b"\x16", b"").rstrip() + b"\r\n" + body + b"\r\n" + prompt


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 65_536])
@pytest.mark.parametrize(
    "body",
    [
        "description to relay-core#2 and relay>3 next",
        "banner motd ^C\r\n   relay# is watched\r\n% keep out\r\n^C",
        "description Zürich - Genève",
        "relay uptime is 5 days #",
    ],
)
def test_an_answer_is_whole_whatever_it_says_and_however_it_comes(monkeypatch, body, piece):
    made = opened(monkeypatch, Channel(echoing(b"one\r\ntwo\r\nthree\r\n" + body.encode()), piece))
    assert made.show("show running-config", 5) == "one\ntwo\nthree\n" + body.replace("\r", "")


def test_what_the_router_tells_unasked_behind_its_prompt_is_waited_out(monkeypatch):
    told = b"Rollback Confirmed Change: Rollback will begin in one minute.\r\nEnter it\r\n"
    made = opened(monkeypatch, Channel(lambda line: echoing(b"one")(line) + told))
    assert made.show("show one", 5) == "one"


@pytest.mark.parametrize("piece", [1, 65_536])
def test_octets_that_are_no_utf8_are_kept(monkeypatch, piece):
    made = opened(monkeypatch, Channel(echoing(b"description Z\xfcrich"), piece))
    assert made.show("show running-config", 5) == "description Zürich"


def test_a_prompt_left_over_from_before_is_not_the_answer(monkeypatch):
    channel = Channel(echoing(b"first"))
    made = opened(monkeypatch, channel)
    channel.waiting += b"\r\nrelay#"
    assert made.show("show one", 5) == "first"
    assert made.show("show two", 5) == "first"


def test_an_answer_without_an_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(shell, "ANSWER_LIMIT", 200_000)

    class Endless(Channel):
        def recv_ready(self) -> bool:
            return True

        def recv(self, most: int) -> bytes:
            return super().recv(most) or b"x" * most

    with pytest.raises(Garbage):
        opened(monkeypatch, Endless(lambda line: line)).show("show tech", 5)


def test_what_a_banner_says_far_below_is_no_refusal_but_what_stands_first_is(monkeypatch):
    refused = b"               ^\r\n% Invalid input detected at '^' marker.\r\n"
    with pytest.raises(ConfigurationRefused, match="Invalid input"):
        opened(monkeypatch, Channel(echoing(refused))).show("show nothing", 5)
    with pytest.raises(ConfigurationRefused, match="authorization failed"):
        opened(monkeypatch, Channel(echoing(b"Command authorization failed.\r\n"))).show("show running-config", 5)


def test_a_question_mark_is_quoted_and_text_goes_as_utf8(monkeypatch):
    channel = Channel(echoing(b"", CONFIG))
    made = opened(monkeypatch, channel)
    made.configure("configure terminal", ["description what? Zürich"], 5)
    assert channel.typed[1] == "description what\x16? Zürich\n".encode()


def test_nothing_is_typed_after_the_deadline(monkeypatch):
    def slowly(line: bytes) -> bytes:
        time.sleep(0.05)
        return echoing(b"", CONFIG)(line)

    channel = Channel(slowly)
    made = opened(monkeypatch, channel)
    with pytest.raises(DeadlineExceeded):
        made.configure("configure terminal revert timer 5", [f"line {number}" for number in range(100)], 0.2)
    assert len(channel.typed) < 10


def test_nothing_is_typed_once_it_was_given_up(monkeypatch):
    """The thread of a call that was abandoned is still there; the router hears nothing more of it."""
    typed_one, go_on = threading.Event(), threading.Event()

    def held(line: bytes) -> bytes:
        if line.startswith(b"line 0"):
            typed_one.set()
            go_on.wait(5)
        return echoing(b"", CONFIG)(line)

    channel = Channel(held)
    made = opened(monkeypatch, channel)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            made.configure("configure terminal revert timer 5", ["line 0", "line 1", "line 2"], 30)
        except DriverError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert typed_one.wait(5)
    made.give_up()
    go_on.set()
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(raised[0], SessionLost)
    assert channel.typed[-1] == b"line 0\n"


def test_a_session_given_up_while_it_logged_in_holds_no_line(monkeypatch):
    channel = Channel(echoing(b""))
    session = Session(channel)
    monkeypatch.setattr(shell, "_Netmiko", lambda **_: session)
    made = Shell(TARGET, Credential("isthmus", "synthetic"))
    session.logging_in = made.give_up
    with pytest.raises(SessionLost):
        made.open()
    assert channel.closed

"""What becomes of answers that are no answers, of pages, and of streams that break."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from rich.text import Text

from relaymgr.cli import changes, streams
from relaymgr.cli.client import Manager
from relaymgr.cli.differences import style_of
from relaymgr.cli.failure import EXIT_UNREACHABLE, Failure, Refused, Unreachable
from relaymgr.cli.intents import read_intent
from relaymgr.cli.output import age, cell, count, endpoint, flag, rate, since, size, until, words
from relaymgr.cli.streams import ServerSentEvent, follow, parse
from relaymgr.cli.target import Target
from relaymgr.cli.tokens import moment

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def answering() -> Iterator[Callable[[Handler], Manager]]:
    """Makes a client whose manager is a function."""
    made: list[Manager] = []

    def make(handler: Handler) -> Manager:
        manager = Manager(Target("http://127.0.0.1:1", "ist_token"))
        manager._http.close()
        manager._http = httpx.Client(transport=httpx.MockTransport(handler), base_url="http://127.0.0.1:1")
        made.append(manager)
        return manager

    yield make
    for manager in made:
        manager._http.close()


def test_nobody_listens_is_exit_3(relaymgr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ISTHMUS_URL", f"http://127.0.0.1:{reserved.getsockname()[1]}")
        told = relaymgr("relay", "list", status=EXIT_UNREACHABLE).stderr
    assert told.startswith("relaymgr: no manager answers at http://127.0.0.1:")


@pytest.mark.parametrize(("method", "doubt"), [("GET", False), ("POST", True)])
def test_a_lost_answer_to_a_write_leaves_doubt(
    answering: Callable[[Handler], Manager], method: str, doubt: bool
) -> None:
    def handler(_request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("timed out")

    manager = answering(handler)
    with pytest.raises(Unreachable) as lost:
        manager.send(method, "/x")
    assert ("may have been done" in lost.value.message) is doubt


def test_problem_is_told_in_full(answering: Callable[[Handler], Manager]) -> None:
    problem = {
        "detail": "mx1 has a window", "code": "confirm_window_open", "request_id": "r1", "job_id": "j1",
        "faults": [{"key": "limit", "location": "query", "message": "too many"}, {"key": "inet.x", "message": "bad"}],
    }  # fmt: skip
    manager = answering(lambda _: httpx.Response(409, json=problem))
    with pytest.raises(Refused) as refused:
        manager.get("/x")
    assert refused.value.message.splitlines() == [
        "mx1 has a window (confirm_window_open, request r1)",
        "  query limit: too many",
        "  inet.x: bad",
        "  job: j1",
    ]
    assert (refused.value.exit_code, refused.value.code, refused.value.status) == (1, "confirm_window_open", 409)


@pytest.mark.parametrize(
    ("response", "told"),
    [
        (httpx.Response(502, text="<html>Bad Gateway</html>"), "answered 502 Bad Gateway (http_502)"),
        (httpx.Response(500, json=["x"]), "answered 500"),
        (httpx.Response(302, headers={"Location": "https://evil.example.net"}), "not followed with a token"),
        (httpx.Response(200, text="hello"), "not as a relay manager does"),
    ],
)
def test_answers_of_something_else(
    answering: Callable[[Handler], Manager], response: httpx.Response, told: str
) -> None:
    with pytest.raises(Failure) as failure:
        answering(lambda _: response).get("/x")
    assert told in failure.value.message


def test_rows_are_read_over_pages(answering: Callable[[Handler], Manager]) -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url.query, "ascii"))
        first = "cursor" not in request.url.params
        items = [{"id": number} for number in range(1000 if first else 500)]
        return httpx.Response(200, json={"items": items, "next_cursor": "c" if first else None})

    manager = answering(handler)
    assert len(manager.rows("/x", limit=None, state="active", ad_id=None).items) == 1500
    assert asked == ["limit=1000&state=active", "limit=1000&cursor=c&state=active"]
    asked.clear()
    assert manager.rows("/x", limit=1200).next_cursor is None
    assert asked[1] == "limit=200&cursor=c"


def test_job_is_asked_for_again_under_the_same_key(
    answering: Callable[[Handler], Manager], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            raise httpx.RemoteProtocolError("went away")
        return httpx.Response(202, json={"id": "j"})

    monkeypatch.setattr(changes, "pause", lambda _: None)
    assert changes.submit(answering(handler), "/relays/x/apply", {}) == {"id": "j"}
    assert len(keys) == 2
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("data: a\n\n", [ServerSentEvent("message", "a", None)]),
        (": still here\n\nid: 4\nevent: log\ndata: {}\n\n", [ServerSentEvent("log", "{}", "4")]),
        (
            "id: 4\ndata: a\ndata:b\n\ndata: c\n\n",
            [ServerSentEvent("message", "a\nb", "4"), ServerSentEvent("message", "c", "4")],
        ),
        ("retry: 2000\n\nid: 9\ndata: cut off", []),
        ("event: x\n\ndata\n\n", [ServerSentEvent("message", "", None)]),
    ],
)
def test_parse(text: str, events: list[ServerSentEvent]) -> None:
    assert list(parse(text.split("\n"))) == events


@pytest.mark.parametrize("data", ["no json", "[1]", ""])
def test_data_that_is_no_object(data: str) -> None:
    assert ServerSentEvent("log", data, None).document() == {}


class Breaking(httpx.SyncByteStream):
    """A body that breaks off."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __iter__(self) -> Iterator[bytes]:
        yield self._text.encode()
        raise httpx.RemoteProtocolError("peer closed connection")


def test_follow_resumes_after_the_last_event(
    answering: Callable[[Handler], Manager], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "sleep", lambda _: None)
    resumed: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        resumed.append(request.headers.get("Last-Event-ID"))
        match len(resumed):
            case 1:
                return httpx.Response(200, stream=Breaking("id: 1\ndata: a\n\nid: 2\ndata: cut"))
            case 2:
                raise httpx.ConnectError("refused")
            case 3:
                return httpx.Response(503, text="starting")
            case _:
                return httpx.Response(200, text="id: 2\ndata: b\n\n")

    breaks: list[int] = []
    found = []
    for event in follow(answering(handler), "/x", on_break=lambda: breaks.append(1)):
        found.append(None if event is None else event.data)
        if event is not None and event.id == "2":
            break
    assert found == ["a", None, None, None, "b"]
    assert resumed == [None, "1", "1", "1"]
    assert len(breaks) == 3


def test_follow_gives_up_after_its_patience(
    answering: Callable[[Handler], Manager], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 100_000, 100))
    monkeypatch.setattr(streams, "monotonic", lambda: next(clock))
    monkeypatch.setattr(streams, "sleep", lambda _: None)

    def handler(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(Unreachable, match="stopped answering"):
        list(follow(answering(handler), "/x"))


def test_a_long_quiet_stream_may_break_once(
    answering: Callable[[Handler], Manager], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 100_000_000, 10_000))
    monkeypatch.setattr(streams, "monotonic", lambda: next(clock))
    monkeypatch.setattr(streams, "sleep", lambda _: None)
    answers = iter(
        [httpx.Response(200, stream=Breaking(": quiet\n\n")), httpx.Response(200, text="id: 1\ndata: a\n\n")]
    )
    stream = follow(answering(lambda _: next(answers)), "/x", patience=15_000)
    assert next(stream) is None
    assert next(stream) == ServerSentEvent("message", "a", "1")


def test_follow_does_not_try_what_is_refused(answering: Callable[[Handler], Manager]) -> None:
    manager = answering(lambda _: httpx.Response(404, json={"detail": "no job x", "code": "not_found"}))
    with pytest.raises(Refused, match="no job x"):
        list(follow(manager, "/x"))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (age(None), None), (age(3.25), "3.2s"), (age(250), "4m10s"), (age(7500), "2h05m"), (age(273600), "3d04h"),
        (size(None), None), (size(0), "0 B"), (size(162468096), "162.5 MB"), (size(10**18), "1000.0 PB"),
        (count(None), None), (count(0), "0"), (count(1234567), "1 234 567"),
        (rate(None, "kbit/s"), None), (rate(0.0, "kbit/s"), "0.0 kbit/s"),
        (endpoint(None, 1), None), (endpoint("2001:db8::1", 2268), "[2001:db8::1]:2268"),
        (endpoint("192.0.2.1", None), "192.0.2.1"),
        (flag(None), None), (flag(False), "no"), (words([]), None), (words([1, 2]), "1, 2"),
        (since(None), None), (until(None), None), (until("2001-01-01T00:00:00Z"), "over"),
        (cell(None).plain, "-"), (cell("").plain, "-"), (cell(0).plain, "0"), (cell("a\x1b[2Jb").plain, "a�[2Jb"),
        (cell(Text("kept")).plain, "kept"),
        (style_of("+  limit"), "green"), (style_of("-  limit"), "red"), (style_of("[edit x]"), "bold cyan"),
        (style_of(" x"), ""),
    ],
)  # fmt: skip
def test_shown(shown: object, expected: object) -> None:
    assert shown == expected


@pytest.mark.parametrize("text", ["soon", "0x1d", "2001-01-01", "10y"])
def test_times_to_come_that_are_none(text: str) -> None:
    with pytest.raises(Failure):
        moment(text)


def test_times_to_come() -> None:
    assert (moment("2d") - moment("1d")).days in {0, 1}
    assert moment("2999-01-31T00:00:00+00:00").isoformat() == "2999-01-31T00:00:00+00:00"


def test_yaml_has_the_scalars_of_json(tmp_path: Any) -> None:
    file = tmp_path / "intent.yaml"
    file.write_text('a: yes\nb: 1:20\nc: 12\nd: true\ne: null\nf: 1.5\ng: 0o7\nh: ~\ni: "12"\nj: 192.0.2.1\nk:\n')
    expected = {
        "a": "yes", "b": "1:20", "c": 12, "d": True, "e": None, "f": 1.5, "g": "0o7", "h": None, "i": "12",
        "j": "192.0.2.1", "k": None,
    }  # fmt: skip
    assert read_intent(file).intent == expected
    file.write_text(json.dumps({"intent": {"a": 1}, "version": 3}))
    assert read_intent(file).etag == '"3"'

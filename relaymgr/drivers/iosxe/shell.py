"""The command line of IOS and IOS-XE through netmiko. Everything here blocks; `cli` runs it in threads."""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import paramiko  # type: ignore[import-untyped]
from netmiko import NetmikoAuthenticationException, NetmikoTimeoutException, ReadTimeout
from netmiko.cisco.cisco_ios import CiscoIosSSH
from netmiko.exceptions import NetmikoBaseException

from relaymgr.drivers import ssh
from relaymgr.drivers.errors import (
    ConfigurationRefused,
    DeadlineExceeded,
    DeviceBusy,
    DriverError,
    Garbage,
    HostKeyMismatch,
    LoginRefused,
    SessionLost,
    Unreachable,
)
from relaymgr.drivers.iosxe.legacy_ssh import LegacyClient
from relaymgr.drivers.protocol import Credential, DeviceTarget

_REFUSAL: Final = re.compile(
    r"^\s*(?:%(?! ?warning| ?not all config|[A-Z0-9_]+-\d-)\s*(?=\S)|(?=(?:command )?authorization failed))"
    r"(?P<said>.+)$",
    re.IGNORECASE | re.MULTILINE,
)
_LOCKED: Final = re.compile(r"Configuration mode (?:is )?locked", re.IGNORECASE)
_KEY_CLASSES: Final = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)
_PROMPT_OCTETS: Final = 512
"""Octets at the end of an answer in which a prompt is looked for."""
_QUIET_SECONDS: Final = 0.5
"""After so much silence a prompt counts though something stands behind it: the router told something unasked."""
_REFUSAL_LINES: Final = 3
"""Lines of an answer to an EXEC command that may be a refusal; a banner further down says what it likes."""
_READ: Final = 65_536
ANSWER_LIMIT: Final = 64 * 1024 * 1024  # octets
_POLL_SECONDS: Final = 0.01
_LOST: Final = (NetmikoBaseException, paramiko.SSHException, OSError, EOFError, AttributeError)
"""What netmiko and paramiko raise on a channel that broke, or that another thread closed under them."""

# At DEBUG netmiko logs all it reads, which is configurations with their secrets.
logging.getLogger("netmiko").setLevel(logging.INFO)


def refusal(output: str) -> str | None:
    """What a router said against a command, without `%`; None where it only warned, logged or said nothing."""
    found = _REFUSAL.search(output)
    return found["said"].strip() if found else None


class _Netmiko(CiscoIosSSH):  # type: ignore[misc]
    """netmiko's session, in two steps, so that a connection in the making can be cut."""

    is_legacy = False

    def log_in(self) -> None:
        self.establish_connection()
        self._try_session_preparation()

    def _get_ssh_client_instance(self) -> paramiko.SSHClient:
        return LegacyClient() if self.is_legacy else super()._get_ssh_client_instance()


class Shell:
    """One logged-in command line. Not safe for two threads, but `cut` may come from any."""

    def __init__(self, target: DeviceTarget, credential: Credential) -> None:
        self._target = target
        self._name = target.name
        self._credential = credential
        self._netmiko: Any = None
        self._is_cut = False
        self._at_exec = self._at_any = re.compile("")

    def open(self) -> None:
        """Log in.

        Raises:
            HostKeyMismatch, LoginRefused, DeviceBusy, Unreachable, DeadlineExceeded: no session could be had.
        """
        target = self._target
        port = target.port or ssh.DEFAULT_PORT
        with ssh.known_hosts_file(target, port) as known_hosts:
            seconds = target.deadlines.connect
            self._netmiko = _Netmiko(
                host=target.host,
                port=port,
                username=self._credential.username,
                password=self._credential.password or "",
                device_type="cisco_xe",
                **_key_options(self._name, self._credential),
                allow_agent=False,
                ssh_strict=True,
                system_host_keys=False,
                alt_host_keys=True,
                alt_key_file=str(known_hosts),
                conn_timeout=seconds,
                auth_timeout=seconds,
                banner_timeout=seconds,
                auto_connect=False,
            )
            self._netmiko.is_legacy = target.legacy_ssh
            try:
                self._netmiko.log_in()
            except _LOST as error:
                raise _login_error(self._name, error) from error
        # At the beginning of a line: what looks like a prompt within a line of an answer is none.
        prompt = re.escape(self._netmiko.base_prompt)
        self._at_exec = re.compile(rf"^{prompt}[^\s#>(]*[#>](?P<more>.*)", re.MULTILINE)
        self._at_any = re.compile(rf"^{prompt}[^\s#>]*#(?P<more>.*)", re.MULTILINE)
        if self._is_cut:  # while it logged in: nobody will use the session, and it would hold a line of the router
            self.cut()
            raise SessionLost(self._name, "the session was given up while it began")

    def show(self, command: str, seconds: float) -> str:
        """Output of one EXEC command.

        Raises:
            ConfigurationRefused: the router does not know or allow it.
            DeadlineExceeded, SessionLost: no answer.
        """
        output = self._typed(command, self._at_exec, time.monotonic() + seconds)
        *_, prompt = self._at_exec.finditer(output)
        body = output[: prompt.start()].partition("\n")[2].removesuffix("\n")  # without what ends the echo
        head = [line for line in body[:2000].splitlines() if line.strip()][:_REFUSAL_LINES]
        if refused := refusal("\n".join(head)):
            raise ConfigurationRefused(self._name, f"{command}: {refused}", command)
        return body

    def configure(self, opening: str, lines: Sequence[str], seconds: float) -> None:
        """Enter configuration mode with `opening`, type `lines` one by one, leave.

        Raises:
            ConfigurationRefused: a line was refused; those before it are in force, those behind it were not sent.
            DeviceBusy: somebody else has the configuration locked.
            DeadlineExceeded, SessionLost: no answer; some lines may be in force.
        """
        until = time.monotonic() + seconds
        answer = self._typed(opening, self._at_any, until)
        if _LOCKED.search(answer):
            raise DeviceBusy(self._name, "somebody else has the configuration locked")
        self._refuse(opening, answer)
        if not any("(config" in found[0] for found in self._at_any.finditer(answer)):
            raise Garbage(self._name, "did not enter configuration mode")
        try:
            for line in lines:
                self._refuse(line, self._typed(line, self._at_any, until))
        except ConfigurationRefused:
            self._typed("end", self._at_any, max(until, time.monotonic() + 1.0))
            raise
        self._typed("end", self._at_any, until)

    def give_up(self) -> None:
        """From now on nothing more is typed, whatever a thread is in the middle of. Any thread may say so."""
        self._is_cut = True

    def cut(self) -> None:
        """End the session without a word, from whatever thread. Never raises."""
        self.give_up()
        netmiko = self._netmiko
        client = getattr(netmiko, "remote_conn_pre", None)
        with suppress(*_LOST):
            if client is not None:
                client.close()

    def _typed(self, line: str, prompt: re.Pattern[str], until: float) -> str:
        """Type a line and give what comes behind its echo up to the prompt, by the monotonic time `until`.

        netmiko's own loop misses a closed channel, and drops octets that are not UTF-8 or are cut in the middle of a
        character. A prompt before the echo is one left over from before.
        """
        echo, read, behind, last = line.encode(), bytearray(), -1, time.monotonic()
        try:
            self._send(line, until)
            while True:
                data = self._received()
                read += data
                if len(read) > ANSWER_LIMIT:
                    raise Garbage(self._name, f"its answer has no end: {line}")
                if behind < 0 and (at := read.find(echo)) >= 0:
                    behind = at + len(echo)
                now = time.monotonic()
                last = now if data else last
                if behind >= 0 and (data or now - last > _QUIET_SECONDS):
                    tail = read[max(behind, len(read) - _PROMPT_OCTETS) :].decode("latin-1").replace("\r", "")
                    found = list(prompt.finditer(tail))
                    if found and (not found[-1]["more"].strip() or now - last > _QUIET_SECONDS):
                        return _text(read[behind:])
                if now > until:
                    raise DeadlineExceeded(self._name, f"no answer in time to: {line}")
                if not data:
                    self._wait(line)
        except _LOST as error:
            raise SessionLost(self._name, f"the session broke at: {line}") from error

    def _send(self, line: str, until: float) -> None:
        if self._is_cut:
            raise SessionLost(self._name, f"the session was given up before: {line}")
        if time.monotonic() > until:
            raise DeadlineExceeded(self._name, f"no time was left for: {line}")
        # A question mark asks for help at once, unless it is quoted.
        self._netmiko.remote_conn.sendall(line.replace("?", "\x16?").encode() + b"\n")

    def _received(self) -> bytes:
        channel = self._netmiko.remote_conn
        return bytes(channel.recv(_READ)) if channel.recv_ready() else b""

    def _wait(self, line: str) -> None:
        channel = self._netmiko.remote_conn
        if channel.closed or channel.eof_received:
            raise SessionLost(self._name, f"ended the session at: {line}")
        time.sleep(_POLL_SECONDS)

    def _refuse(self, line: str, answer: str) -> None:
        if said := refusal(answer):
            raise ConfigurationRefused(self._name, f"{line}: {said}", line)


def _text(octets: bytes | bytearray) -> str:
    """What a router sent, without loss: UTF-8, or an octet a character where it is none."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        text = octets.decode("latin-1")
    return text.replace("\r", "")


def _key_options(name: str, credential: Credential) -> dict[str, Any]:
    if not credential.private_key:
        return {}
    for kind in _KEY_CLASSES:
        with suppress(paramiko.SSHException, ValueError):
            return {"use_keys": True, "pkey": kind.from_private_key(io.StringIO(credential.private_key))}
    raise LoginRefused(name, "the private key of the credential cannot be read")


def _login_error(name: str, error: BaseException) -> DriverError:
    """What `log_in` raised; paramiko's exception, which netmiko hides behind its own, tells more."""
    below = error.__cause__ or error.__context__ or error
    said = str(below)
    if isinstance(below, paramiko.BadHostKeyException):
        presented = str(below.key.fingerprint)
        return HostKeyMismatch(name, f"presented the host key {presented}, which is not the pinned one", presented)
    late = isinstance(below, TimeoutError) or isinstance(error, ReadTimeout) or "uthentication timeout" in said
    busy = isinstance(below, paramiko.SSHException | EOFError | ConnectionResetError)
    kinds: tuple[tuple[bool, type[DriverError], str], ...] = (
        ("known_hosts" in said, HostKeyMismatch, "presented a host key that is not the pinned one"),
        (late, DeadlineExceeded, "no command line in time"),
        (isinstance(error, NetmikoAuthenticationException), LoginRefused, "refused the credentials"),
        (
            isinstance(below, paramiko.ssh_exception.IncompatiblePeer),
            Unreachable,
            "no common SSH algorithm (an aged release may need legacy_ssh)",
        ),
        (busy, DeviceBusy, "ended the connection before a session: no free line, or SSH is off"),
        (isinstance(error, NetmikoTimeoutException | OSError), Unreachable, "no TCP connection"),
    )
    for applies, kind, detail in kinds:
        if applies:
            return kind(name, detail)
    return SessionLost(name, "the session broke while it began")

"""A router's command line on an SSH channel: echo, editing, paging, prompts, and the faults of such a session."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, Final, Protocol

import asyncssh

from lab.sim.faults import FaultSwitch
from lab.sim.wire_log import WireLog

_MORE: Final = " --More-- "
_NOISE: Final = "\x1b[2J\x7f\x00\ufffd%&~\x08\x07" * 8
_ERASE: Final = "\b" * len(_MORE) + " " * len(_MORE) + "\b" * len(_MORE)
_LONGEST_LINE: Final = 65_536


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command prints, and what the session does then."""

    text: str = ""
    question: str | None = None
    """Printed without a line end; the next line typed answers it."""
    secret: bool = False
    """The answer is not echoed."""
    ends: bool = False
    """The session is over."""
    commits: bool = False
    """It made a change permanent (the fault drop-after-commit cuts the connection then)."""
    name: str = ""
    """The command in full, for the log and the fault no-reply-rpc."""


class CommandSession(Protocol):
    """What obeys the commands of one logged-in user."""

    number: int
    page_length: int
    """Lines of a page; 0: no paging."""

    @property
    def prompt(self) -> str:
        """What stands before the next command."""

    def execute(self, line: str) -> Reply:
        """Obey one line, or take it as the answer to the question of the last reply."""


class CliShell:
    """One terminal.

    Args:
        process: the channel, with text encoding.
        session: obeys the commands.
        faults: slow, hang-mid-rpc, drop-session, garbage, drop-after-commit and no-reply-rpc are obeyed here.
        wire_log: where commands and replies are noted (not their text: it may hold secrets).
    """

    def __init__(
        self, process: asyncssh.SSHServerProcess[Any], session: CommandSession, faults: FaultSwitch, wire_log: WireLog
    ) -> None:
        self._process = process
        self._session = session
        self._faults = faults
        self._wire_log = wire_log
        self._typed = ""
        self._asking: Reply | None = None
        self._after_return = False

    async def run(self) -> None:
        """Serve until either side ends it."""
        with contextlib.suppress(asyncssh.Error, ConnectionError, asyncio.CancelledError):
            if self._process.command is not None:
                await self._answer(self._process.command)
            else:
                await self._serve()
        self._wire_log.record("out", self._session.number, "session-end", "")
        self._process.exit(0)

    def tell(self, text: str) -> None:
        """Print between commands, as messages of the system come: the prompt is not printed again."""
        if not self._process.stdout.is_closing():
            self._process.stdout.write(_crlf(text))

    async def _serve(self) -> None:
        await self._wire_log.passed()
        self._print("\n" + self._session.prompt)
        while True:
            line = await self._read_line()
            if line is None or not await self._answer(line):
                return
            self._print((self._asking.question or "") if self._asking else self._session.prompt)
            await self._process.stdout.drain()
            if await self._wire_log.passed():
                return  # what came meanwhile is of a client that may be dead

    async def _answer(self, line: str) -> bool:
        """Execute one line; False: the session is over."""
        await self._wire_log.passed()
        asked, self._asking = self._asking, None
        reply = self._session.execute(line)
        name = reply.name or ("answer" if asked else "command")
        self._wire_log.record("in", self._session.number, name, "")
        await self._wire_log.passed()
        if reply.question is not None:
            self._asking = reply
        if self._faults.silences(name):
            await self._hang()
            return False
        if self._faults.delay and line.strip():
            await asyncio.sleep(self._faults.delay)
        if reply.commits and "drop-after-commit" in self._faults:
            self._wire_log.record("out", self._session.number, name, "dropped")
            self._cut()
            return False
        if not await self._deliver(name, reply.text):
            return False
        self._wire_log.record("out", self._session.number, name, f"{len(reply.text)} characters")
        return not reply.ends

    async def _deliver(self, name: str, text: str) -> bool:
        if text and {"hang-mid-rpc", "drop-session"} & self._faults.active.keys():
            self._print(text[: len(text) // 2])
            await self._process.stdout.drain()
            self._wire_log.record("out", self._session.number, name, "half a reply")
            if "hang-mid-rpc" in self._faults:
                await self._hang()
            else:
                self._cut()
            return False
        if text and "garbage" in self._faults:
            self._print(_NOISE + "\n")
            return True
        await self._page(text)
        return True

    async def _page(self, text: str) -> None:
        length = self._session.page_length
        lines = text.splitlines(keepends=True)
        if length <= 1 or len(lines) < length or self._process.command is not None:
            self._print(text)
            return
        room = length - 1
        while lines:
            self._print("".join(lines[:room]))
            lines = lines[room:]
            if not lines:
                return
            self._print(_MORE)
            key = await self._read_key()
            self._process.stdout.write(_ERASE)
            if key in {"\r", "\n"}:
                room = 1
            elif key == " ":
                room = length - 1
            else:
                return

    async def _read_key(self) -> str:
        while not self._typed:
            try:
                data = await self._process.stdin.read(4096)
            except (asyncssh.TerminalSizeChanged, asyncssh.BreakReceived, asyncssh.SignalReceived):
                continue
            if not data:
                return ""
            self._typed += data
        key, self._typed = self._typed[0], self._typed[1:]
        self._after_return = key == "\r"
        return key

    async def _read_line(self) -> str | None:
        """A line with echo; None at the end of input."""
        secret = self._asking is not None and self._asking.secret
        line: list[str] = []
        while True:
            key = await self._read_line_key()
            if not key:
                return None
            if key in "\r\n":
                self._print("\n")
                return "".join(line)
            if key in "\b\x7f":
                if line:
                    line.pop()
                    self._echo("\b \b", secret=secret)
            elif key == "\x15":
                self._echo("\b \b" * len(line), secret=secret)
                line.clear()
            elif key == "\x1a":
                self._print("^Z\n")
                return "end"
            elif key == "\x03":
                self._print("^C\n")
                return ""
            elif (key.isprintable() or key == "\t") and len(line) < _LONGEST_LINE:
                line.append(" " if key == "\t" else key)
                self._echo(line[-1], secret=secret)

    async def _read_line_key(self) -> str:
        """The next key; a line feed that follows a carriage return is one key with it."""
        before = self._after_return
        key = await self._read_key()
        return await self._read_key() if before and key == "\n" else key

    def _echo(self, text: str, *, secret: bool) -> None:
        if not secret:
            self._process.stdout.write(text)

    def _print(self, text: str) -> None:
        self._process.stdout.write(_crlf(text))

    async def _hang(self) -> None:
        while await self._process.stdin.read(65536):
            pass

    def _cut(self) -> None:
        connection = self._process.get_extra_info("connection")
        connection.abort()


def _crlf(text: str) -> str:
    return text.replace("\n", "\r\n")

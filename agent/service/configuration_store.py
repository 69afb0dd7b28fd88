"""Running, candidate, commit with a confirm timer, rollback: a router's promise, kept across restarts.

The configuration file of `amt-agent run --config` is the start-up configuration. A commit replaces it as a whole, and
what it held becomes version 1 of the history; so does an edit by hand followed by SIGHUP or by a restart. Whatever the
moment a process is killed at, the file is the old text or the new one.

A commit with a confirm timer writes down what to return to before it touches the file. The timer goes on by the wall
clock while the agent is down: a start after the deadline returns to the previous text first, a start before it waits
for the rest. A later commit confirms an earlier one unless it has a timer itself; then both return to what was last
confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.service.config import Configuration, ConfigurationError, parse, read
from agent.service.config.render import table_text
from agent.service.configuration_history import Candidate, History, Pending
from agent.service.durable import replace_file, sweep
from agent.service.model import ConfigurationState
from agent.service.port import RefusedError

Apply = Callable[[Configuration], Awaitable[None]]

CONFIRM_LIMIT: Final = 86_400.0  # seconds
RETRY_SECONDS: Final = 30.0  # between attempts to roll back an unconfirmed commit

_log = logging.getLogger(__name__)


class ConfigurationStore:
    """All that can be done with the configuration; one change at a time.

    Methods that change something raise RefusedError (with the codes below), ConfigurationError for a text that is not a
    valid configuration, or OSError when the disk refuses; then nothing has changed. Codes: `configuration_changed`,
    `no_candidate`, `nothing_to_confirm`, `no_such_version`, `needs_restart`, and those of the daemon.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Read the file and settle what a previous life left unfinished.

        Args:
            path: the configuration file.
            clock: wall clock in seconds since the epoch.

        Raises:
            ConfigurationError: the file is not a valid configuration.
            OSError: the state directory cannot be used.
        """
        self.path = path.resolve()
        self._clock = clock
        self._lock = asyncio.Lock()
        self._apply: Apply | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_error: str | None = None
        self._text = read(self.path)
        self._configuration = parse(self._text, str(self.path), with_files=True)
        self._history = History(self._configuration.state_dir)
        sweep(self.path.parent, self.path.name)
        self._recover()

    @property
    def configuration(self) -> Configuration:
        """The running configuration."""
        return self._configuration

    @property
    def text(self) -> str:
        """Its text."""
        return self._text

    @property
    def etag(self) -> str:
        """Strong ETag of the running text, with its quotes."""
        return etag(self._text)

    @property
    def confirm_deadline(self) -> datetime | None:
        """When the unconfirmed commit is rolled back; None when there is none."""
        pending = self._history.pending()
        return None if pending is None else datetime.fromtimestamp(pending.deadline, UTC)

    def state(self) -> ConfigurationState:
        """What `status` says about the configuration."""
        return ConfigurationState(
            etag=self.etag,
            candidate=self._history.candidate() is not None,
            confirm_deadline=self.confirm_deadline,
            last_error=self._last_error,
        )

    def candidate(self) -> str | None:
        """Text of the candidate."""
        candidate = self._history.candidate()
        return None if candidate is None else candidate.text

    def versions(self) -> list[tuple[int, str, datetime]]:
        """(rollback number counted from 1, ETag, when it was replaced) of each previous text, newest first."""
        return [
            (position, etag(self._history.version(number) or ""), _utc(self._history.saved_at(number)))
            for position, number in enumerate(self._history.numbers(), 1)
        ]

    def start(self, apply: Apply) -> None:
        """From now on hand committed configurations to `apply`, and watch the confirm timer. Needs a running loop."""
        self._apply = apply
        self._arm()

    def close(self) -> None:
        """Stop watching; an unconfirmed commit stays written down."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._tasks:
            task.cancel()

    def diff(self, text: str, name: str = "candidate") -> str:
        """Unified diff from the running text to another; empty when they are the same."""
        lines = difflib.unified_diff(
            self._text.splitlines(keepends=True), text.splitlines(keepends=True), "running", name
        )
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

    async def set_candidate(self, source: str | Mapping[str, Any], base: str | None = None) -> str:
        """Keep a candidate, TOML text or its values, and return its diff; `base` is the ETag it was made for."""
        text = source if isinstance(source, str) else _to_toml(source)
        async with self._changing(base):
            await self._check(text, "candidate")
            await asyncio.to_thread(self._history.set_candidate, Candidate(text, self.etag))
            return self.diff(text)

    async def discard_candidate(self) -> None:
        """Forget the candidate; nothing happens when there is none."""
        async with self._lock:
            await asyncio.to_thread(self._history.set_candidate, None)

    async def commit(self, confirm_seconds: float | None = None, base: str | None = None) -> str:
        """Run with the candidate and return the diff; with `confirm_seconds` only until then unless confirmed."""
        async with self._changing(base):
            candidate = self._history.candidate()
            if candidate is None:
                raise RefusedError("no_candidate", "there is no candidate to commit")
            if candidate.base != self.etag:
                raise RefusedError(
                    "configuration_changed", "the configuration has changed since the candidate was made"
                )
            return await self._switch(candidate.text, "candidate", confirm_seconds)

    async def confirm(self) -> None:
        """Keep what was committed with a confirm timer."""
        async with self._lock:
            if self._history.pending() is None:
                raise RefusedError("nothing_to_confirm", "no commit is waiting to be confirmed")
            await asyncio.to_thread(self._history.set_pending, None)
            self._arm()
            _log.info("commit confirmed")

    async def rollback(
        self, number: int | None = None, confirm_seconds: float | None = None, base: str | None = None
    ) -> str:
        """Return to previous text `number` and return the diff.

        Without a number: to what ran before the unconfirmed commit, else to text 1. Number 0 forgets the candidate.
        """
        if number == 0:
            await self.discard_candidate()
            return ""
        async with self._changing(base):
            pending = self._history.pending()
            numbers = self._history.numbers()
            if number is None and pending is not None:
                chosen: int | None = pending.restore
            else:
                position = 1 if number is None else number
                chosen = numbers[position - 1] if 0 < position <= len(numbers) else None
            text = None if chosen is None else self._history.version(chosen)
            if text is None:
                raise RefusedError("no_such_version", f"there is no previous configuration number {number or 1}")
            return await self._switch(text, "rollback", confirm_seconds)

    async def reload(self) -> str:
        """Run with the file as it is now, edited by hand, and return the diff (SIGHUP)."""
        async with self._lock:
            try:
                text = await asyncio.to_thread(read, self.path)
                return await self._switch(text, str(self.path), None)
            except (ConfigurationError, RefusedError, OSError) as error:
                self._last_error = f"reload: {error}"
                raise

    @contextlib.asynccontextmanager
    async def _changing(self, base: str | None) -> AsyncIterator[None]:
        async with self._lock:
            if base is not None and base != self.etag:
                raise RefusedError("configuration_changed", "the configuration is not the one the request was made for")
            yield

    async def _check(self, text: str, origin: str, *, with_files: bool = True) -> Configuration:
        configuration = await asyncio.to_thread(parse, text, origin, with_files=with_files)
        if configuration.state_dir != self._configuration.state_dir:
            raise RefusedError("needs_restart", "state_dir can only be changed in the file, with a restart")
        return configuration

    async def _switch(self, text: str, origin: str, confirm_seconds: float | None, *, with_files: bool = True) -> str:
        """Run with `text`; the lock is held. Applied first, written second: a crash between them changes nothing."""
        if confirm_seconds is not None and not 0 < confirm_seconds <= CONFIRM_LIMIT:
            raise RefusedError("invalid_request", f"confirm_seconds must be above 0 and at most {CONFIRM_LIMIT:.0f}")
        configuration = await self._check(text, origin, with_files=with_files)
        previous_text, previous = self._text, self._configuration
        diff = self.diff(text, origin)
        if self._apply is not None and configuration != previous:
            await self._apply(configuration)
        try:
            await asyncio.to_thread(self._write, previous_text, text, confirm_seconds)
        except OSError:
            if self._apply is not None and configuration != previous:
                await self._apply(previous)
            raise
        self._text, self._configuration, self._last_error = text, configuration, None
        self._arm()
        _log.info("configuration committed from %s", origin, extra={"confirm_seconds": confirm_seconds or 0})
        return diff

    def _write(self, previous: str, text: str, confirm_seconds: float | None) -> None:
        """Order matters: what to return to, that it may have to be returned to, the file, then the rest."""
        restore = self._history.keep(previous)
        before = self._history.pending()
        if confirm_seconds is not None:
            base = restore if before is None else before.restore
            self._history.set_pending(Pending(self._clock() + confirm_seconds, confirm_seconds, base))
        try:
            replace_file(self.path, text.encode(), mode=0o640)
        except OSError:
            self._history.set_pending(before)
            raise
        if confirm_seconds is None and before is not None:
            self._history.set_pending(None)
        self._history.set_running(text)
        self._history.set_candidate(None)

    def _recover(self) -> None:
        """Settle at start: an overdue commit is undone, an edit by hand while we were away becomes a version."""
        pending = self._history.pending()
        if pending is not None:
            restored = self._history.version(pending.restore)
            if restored is None or restored == self._text:
                self._history.set_pending(None)  # killed before the file was replaced, or after it was restored
            elif self._remaining(pending) <= 0:
                self._restore_at_start(restored)
        running = self._history.running()
        if running != self._text:
            if running is not None:
                self._history.keep(running)
            self._history.set_running(self._text)

    def _restore_at_start(self, text: str) -> None:
        try:
            self._configuration = parse(text, "rollback")
        except ConfigurationError as error:  # another version of the program wrote it
            self._last_error = f"the unconfirmed commit could not be rolled back: {error}"
            _log.warning("unconfirmed commit stays: what ran before is no valid configuration any more")
        else:
            self._history.keep(self._text)
            replace_file(self.path, text.encode())
            self._text = text
            self._last_error = "the last commit was not confirmed in time and was rolled back at start"
            _log.warning("unconfirmed commit rolled back at start")
        self._history.set_pending(None)

    def _remaining(self, pending: Pending) -> float:
        return min(pending.deadline - self._clock(), pending.seconds)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending = self._history.pending()
        if pending is not None and self._apply is not None:
            delay = max(0.0, self._remaining(pending))
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        task = asyncio.get_running_loop().create_task(self._roll_back_unconfirmed())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _roll_back_unconfirmed(self) -> None:
        async with self._lock:
            pending = self._history.pending()
            if pending is None:
                return  # confirmed while we waited for the lock
            text = self._history.version(pending.restore)
            try:
                if text is not None:
                    await self._switch(text, "rollback", None, with_files=False)
                self._last_error = "the last commit was not confirmed in time and was rolled back"
                _log.warning("unconfirmed commit rolled back")
            except (ConfigurationError, RefusedError, OSError) as error:
                self._last_error = f"the unconfirmed commit could not be rolled back: {error}"
                _log.exception("unconfirmed commit could not be rolled back")
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._expire)


def etag(text: str) -> str:
    """Strong ETag of a text, with its quotes."""
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _to_toml(values: Mapping[str, Any]) -> str:
    """TOML of a JSON document; null means "left out".

    Raises:
        RefusedError: a value TOML cannot hold.
    """
    try:
        return table_text(_without_null(values))
    except (TypeError, RecursionError) as error:
        raise RefusedError("invalid_request", str(error)) from error


def _without_null(value: Any) -> Any:  # noqa: ANN401 any JSON value
    if isinstance(value, Mapping):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_null(item) for item in value if item is not None]
    return value

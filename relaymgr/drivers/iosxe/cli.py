"""The command line for the event loop: a blocking shell in the bounded executor, within deadlines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Self, TypeVar

from relaymgr.drivers.errors import ConfigurationRefused, DeadlineExceeded, DeviceBusy, DriverError
from relaymgr.drivers.iosxe.shell import Shell
from relaymgr.drivers.protocol import Credential, DeviceTarget

Result = TypeVar("Result")


class CliSession:
    """One command line for one caller at a time. After DeadlineExceeded or SessionLost it is closed and of no use."""

    def __init__(self, target: DeviceTarget, credential: Credential, executor: Executor) -> None:
        self._target = target
        self._executor = executor
        self._shell = Shell(target, credential)
        self.is_open = False

    @classmethod
    async def connect(cls, target: DeviceTarget, credential: Credential, executor: Executor) -> Self:
        """Log in within `target.deadlines.connect`; raises what `Shell.open` raises."""
        session = cls(target, credential, executor)
        await session._run("logging in", target.deadlines.connect, session._shell.open)
        session.is_open = True
        return session

    async def show(self, command: str, seconds: float | None = None) -> str:
        """Output of an EXEC command within `seconds` (default: the target's deadline of an RPC)."""
        allowed = seconds if seconds is not None else self._target.deadlines.rpc
        return await self._run(command, allowed, lambda: self._shell.show(command, allowed))

    async def configure(self, opening: str, lines: Sequence[str], seconds: float) -> None:
        """Type configuration lines within `seconds`; raises what `Shell.configure` raises."""
        await self._run("configuring", seconds, lambda: self._shell.configure(opening, lines, seconds))

    async def close(self) -> None:
        """End the session. Never raises, and waits for nothing."""
        self.is_open = False
        self._cut()

    async def _run(self, doing: str, seconds: float, work: Callable[[], Result]) -> Result:
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()

        def run() -> Result:
            loop.call_soon_threadsafe(begun.set)
            return work()

        future = loop.run_in_executor(self._executor, run)
        future.add_done_callback(_retrieve)
        try:
            # The deadline is the router's; waiting for a thread is not its fault, and ends with others' deadlines.
            await begun.wait()
            async with asyncio.timeout(seconds):
                return await asyncio.shield(future)
        except (ConfigurationRefused, DeviceBusy):
            raise
        except TimeoutError as error:
            self._give_up(future)
            raise DeadlineExceeded(self._target.name, f"no answer in time while {doing}") from error
        except (DriverError, asyncio.CancelledError):
            self._give_up(future)
            raise

    def _give_up(self, future: asyncio.Future[Result]) -> None:
        """Free the thread: what it waits for on the socket ends with the socket."""
        self.is_open = False
        self._shell.give_up()  # at once: what is not typed yet never is
        future.cancel()
        self._cut()

    def _cut(self) -> None:
        # paramiko joins its own thread when it closes; neither the loop nor the bounded executor waits for that.
        threading.Thread(target=self._shell.cut, name=f"close {self._target.name}", daemon=True).start()


def _retrieve(future: asyncio.Future[Result]) -> None:
    """Nobody waits for the result of an abandoned thread."""
    if not future.cancelled():
        future.exception()

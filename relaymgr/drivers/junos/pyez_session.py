"""Configuration through PyEZ (junos-eznc), whose calls block and therefore run in the executor of the driver's context.

The TCP connection is ours and handed to PyEZ: so names resolve and connects end on the event loop, and a call that
hangs beyond its deadline ends when the socket is shut down, which gives its thread back.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

from jnpr.junos import Device
from jnpr.junos.utils.config import Config
from lxml import etree

from relaymgr.drivers import ssh
from relaymgr.drivers.errors import DeadlineExceeded, DriverError, SessionLost, Unreachable
from relaymgr.drivers.junos.pyez_errors import connect_error, only_warnings, operation_error
from relaymgr.drivers.protocol import Credential, DeviceTarget, DriverContext

DEFAULT_PORT = 830
_ALIAS = "device"
"""The name PyEZ knows the device by: it resolves nothing, and refuses IPv6 literals."""
_GRACE = 3.0
"""Seconds a library's own timeout may be late before the socket is shut down."""

Result = TypeVar("Result")

# At DEBUG and INFO ncclient logs whole messages, configuration included.
for _name in ("ncclient", "paramiko"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class PinnedDevice(Device):  # type: ignore[misc]
    """PyEZ ignores `ssh_config`, and so the pinned key, for a socket given to a class of the very name Device."""


class PyezSession:
    """`ConfigurationSession` through PyEZ."""

    def __init__(self, target: DeviceTarget, credential: Credential, context: DriverContext) -> None:
        self._target = target
        self._credential = credential
        self._context = context
        self._files = ExitStack()
        self._socket: socket.socket | None = None
        self._device: Any = None
        self._config: Any = None

    async def open(self) -> None:
        """Log in."""
        port = self._target.port or DEFAULT_PORT
        self._socket = await self._dial(port)
        options = self._options(port, self._socket.fileno())
        seconds = self._target.deadlines.connect
        try:
            self._device = await self._blocking(functools.partial(_open, options), seconds, "logging in")
        except DriverError:
            await self.close()
            raise
        except Exception as error:
            await self.close()
            raise await connect_error(self._target, port, error) from error
        self._device.timeout = math.ceil(self._target.deadlines.rpc)  # PyEZ cuts fractions off, and 0 is no time
        self._config = Config(self._device)

    async def close(self) -> None:
        """Log out."""
        device, self._device, self._config = self._device, None, None
        if device is not None and device.connected and self._socket is not None:
            with suppress(Exception):
                await self._blocking(device.close, _GRACE, "logging out")
        self._hang_up()
        self._files.close()

    async def lock(self) -> None:
        """Take the candidate."""
        await self._call("lock")

    async def unlock(self) -> None:
        """Give it back."""
        await self._call("unlock")

    async def load(self, document: str) -> None:
        """Load XML."""
        await self._call("load", document, format="xml", ignore_warning=True)

    async def load_rollback(self, number: int) -> None:
        """Load a committed configuration."""
        await self._call("rollback", number)

    async def diff(self) -> str:
        """The device's own difference."""
        return str(await self._call("diff") or "").strip("\n")

    async def check(self) -> None:
        """Commit check."""
        seconds = self._target.deadlines.commit
        await self._call("commit_check", seconds=seconds, timeout=math.ceil(seconds))

    async def commit(self, comment: str, confirm_minutes: int | None = None) -> None:
        """Commit."""
        seconds = self._target.deadlines.commit
        options = {} if confirm_minutes is None else {"confirm": confirm_minutes}
        await self._call("commit", seconds=seconds, timeout=math.ceil(seconds), comment=comment, **options)

    async def query(self, operation: str) -> etree._Element:
        """Any RPC that changes nothing."""
        reply = await self._run(functools.partial(_execute, self._opened(), operation), None, "reading")
        if not etree.iselement(reply):
            reply = etree.Element("rpc-reply")
        return reply

    def _opened(self) -> Any:  # noqa: ANN401 -- PyEZ has no types
        if self._device is None:
            raise SessionLost(self._target.name, "the session is closed")
        return self._device

    async def _call(self, method: str, *arguments: object, seconds: float | None = None, **options: object) -> Any:  # noqa: ANN401
        self._opened()
        call = functools.partial(getattr(self._config, method), *arguments, **options)
        return await self._run(call, seconds, method.replace("_", " "))

    async def _run(self, call: Callable[[], Result], seconds: float | None, doing: str) -> Result | None:
        try:
            return await self._blocking(call, seconds or self._target.deadlines.rpc, f"doing {doing}")
        except DriverError:
            raise
        except Exception as error:
            if only_warnings(error):
                return None
            raised = operation_error(self._target.name, doing, error)
            if isinstance(raised, (DeadlineExceeded, SessionLost)):
                self._hang_up()
            raise raised from error

    async def _blocking(self, call: Callable[[], Result], seconds: float, doing: str) -> Result:
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()

        def run() -> Result:
            loop.call_soon_threadsafe(begun.set)
            return call()

        future = loop.run_in_executor(self._context.executor, run)
        try:
            # The deadline is the device's; waiting for a thread is not its fault, and ends with others' deadlines.
            await begun.wait()
            done, _ = await asyncio.wait({future}, timeout=seconds + _GRACE)
        except asyncio.CancelledError:
            self._hang_up()
            future.cancel()
            future.add_done_callback(_forget)
            raise
        if not done:
            self._hang_up()
            future.add_done_callback(_forget)
            raise DeadlineExceeded(self._target.name, f"no answer in time while {doing}")
        return future.result()

    async def _dial(self, port: int) -> socket.socket:
        loop = asyncio.get_running_loop()
        name = self._target.name
        try:
            async with asyncio.timeout(self._target.deadlines.connect):
                found = await loop.getaddrinfo(self._target.host, port, type=socket.SOCK_STREAM)
                return await _connect_any(found)
        except TimeoutError as error:
            raise DeadlineExceeded(name, "no TCP connection in time") from error
        except OSError as error:
            raise Unreachable(name, f"no TCP connection: {error.strerror or error}") from error

    def _hang_up(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def _options(self, port: int, descriptor: int) -> dict[str, Any]:
        known_hosts = self._files.enter_context(ssh.known_hosts_file(self._target, port, host=_ALIAS))
        config = known_hosts.with_name("ssh_config")
        config.write_text(f"Host *\n  UserKnownHostsFile {known_hosts}\n")
        key = None
        if self._credential.private_key:
            key = self._files.enter_context(_in_memory(self._credential.private_key))
        return {
            "host": _ALIAS,
            "port": port,
            "sock_fd": descriptor,
            "user": self._credential.username,
            "password": self._credential.password,
            "ssh_private_key_file": key,
            "ssh_config": str(config),
            "hostkey_verify": True,
            "look_for_keys": False,
            "allow_agent": False,
            "gather_facts": False,
            "conn_open_timeout": math.ceil(self._target.deadlines.connect),
        }


@contextmanager
def _in_memory(secret: str) -> Iterator[str]:
    """A path to `secret` on no disk: it is gone with this process, however that ends."""
    descriptor = os.memfd_create("isthmus-key", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(secret)
        handle.flush()
        yield f"/proc/self/fd/{descriptor}"


def _open(options: dict[str, Any]) -> Any:  # noqa: ANN401
    device = PinnedDevice(**options)
    device.open()
    return device


def _execute(device: Any, operation: str) -> Any:  # noqa: ANN401
    return device.execute(operation)


def _forget(future: asyncio.Future[Any]) -> None:
    """Whatever a call that came too late ends with is known to nobody."""
    if not future.cancelled():
        future.exception()


async def _connect_any(found: list[tuple[Any, ...]]) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure = OSError("the name has no address")
    for family, kind, protocol, _, address in found:
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        try:
            await loop.sock_connect(opened, address)
        except OSError as error:
            opened.close()
            failure = error
        except BaseException:
            opened.close()
            raise
        else:
            opened.setblocking(True)
            return opened
    raise failure

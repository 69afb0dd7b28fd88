"""One NETCONF session over SSH."""

from __future__ import annotations

import asyncio
from typing import Self

import asyncssh
from lxml import etree

from relaymgr.drivers import ssh
from relaymgr.drivers.errors import DriverError, Garbage, SessionLost, Unreachable
from relaymgr.drivers.netconf.documents import (
    MalformedDocument,
    child_text,
    children,
    find,
    local_name,
    parse,
)
from relaymgr.drivers.netconf.framing import Framing, FramingError
from relaymgr.drivers.netconf.rpc_errors import rpc_error
from relaymgr.drivers.protocol import Credential, DeviceTarget
from relaymgr.drivers.turns import in_turn

BASE = "urn:ietf:params:xml:ns:netconf:base:1.0"
BASE_10 = "urn:ietf:params:netconf:base:1.0"
BASE_11 = "urn:ietf:params:netconf:base:1.1"
DEFAULT_PORT = 830
DEFAULT_LIMIT = 64 * 1024 * 1024
_READ = 64 * 1024
_PARSE_ASIDE = 256 * 1024
_PARSE_IN_TURN = 16 * 1024
"""Some 100 microseconds."""

_HELLO = (
    f'<hello xmlns="{BASE}"><capabilities><capability>{BASE_10}</capability>'
    f"<capability>{BASE_11}</capability></capabilities></hello>"
).encode()


class NetconfSession:
    """A session for one caller at a time. After anything but RpcError it is of no use and closed."""

    def __init__(
        self,
        device: str,
        connection: asyncssh.SSHClientConnection,
        process: asyncssh.SSHClientProcess[bytes],
        limit: int,
    ) -> None:
        self._device = device
        self._connection = connection
        self._process = process
        self._framing = Framing(limit)
        self._next_id = 1
        self._open = True
        self.capabilities: frozenset[str] = frozenset()
        self.session_id: str | None = None

    @classmethod
    async def connect(
        cls,
        target: DeviceTarget,
        credential: Credential,
        port: int | None = None,
        *,
        limit: int = DEFAULT_LIMIT,
    ) -> Self:
        """Log in and exchange hellos within `target.deadlines.connect`.

        Args:
            target: Where, with the pinned key.
            credential: Who.
            port: TCP port; `target.netconf_port`, `target.port` or 830 when None.
            limit: Octets a reply may have.

        Raises what `ssh.connect` raises, and Garbage for a peer that does not speak NETCONF.
        """
        number = port if port is not None else (target.netconf_port or target.port or DEFAULT_PORT)
        async with ssh.mapped_errors(target.name, "opening NETCONF"), asyncio.timeout(target.deadlines.connect):
            connection = await ssh.connect(target, credential, port=number)
            try:
                return await cls._greet(target.name, connection, limit)
            except BaseException:
                connection.abort()
                raise

    @classmethod
    async def _greet(cls, device: str, connection: asyncssh.SSHClientConnection, limit: int) -> Self:
        try:
            process = await connection.create_process(subsystem="netconf", encoding=None, stderr=asyncssh.DEVNULL)
        except asyncssh.ChannelOpenError as error:
            raise Unreachable(device, f"refused the netconf subsystem: {error.reason}") from error
        session = cls(device, connection, process, limit)
        session._send(_HELLO)
        hello = await session._receive("hello")
        listed = find(hello, "capabilities")
        announced = [] if listed is None else [(item.text or "").strip() for item in children(listed, "capability")]
        session.capabilities = frozenset(announced)
        session.session_id = child_text(hello, "session-id")
        if BASE_11 in session.capabilities:
            session._framing.upgrade()
        elif BASE_10 not in session.capabilities:
            raise Garbage(device, "its hello names no NETCONF version")
        return session

    @property
    def is_open(self) -> bool:
        """Whether an RPC may be tried; not when the peer ended the session meanwhile."""
        return self._open and not self._process.stdout.at_eof() and not self._process.channel.is_closing()

    async def rpc(self, operation: str, *, deadline: float) -> etree._Element:
        """Send one operation and return its rpc-reply.

        Args:
            operation: XML of what stands inside `<rpc>`; elements without a namespace stay without one.
            deadline: Seconds until the reply is whole.

        Raises:
            RpcError: The reply carries an rpc-error that is not a warning; the session stays open.
            DeadlineExceeded, SessionLost: It may have happened. The session is closed.
            Garbage: The reply cannot be read. The session is closed.
        """
        if not self._open:
            raise SessionLost(self._device, "the session is closed")
        number = self._next_id
        self._next_id += 1
        try:
            async with ssh.mapped_errors(self._device, f"doing {_verb(operation)}"), asyncio.timeout(deadline):
                self._send(_rpc(number, operation))
                reply = await self._receive("rpc-reply", str(number))
        except BaseException:
            self._drop()
            raise
        refused = rpc_error(self._device, reply)
        if refused is not None:
            raise refused
        return reply

    async def close(self) -> None:
        """End the session; asks nothing of the device but a second of its time. Never raises."""
        if self._open:
            self._open = False
            try:
                async with asyncio.timeout(1.0):
                    self._send(_rpc(self._next_id, "<nc:close-session/>"))
                    await self._receive("rpc-reply", None)
            except (DriverError, TimeoutError, asyncssh.Error, OSError, EOFError):
                pass
        await ssh.close(self._connection)

    def _drop(self) -> None:
        self._open = False
        self._connection.abort()

    def _send(self, message: bytes) -> None:
        self._process.stdin.write(self._framing.frame(message))

    async def _receive(self, kind: str, number: str | None = None) -> etree._Element:
        """The next message of `kind`; notifications in between are passed over."""
        while True:
            document = await self._next_message()
            try:
                root = await _parsed(document)
            except MalformedDocument as error:
                raise Garbage(self._device, str(error)) from error
            name = local_name(root)
            if name == "notification":
                continue
            answered = root.get("message-id")
            if name != kind or (number is not None and answered is not None and answered != number):
                raise Garbage(self._device, f"sent <{name[:40]}> where a {kind} was due")
            return root

    async def _next_message(self) -> bytes:
        try:
            while (message := self._framing.next_message()) is None:
                data = await self._process.stdout.read(_READ)
                if not data:
                    raise SessionLost(self._device, "ended the session")
                self._framing.receive(data)
        except FramingError as error:
            raise Garbage(self._device, str(error)) from error
        return message


async def _parsed(document: bytes) -> etree._Element:
    if len(document) > _PARSE_ASIDE:
        return await asyncio.to_thread(parse, document)
    return await in_turn(lambda: parse(document)) if len(document) > _PARSE_IN_TURN else parse(document)


def _rpc(number: int, operation: str) -> bytes:
    return f'<nc:rpc xmlns:nc="{BASE}" message-id="{number}">{operation}</nc:rpc>'.encode()


def _verb(operation: str) -> str:
    """Name of the operation, for messages: never its content, which may hold secrets."""
    return operation.lstrip("< \n").split(">")[0].split()[0].rstrip("/")[:60]

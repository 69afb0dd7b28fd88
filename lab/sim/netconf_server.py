"""A NETCONF server session over an asyncssh channel; what it answers comes from a device."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol
from xml.sax.saxutils import escape, quoteattr

import asyncssh
from lxml import etree

from lab.sim.faults import FaultSwitch
from lab.sim.netconf_framing import Deframer, FramingError, frame
from lab.sim.wire_log import WireLog

BASE: Final = "urn:ietf:params:xml:ns:netconf:base:1.0"
BASE_1_0: Final = "urn:ietf:params:netconf:base:1.0"
BASE_1_1: Final = "urn:ietf:params:netconf:base:1.1"
OK: Final = b"<ok/>"
_NOISE: Final = bytes(range(0x80, 0x100)) + b"<<&&\0\x1b[2J"


class RpcFailed(Exception):
    """An RPC is answered with `<rpc-error>`.

    Args:
        message: error-message.
        tag: error-tag of RFC 6241 appendix A.
        kind: error-type: protocol, application, rpc or transport.
        severity: error or warning.
        path: error-path, such as `[edit protocols amt]`.
        info: contents of error-info: name -> text.
        also: errors told besides this one.
    """

    def __init__(
        self,
        message: str,
        *,
        tag: str = "operation-failed",
        kind: str = "protocol",
        severity: str = "error",
        path: str | None = None,
        info: Mapping[str, str] | None = None,
        also: Sequence[RpcFailed] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.tag = tag
        self.kind = kind
        self.severity = severity
        self.path = path
        self.info = dict(info or {})
        self.also = tuple(also)

    def xml(self) -> bytes:
        """`<rpc-error>`, as often as there are errors."""
        return b"\n".join([self._own_xml(), *(other.xml() for other in self.also)])

    def _own_xml(self) -> bytes:
        parts = [
            "<rpc-error>\n",
            f"<error-type>{self.kind}</error-type>\n<error-tag>{self.tag}</error-tag>\n",
            f"<error-severity>{self.severity}</error-severity>\n",
        ]
        if self.path:
            parts.append(f"<error-path>{escape(self.path)}</error-path>\n")
        parts.append(f"<error-message>{escape(self.message)}</error-message>\n")
        if self.info:
            inner = "".join(f"<{name}>{escape(text)}</{name}>\n" for name, text in self.info.items())
            parts.append(f"<error-info>\n{inner}</error-info>\n")
        return "".join([*parts, "</rpc-error>"]).encode()


class Disconnect(Exception):
    """The device cuts the connection instead of answering."""


class NetconfDevice(Protocol):
    """What answers."""

    netconf_capabilities: tuple[str, ...]
    """URIs of the hello, those of the base versions included."""
    reply_namespaces: Mapping[str, str]
    """Prefix -> namespace declared on every rpc-reply besides the base one, which is the default."""
    faults: FaultSwitch
    wire_log: WireLog

    def open_session(self, session: NetconfSession) -> int:
        """A session begins; gives its session-id."""

    def close_session(self, session: NetconfSession) -> None:
        """A session ended, however it did."""

    async def answer(self, session: NetconfSession, request: etree._Element) -> bytes:
        """The inside of rpc-reply for `request`, the child of `<rpc>` as it came, namespaces included.

        Raises:
            RpcFailed: answered with rpc-error.
            Disconnect: not answered at all.
        """


def local(element: etree._Element) -> str:
    """Name without namespace."""
    return etree.QName(element).localname


class NetconfSession:
    """One session.

    Attributes:
        id: session-id.
        user: who logged in.
        process: its channel.
    """

    def __init__(self, process: asyncssh.SSHServerProcess[Any], device: NetconfDevice) -> None:
        self.process = process
        self.user: str = process.get_extra_info("username")
        self.id = 0
        self._device = device
        self._deframer = Deframer()
        self._task: asyncio.Task[Any] | None = None
        self._ending = False

    async def run(self) -> None:
        """Serve until either side ends it."""
        self._task = asyncio.current_task()
        self.id = self._device.open_session(self)
        try:
            with contextlib.suppress(asyncssh.Error, ConnectionError, FramingError, asyncio.CancelledError):
                await self._hello()
                await self._serve()
        except Disconnect:
            self.process.get_extra_info("connection").abort()
        finally:
            self._device.close_session(self)
            self._record("out", "session-end", "")
            self.process.channel.abort() if not self._ending else self.process.exit(0)

    def kill(self) -> None:
        """End it from outside (kill-session)."""
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """End it after the answer that is being made (close-session)."""
        self._ending = True

    def _record(self, direction: str, kind: str, summary: str) -> None:
        self._device.wire_log.record(direction, self.id, kind, summary)

    async def _hello(self) -> None:
        await self._device.wire_log.passed()
        items = "".join(f"<capability>{escape(uri)}</capability>\n" for uri in self._device.netconf_capabilities)
        hello = (
            f'<hello xmlns="{BASE}">\n<capabilities>\n{items}</capabilities>\n<session-id>{self.id}</session-id>\n'
            "</hello>\n"
        )
        await self._write(frame(hello.encode(), chunked=False))
        await self._sent("hello", "")
        theirs = await self._next_message()
        if theirs is None:
            raise Disconnect
        root = _parse(theirs)
        if root is None or local(root) != "hello":
            raise FramingError("no hello")
        offered = {(item.text or "").strip() for item in root.iter(f"{{{BASE}}}capability", "capability")}
        self._deframer.chunked = BASE_1_1 in offered and BASE_1_1 in self._device.netconf_capabilities
        self._record("in", "hello", "chunked" if self._deframer.chunked else "end-of-message")
        await self._device.wire_log.passed()

    async def _serve(self) -> None:
        while not self._ending and (message := await self._next_message()) is not None:
            root = _parse(message)
            request = None if root is None else next((child for child in root if isinstance(child.tag, str)), None)
            if root is None or local(root) != "rpc" or request is None:
                failed = RpcFailed("syntax error: not an rpc", tag="malformed-message", kind="rpc")
                await self._reply("malformed", {}, failed.xml(), "error: malformed-message")
                continue
            await self._exchange(root, request)

    async def _exchange(self, rpc: etree._Element, request: etree._Element) -> None:
        name = local(request)
        self._record("in", name, _summary(request))
        await self._device.wire_log.passed()
        if self._device.faults.silences(name):
            return
        attributes = {str(key): str(value) for key, value in rpc.attrib.items() if not str(key).startswith("{")}
        try:
            body = await self._device.answer(self, request)
            outcome = f"{len(body)} bytes" if body != OK else "ok"
        except RpcFailed as failed:
            body, outcome = failed.xml(), f"error: {failed.message}"
        await self._reply(name, attributes, body, outcome)

    async def _reply(self, name: str, attributes: Mapping[str, str], body: bytes, outcome: str) -> None:
        faults = self._device.faults
        if faults.delay:
            await asyncio.sleep(faults.delay)
        names = "".join(f' xmlns:{prefix}="{uri}"' for prefix, uri in self._device.reply_namespaces.items())
        given = "".join(f" {key}={quoteattr(value)}" for key, value in attributes.items())
        head = f'<rpc-reply xmlns="{BASE}"{names}{given}>\n'.encode()
        message = head + body + b"\n</rpc-reply>\n"
        if "garbage" in faults:
            message = _NOISE * 4
        data = frame(message, chunked=self._deframer.chunked)
        if "hang-mid-rpc" in faults or "drop-session" in faults:
            await self._write(data[: len(data) // 2])
            self._record("out", name, "half a reply")
            if "drop-session" in faults:
                raise Disconnect
            await self._hang()
        await self._write(data)
        await self._sent(name, outcome)

    async def _sent(self, name: str, outcome: str) -> None:
        self._record("out", name, outcome)
        if await self._device.wire_log.passed():
            raise Disconnect  # what came meanwhile is of a client that may be dead

    async def _hang(self) -> None:
        while await self.process.stdin.read(65536):
            pass
        raise Disconnect

    async def _write(self, data: bytes) -> None:
        self.process.stdout.write(data)
        await self.process.stdout.drain()

    async def _next_message(self) -> bytes | None:
        for message in self._deframer.messages():
            return message
        while data := await self.process.stdin.read(65536):
            self._deframer.feed(data)
            for message in self._deframer.messages():
                return message
        return None


def _parse(message: bytes) -> etree._Element | None:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
    try:
        return etree.fromstring(message.strip(), parser)
    except etree.XMLSyntaxError:
        return None


def _summary(request: etree._Element) -> str:
    """Attributes and, where they tell no configuration, children of a request."""
    words = [f"{key}={request.get(key)}" for key in map(str, request.keys())]
    if local(request) in {"commit-configuration", "commit"}:
        words += [
            local(child) + (f"={child.text}" if local(child) != "log" and (child.text or "").strip() else "")
            for child in request
            if isinstance(child.tag, str)
        ]
    return " ".join(words)

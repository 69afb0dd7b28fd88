"""One DNS question to one server, over UDP or TCP, as dnspython's resolver wants its name servers to be.

Each question over UDP has a socket, and with it a source port, of its own, connected to the server: others' packets do
not reach it (RFC 5452 §9.2), and a refusal by ICMP is known at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.nameserver
import dns.rcode

from agent.net.dns_message import BadReply, read_records

UDP_SIZE: Final = 1232
"""Bytes of a reply that are asked for over UDP: no fragments on any sensible path."""
LARGEST_REPLY: Final = 8192
"""Bytes of a reply that are read over TCP: hundreds of records, and what is hostile among them costs no time."""
_MISMATCHES: Final = 64
"""Packets that answer something else until a question is given up: somebody is guessing."""


@dataclass(slots=True)
class Attempt:
    """A question sent once.

    Attributes:
        server: address.
        port: of the server.
        transport: udp or tcp.
        failure: why it brought nothing, empty when it brought a reply.
        mismatches: packets dropped that did not answer it.
    """

    server: str
    port: int
    transport: str
    failure: str = ""
    mismatches: int = 0


class Server(dns.nameserver.AddressAndPortNameserver):
    """A name server for one question.

    What is received is checked to be a whole reply to the question; its records stay in the message's `wire`.
    """

    def __init__(self, address: str, port: int, attempts: list[Attempt], pace: Callable[[], Awaitable[None]]) -> None:
        """`attempts` is added to; `pace` is awaited before each packet that asks."""
        super().__init__(address, port)
        self._attempts = attempts
        self._pace = pace

    def kind(self) -> str:
        """What dnspython calls DNS over UDP and TCP."""
        return "Do53"

    async def async_query(
        self,
        request: dns.message.QueryMessage,
        timeout: float,  # noqa: ASYNC109 the resolver's interface
        source: str | None,  # noqa: ARG002
        source_port: int,  # noqa: ARG002
        max_size: bool,
        backend: object,  # noqa: ARG002
        one_rr_per_rrset: bool = False,  # noqa: ARG002
        ignore_trailing: bool = False,  # noqa: ARG002
    ) -> dns.message.Message:
        """Ask once; `max_size` means over TCP.

        Raises:
            dns.exception.Timeout: no reply in time.
            dns.exception.FormError: a damaged one.
            dns.message.Truncated: one that has to be asked for over TCP.
            OSError: the server cannot be reached.
        """
        attempt = Attempt(self.address, self.port, "tcp" if max_size else "udp")
        self._attempts.append(attempt)
        await self._pace()
        try:
            async with asyncio.timeout(timeout):
                reply = await (self._ask_tcp(request) if max_size else self._ask_udp(request, attempt))
        except TimeoutError as error:
            attempt.failure = "no reply in time"
            raise dns.exception.Timeout from error
        except BadReply as error:
            attempt.failure = f"damaged reply: {error}"
            raise dns.exception.FormError from error
        except dns.message.Truncated:
            attempt.failure = "truncated"
            raise
        except (OSError, EOFError) as error:
            attempt.failure = getattr(error, "strerror", None) or "connection closed"
            raise
        if reply.rcode() not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
            attempt.failure = dns.rcode.to_text(reply.rcode())
        return reply

    async def _ask_udp(self, request: dns.message.QueryMessage, attempt: Attempt) -> dns.message.Message:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: _Waiting(request, attempt), remote_addr=(self.address, self.port)
        )
        try:
            transport.sendto(request.to_wire())
            wire = await protocol.reply
        finally:
            transport.close()
        header = _header(wire, request)
        if header is None:
            raise BadReply("it answers something else")
        if header.flags & dns.flags.TC:
            raise dns.message.Truncated(message=header)  # type: ignore[no-untyped-call]
        read_records(wire)
        return header

    async def _ask_tcp(self, request: dns.message.QueryMessage) -> dns.message.Message:
        reader, writer = await asyncio.open_connection(self.address, self.port, limit=LARGEST_REPLY)
        try:
            wire = request.to_wire()
            writer.write(len(wire).to_bytes(2, "big") + wire)
            await writer.drain()
            size = int.from_bytes(await reader.readexactly(2), "big")
            if size > LARGEST_REPLY:
                raise BadReply(f"{size} bytes are more than the {LARGEST_REPLY} that are read")
            wire = await reader.readexactly(size)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        header = _header(wire, request)
        if header is None:
            raise BadReply("it answers something else")
        read_records(wire)
        return header


class _Waiting(asyncio.DatagramProtocol):
    """Takes the first packet that answers the question."""

    def __init__(self, request: dns.message.QueryMessage, attempt: Attempt) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._request = request
        self._attempt = attempt

    def datagram_received(self, data: bytes, address: object) -> None:  # noqa: ARG002
        if self.reply.done():
            return
        if _header(data, self._request) is not None:
            self.reply.set_result(data)
            return
        self._attempt.mismatches += 1
        if self._attempt.mismatches >= _MISMATCHES:
            self.reply.set_exception(BadReply("too many replies to something else"))

    def error_received(self, error: Exception) -> None:
        self._fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or EOFError())

    def _fail(self, error: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)
            self.reply.exception()  # seen, should nobody wait any more


def _header(wire: bytes, request: dns.message.QueryMessage) -> dns.message.Message | None:
    """Header and question of a reply, when it is one to `request`: same number, same question (RFC 5452 §9.1)."""
    try:
        header = dns.message.from_wire(wire, question_only=True)
    except Exception:  # noqa: BLE001 dnspython lets several kinds of error out
        return None
    return header if request.is_response(header) else None

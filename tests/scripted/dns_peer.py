"""A DNS server on loopback, over UDP and TCP, that says what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from agent.net.dns import DnsSettings
from agent.protocol.discovery_reply import Lifetimes

Script = Callable[[dns.message.Message, str], bytes | list[bytes] | None]
"""From a question and its transport to what is sent back: a packet, several, or nothing."""

SOA = "ns.example. admin.example. 1 3600 600 86400 40"


def reply(
    query: dns.message.Message, *records: str, rcode: str = "NOERROR", soa: str | None = None, flags: int = 0
) -> dns.message.Message:
    """A reply with records `NAME TTL TYPE DATA`; `soa` names the zone that says there is none."""
    message = dns.message.make_response(query)
    message.flags |= flags
    message.set_rcode(dns.rcode.from_text(rcode))
    for record in records:
        name, ttl, kind, data = record.split(maxsplit=3)
        message.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
    if soa is not None:
        message.authority.append(dns.rrset.from_text(soa, 90, "IN", "SOA", SOA))
    return message


def raw_reply(query: dns.message.Message, *data: bytes, kind: int = 260, ttl: int = 300) -> bytes:
    """A reply with records of any bytes, standing at the name asked for."""
    message = dns.message.make_response(query)
    wire = bytearray(message.to_wire())
    end = 12 + len(message.question[0].name.to_wire() or b"") + 4
    for item in data:
        record = b"\xc0\x0c" + kind.to_bytes(2) + b"\x00\x01" + ttl.to_bytes(4) + len(item).to_bytes(2) + item
        wire[end:end] = record
    wire[6:8] = len(data).to_bytes(2)
    return bytes(wire)


def zone(records: Mapping[tuple[str, str], list[str]], soa: str = "example.") -> Script:
    """Answers from a table of records `NAME TTL TYPE DATA` by name and type; names that are not in it do not exist."""
    names = {name for name, _ in records}

    def answer(query: dns.message.Message, _transport: str) -> bytes:
        question = query.question[0]
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        found = records.get((name, kind), [])
        rcode = "NOERROR" if name in names else "NXDOMAIN"
        return reply(query, *found, rcode=rcode, soa=None if found else soa).to_wire(max_size=65535)

    return answer


class DnsPeer:
    """The server.

    Attributes:
        script: what it says; may be set anew.
        port: it listens on, of 127.0.0.1.
        asked: how often it was asked each `NAME TYPE TRANSPORT`.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.port = 0
        self.asked: Counter[str] = Counter()

    def settings(self, **changes) -> DnsSettings:
        """How a client asks this server."""
        values = {
            "servers": (ip_address("127.0.0.1"),),
            "port": self.port,
            "timeout": 1.0,
            "lifetimes": Lifetimes(86400.0, 60.0),
            "queries_per_second": 100_000,
        }
        return DnsSettings(**values | changes)

    def questions(self) -> set[str]:
        return {text.rsplit(" ", 1)[0] for text in self.asked}

    def said(self, wire: bytes, transport: str) -> list[bytes]:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        self.asked[f"{question.name} {dns.rdatatype.to_text(question.rdtype)} {transport}"] += 1
        said = self.script(query, transport)
        return [] if said is None else said if isinstance(said, list) else [said]

    async def serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            for packet in self.said(wire, "tcp"):
                writer.write(len(packet).to_bytes(2) + packet)
            await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, peer: DnsPeer) -> None:
        self.peer = peer

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        for packet in self.peer.said(data, "udp"):
            self.transport.sendto(packet, address)


@contextlib.asynccontextmanager
async def dns_peer(script: Script) -> AsyncIterator[DnsPeer]:
    """Run a server on a port that is free for UDP and TCP."""
    peer = DnsPeer(script)
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(peer.serve_stream, "127.0.0.1", 0, family=socket.AF_INET)
    peer.port = server.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(peer), ("127.0.0.1", peer.port))
    try:
        yield peer
    finally:
        transport.close()
        server.close()
        await server.wait_closed()

"""A real AMT handshake from this host: Discovery, Advertisement, Request, Query. Joins nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Protocol, TypeVar

from relaymgr.domain.amt_probe import PORT, BadAnswer, advertised, discovery, queried, request
from relaymgr.domain.verification import Check

_Answer = TypeVar("_Answer")
TRIES = 3
WAIT_SECONDS = 1.0


class Probe(Protocol):
    """Something that probes a relay."""

    def __call__(self, discovery_address: str | None, local_address: str) -> Awaitable[Check]:
        """Handshake; without `discovery_address` (drained) only with the relay's own address."""


class _Socket(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue(maxsize=64)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:  # noqa: ARG002 - connected socket
        """Keep it; who floods us is dropped."""
        if not self.received.full():
            self.received.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        """ICMP errors are hints, never proof (they are forged easily); silence decides."""


async def probe_relay(discovery_address: str | None, local_address: str, *, port: int = PORT) -> Check:
    """Do what a gateway does until it has a Query, three tries a step.

    Returns a `probe` check; never raises for what the network does.
    """
    elsewhere = ""
    try:
        if discovery_address is not None:
            found = await _ask(discovery_address, port, discovery, advertised)
            if found != ip_address(local_address):
                elsewhere = f"; {discovery_address} leads this host to {found}, which is another relay"
        query = await _ask(local_address, port, request, queried)
    except TimeoutError as error:
        return Check("probe", passed=False, detail=str(error))
    except OSError as error:
        return Check("probe", passed=False, detail=f"{local_address}: {error.strerror or type(error).__name__}")
    limit = ", taking no new tunnels" if query.limit else ""
    detail = f"{local_address} answers with an {query.protocol.upper()} query{limit}{elsewhere}"
    return Check("probe", passed=True, detail=detail)


async def _ask(
    address: str, port: int, message: Callable[[int], bytes], parse: Callable[[bytes, int], _Answer]
) -> _Answer:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        _Socket, remote_addr=(address, port)
    )
    reason = "no answer"
    try:
        for attempt in range(TRIES):
            nonce = secrets.randbelow(0xFFFFFFFF) + 1
            transport.sendto(message(nonce))
            try:
                async with asyncio.timeout(WAIT_SECONDS * 2**attempt):
                    while True:
                        try:
                            return parse(await protocol.received.get(), nonce)
                        except BadAnswer as error:
                            reason = str(error)
            except TimeoutError:
                continue
    finally:
        transport.close()
    raise TimeoutError(f"{address}: {reason}")

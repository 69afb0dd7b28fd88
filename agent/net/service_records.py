"""Servers named by SRV records (RFC 2782)."""

from __future__ import annotations

import random
from collections.abc import Sequence

import dns.asyncresolver
import dns.exception
from dns.rdtypes.IN.SRV import SRV

from agent.protocol.channels import Address

_MOST = 32


async def find_services(
    name: str, resolvers: Sequence[Address] = (), port: int = 53, lifetime: float = 5.0
) -> list[tuple[str, int]]:
    """(host, port) of the servers behind an SRV name, best first; empty when there are none or nobody answers.

    Args:
        name: owner name, such as `_dorms._tcp.7.100.51.198.in-addr.arpa`.
        resolvers: servers to ask; those of the system when empty.
        port: of those servers.
        lifetime: seconds for all of it.
    """
    try:
        resolver = dns.asyncresolver.Resolver(configure=not resolvers)
        if resolvers:
            resolver.nameservers = [str(address) for address in resolvers]
            resolver.port = port
        answer = await resolver.resolve(name, "SRV", lifetime=lifetime)
    except (dns.exception.DNSException, OSError):
        return []
    records = [record for record in answer if isinstance(record, SRV)][:_MOST]
    # Within a priority the heavier one more often first (RFC 2782, Weight).
    records.sort(key=lambda record: (record.priority, -(random.random() ** (1 / (record.weight + 0.01)))))  # noqa: S311
    return [(record.target.to_text(omit_final_dot=True), record.port) for record in records if len(record.target) > 1]

"""Which datagrams a gateway takes for answers to what it asked.

Each predicate is one rule of RFC 7450 §5.2.3; a refusal is the label under which the gateway counts it.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.protocol.channels import Endpoint, Family, is_unicast
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.gateway_exchange import Discovery, RequestCycle
from agent.protocol.wire import amt, group_packet
from agent.protocol.wire.groups import GroupVersion, Query


class Refused(Exception):
    """A datagram answers nothing that was asked.

    Attributes:
        reason: label for counters, in snake case.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """A valid general query and the family it asks for."""

    family: Family
    query: Query


def check_advertisement(
    message: amt.RelayAdvertisement, source: Endpoint, discovery: Discovery | None, config: GatewayConfig
) -> Endpoint:
    """The relay's endpoint (RFC 7450 §5.2.3.4).

    Raises:
        Refused: nothing was asked, or this is not its answer, or the address cannot be a relay of our family.
    """
    if discovery is None:
        raise Refused("unsolicited_advertisement")
    if source != config.endpoint:
        raise Refused("wrong_source")
    if message.nonce != discovery.nonce:
        raise Refused("wrong_nonce")
    if Family.of(message.relay) is not config.family:
        raise Refused("wrong_family")
    is_on_this_host = (
        message.relay.is_loopback and config.address.is_loopback
    )  # loopback is never on a wire, RFC 1122 §3.2.1.3
    if not (is_unicast(message.relay) or is_on_this_host):
        raise Refused("relay_not_unicast")
    return Endpoint(message.relay, config.port)


def check_query(
    message: amt.MembershipQuery, source: Endpoint, relay: Endpoint | None, cycle: RequestCycle | None
) -> QueryAnswer:
    """The general query inside (RFC 7450 §5.2.3.5).

    Raises:
        Refused: nothing was asked, or this is not its answer.
        WireError: the packet inside does not decode.
    """
    if cycle is None:
        raise Refused("unsolicited_query")
    if source != relay:
        raise Refused("wrong_source")
    if message.nonce != cycle.nonce:
        raise Refused("wrong_nonce")
    packet = group_packet.decode(message.packet)
    family, query = Family.of(packet.source), packet.message
    if not isinstance(query, Query) or query.group is not None or query.version is not GroupVersion.SOURCE_SPECIFIC:
        raise Refused("not_a_general_query")
    if family in cycle.answered:
        raise Refused("duplicate_query")
    if family not in cycle.pending and family not in cycle.abandoned:
        raise Refused("wrong_family")
    return QueryAnswer(family, query)

"""Channels of the gateway role as the API shows them: those that are carried, and those that are wanted in vain."""

from __future__ import annotations

from collections.abc import Iterator

from agent.protocol.channels import Address, Channel, FilterMode
from agent.protocol.upstream import NativeUpstream, TunnelUpstream, Upstream
from agent.service.clock import Clock
from agent.service.gateway_role import GatewayRole
from agent.service.model import (
    AssertState,
    CandidateStatus,
    ChannelStatus,
    Interest,
    InterestKind,
    RelayOrigin,
    UpstreamKind,
)
from agent.service.pim_views import PimViews
from agent.service.plane_views import channel_plane
from agent.tree import InterestKind as OwnerKind
from agent.tree import Owner, tunnels_of

_LISTED = 64
_LISTED_CANDIDATES = 16


class ChannelViews:
    """Reads a gateway role; changes nothing."""

    def __init__(self, role: GatewayRole, clock: Clock) -> None:
        self._role = role
        self._clock = clock
        self._pim = PimViews(role.pim.service, clock)

    def rows(self) -> Iterator[ChannelStatus]:
        """Every channel that is carried, oldest first, then those somebody wants and does not get."""
        ledger = self._role.control.ledger
        for channel in ledger.channels():
            status = self._status(channel)
            if status is not None:
                yield status
        for channel, reason in self._in_vain():
            if ledger.get(channel) is None:
                yield self._without_record(channel, reason)

    def _status(self, channel: Channel) -> ChannelStatus | None:
        record = self._role.control.ledger.get(channel)
        if record is None:
            return None
        plan = self._role.control.plan(channel.group)
        route = plan.routes.get(channel)
        upstream = route.upstream if route is not None else plan.any_source if channel.source is None else None
        tunnels = tunnels_of(upstream)
        traffic = self._role.engine.traffic(channel)
        interests = self._interests(channel)
        outgoing = route.interfaces if route is not None else self._role.tree.outgoing(channel)
        is_native = isinstance(upstream, NativeUpstream)
        forwarder = None if traffic is None else channel_plane(self._role.fast, channel, is_native=is_native)
        plane, plane_reason = forwarder or (None, None)
        return ChannelStatus(
            source=channel.source,
            group=channel.group,
            since=self._clock.utc(record.since),
            interests=interests[:_LISTED],
            interest_count=len(interests),
            upstream=_kind(upstream),
            incoming_interface=self._incoming(upstream),
            upstream_neighbor=upstream.neighbor if isinstance(upstream, NativeUpstream) else None,
            outgoing_interfaces=sorted(outgoing) if upstream is not None else [],
            tunnels=list(tunnels[:_LISTED]),
            tunnel_count=len(tunnels),
            candidates=[] if isinstance(upstream, NativeUpstream) else self._candidates(channel),
            plane=plane,
            plane_reason=plane_reason,
            packets=0 if traffic is None else traffic.packets,
            bytes=0 if traffic is None else traffic.bytes,
            last_packet_age=self._clock.age(record.last_moved),
            join_latency=record.join_latency,
            asserts=self._pim.asserts(channel),
            reason=self._role.control.reason(channel),
        )

    def _candidates(self, channel: Channel) -> list[CandidateStatus]:
        return [
            CandidateStatus(
                id=item.name,
                origin=RelayOrigin(item.origin),
                preference=item.preference,
                established=item.established,
                held=item.held,
                used=item.used,
            )
            for item in self._role.relays.candidates(channel)[:_LISTED_CANDIDATES]
        ]

    def _without_record(self, channel: Channel, reason: str) -> ChannelStatus:
        interests = self._interests(channel) + self._refused_interests(channel)
        return ChannelStatus(
            source=channel.source,
            group=channel.group,
            since=None,
            interests=interests[:_LISTED],
            interest_count=len(interests),
            asserts=self._pim.asserts(channel),
            reason=reason,
        )

    def _in_vain(self) -> Iterator[tuple[Channel, str]]:
        """Channels that are not carried and why: policy, Asserts lost, hosts another router serves; each once."""
        told: set[Channel] = set()
        for channel, _, refusal in self._role.admission.refused():
            if channel not in told:
                told.add(channel)
                yield channel, refusal.value
        for group in list(self._role.tree.groups()):
            for channel in self._wanted(group):
                reason = None if channel in told else self._withheld(channel)
                if reason is not None:
                    told.add(channel)
                    yield channel, reason

    def _wanted(self, group: Address) -> list[Channel]:
        """Channels of a group somebody names, and (*,G) for any-source interest."""
        found: dict[Channel, None] = {}
        for wanted in self._role.tree.owners(group).values():
            if wanted.mode is FilterMode.EXCLUDE:
                found[Channel(None, group)] = None
            else:
                found.update((Channel(source, group), None) for source in wanted.sources)
        return list(found)

    def _withheld(self, channel: Channel) -> str | None:
        """Why nothing of a wanted channel goes anywhere, though a route may be there; None when something does."""
        role = self._role
        if role.tree.outgoing(channel):
            return None
        if any(settled.state is AssertState.LOSER for settled in self._pim.asserts(channel)):
            return "assert_lost"
        return "not_designated"

    def _incoming(self, upstream: Upstream | None) -> str | None:
        if isinstance(upstream, NativeUpstream):
            return upstream.interface
        return None if upstream is None else self._role.configuration.gateway.tunnel_interface

    def _interests(self, channel: Channel) -> list[Interest]:
        interests = []
        for owner, wanted in self._role.tree.owners(channel.group).items():
            is_any_source = wanted.mode is FilterMode.EXCLUDE
            if is_any_source if channel.source is None else wanted.admits(channel.source):
                interests.append(
                    Interest(
                        kind=InterestKind(owner.kind.value),
                        interface=owner.interface,
                        neighbor=self._asked_by(owner, channel),
                        excluded_sources=sorted(wanted.sources, key=int) if is_any_source else [],
                    )
                )
        return interests

    def _refused_interests(self, channel: Channel) -> list[Interest]:
        """Who asked for a channel that the policy does not give them."""
        return [
            Interest(
                kind=InterestKind(owner.kind.value),
                interface=owner.interface,
                neighbor=None if neighbor is None else str(neighbor),
            )
            for owner, neighbor in self._role.admission.refused_to(channel)
        ]

    def _asked_by(self, owner: Owner, channel: Channel) -> str | None:
        """The PIM neighbour that joined last; one that joined the group asked for each of its sources."""
        if owner.kind is not OwnerKind.PIM:
            return None
        service = self._role.pim.service
        neighbor = service.joined_by(owner.interface, channel)
        if neighbor is None:
            neighbor = service.joined_by(owner.interface, Channel(None, channel.group))
        return None if neighbor is None else str(neighbor)


def _kind(upstream: Upstream | None) -> UpstreamKind | None:
    if upstream is None:
        return None
    return UpstreamKind.TUNNEL if isinstance(upstream, TunnelUpstream) else UpstreamKind.NATIVE

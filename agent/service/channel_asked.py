"""What was asked of each upstream: filters of tunnels, joins of native neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from agent.protocol.channels import NOTHING, Address, Channel, Filter, merge_filters
from agent.protocol.upstream import NativeUpstream
from agent.service.channel_moves import Move
from agent.tree import GroupPlan


class TunnelMemberships(Protocol):
    """What a tunnel is told (`agent.service.tunnel`)."""

    def set_membership(self, group: Address, wanted: Filter) -> None:
        """Want this of a group."""


class Joiner(Protocol):
    """Asks native neighbours for channels (`agent.service.pim_service`)."""

    def join(self, channel: Channel, upstream: NativeUpstream) -> None:
        """Ask the upstream's neighbour; in place of the one asked before, if any (RFC 7761 §4.5.5)."""

    def prune(self, channel: Channel) -> None:
        """Ask for it no longer."""


class NobodyToJoin:
    """The joiner of a host without PIM: native channels come unasked or not at all."""

    def join(self, channel: Channel, upstream: NativeUpstream) -> None:
        """Ask nobody."""

    def prune(self, channel: Channel) -> None:
        """Ask nobody."""


class UpstreamRequests:
    """Remembers what was asked, and asks only differences: the new before the old is given up."""

    def __init__(self, tunnels: Mapping[str, TunnelMemberships], joiner: Joiner) -> None:
        self._tunnels = tunnels
        self._joiner = joiner
        self._told: dict[Address, dict[str, Filter]] = {}
        self._joined: dict[Address, dict[Channel, NativeUpstream]] = {}

    def told(self, group: Address, tunnel: str) -> Filter:
        """What a tunnel was told last of a group."""
        return self._told.get(group, {}).get(tunnel, NOTHING)

    def joined(self, channel: Channel) -> NativeUpstream | None:
        """The neighbour a channel is joined at."""
        return self._joined.get(channel.group, {}).get(channel)

    def forget_tunnel(self, name: str) -> None:
        """A tunnel is gone, and what it was told with it."""
        for told in self._told.values():
            told.pop(name, None)

    def apply(self, group: Address, plan: GroupPlan, moves: Mapping[Channel, Move]) -> None:
        """Ask what a plan wants, and of the old upstreams what still moves."""
        if moves or plan.native or group in self._joined:
            self._join(group, plan, moves)
        told = self._told.setdefault(group, {})
        wanted = _filters(plan, moves)
        for name in sorted(told.keys() | wanted.keys(), key=lambda name: name not in wanted):
            change = wanted.get(name, NOTHING)
            if change != told.get(name, NOTHING) and name in self._tunnels:
                self._tunnels[name].set_membership(group, change)
                told[name] = change
            if change.wants_nothing or name not in self._tunnels:
                told.pop(name, None)
        if not told:
            del self._told[group]

    def _join(self, group: Address, plan: GroupPlan, moves: Mapping[Channel, Move]) -> None:
        joined = self._joined.get(group, {})
        held = {channel: move.join for channel, move in moves.items() if move.join is not None}
        wanted = held | plan.native
        for channel, upstream in wanted.items():
            if joined.get(channel) != upstream:
                self._joiner.join(channel, upstream)
        for channel in joined.keys() - wanted.keys():
            self._joiner.prune(channel)
        if wanted:
            self._joined[group] = wanted
        else:
            self._joined.pop(group, None)


def _filters(plan: GroupPlan, moves: Mapping[Channel, Move]) -> dict[str, Filter]:
    if not moves:
        return plan.subscriptions
    held: dict[str, list[Filter]] = {}
    for move in moves.values():
        for name, wanted in move.filters.items():
            held.setdefault(name, []).append(wanted)
    merged = {name: merge_filters((plan.subscriptions.get(name, NOTHING), *rest)) for name, rest in held.items()}
    return {name: wanted for name, wanted in (plan.subscriptions | merged).items() if not wanted.wants_nothing}

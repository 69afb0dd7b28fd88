"""What the PIM neighbours of one interface want: downstream state machines and their timers (RFC 7761 §4.5.1-§4.5.3).

The rows are in `pim_rules`. A state that is refreshed only notes its new end; its one timer looks at the end when it
runs out and is armed again, so a Join of a channel that is joined already costs no work on the heap.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from agent.protocol.channels import (
    NOTHING,
    Address,
    Channel,
    Family,
    Filter,
    is_forwardable_group,
    is_ssm_group,
    is_unicast,
)
from agent.protocol.group_state import InterestChanged
from agent.protocol.pim_config import PimConfig
from agent.protocol.pim_rules import JOIN_RULES, RPT_RULES, DownstreamEvent, DownstreamState, transition
from agent.protocol.timers import Timers
from agent.protocol.wire.pim import HOLDTIME_FOREVER, EncodedSource, JoinPrune, JoinPruneEntry, JoinPruneGroup

__all__ = ["DownstreamState", "DownstreamTable", "DownstreamView"]

_MOST_PRUNED: Final = 8192
"""(S,G,rpt) of one group: a Join(*,G) takes back every prune it does not repeat, and no message holds more."""

_WANTED: Final = frozenset((DownstreamState.JOIN, DownstreamState.PRUNE_PENDING))
_PRUNED: Final = frozenset((DownstreamState.PRUNE, DownstreamState.PRUNE_TEMPORARY))  # prunes(S,G,rpt), §4.1.6


@dataclass(frozen=True, slots=True)
class DownstreamView:
    """One state as `status` shows it.

    Attributes:
        channel: (S,G), or (*,G) with no source.
        rpt: the state is (S,G,rpt): a source pruned off the shared tree.
        state: where its machine stands.
        expires: when it ends unless refreshed, None for never.
        neighbor: who refreshed it last.
    """

    channel: Channel
    rpt: bool
    state: DownstreamState
    expires: float | None
    neighbor: Address


class _Group:
    """States of one group; what is NO_INFO is not there."""

    __slots__ = ("address", "joined", "pruned", "rendezvous", "shared")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.rendezvous: Address | None = None  # RP of the (*,G)
        self.shared: _Entry | None = None
        self.joined: dict[Address, _Entry] = {}
        self.pruned: dict[Address, _Entry] | None = None


class _Entry:
    """One (*,G), (S,G) or (S,G,rpt); times are infinite when their timers do not run."""

    __slots__ = ("expires", "group", "neighbor", "pending", "rpt", "source", "state")

    def __init__(self, group: _Group, source: Address | None, neighbor: Address, *, rpt: bool) -> None:
        self.group, self.source, self.neighbor, self.rpt = group, source, neighbor, rpt
        self.state = DownstreamState.NO_INFO
        self.expires = -math.inf
        self.pending = math.inf


@dataclass(frozen=True, slots=True)
class _Message:
    """What all entries of the message at hand share."""

    now: float
    ends: float
    pending_ends: float
    neighbor: Address


class DownstreamTable:
    """(*,G), (S,G) and (S,G,rpt) of one interface.

    Attributes:
        rendezvous_addresses: addresses we are the RP at.
    """

    def __init__(self, config: PimConfig, family: Family, refused: Counter[str]) -> None:
        self.rendezvous_addresses: frozenset[Address] = frozenset()
        self._config, self._family, self._refused = config, family, refused
        self._groups: dict[Address, _Group] = {}
        self._count = 0
        self._timers: Timers[_Entry] = Timers()
        self._flips: dict[Address, set[tuple[bool, Address | None]]] = {}
        self._echoes: list[JoinPruneEntry] = []

    def __len__(self) -> int:
        return self._count

    def configure(self, config: PimConfig) -> None:
        """Take other limits and RP groups; what was joined stays, save (*,G) that are not ours to serve any more."""
        self._config = config
        for group in list(self._groups.values()):
            if group.rendezvous is not None and not self._is_rendezvous(group.address):
                for entry in [entry for entry in _entries(group) if entry.rpt or entry.source is None]:
                    self._move(entry, DownstreamEvent.EXPIRED, None)

    def clear(self) -> None:
        """Forget every state; the interest in each ends."""
        for group in self._groups.values():
            self._flips.setdefault(group.address, set()).add((True, None))
        self._groups.clear()
        self._timers.clear()
        self._echoes.clear()
        self._count = 0

    def receive(self, message: JoinPrune, sender: Address, now: float, override_interval: float) -> None:
        """Apply a Join/Prune that is meant for us.

        Args:
            message: it.
            sender: the neighbour it is from.
            now: time.
            override_interval: seconds a Prune waits for another's Join, 0 with a single neighbour.
        """
        ends = math.inf if message.holdtime == HOLDTIME_FOREVER else now + message.holdtime
        at_hand = _Message(now, ends, now + override_interval, sender)
        served = [listed for listed in message.groups if self._serves(listed)]
        shared = [listed.group for listed in served if self._joins_shared_tree(listed)]
        for address in shared:
            self._tell_pruned(address, DownstreamEvent.GROUP_JOIN, at_hand)
        for listed in served:
            for source in listed.joins:
                self._apply(listed.group, source, DownstreamEvent.JOIN, at_hand)
            for source in listed.prunes:
                self._apply(listed.group, source, DownstreamEvent.PRUNE, at_hand)
        for address in shared:
            self._tell_pruned(address, DownstreamEvent.END_OF_MESSAGE, at_hand)

    def handle_timer(self, now: float, limit: int) -> int:
        """Act on what is due, on `limit` states at most; on how many it was."""
        due = list(islice(self._timers.expired(now), limit))
        for entry in due:
            if entry.expires <= now:
                self._move(entry, DownstreamEvent.EXPIRED, None)
            elif entry.pending <= now:
                self._move(entry, DownstreamEvent.PENDING_OVER, None)
            else:
                self._arm(entry)  # was refreshed since
        return len(due)

    def next_deadline(self) -> float | None:
        """When `handle_timer` may have something to do, or None."""
        return self._timers.next_deadline()

    def echoes(self) -> list[JoinPruneEntry]:
        """Prunes to repeat to the link as from ourselves (PruneEcho), drained."""
        echoes, self._echoes = self._echoes, []
        return echoes

    def events(self) -> list[InterestChanged]:
        """Groups wanted otherwise than at the last call, once each, drained."""
        flips, self._flips = self._flips, {}
        return [InterestChanged(address, self.interest(address)) for address in flips]

    def interest(self, address: Address) -> Filter:
        """What is wanted of a group: INCLUDE the joined sources, or EXCLUDE the pruned ones of the shared tree."""
        group = self._groups.get(address)
        if group is None:
            return NOTHING
        if group.shared is None:
            return Filter.include(group.joined)
        pruned = group.pruned or {}
        off = (source for source, entry in pruned.items() if entry.state in _PRUNED)
        return Filter.exclude(source for source in off if source not in group.joined)

    def joined_by(self, channel: Channel) -> Address | None:
        """The neighbour that joined exactly this channel last, or None."""
        group = self._groups.get(channel.group)
        if group is None:
            return None
        entry = group.shared if channel.source is None else group.joined.get(channel.source)
        return None if entry is None else entry.neighbor

    def is_joined(self, channel: Channel) -> bool:
        """Whether a neighbour asks for exactly this channel."""
        return self.joined_by(channel) is not None

    def views(self) -> Iterator[DownstreamView]:
        """Every state."""
        for group in self._groups.values():
            for entry in _entries(group):
                yield DownstreamView(
                    Channel(entry.source, group.address),
                    entry.rpt,
                    entry.state,
                    None if entry.expires == math.inf else entry.expires,
                    entry.neighbor,
                )

    # --- what is listed in a message

    def _serves(self, listed: JoinPruneGroup) -> bool:
        """Whether the group is one that can be forwarded; ranges are of no protocol we speak (RFC 7761 §4.9.5)."""
        if listed.mask_length != listed.group.max_prefixlen:
            self._refused["group_range"] += 1
            return False
        if listed.group in self._groups:
            return True
        if listed.group.version != self._family or not is_forwardable_group(listed.group):
            self._refused["group_not_forwardable"] += 1
            return False
        return True

    def _joins_shared_tree(self, listed: JoinPruneGroup) -> bool:
        """Whether there is a Join(*,G) that counts; if so it is applied before all others of the message (§4.5.3)."""
        return any(
            source.wildcard and self._shared_tree_refusal(listed.group, source, DownstreamEvent.JOIN) is None
            for source in listed.joins
        )

    def _shared_tree_refusal(self, group: Address, source: EncodedSource, event: DownstreamEvent) -> str | None:
        """Why a (*,G) or (S,G,rpt) does not count, or None."""
        if is_ssm_group(group):
            return "any_source_in_ssm_range"  # RFC 4607 §4.1, RFC 7761 §4.8.1
        if not self._is_rendezvous(group):
            return "not_rendezvous_group"
        if source.wildcard and event is DownstreamEvent.JOIN and source.address not in self.rendezvous_addresses:
            return "other_rendezvous"  # Prune(*,G) counts all the same (§4.5.1)
        return None

    def _is_rendezvous(self, group: Address) -> bool:
        return any(group in network for network in self._config.rendezvous_groups)

    def _apply(self, address: Address, source: EncodedSource, event: DownstreamEvent, message: _Message) -> None:
        group = self._groups.get(address)
        entry = None if group is None else _find(group, source)
        if entry is None:
            self._admit(address, source, event, message)
        elif source.wildcard and (refusal := self._shared_tree_refusal(address, source, event)) is not None:
            self._refused[refusal] += 1
        else:
            entry.neighbor = message.neighbor
            self._move(entry, event, message)

    def _admit(self, address: Address, source: EncodedSource, event: DownstreamEvent, message: _Message) -> None:
        """First word about a source: check it, and begin a state if the tables say so."""
        refusal = self._refusal(address, source, event)
        if refusal is not None:
            self._refused[refusal] += 1
            return
        rules = RPT_RULES if _is_rpt(source) else JOIN_RULES
        if transition(rules, DownstreamState.NO_INFO, event).state is DownstreamState.NO_INFO:
            return
        if message.ends <= message.now:
            return  # holdtime 0: over as soon as it begins (§4.9.5)
        group = self._groups.get(address)
        pruned = len(group.pruned or ()) if group is not None else 0
        if self._count >= self._config.max_channels or (_is_rpt(source) and pruned >= _MOST_PRUNED):
            self._refused["too_many_channels"] += 1
            return
        if group is None:
            group = self._groups[address] = _Group(address)
        entry = _put(group, source, message.neighbor)
        self._count += 1
        self._move(entry, event, message)

    def _refusal(self, address: Address, source: EncodedSource, event: DownstreamEvent) -> str | None:
        if source.rpt or source.wildcard:
            refusal = self._shared_tree_refusal(address, source, event)
            if refusal is not None or source.wildcard:
                return refusal
        return None if is_unicast(source.address) and not source.address.is_link_local else "source_not_unicast"

    def _tell_pruned(self, address: Address, event: DownstreamEvent, message: _Message) -> None:
        group = self._groups.get(address)
        if group is not None and group.pruned is not None:
            for entry in list(group.pruned.values()):
                self._move(entry, event, message)

    # --- one state

    def _move(self, entry: _Entry, event: DownstreamEvent, message: _Message | None) -> None:
        """One transition with what goes with it; timers bring no message."""
        before = entry.state
        row = transition(RPT_RULES if entry.rpt else JOIN_RULES, before, event)
        entry.state = row.state
        if message is not None and row.restart_expiry:
            entry.expires = max(entry.expires, message.ends)
        if message is not None and row.start_pending:
            entry.pending = message.pending_ends
        elif row.state is DownstreamState.JOIN or row.state is DownstreamState.PRUNE:
            entry.pending = math.inf
        if row.echo:
            self._echoes.append(_encoded(entry))
        if row.state is not before:
            self._note_flip(entry, before)
        if message is not None and row.start_pending and entry.pending <= message.now:
            self._end_pending(entry)
        if entry.state is DownstreamState.NO_INFO:
            self._remove(entry)
        else:
            self._arm(entry)

    def _end_pending(self, entry: _Entry) -> None:
        """PENDING_OVER at once: a single neighbour is there, nobody objects and nobody would hear an echo."""
        before, entry.pending = entry.state, math.inf
        entry.state = transition(RPT_RULES if entry.rpt else JOIN_RULES, before, DownstreamEvent.PENDING_OVER).state
        self._note_flip(entry, before)

    def _arm(self, entry: _Entry) -> None:
        """Have the timer run out no later than the first end of the state."""
        end = min(entry.expires, entry.pending)
        armed = self._timers.deadline(entry)
        if end < (math.inf if armed is None else armed):
            self._timers.set(entry, end)

    def _remove(self, entry: _Entry) -> None:
        group = entry.group
        if entry.rpt:
            assert group.pruned is not None
            assert entry.source is not None
            del group.pruned[entry.source]
            group.pruned = group.pruned or None
        elif entry.source is None:
            group.shared = None
        else:
            del group.joined[entry.source]
        if group.shared is None and not group.joined and group.pruned is None:
            del self._groups[group.address]
        self._timers.cancel(entry)
        self._count -= 1

    def _note_flip(self, entry: _Entry, before: DownstreamState) -> None:
        """Remember that the interest changed, or that it changed back before anybody asked."""
        counted = _PRUNED if entry.rpt else _WANTED
        if (before in counted) is (entry.state in counted):
            return
        flips = self._flips.setdefault(entry.group.address, set())
        flips ^= {(entry.rpt, entry.source)}
        if not flips:
            del self._flips[entry.group.address]


def _is_rpt(source: EncodedSource) -> bool:
    return source.rpt and not source.wildcard


def _find(group: _Group, source: EncodedSource) -> _Entry | None:
    if source.wildcard:
        return group.shared
    if source.rpt:
        return None if group.pruned is None else group.pruned.get(source.address)
    return group.joined.get(source.address)


def _put(group: _Group, source: EncodedSource, neighbor: Address) -> _Entry:
    if source.wildcard:
        group.shared = entry = _Entry(group, None, neighbor, rpt=False)
        group.rendezvous = source.address
        return entry
    entry = _Entry(group, source.address, neighbor, rpt=source.rpt)
    if not source.rpt:
        group.joined[source.address] = entry
    elif group.pruned is None:
        group.pruned = {source.address: entry}
    else:
        group.pruned[source.address] = entry
    return entry


def _entries(group: _Group) -> Iterable[_Entry]:
    if group.shared is not None:
        yield group.shared
    yield from group.joined.values()
    yield from (group.pruned or {}).values()


def _encoded(entry: _Entry) -> JoinPruneEntry:
    """A (*,G) or (S,G) as a message says it."""
    if entry.source is not None:
        return entry.group.address, EncodedSource(entry.source)
    assert entry.group.rendezvous is not None
    return entry.group.address, EncodedSource(entry.group.rendezvous, wildcard=True, rpt=True)

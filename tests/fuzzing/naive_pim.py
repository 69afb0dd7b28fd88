"""RFC 7761 §4.5.1-§4.5.3 written down as plainly as it reads, to be compared with the real thing; slow, no limits.

Entries are (source, kind) of a group: kind "star" and "plain" are joined, "rpt" is pruned. The model acts on Joins and
Prunes of neighbours it believes; who those are it keeps itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from agent.protocol.channels import Address, Filter
from agent.protocol.wire.pim import HOLDTIME_FOREVER, Hello, JoinPrune, JoinPruneGroup

PROPAGATION, OVERRIDE = 0.5, 2.5


@dataclass
class NaiveEntry:
    """Infinite times do not run; `waiting` is PrunePending."""

    expires: float
    prune_ends: float = math.inf
    repeated: bool = True  # by the message at hand

    @property
    def waiting(self) -> bool:
        return self.prune_ends < math.inf


@dataclass
class NaiveNeighbor:
    expires: float
    generation: int | None
    delays: tuple[float, float] | None


@dataclass
class NaivePim:
    """One link: its neighbours, and what they want."""

    ours: frozenset[Address]
    neighbors: dict[Address, NaiveNeighbor] = field(default_factory=dict)
    groups: dict[Address, dict[tuple[str, Address | None], NaiveEntry]] = field(default_factory=dict)

    def advance(self, now: float) -> None:
        """Let everything run out that is due."""
        self.neighbors = {address: each for address, each in self.neighbors.items() if each.expires > now}
        for entries in self.groups.values():
            for key, entry in list(entries.items()):
                if entry.expires <= now:
                    del entries[key]
                elif entry.prune_ends <= now:
                    self._end_prune(entries, key)

    def hello(self, hello: Hello, sender: Address, now: float) -> None:
        if hello.holdtime == 0:
            self.neighbors.pop(sender, None)
            return
        holdtime = 105 if hello.holdtime is None else hello.holdtime
        delay = hello.lan_prune_delay
        self.neighbors[sender] = NaiveNeighbor(
            math.inf if holdtime == HOLDTIME_FOREVER else now + holdtime,
            hello.generation_id,
            None if delay is None else (delay.propagation_delay / 1000, delay.override_interval / 1000),
        )

    def receive(self, message: JoinPrune, sender: Address, now: float) -> None:
        if sender not in self.neighbors or message.upstream not in self.ours:
            return
        ends = math.inf if message.holdtime == HOLDTIME_FOREVER else now + message.holdtime
        fresh = {each.group for each in message.groups for source in each.joins if source.wildcard}
        for group in fresh:
            for (kind, _), entry in self.groups.get(group, {}).items():
                entry.repeated = kind != "rpt"
        for each in message.groups:
            self._take(each, ends, now, renewed=each.group in fresh)
        for group in fresh:
            entries = self.groups[group]
            for key in [key for key, entry in entries.items() if not entry.repeated]:
                del entries[key]

    def interest(self) -> dict[Address, Filter]:
        """What is wanted, groups nobody wants left out."""
        filters = {}
        for group, entries in self.groups.items():
            joined = {source for kind, source in entries if kind == "plain"}
            pruned = {source for (kind, source), entry in entries.items() if kind == "rpt" and not entry.waiting}
            shared = ("star", None) in entries
            filters[group] = Filter.exclude(pruned - joined) if shared else Filter.include(joined)
        return {group: state for group, state in filters.items() if not state.wants_nothing}

    def _take(self, listed: JoinPruneGroup, ends: float, now: float, *, renewed: bool) -> None:
        entries = self.groups.setdefault(listed.group, {})
        for source in listed.joins:
            if source.wildcard or not source.rpt:
                self._join(entries, _key(source), ends, now)
            elif not renewed:
                entries.pop(("rpt", source.address), None)
        for source in listed.prunes:
            if source.rpt and not source.wildcard:
                self._prune_source(entries, ("rpt", source.address), ends, now)
            elif _key(source) in entries:
                self._await(entries, _key(source), now)

    def _join(self, entries, key, ends, now) -> None:
        entry = entries.get(key)
        if entry is None:
            if ends > now:
                entries[key] = NaiveEntry(ends)
            return
        entry.expires, entry.prune_ends = max(entry.expires, ends), math.inf

    def _prune_source(self, entries, key, ends, now) -> None:
        entry = entries.get(key)
        if entry is None:
            if ends > now:
                entries[key] = NaiveEntry(ends)
                self._await(entries, key, now)
            return
        if not entry.waiting or not entry.repeated:
            entry.expires = max(entry.expires, ends)
        entry.repeated = True

    def _await(self, entries, key, now) -> None:
        """PrunePending, over at once with a single neighbour."""
        entry = entries[key]
        if entry.waiting:
            return
        entry.prune_ends = now + self._override_interval()
        if entry.prune_ends <= now:
            self._end_prune(entries, key)

    def _end_prune(self, entries, key) -> None:
        if key[0] == "rpt":
            entries[key].prune_ends = math.inf
        else:
            del entries[key]

    def _override_interval(self) -> float:
        if len(self.neighbors) < 2:
            return 0
        delays = [each.delays for each in self.neighbors.values()]
        if None in delays:
            return PROPAGATION + OVERRIDE
        return max(PROPAGATION, *(each[0] for each in delays)) + max(OVERRIDE, *(each[1] for each in delays))


def _key(source) -> tuple[str, Address | None]:
    return ("star", None) if source.wildcard else ("plain", source.address)

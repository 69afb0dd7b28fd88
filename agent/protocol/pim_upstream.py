"""Our own (S,G) Joins to the native neighbours of one interface (RFC 7761 §4.5.5: upstream state machine).

The Joins of one neighbour keep one rhythm: whatever is joined between two rounds is said at once and again with the
next round, so that a round is a few full messages however the channels came in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from agent.protocol.channels import Address, Channel
from agent.protocol.pim_config import PimConfig
from agent.protocol.pim_neighbors import NeighborTable
from agent.protocol.timers import Timers
from agent.protocol.wire.pim import HOLDTIME_FOREVER, EncodedSource, JoinPrune, JoinPruneEntry, pack_join_prunes

HOLDTIME_FACTOR: Final = 3.5
"""Holdtimes told are this many periods (RFC 7761 §4.11)."""

_SUPPRESSED_LEAST: Final = 1.1
_SUPPRESSED_MOST: Final = 1.4
"""Bounds of t_suppressed, in t_periodic (RFC 7761 §4.11)."""


class _Joined:
    """One channel we ask for.

    `neighbor` is the address we were told to ask, `target` the primary address of the neighbour to be asked now: None
    while it is not there, another one while another won the assert (RPF' of RFC 7761 §4.1.6).
    """

    __slots__ = ("channel", "neighbor", "target", "winner")

    def __init__(self, channel: Channel, neighbor: Address) -> None:
        self.channel = channel
        self.neighbor = neighbor
        self.target: Address | None = None
        self.winner: Address | None = None


class UpstreamJoins:
    """Channels we ask the neighbours of one interface for."""

    def __init__(self, config: PimConfig, neighbors: NeighborTable, random: Callable[[], float]) -> None:
        self._config, self._neighbors, self._random = config, neighbors, random
        self._joined: dict[Address, dict[Address, _Joined]] = {}  # by group, then source
        self._count = 0
        self._timers: Timers[_Joined] = Timers()  # Join Timers
        self._rounds: dict[Address, float] = {}
        self._queue: dict[Address, dict[Channel, bool]] = {}  # by target; True joins, False prunes
        self._asked: dict[Address, Address | None] = {}  # addresses to ask, and whose they are

    def configure(self, config: PimConfig) -> None:
        """Take another period, from the next round on; until then the neighbours keep what they were told."""
        self._config = config

    @property
    def holdtime(self) -> int:
        """Holdtime of our Joins, in seconds."""
        return join_prune_holdtime(self._config)

    def join(self, channel: Channel, neighbor: Address, now: float) -> None:
        """Ask `neighbor` from now on; a neighbour asked before is told otherwise."""
        assert channel.source is not None
        sources = self._joined.setdefault(channel.group, {})
        joined = sources.get(channel.source)
        if joined is None:
            joined = sources[channel.source] = _Joined(channel, neighbor)
            self._count += 1
        elif joined.neighbor == neighbor:
            return
        joined.neighbor = neighbor
        self._aim(joined, now)

    def prune(self, channel: Channel) -> bool:
        """Ask no longer; False when it was not asked for."""
        joined = self._find(channel)
        if joined is None:
            return False
        self._say(joined, join=False)
        self._timers.cancel(joined)
        sources = self._joined[channel.group]
        assert channel.source is not None
        del sources[channel.source]
        if not sources:
            del self._joined[channel.group]
        self._count -= 1
        return True

    def prune_all(self) -> None:
        """Ask for nothing any longer."""
        for joined in self._all():
            self.prune(joined.channel)

    def clear(self) -> None:
        """Forget everything, said or not."""
        self._joined.clear()
        self._timers.clear()
        self._rounds.clear()
        self._queue.clear()
        self._asked.clear()
        self._count = 0

    # --- what happens to neighbours

    def neighbor_changed(self, now: float) -> None:
        """Somebody came, went, or has other addresses: channels whose neighbour is another now move at once."""
        for target in [target for target in self._rounds if target not in self._neighbors]:
            del self._rounds[target]
            self._queue.pop(target, None)
        if any(self._neighbors.find(asked) != target for asked, target in self._asked.items()):
            self._asked.clear()
            for joined in self._all():
                self._aim(joined, now)

    def neighbor_restarted(self, neighbor: Address, now: float) -> None:
        """Its Generation ID changed, so it has forgotten us: it hears every Join again within t_override (§4.5.5)."""
        self._hasten((joined for joined in self._all() if joined.target == neighbor), now)

    def address_changed(self, now: float) -> None:
        """Our own address did: the same for every neighbour."""
        self._hasten(self._all(), now)

    def assert_changed(self, channel: Channel, winner: Address | None, now: float) -> None:
        """Another router than the unicast routing says forwards onto this link, or no longer (RPF', §4.5.5)."""
        joined = self._find(channel)
        if joined is not None and joined.winner != winner:
            joined.winner = winner
            joined.target = self._aimed(joined)
            self._hasten((joined,), now)

    # --- what others say

    def overhear(self, message: JoinPrune, now: float) -> None:
        """Another router's Join/Prune to a neighbour of ours: a Join suppresses ours, a Prune hastens it (§4.5.5)."""
        target = self._neighbors.find(message.upstream)
        if target is None or not self._count:
            return
        suppressed = self._suppressed_until(message, now)
        pruned: list[_Joined] = []
        for listed in message.groups:
            sources = self._joined.get(listed.group)
            if sources is None or listed.mask_length != listed.group.max_prefixlen:
                continue
            for source in listed.joins:
                joined = None if source.rpt else sources.get(source.address)
                if joined is not None and joined.target == target:
                    self._postpone(joined, suppressed)
            for source in listed.prunes:
                found = sources.values() if source.wildcard else [sources.get(source.address)]
                pruned += (each for each in found if each is not None and each.target == target)
        self._hasten(pruned, now)

    # --- time

    def handle_timer(self, now: float, limit: int) -> int:
        """Say the Joins that are due, `limit` at most; how many it was."""
        due = list(islice(self._timers.expired(now), limit))
        for joined in due:
            self._join_now(joined, now)
        return len(due)

    def next_deadline(self) -> float | None:
        """When the next Join is due, or None."""
        return self._timers.next_deadline()

    def messages(self, size: int) -> list[JoinPrune]:
        """Joins and Prunes to send in IP packets of at most `size` bytes, drained."""
        queue, self._queue = self._queue, {}
        messages: list[JoinPrune] = []
        for target, wishes in queue.items():
            joins = (_entry(channel) for channel, join in wishes.items() if join)
            prunes = (_entry(channel) for channel, join in wishes.items() if not join)
            messages += pack_join_prunes(target, self.holdtime, joins, prunes, size)
        return messages

    # --- one channel

    def _all(self) -> Iterator[_Joined]:
        return iter([joined for sources in self._joined.values() for joined in sources.values()])

    def _find(self, channel: Channel) -> _Joined | None:
        sources = self._joined.get(channel.group)
        return None if sources is None or channel.source is None else sources.get(channel.source)

    def _aimed(self, joined: _Joined) -> Address | None:
        """RPF'(S,G): the assert's winner, or the neighbour that the routing says."""
        asked = joined.neighbor if joined.winner is None else joined.winner
        self._asked[asked] = target = self._neighbors.find(asked)
        return target

    def _aim(self, joined: _Joined, now: float) -> None:
        """Have the right neighbour asked; on a change the old one is told at once that it is not (§4.5.5)."""
        target = self._aimed(joined)
        if target == joined.target:
            return
        self._say(joined, join=False)
        joined.target = target
        if target is None:
            self._timers.cancel(joined)
        else:
            self._join_now(joined, now)

    def _join_now(self, joined: _Joined, now: float) -> None:
        """Join, and again with the neighbour's next round, t_periodic from now at the latest."""
        assert joined.target is not None
        self._say(joined, join=True)
        following = self._rounds.get(joined.target)
        if following is None or following <= now:
            following = self._rounds[joined.target] = now + self._config.join_prune_interval
        self._timers.set(joined, following)

    def _say(self, joined: _Joined, *, join: bool) -> None:
        if joined.target is not None and joined.target in self._neighbors:
            self._queue.setdefault(joined.target, {})[joined.channel] = join

    def _hasten(self, channels: Iterator[_Joined] | tuple[_Joined, ...] | list[_Joined], now: float) -> None:
        """Join within t_override; one draw for all, so that they share messages (RFC 7761 §4.11)."""
        soon = now + self._random() * self._neighbors.override_interval
        for joined in channels:
            due = self._timers.deadline(joined)
            if joined.target is None:
                self._timers.cancel(joined)
            elif due is None or due > soon:
                self._timers.set(joined, soon)

    def _suppressed_until(self, message: JoinPrune, now: float) -> float:
        """End of t_joinsuppress; now where suppression is off."""
        if not self._neighbors.suppression_enabled:
            return now
        factor = _SUPPRESSED_LEAST + (_SUPPRESSED_MOST - _SUPPRESSED_LEAST) * self._random()
        return now + min(factor * self._config.join_prune_interval, message.holdtime)

    def _postpone(self, joined: _Joined, until: float) -> None:
        due = self._timers.deadline(joined)
        if due is not None and due < until:
            self._timers.set(joined, until)


def join_prune_holdtime(config: PimConfig) -> int:
    """Holdtime of the Join/Prunes we send, in seconds (RFC 7761 §4.11)."""
    return min(int(HOLDTIME_FACTOR * config.join_prune_interval), HOLDTIME_FOREVER - 1)


def _entry(channel: Channel) -> JoinPruneEntry:
    assert channel.source is not None
    return channel.group, EncodedSource(channel.source)

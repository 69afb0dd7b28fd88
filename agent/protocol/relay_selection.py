"""Which relays bring a channel: the operator's with the longest source prefix, else those discovered for its source.

The order of the candidates is their preference, but a channel moves as seldom as it can:

- A tunnel whose relay answers keeps its channels, whatever order or set of relays a later DNS answer brings.
- A relay that failed is held down (`hold_down`, doubled with each failure in a row); its channels go to the best other
  one. Only when nobody else serves is a relay taken that is held down.
- A channel moves back to a relay it was moved from, or to one the operator prefers, once that has been well for
  `failback_delay`.
- A relay that brings others but not this channel is avoided for this channel alone (`channel_silent`).
- A relay that was asked and has not answered within `patience` lets the next one have its chance; whoever answers
  first has the channel (happy eyeballs).

A channel of a `live_live` group is given two relays where two are there: never two tunnels, nor two addresses, of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from agent.protocol.channels import Address, Channel, Endpoint
from agent.protocol.relay_assignments import Assignments
from agent.protocol.relay_candidates import RelayCandidate, serving
from agent.protocol.relay_health import HealthBook, hold_down
from agent.protocol.relay_race import racer, runners
from agent.protocol.relay_ranking import Rank, Ranking
from agent.protocol.relay_selection_config import SelectionConfig
from agent.protocol.timers import Timers


@dataclass(slots=True)
class _Avoided:
    failures: int = 0
    until: float = 0.0


_Timer = tuple[str, str | Channel]
"""What it is for: `hold`, `patience` or `failback` of a tunnel, `avoid` of a channel."""


class RelaySelection:
    """Chooses tunnels by name, and remembers what happened to each. `now` is in seconds of one monotonic clock.

    Attributes:
        health: what is known of each tunnel's relay.
        assigned: what goes through which tunnel.
    """

    def __init__(self, config: SelectionConfig | None = None, configured: Iterable[RelayCandidate] = ()) -> None:
        self.health: Final = HealthBook()
        self.assigned: Final = Assignments()
        self._config = config or SelectionConfig()
        self._configured = tuple(configured)
        self._discovered: dict[Address, tuple[RelayCandidate, ...]] = {}
        self._lists: dict[tuple[RelayCandidate, ...], tuple[RelayCandidate, ...]] = {}  # one object for equal ones
        self._by_tunnel: dict[str, RelayCandidate] = {}
        self._passed: dict[Channel, frozenset[str]] = {}
        self._unsettled: set[Channel] = set()
        self._avoided: dict[Channel, dict[str, _Avoided]] = {}
        self._timers: Timers[_Timer] = Timers()
        self._changed: dict[Address, None] = {}
        self._released: list[str] = []
        self._learn(self._configured)

    # What there is to choose from -------------------------------------------------------------------------------------

    def reconfigure(self, config: SelectionConfig, configured: Iterable[RelayCandidate]) -> None:
        """Take another configuration: what is known of relays stays, channels move only where they must."""
        self._config = config
        self._configured = tuple(configured)
        self._learn(self._configured)
        self._look_again(self.assigned.channels())

    def discovered(self, source: Address, candidates: Sequence[RelayCandidate]) -> None:
        """Take what discovery found for a source; channels on a healthy tunnel stay there."""
        given = tuple(candidates)
        if self._discovered.get(source) == given:
            return
        found = self._discovered[source] = self._lists.setdefault(given, given)
        if len(self._lists) > 2 * len(self._discovered) + 16:
            self._lists = {item: item for item in self._discovered.values()}
        self._learn(found)
        self._look_again(self.assigned.of_source(source))

    def knows(self, source: Address) -> bool:
        """Whether discovery has told anything of a source."""
        return source in self._discovered

    def candidates(self, channel: Channel) -> tuple[RelayCandidate, ...]:
        """Relays that serve a channel, most preferred first; with one of the operator's, nothing is discovered."""
        configured = serving(self._configured, channel)
        if configured or channel.source is None:
            return configured
        return self._discovered.get(channel.source, ())

    def candidate(self, tunnel: str) -> RelayCandidate | None:
        """The candidate a tunnel belongs to."""
        return self._by_tunnel.get(tunnel)

    def is_live_live(self, tunnel: str) -> bool:
        """Whether a tunnel brings a channel that another one brings too."""
        through = self.assigned.through(tunnel) if self._config.live_live else ()
        return any(len(self.assigned.get(channel) or ()) > 1 for channel in through)

    # What is asked of it ----------------------------------------------------------------------------------------------

    def select(self, channel: Channel, now: float) -> tuple[str, ...]:
        """Tunnels that bring a channel from now on, best first; empty when no relay serves it."""
        candidates = self.candidates(channel)
        if not candidates and not self.assigned.get(channel):
            self.assigned.set(channel, ())
            return ()
        ranking = Ranking(candidates, self.health, now, self._config.patience, self._avoided_relays(channel, now))
        count = self._count(channel)
        chosen = self._choose(channel, candidates, ranking, count, now)
        names = tuple(self._tunnel(channel, candidate, now) for candidate in chosen)
        before = self.assigned.get(channel) or ()
        if len(names) == len(before) > 1 and set(names) == set(before):
            names = before  # both bring it: their order is no reason to change anything
        if names != self.assigned.get(channel):
            first = min((candidate.preference for candidate in chosen), default=0)
            self._passed[channel] = frozenset(item.identity for item in candidates if item.preference < first)
            self.assigned.set(channel, names)
            self._learn(chosen)  # a tunnel that ended may be opened again
        if (len(candidates) == len(chosen) == 1) or (
            len(chosen) == count and all(_is_settled(item, candidates, ranking) for item in chosen)
        ):
            self._unsettled.discard(channel)
        else:
            self._unsettled.add(channel)
        return names

    def release(self, channel: Channel) -> bool:
        """Nobody wants a channel any more; True when it was the last one of a source relays were discovered for."""
        is_last = self.assigned.remove(channel)
        self._passed.pop(channel, None)
        self._avoided.pop(channel, None)
        self._unsettled.discard(channel)
        return is_last and channel.source is not None and self._discovered.pop(channel.source, None) is not None

    def asked(self, now: float) -> set[str]:
        """Tunnels to keep asking, whether or not a channel goes through them."""
        found: set[str] = set()
        if len(self._configured) > 1:
            relays: dict[str, list[RelayCandidate]] = {}
            for candidate in self._configured:
                relays.setdefault(candidate.identity, []).append(candidate)
            for addresses in relays.values():  # each of the operator's, so that it is known to live
                found |= self._runners(addresses, now, 1)
        lists: dict[int, tuple[tuple[RelayCandidate, ...], int]] = {}
        for source in self.assigned.sources() if self._discovered else ():
            candidates, count = self._discovered.get(source, ()), 1
            if self._config.live_live:
                count = max(map(self._count, self.assigned.of_source(source)), default=1)
            if id(candidates) not in lists or count > 1:
                lists[id(candidates)] = candidates, count
        for candidates, count in lists.values():
            found |= self._runners(candidates, now, count)
        return found

    def has_choice(self, tunnel: str) -> bool:
        """Whether channels of a tunnel have another relay to go to, so that it is worth being quick about."""
        own = self._by_tunnel.get(tunnel)
        if own is None:
            return False
        if own.is_configured:
            return len(self._configured) > 1
        channel = next(iter(self.assigned.through(tunnel)), None)
        return channel is not None and len(self.candidates(channel)) > 1

    def why_left(self, channel: Channel, before: Iterable[str], after: Iterable[str], now: float) -> str:
        """Why a channel went from tunnels `before` to `after`, for logs."""
        for name in set(before).difference(after):
            own, health = self._by_tunnel.get(name), self.health.get(name)
            if own is None:
                return "tunnel_closed"
            if health.is_held(now):
                return health.reason or "held_down"
            if own.identity in self._avoided_relays(channel, now):
                return "channel_silent"
            return "unanswered" if health.established_at is None else "preferred_relay_is_back"
        return "second_relay"

    # What happened ----------------------------------------------------------------------------------------------------

    def trying(self, tunnel: str, now: float) -> None:
        """A tunnel's relay is asked and has not answered."""
        health = self.health.of(tunnel)
        health.established_at = None
        if health.tried_at is None:
            health.tried_at = now
            self._timers.set(("patience", tunnel), now + self._config.patience)
        self._moved(tunnel)

    def established(self, tunnel: str, relay: Endpoint | None, now: float) -> None:
        """A tunnel's relay answered."""
        health = self.health.of(tunnel)
        health.relay = relay
        if health.established_at is None:
            health.established_at = now
            self._timers.set(("failback", tunnel), max(now, health.held_until) + self._config.failback_delay)
        health.tried_at = None
        self._timers.cancel(("patience", tunnel))
        self._moved(tunnel)

    def idle(self, tunnel: str) -> None:
        """Nothing is asked of a tunnel's relay."""
        health = self.health.of(tunnel)
        health.established_at = health.tried_at = None
        self._timers.cancel(("patience", tunnel))
        self._timers.cancel(("failback", tunnel))
        self._look_again(self._unsettled)  # what was asked in vain may be hoped for again

    def failed(self, tunnel: str, reason: str, now: float) -> float:
        """Hold a tunnel's relay down; returns until when."""
        health = self.health.of(tunnel)
        health.fail(now, self._config.hold_down, reason)
        self._timers.set(("hold", tunnel), health.held_until)
        if health.established_at is not None:
            self._timers.set(("failback", tunnel), health.held_until + self._config.failback_delay)
        self._moved(tunnel)
        return health.held_until

    def limited(self, tunnel: str, now: float) -> bool:
        """The L flag came up on a tunnel we have; True when that counts as a failure."""
        if self._config.move_on_limit:
            self.failed(tunnel, "relay_limit", now)
        return self._config.move_on_limit

    def forgive(self, now: float) -> None:
        """The way to the relays is back: end every hold-down, and give each its chance again."""
        self.health.forgive(now)
        for name in self.health.names():
            self._timers.cancel(("hold", name))
            if self.health.get(name).tried_at is not None:
                self._timers.set(("patience", name), now + self._config.patience)
            elif self.health.get(name).established_at is not None:
                self._timers.set(("failback", name), now + self._config.failback_delay)
        self._look_again(self._unsettled)

    def channel_silent(self, channel: Channel, tunnel: str, now: float) -> bool:
        """A channel stopped while others of its tunnel flow; True when another relay is tried for it."""
        own = self._by_tunnel.get(tunnel)
        if own is None or all(item.identity == own.identity for item in self.candidates(channel)):
            return False
        avoided = self._avoided.setdefault(channel, {}).setdefault(own.identity, _Avoided())
        avoided.failures += 1
        avoided.until = now + hold_down(self._config.hold_down, avoided.failures)
        self._timers.set(
            ("avoid", channel), min(item.until for item in self._avoided[channel].values() if item.until > now)
        )
        self._look_again((channel,))
        return True

    def ended(self, tunnel: str) -> None:
        """A tunnel is closed: whatever goes through it goes elsewhere; a hold-down stays."""
        self.idle(tunnel)
        self._moved(tunnel)
        for channel in self.assigned.through(tunnel):
            self.assigned.set(channel, tuple(name for name in self.assigned.get(channel) or () if name != tunnel))
        if self._by_tunnel.get(tunnel) not in self._configured:
            self._by_tunnel.pop(tunnel, None)

    def next_deadline(self) -> float | None:
        """When `handle_timer` has something to do, or None."""
        return self._timers.next_deadline()

    def handle_timer(self, now: float) -> None:
        """Look again where a hold-down, a wait or a delay is over."""
        for kind, subject in self._timers.expired(now):
            if isinstance(subject, Channel):
                later = [item.until for item in self._avoided.get(subject, {}).values() if item.until > now]
                if later:
                    self._timers.set((kind, subject), min(later))
                self._look_again((subject,))
                continue
            if kind == "hold":
                self._released.append(subject)
            self._look_again(self._unsettled)

    def changed(self) -> set[Address]:
        """Drain the groups whose selection may have changed."""
        groups, self._changed = set(self._changed), {}
        return groups

    def released(self) -> list[str]:
        """Drain the tunnels whose hold-down ended: their relays may be tried again."""
        names, self._released = self._released, []
        return names

    # How it chooses ---------------------------------------------------------------------------------------------------

    def _choose(
        self, channel: Channel, candidates: Sequence[RelayCandidate], ranking: Ranking, count: int, now: float
    ) -> list[RelayCandidate]:
        """Candidates that stay, then the best of the others."""
        before = self._before(channel, candidates)
        staying = [item for item in before if self._stays(channel, item, candidates, before, ranking, now)]
        chosen: list[RelayCandidate] = []
        for item in (*staying, *ranking.ordered(candidates)):
            is_second = bool(chosen)
            if is_second and ranking.rank(item) > Rank.HELD:
                continue
            if is_second and any(ranking.is_same_relay(item, other) for other in chosen):
                continue
            chosen.append(item)
            if len(chosen) == count:
                break
        return sorted(chosen, key=lambda item: (item.preference, item.name))

    def _before(self, channel: Channel, candidates: Sequence[RelayCandidate]) -> list[RelayCandidate]:
        """Candidates a channel comes through, as they are now."""
        named = {name: item for item in candidates for name in item.tunnel_names}
        known = (named.get(name) or self._by_tunnel.get(name) for name in self.assigned.get(channel) or ())
        return [item for item in known if item is not None]

    def _stays(
        self,
        channel: Channel,
        item: RelayCandidate,
        candidates: Sequence[RelayCandidate],
        before: Sequence[RelayCandidate],
        ranking: Ranking,
        now: float,
    ) -> bool:
        """Whether a channel stays where it is: while its relay answers, and no better one has proved itself."""
        if ranking.since(item) is None or (item.is_configured and item not in candidates):
            return False
        rank = ranking.rank(item)
        others = [other for other in candidates if other not in before and ranking.since(other) is not None]
        if rank is Rank.HELD and item.identity not in ranking.avoided:  # make before break: it still brings packets
            return not any(ranking.rank(other) is Rank.GOOD for other in others)
        if rank is not Rank.GOOD:
            return False
        return not any(self._takes_back(channel, other, item, ranking, now) for other in others)

    def _takes_back(
        self, channel: Channel, other: RelayCandidate, item: RelayCandidate, ranking: Ranking, now: float
    ) -> bool:
        """Whether `other` may have a channel that `item` brings well."""
        since = ranking.since(other)
        if since is None or other.preference >= item.preference or ranking.is_same_relay(other, item):
            return False
        if ranking.rank(other) is not Rank.GOOD:
            return False
        is_meant = other.is_configured or other.identity in self._passed.get(channel, frozenset())
        held_until = max(self.health.get(name).held_until for name in other.tunnel_names)
        return is_meant and now >= max(since, held_until) + self._config.failback_delay

    def _tunnel(self, channel: Channel, item: RelayCandidate, now: float) -> str:
        """The tunnel of a candidate that a channel goes through: always the same, unless that is held down."""
        names = item.tunnel_names
        if len(names) == 1 or channel.source is None:
            return names[0]
        first = crc32(channel.source.packed + channel.group.packed) % len(names)
        around = (*names[first:], *names[:first])
        current = [name for name in self.assigned.get(channel) or () if name in around]
        usable = (name for name in (*current, *around) if not self.health.get(name).is_held(now))
        return next(usable, around[0])

    def _count(self, channel: Channel) -> int:
        """How many relays are to bring a channel."""
        return 2 if any(channel.group in groups for groups in self._config.live_live) else 1

    def _avoided_relays(self, channel: Channel, now: float) -> list[str]:
        avoided = self._avoided.get(channel)
        return [] if avoided is None else [identity for identity, item in avoided.items() if now < item.until]

    def _runners(self, candidates: Sequence[RelayCandidate], now: float, count: int) -> set[str]:
        racers = [racer(item, self.health, now, self._config.patience) for item in candidates]
        return {name for item in runners(racers, count) for name in item.tunnel_names}

    # Bookkeeping ------------------------------------------------------------------------------------------------------

    def _learn(self, candidates: Iterable[RelayCandidate]) -> None:
        for candidate in candidates:
            for name in candidate.tunnel_names:
                known = self._by_tunnel.get(name)
                if known is None or candidate.is_configured or known not in self._configured:
                    self._by_tunnel[name] = candidate

    def _moved(self, tunnel: str) -> None:
        """A tunnel's state changed: look again at what it carries, and at all that is not where it should be."""
        self._look_again((*self.assigned.through(tunnel), *self._unsettled))

    def _look_again(self, channels: Iterable[Channel]) -> None:
        self._changed.update(dict.fromkeys(channel.group for channel in channels))


def _is_settled(item: RelayCandidate, candidates: Sequence[RelayCandidate], ranking: Ranking) -> bool:
    """Whether nothing that happens to other relays could change this choice."""
    is_best = not any(other.preference < item.preference for other in candidates)
    return is_best and ranking.since(item) is not None and ranking.rank(item) is Rank.GOOD

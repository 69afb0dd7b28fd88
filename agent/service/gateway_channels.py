"""Keeps upstreams and engine in step with the tree: changed groups are planned again, only differences applied.

A channel that gets another upstream moves make before break (`agent.service.channel_moves`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from agent.dataplane.engine import DUPLICATE_WINDOW, Engine, EngineError, Traffic
from agent.protocol.channels import Address, Channel, Filter
from agent.protocol.upstream import NativeUpstream, Upstream
from agent.service.channel_asked import Joiner, NobodyToJoin, TunnelMemberships, UpstreamRequests
from agent.service.channel_ledger import ChannelLedger, HeardSources
from agent.service.channel_moves import ChannelMoves, Move, feed_of, needs_move
from agent.tree import EMPTY_PLAN, GroupPlan, Route, Tree, tunnels_of

_log = logging.getLogger(__name__)

SLOW_SAMPLE: Final = 1.0
FAST_SAMPLE: Final = 0.01
FAST_SAMPLE_CHANNELS: Final = 100
"""Channels looked at in one fast sample: after a burst of joins the others wait for their turn, not the loop."""

APPLIED_AT_ONCE: Final = 128
"""Groups applied in one turn of the loop, some 10 ms: packets wait no longer when thousands change together."""

SAMPLED_AT_ONCE: Final = 500
"""Channels looked at in one turn of the loop in a slow sample."""

SWEEP_SAMPLES: Final = 5
"""Slow samples after which every channel was looked at, so that idle channels cost next to nothing."""

RETRIED_AT_ONCE: Final = 100
"""Channels the engine refused that are offered to it again in one slow sample."""

LEARNED_SOURCE_LIFETIME: Final = 210.0
"""Seconds of silence after which a source that any-source interest brought is forgotten (RFC 7761 §4.11 Keepalive)."""


class ChannelControl:
    """Applies plans and watches counters.

    Args:
        loop: the event loop.
        tree: who wants what.
        engine: what forwards.
        tunnels: by name; followed as they come and go.
        joiner: what native channels are asked of.

    Attributes:
        ledger: times of every channel.
        unserved: channels nothing brings.
        refused: channels the engine does not forward, and why.
        sent: what was forwarded out of each interface; it never goes back, and is at most a sample old.
        native_bytes: what native channels brought, each byte once; as old as that.
        on_sample: called once a slow sample.
        on_group_applied: called with each group that was planned again, and its plan.
        explain_unserved: says why nothing brings a channel.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tree: Tree,
        engine: Engine,
        tunnels: Mapping[str, TunnelMemberships],
        joiner: Joiner | None = None,
    ) -> None:
        self.ledger = ChannelLedger()
        self.unserved: set[Channel] = set()
        self.refused: dict[Channel, str] = {}
        self.sent: dict[str, Traffic] = {}
        self.native_bytes = 0
        self.on_sample: Callable[[], None] = lambda: None
        self.on_group_applied: Callable[[Address, GroupPlan], None] = lambda _group, _plan: None
        self.explain_unserved: Callable[[Channel], str] = lambda _channel: "no_relay"
        self._loop = loop
        self._tree = tree
        self._engine = engine
        self._tunnels = tunnels
        self._asked = UpstreamRequests(tunnels, joiner or NobodyToJoin())
        self._moves = ChannelMoves(loop, DUPLICATE_WINDOW, self._moved)
        self._heard = HeardSources()
        self._dead: set[str] = set()
        self._plans: dict[Address, GroupPlan] = {}
        self._changed: dict[Address, None] = {}
        self._unasked: dict[Address, None] = {}
        self._is_pending = False
        self._is_paused = False
        self._is_closed = False
        self._swept = 0
        self._slow: asyncio.TimerHandle | None = loop.call_later(SLOW_SAMPLE, self._sample_all)
        self._fast: asyncio.TimerHandle | None = None

    def plan(self, group: Address) -> GroupPlan:
        """What is applied for a group now."""
        return self._plans.get(group, EMPTY_PLAN)

    def changed(self) -> None:
        """The tree changed: apply it once, from the loop's next turn on."""
        if not self._is_pending and not self._is_closed:
            self._is_pending = True
            self._loop.call_soon(self.apply)

    def has_room(self, channels: Iterable[Channel], limit: int) -> bool:
        """Whether `channels` may be wanted with no more than `limit` in all; those carried already take no room.

        What was promised and is not applied yet counts, so that a burst of reports does not exceed the limit.
        """
        return self.ledger.promise(channels, limit)

    def apply(self) -> None:
        """Apply changed groups now; when they are many, the rest in the loop's next turns."""
        self._is_pending = False
        if self._is_closed:
            return
        self._changed.update(dict.fromkeys(self._tree.changed()))
        for group in list(islice(self._changed, APPLIED_AT_ONCE)):
            self._apply_now(group)
        if self._changed:
            self.changed()
        else:
            self.ledger.drop_promises()

    def new_source(self, channel: Channel, _tunnel: str) -> None:
        """The engine met a source that any-source interest brought: forward it from now on, at once."""
        if self._tree.learn(channel):
            self._apply_now(channel.group)

    def unknown_source(self, channel: Channel, interface: str) -> None:
        """The kernel met a source on an interface of ours: forward it if it is native there and somebody wants it.

        The kernel does not tell again soon; so one nobody wants yet is remembered, in case somebody does.
        """
        if self._tree.learn(channel, interface):
            self._apply_now(channel.group)
        else:
            self._heard.add(channel, interface, self._loop.time())

    def wrong_interface(self, channel: Channel, interface: str) -> None:
        """Packets of a channel come in on an interface it is not taken from: perhaps the upstream it moves to."""
        self._moves.seen_on_interface(channel, interface)

    def first_packet(self, channel: Channel, tunnel: str) -> None:
        """A tunnel's first packet of a channel came: perhaps the upstream it moves to."""
        self._moves.seen_in_tunnel(channel, tunnel)

    def upstream_failed(self, tunnel: str) -> None:
        """A tunnel is known dead: channels that leave it wait for nothing."""
        self._dead.add(tunnel)
        self._moves.end_those(lambda move: self._is_dead(move.old))

    def upstream_recovered(self, tunnel: str) -> None:
        """A tunnel is well again."""
        self._dead.discard(tunnel)

    def set_paused(self, paused: bool) -> None:
        """While paused nothing is wanted of any upstream, whatever the tree says."""
        self._is_paused = paused
        self._tree.mark_all()
        self.apply()

    def set_duplicate_window(self, seconds: float) -> None:
        """Recognise copies this far apart, of live-live channels and of those that move between tunnels."""
        self._engine.set_duplicate_window(seconds)
        self._moves.settle_time = seconds

    def forget_tunnel(self, name: str) -> None:
        """A tunnel is replaced: what was asked of it has to be asked again of its successor."""
        self._asked.forget_tunnel(name)
        self._dead.discard(name)
        self._moves.end_those(lambda move: set(tunnels_of(move.old)) == {name})

    def subscriptions(self, tunnel: str) -> int:
        """Channels that come through a tunnel, (*,G) as one beside its sources."""
        return sum(plan.through(tunnel) for plan in self._plans.values())

    def reason(self, channel: Channel) -> str | None:
        """Why a channel of the tree is not carried; None when it is, or nobody wants it."""
        if channel in self.refused:
            return f"engine: {self.refused[channel]}"
        if channel in self.unserved:
            return self.explain_unserved(channel)
        return None

    def close(self) -> None:
        """Stop sampling; later changes are not applied."""
        self._is_closed = True
        self._moves.close()
        for timer in (self._slow, self._fast):
            if timer is not None:
                timer.cancel()

    def _apply_now(self, group: Address) -> None:
        self._changed.pop(group, None)
        try:
            self._apply_group(group)
        except Exception:  # noqa: BLE001 - one group must not cost the others their change
            _log.exception("group not applied group=%s", group)
        if self._fast is None and self.ledger.is_awaiting:
            self._fast = self._loop.call_later(FAST_SAMPLE, self._sample_awaited)

    def _apply_group(self, group: Address) -> None:
        old = self._plans.get(group, EMPTY_PLAN)
        new = EMPTY_PLAN if self._is_paused else self._tree.plan(group)
        if new is EMPTY_PLAN:
            self._plans.pop(group, None)
        else:
            self._plans[group] = new
        self._apply_engine(group, old, new)
        self._ask(group)
        self._apply_ledger(group, old, new)
        self.on_group_applied(group, new)
        if new is not EMPTY_PLAN:
            for channel, interface in self._heard.take(group, self._loop.time()):
                self._loop.call_soon(self._engine.on_unknown_source, channel, interface)

    def _apply_engine(self, group: Address, old: GroupPlan, new: GroupPlan) -> None:
        for channel in old.routes.keys() - new.routes.keys():
            self._sample(channel, self._loop.time(), old)
            self._moves.cancel(channel)
            self._engine.remove_channel(channel)
            self.refused.pop(channel, None)
        for channel, route in new.routes.items():
            before = old.routes.get(channel)
            if before == route:
                continue
            if before is not None:
                self._sample(channel, self._loop.time(), old)
                self._turn_to(channel, before.upstream, route.upstream)
            self._set_channel(channel, route)
        if old.any_source != new.any_source:
            self._turn_to(Channel(None, group), old.any_source, new.any_source)
            self._set_group(group, new.any_source)

    def _turn_to(self, channel: Channel, before: Upstream | None, after: Upstream | None) -> None:
        """Take a channel from another upstream, of which its packets are not there yet."""
        move = self._moves.get(channel)
        if move is not None and move.is_released:
            move = None
        carrier = before if move is None else move.old
        self._moves.cancel(channel)
        if carrier is None or after is None or self._is_dead(carrier) or not needs_move(carrier, after):
            return
        if move is not None:
            begun = Move(carrier, after, move.filters, move.join)
        else:
            begun = Move(carrier, after, self._held(channel, carrier), self._asked.joined(channel))
        self._moves.begin(channel, begun)

    def _held(self, channel: Channel, carrier: Upstream) -> dict[str, Filter]:
        """What is to be asked of the old tunnels as long as a channel moves."""
        if channel.source is not None:
            return {name: Filter.include((channel.source,)) for name in tunnels_of(carrier)}
        return {name: self._asked.told(channel.group, name) for name in tunnels_of(carrier)}

    def _is_dead(self, upstream: Upstream) -> bool:
        names = tunnels_of(upstream)
        return bool(names) and all(name in self._dead or name not in self._tunnels for name in names)

    def _moved(self, channel: Channel) -> None:
        """A move went on: the engine is told at once, upstreams in the loop's next turn, for many channels together."""
        if self._is_closed:
            return
        plan = self.plan(channel.group)
        if channel.source is None:
            self._set_group(channel.group, plan.any_source)
        elif channel in plan.routes:
            self._set_channel(channel, plan.routes[channel])
        if not self._unasked:
            self._loop.call_soon(self._ask_changed)
        self._unasked[channel.group] = None

    def _ask_changed(self) -> None:
        groups = list(self._unasked)
        self._unasked.clear()
        if not self._is_closed:
            for group in groups:
                self._ask(group)

    def _ask(self, group: Address) -> None:
        self._asked.apply(group, self.plan(group), self._moves.of_group(group))

    def _set_group(self, group: Address, any_source: Upstream | None) -> None:
        move = self._moves.get(Channel(None, group))
        names = frozenset(tunnels_of(any_source) + (tunnels_of(move.old) if move is not None else ()))
        if names:
            self._engine.set_group(group, names)
        else:
            self._engine.remove_group(group)

    def _sample(self, channel: Channel, now: float, plan: GroupPlan | None = None) -> None:
        """Take a look at a channel's counters while it goes as `plan` says, or as applied now."""
        traffic = self._engine.traffic(channel)
        moved = self.ledger.take(channel, traffic, now) if traffic is not None else None
        if moved is None:
            return
        route = (plan or self.plan(channel.group)).routes.get(channel)
        if route is not None and isinstance(route.upstream, NativeUpstream):
            self.native_bytes += moved.bytes
        for interface in route.interfaces if route is not None else ():
            sent = self.sent.setdefault(interface, Traffic())
            sent.packets += moved.packets
            sent.bytes += moved.bytes

    def _set_channel(self, channel: Channel, route: Route) -> None:
        try:
            feed = feed_of(route, self._moves.get(channel))
            self._engine.set_channel(channel, feed.tunnels, feed.interfaces, feed.incoming)
        except EngineError as error:
            self.refused[channel] = str(error)
            _log.warning("channel not forwarded channel=%s: %s", channel, error, extra={"reason": "engine_refused"})
        else:
            self.refused.pop(channel, None)

    def _apply_ledger(self, group: Address, old: GroupPlan, new: GroupPlan) -> None:
        before, after = _channels(group, old), _channels(group, new)
        now = self._loop.time()
        for channel in before - after:
            self.ledger.close(channel)
        for channel in after - before:
            self.ledger.open(channel, now)
        self.unserved -= old.unserved
        self.unserved |= new.unserved

    def _sample_awaited(self) -> None:
        self._fast = None
        now = self._loop.time()
        for channel in self.ledger.awaited(now, FAST_SAMPLE_CHANNELS):
            self._sample(channel, now)
        if self.ledger.is_awaiting:
            self._fast = self._loop.call_later(FAST_SAMPLE, self._sample_awaited)

    def _sample_all(self) -> None:
        self._slow = self._loop.call_later(SLOW_SAMPLE, self._sample_all)  # first: nothing below may end the sampling
        now = self._loop.time()
        self._sample_slice(self._next_share(), 0)
        for channel in list(self._tree.learned()):
            since = self.ledger.silent_since(channel)
            if since is None or now - since > LEARNED_SOURCE_LIFETIME:
                self._tree.forget(channel)
        self._retry_refused()
        self.on_sample()
        self.apply()

    def _next_share(self) -> Sequence[Channel]:
        """Channels whose turn it is; all of them while they are few, else each within SWEEP_SAMPLES samples."""
        channels = self.ledger.channels()
        count = max(SAMPLED_AT_ONCE, -(-len(channels) // SWEEP_SAMPLES))
        first = self._swept if self._swept < len(channels) else 0
        self._swept = first + count
        return channels[first : self._swept]

    def _sample_slice(self, channels: Sequence[Channel], first: int) -> None:
        if self._is_closed:
            return
        now = self._loop.time()
        last = first + SAMPLED_AT_ONCE
        for channel in channels[first:last]:
            self._sample(channel, now)
        if last < len(channels):
            self._loop.call_soon(self._sample_slice, channels, last)

    def _retry_refused(self) -> None:
        """Offer channels the engine refused again, a few at a time: a slot or an interface may have become free."""
        for channel in list(islice(self.refused, RETRIED_AT_ONCE)):
            del self.refused[channel]
            route = self.plan(channel.group).routes.get(channel)
            if route is not None:
                self._set_channel(channel, route)


def _channels(group: Address, plan: GroupPlan) -> set[Channel]:
    """Channels of a plan that operators see: exact ones, served or not, and (*,G) for any-source interest."""
    any_source = {Channel(None, group)} if plan.any_source is not None else set()
    return set(plan.routes) | plan.unserved | any_source

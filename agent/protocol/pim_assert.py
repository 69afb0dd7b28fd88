"""Asserts of one interface: which of several routers on a link forwards a channel (RFC 7761 §4.6).

The owner says of which channels packets can go out here (`set_forwarding`: CouldAssert), which ones come in here from a
router that may be replaced (`set_tracking`) and which ones neighbours ask for (`is_joined`); it keeps saying so while
the assert is lost, for a loser that no longer tracks has forgotten that it lost. Nothing is held of other channels,
apart from sources of a tracked (*,G) that another router claims.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim_assert_state import (
    INFINITE_METRIC,
    INFINITE_PREFERENCE,
    AssertAction,
    AssertMetric,
    AssertTrigger,
    transition,
)
from agent.protocol.pim_config import PimConfig
from agent.protocol.pim_events import AssertChanged, AssertOutcome
from agent.protocol.timers import Timers
from agent.protocol.wire.pim_messages import Assert


@dataclass(frozen=True, slots=True)
class _Standing:
    """An assert that is settled; `metric` is the winner's."""

    outcome: AssertOutcome
    metric: AssertMetric


class AssertTable:
    """The Assert state machines of one interface, (S,G) and (*,G).

    Attributes:
        refused: Asserts that were not taken into account, by reason.
    """

    def __init__(
        self,
        config: PimConfig,
        family: Family,
        address: Address | None = None,
        is_joined: Callable[[Channel], bool] = lambda _: False,
    ) -> None:
        """Make a table that knows nothing.

        Args:
            config: times and limits.
            family: family served.
            address: ours on the link, by which ties are broken; None while there is none.
            is_joined: whether a neighbour on the link asked us for exactly this channel.
        """
        self.refused: Counter[str] = Counter()
        self._config = config
        self._family = family
        self._address = address
        self._is_joined = is_joined
        self._metrics: dict[Channel, tuple[int, int]] = {}
        self._tracked: set[Channel] = set()
        self._standings: dict[Channel, _Standing] = {}
        self._settled_of: dict[Address, set[Channel]] = {}
        self._timers: Timers[Channel] = Timers()
        self._messages: dict[Channel, Assert] = {}
        self._events: list[AssertChanged] = []

    # --- what is known

    def outcome(self, channel: Channel) -> AssertOutcome:
        """Where the assert of exactly this channel stands."""
        standing = self._standings.get(channel)
        return AssertOutcome.NO_INFO if standing is None else standing.outcome

    def winner(self, channel: Channel) -> Address | None:
        """Winner of exactly this channel's assert, which may be us; None without one."""
        standing = self._standings.get(channel)
        return None if standing is None else standing.metric.address

    def lost(self, channel: Channel) -> bool:
        """Whether we may not forward the channel here: lost_assert of (S,G), or of (*,G) that stands for it."""
        if self.outcome(channel) is not AssertOutcome.NO_INFO:
            return self.outcome(channel) is AssertOutcome.LOSER
        return channel not in self._metrics and self.outcome(_any_source(channel)) is AssertOutcome.LOSER

    def __len__(self) -> int:
        return len(self._standings)

    # --- what happens

    def configure(self, config: PimConfig) -> None:
        """Take other times and limits, for what is settled from now on."""
        self._config = config

    def set_forwarding(self, channel: Channel, metric: tuple[int, int] | None, now: float) -> None:
        """Say that packets of the channel can go out here, at this preference and metric, or None that they cannot.

        True for as long as somebody here wants it and we have it, whether the assert is lost or not.
        """
        if channel.family is not self._family or self._metrics.get(channel) == metric:
            return
        if metric is None:
            del self._metrics[channel]
        else:
            self._metrics[channel] = metric
        for affected in self._affected(channel):
            self._review(affected, now)

    def set_tracking(self, channel: Channel, tracked: bool, now: float) -> None:
        """Say whether the channel comes in here by our own Join, so that an Assert tells whom to join."""
        if channel.family is not self._family or tracked == (channel in self._tracked):
            return
        if tracked:
            self._tracked.add(channel)
            return
        self._tracked.discard(channel)
        for affected in self._affected(channel):
            if self.outcome(affected) is AssertOutcome.LOSER:
                self._move(affected, AssertTrigger.RPF_MOVED, now)

    def interest_changed(self, groups: Iterable[Address], now: float) -> None:
        """Neighbours on the link ask us for other channels of these groups than before."""
        for group in groups:
            for channel in list(self._settled_of.get(group, ())):
                self._review(channel, now)

    def data_received(self, channel: Channel, now: float) -> None:
        """A packet of (S,G) came in on this interface, which is not where it should come from."""
        for asserted in (channel, _any_source(channel)):
            outcome = self.outcome(asserted)
            if outcome is AssertOutcome.LOSER:
                return
            if outcome is AssertOutcome.WINNER or self._could_assert(asserted):
                if outcome is AssertOutcome.NO_INFO or self._spoke_long_ago(asserted, now):
                    self._move(asserted, AssertTrigger.DATA, now)
                return

    def receive(self, message: Assert, sender: Address, now: float) -> None:
        """Take an Assert of a neighbour.

        One that names a source is for (S,G) first, and for (*,G) only if (S,G) knows nothing before and after it
        (RFC 7761 §4.6.2).
        """
        if sender == self._address or message.group.version != self._family:
            return
        metric = AssertMetric.of(message, sender)
        if message.source is not None:
            channel = Channel(message.source, message.group)
            untouched = self.outcome(channel) is AssertOutcome.NO_INFO
            self._take(channel, metric, now)
            if not untouched or self.outcome(channel) is not AssertOutcome.NO_INFO:
                return
        if message.rpt:
            self._take(Channel(None, message.group), metric, now)

    def join_received(self, channel: Channel, now: float) -> None:
        """A Join of exactly this channel came to us here: somebody downstream has not heard the winner."""
        if self.outcome(channel) is AssertOutcome.LOSER:
            self._move(channel, AssertTrigger.JOIN, now)

    def neighbor_gone(self, address: Address, now: float) -> None:
        """A neighbour expired, said goodbye, or came back with another Generation ID."""
        lost = [
            channel
            for channel, standing in self._standings.items()
            if standing.outcome is AssertOutcome.LOSER and standing.metric.address == address
        ]
        for channel in lost:
            self._move(channel, AssertTrigger.WINNER_GONE, now)

    def set_address(self, address: Address | None, now: float) -> None:
        """Our address on the link changed: what we won is said again from the new one; without one all is forgotten."""
        if address == self._address:
            return
        self._address = address
        if address is None:
            for channel in list(self._standings):
                self._settle(channel, None)
            self._timers.clear()
            self._messages.clear()
            return
        for channel, standing in list(self._standings.items()):
            if standing.outcome is AssertOutcome.WINNER:
                self._move(channel, AssertTrigger.METRIC_CHANGED, now)
            else:
                self._review(channel, now)

    def handle_timer(self, now: float, limit: int | None = None) -> None:
        """Run the Assert Timers that are due, `limit` at most: `next_deadline` tells when there are more."""
        for channel in islice(self._timers.expired(now), limit):
            self._move(channel, AssertTrigger.TIMER, now)

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due, or None."""
        return self._timers.next_deadline()

    def messages(self) -> list[Assert]:
        """Drain the Asserts to send; of each channel the last word."""
        drained = list(self._messages.values())
        self._messages.clear()
        return drained

    def events(self) -> list[AssertChanged]:
        """Drain what was settled anew."""
        drained, self._events = self._events, []
        return drained

    # --- rules

    def _spoke_long_ago(self, channel: Channel, now: float) -> bool:
        """Whether a winner said so Assert_Override_Interval ago or before: its packets may come at any rate."""
        deadline = self._timers.deadline(channel)
        assert deadline is not None, channel
        return deadline - now <= self._config.assert_time - 2 * self._config.assert_override_interval

    def _could_assert(self, channel: Channel) -> bool:
        return channel in self._metrics and self._address is not None

    def _tracking_desired(self, channel: Channel) -> bool:
        """AssertTrackingDesired: also of what is asked for but not here yet, and by way of (*,G) (RFC 7761 §4.6.1)."""
        return any(
            each in self._metrics or each in self._tracked or self._is_joined(each)
            for each in (channel, _any_source(channel))
        )

    def _my_metric(self, channel: Channel) -> AssertMetric | None:
        """my_assert_metric: of (S,G), or in its place of (*,G); None is infinite (RFC 7761 §4.6.3)."""
        if self._address is None:
            return None
        for each in (channel, _any_source(channel)):
            if each in self._metrics:
                preference, metric = self._metrics[each]
                return AssertMetric(each.source is None, preference, metric, self._address)
        return None

    def _affected(self, channel: Channel) -> list[Channel]:
        """Settled channels that a change of `channel` may move: of (*,G) its sources too."""
        if channel.source is not None:
            return [channel] if channel in self._standings else []
        return list(self._settled_of.get(channel.group, ()))

    def _review(self, channel: Channel, now: float) -> None:
        """Look at a settled assert again after what we could say changed."""
        standing = self._standings[channel]
        mine = self._my_metric(channel)
        if standing.outcome is AssertOutcome.WINNER:
            if not self._could_assert(channel):
                self._move(channel, AssertTrigger.CANNOT_ASSERT, now)
            elif mine != standing.metric:
                self._move(channel, AssertTrigger.METRIC_CHANGED, now)
        elif not self._tracking_desired(channel):
            self._move(channel, AssertTrigger.UNTRACKED, now)
        elif mine is not None and mine.is_better_than(standing.metric):
            self._move(channel, AssertTrigger.METRIC_BETTER, now)

    def _take(self, channel: Channel, metric: AssertMetric, now: float) -> None:
        trigger = self._trigger(channel, metric)
        if trigger is None:
            return
        if channel not in self._standings and len(self._standings) >= self._config.max_channels:
            self.refused["too_many_asserts"] += 1
            return
        self._move(channel, trigger, now, metric)

    def _trigger(self, channel: Channel, metric: AssertMetric) -> AssertTrigger | None:
        """Which event of the tables in RFC 7761 §4.6.1 and §4.6.2 an Assert is; None for none."""
        standing = self._standings.get(channel)
        mine = self._my_metric(channel)
        inferior = mine is not None and mine.is_better_than(metric)
        acceptable = metric.is_better_than(mine) and metric.rpt is (channel.source is None)
        if standing is None:
            # (S,G) answers any (*,G) claim of its group: whoever has the source's own tree forwards.
            if self._could_assert(channel) and (inferior or (metric.rpt and channel.source is not None)):
                return AssertTrigger.INFERIOR
            return AssertTrigger.ACCEPTABLE if acceptable and self._tracking_desired(channel) else None
        return _trigger_when_settled(standing, metric, inferior=inferior, acceptable=acceptable)

    def _move(self, channel: Channel, trigger: AssertTrigger, now: float, heard: AssertMetric | None = None) -> None:
        """One transition with its action; `heard` is the metric to follow."""
        _, action = transition(self.outcome(channel), trigger)
        if action is AssertAction.FOLLOW:
            assert heard is not None, trigger
            self._settle(channel, _Standing(AssertOutcome.LOSER, heard))
            self._messages.pop(channel, None)
            self._timers.set(channel, now + self._config.assert_time)
        elif action in {AssertAction.CLAIM, AssertAction.REPEAT}:
            mine = self._my_metric(channel)
            assert mine is not None, trigger
            self._settle(channel, _Standing(AssertOutcome.WINNER, mine))
            self._say(channel, mine.preference, mine.metric, rpt=mine.rpt)
            self._timers.set(channel, now + self._config.assert_time - self._config.assert_override_interval)
        else:
            self._settle(channel, None)
            self._timers.cancel(channel)
            if action is AssertAction.CANCEL:
                self._say(channel, INFINITE_PREFERENCE, INFINITE_METRIC, rpt=True)

    def _say(self, channel: Channel, preference: int, metric: int, *, rpt: bool) -> None:
        self._messages[channel] = Assert(channel.group, channel.source, preference, metric, rpt)

    def _settle(self, channel: Channel, standing: _Standing | None) -> None:
        """Remember the standing, and tell when who forwards is another now."""
        before = self._standings.get(channel)
        if standing is None:
            self._standings.pop(channel, None)
            self._forget_in_group(channel)
        else:
            self._standings[channel] = standing
            if before is None:
                self._settled_of.setdefault(channel.group, set()).add(channel)
        after = _told(standing)
        if after != _told(before):
            self._events.append(AssertChanged(channel, *after))

    def _forget_in_group(self, channel: Channel) -> None:
        settled = self._settled_of.get(channel.group)
        if settled is not None:
            settled.discard(channel)
            if not settled:
                del self._settled_of[channel.group]


def _told(standing: _Standing | None) -> tuple[AssertOutcome, Address | None]:
    """What an event says of a standing."""
    return (AssertOutcome.NO_INFO, None) if standing is None else (standing.outcome, standing.metric.address)


def _any_source(channel: Channel) -> Channel:
    return Channel(None, channel.group)


def _trigger_when_settled(
    standing: _Standing, metric: AssertMetric, *, inferior: bool, acceptable: bool
) -> AssertTrigger | None:
    """The same of a winner or loser; of the winner's own Asserts a loser believes worse ones too."""
    if standing.outcome is AssertOutcome.LOSER and metric.address == standing.metric.address:
        if inferior or metric.is_infinite:
            return AssertTrigger.INFERIOR
        return AssertTrigger.ACCEPTABLE if acceptable else None
    if metric.is_better_than(standing.metric):
        return AssertTrigger.PREFERRED
    return AssertTrigger.INFERIOR if inferior and standing.outcome is AssertOutcome.WINNER else None

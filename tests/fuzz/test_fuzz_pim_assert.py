"""Routers on one link, whatever happens to them: after some traffic exactly one forwards, and it is the best."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim_assert import AssertTable
from agent.protocol.pim_config import PimConfig
from agent.protocol.pim_events import AssertOutcome

GROUP = ip_address("239.1.1.1")
CHANNEL = Channel(ip_address("203.0.113.5"), GROUP)
SHARED = Channel(None, GROUP)
ADDRESSES = [ip_address(f"192.0.2.{number}") for number in (1, 2, 3)]
WHICH = st.integers(0, len(ADDRESSES) - 1)
METRICS = st.tuples(st.integers(1, 3), st.integers(1, 3))


class Router:
    """One router: its table, and the metrics at which it forwards."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.asserts = AssertTable(PimConfig(), Family.IPV4, address)
        self.metrics: dict[Channel, tuple[int, int]] = {}

    @property
    def sends(self) -> bool:
        return bool(self.metrics) and not self.asserts.lost(CHANNEL)

    @property
    def rank(self) -> tuple[bool, tuple[int, int], int]:
        """Lowest wins (RFC 7761 §4.6.3)."""
        own_tree = CHANNEL in self.metrics
        return not own_tree, self.metrics[CHANNEL if own_tree else SHARED], -int(self.address)


class Link(RuleBasedStateMachine):
    """A link without loss; time moves only where the rules say."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.routers = [Router(address) for address in ADDRESSES]

    def settle(self) -> None:
        """Deliver what is said until nobody says more."""
        for _ in range(100):
            spoken = [(router, message) for router in self.routers for message in router.asserts.messages()]
            if not spoken:
                return
            for speaker, message in spoken:
                for router in self.routers:
                    if router is not speaker:
                        router.asserts.receive(message, speaker.address, self.now)
        raise AssertionError("the routers do not stop talking")

    def traffic(self) -> None:
        """Packets of the source until they come once each."""
        for _ in range(10):
            senders = [router for router in self.routers if router.sends]
            if len(senders) <= 1:
                return
            for sender in senders:
                for router in self.routers:
                    if router is not sender:
                        router.asserts.data_received(CHANNEL, self.now)
            self.pass_time(3.0)
        raise AssertionError("several routers keep sending")

    def pass_time(self, seconds: float) -> None:
        """Run timers as they come due, and deliver what is said at each."""
        end = self.now + seconds
        self.settle()
        while self.now < end:
            due = [router.asserts.next_deadline() for router in self.routers]
            self.now = min([end, *(deadline for deadline in due if deadline is not None)])
            for router in self.routers:
                router.asserts.handle_timer(self.now)
            self.settle()

    @rule(which=WHICH, channel=st.sampled_from([CHANNEL, SHARED]), metric=st.none() | METRICS)
    def forward(self, which: int, channel: Channel, metric: tuple[int, int] | None) -> None:
        router = self.routers[which]
        if metric is None:
            router.metrics.pop(channel, None)
        else:
            router.metrics[channel] = metric
        router.asserts.set_forwarding(channel, metric, self.now)

    @rule(seconds=st.integers(1, 400))
    def wait(self, seconds: int) -> None:
        self.pass_time(seconds)

    @rule(which=WHICH)
    def restart(self, which: int) -> None:
        """A router forgets everything; the others notice by its Generation ID, and it forwards nothing yet."""
        address = ADDRESSES[which]
        self.routers[which] = Router(address)
        for router in self.routers:
            router.asserts.neighbor_gone(address, self.now)

    @rule(which=WHICH, channel=st.sampled_from([CHANNEL, SHARED]))
    def join(self, which: int, channel: Channel) -> None:
        self.routers[which].asserts.join_received(channel, self.now)

    @invariant()
    def exactly_one_forwards_and_it_is_the_best(self) -> None:
        self.settle()
        self.traffic()
        forwarding = [router for router in self.routers if router.metrics]
        senders = [router.address for router in self.routers if router.sends]
        assert senders == ([min(forwarding, key=lambda router: router.rank).address] if forwarding else [])

    @invariant()
    def what_was_told_adds_up_to_what_is(self) -> None:
        for router in self.routers:
            last = {event.channel: event for event in router.asserts.events()}
            for channel, event in last.items():
                assert (event.outcome, event.winner) == (
                    router.asserts.outcome(channel),
                    router.asserts.winner(channel),
                )

    @invariant()
    def standings_have_timers_and_nothing_else_has(self) -> None:
        for router in self.routers:
            settled = [router.asserts.outcome(channel) is not AssertOutcome.NO_INFO for channel in (CHANNEL, SHARED)]
            assert len(router.asserts) == sum(settled)
            assert (router.asserts.next_deadline() is not None) == any(settled)


TestLink = Link.TestCase
TestLink.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

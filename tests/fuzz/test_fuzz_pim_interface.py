"""The PIM interface under anything on its link: what is wanted is what the RFC's rules make of the same messages."""

from __future__ import annotations

from fuzzing.naive_pim import NaivePim
from fuzzing.strategies import sealed, spoilt
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scripted.pim_peer import (
    FOREVER,
    OURS,
    RENDEZVOUS_GROUPS,
    Dice,
    group,
    listed,
    plain,
    router,
    rpt,
    shared,
    source,
    star,
)

from agent.protocol.channels import Address, Channel, Family, Filter, is_forwardable_group, is_ssm_group
from agent.protocol.group_state import InterestChanged
from agent.protocol.pim import PimConfig, PimInterface
from agent.protocol.pim_packet import ALL_PIM_ROUTERS, decode_packet, encode_packet
from agent.protocol.wire.errors import WireError
from agent.protocol.wire.pim import Hello, JoinPrune, LanPruneDelay, Message

NUMBERS = st.integers(1, 2)
ROUTERS = st.sampled_from([2, 3, 7])
HOLDTIMES = st.sampled_from([0, 1, 2, 5, 40, 210, FOREVER])
DELAYS = st.sampled_from(
    [None, LanPruneDelay(500, 2500), LanPruneDelay(1000, 1000), LanPruneDelay(0, 4000, tracking=True)]
)


@st.composite
def group_lists(draw: st.DrawFn, family: Family):
    """What one group is told: (S,G) anywhere, and the shared tree where we are its RP."""
    any_source = draw(st.booleans())
    kinds = [plain, rpt, lambda _: star(router(OURS, family))] if any_source else [plain]
    said = st.lists(st.tuples(st.sampled_from(kinds), NUMBERS), max_size=3)
    joins, prunes = (tuple(kind(source(each, family)) for kind, each in draw(said)) for _ in range(2))
    return listed((shared if any_source else group)(1, family), joins, prunes)


class PimLink(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.family = Family.IPV4
        self.told: dict[Address, Filter] = {}
        self.asked: dict[Channel, Address] = {}
        self.begin_with(Family.IPV4, 0.0)

    def begin_with(self, family: Family, random: float) -> None:
        self.family = family
        config = PimConfig(rendezvous_groups=RENDEZVOUS_GROUPS, max_neighbors=8)
        self.machine = PimInterface(config, family, Dice(random), iter(range(1, 1 << 32)).__next__)
        self.machine.set_address(router(OURS, family), (), self.now)
        self.machine.start(self.now)
        self.model = NaivePim(frozenset([router(OURS, family)]))

    @initialize(family=st.sampled_from(list(Family)), random=st.floats(0, 0.99))
    def begin(self, family: Family, random: float) -> None:
        self.begin_with(family, random)
        for number in (2, 3):
            message = Hello(FOREVER, LanPruneDelay(500, 2500), 1, 1)
            self.model.hello(message, self.hear(message, number), self.now)

    def hear(self, message: Message, number: int) -> Address:
        sender = router(number, self.family)
        before = sum(self.machine.refused.values()) + sum(self.machine.received.values())
        self.machine.receive_packet(encode_packet(message, sender, ALL_PIM_ROUTERS[self.family]), self.now)
        assert sum(self.machine.refused.values()) + sum(self.machine.received.values()) > before
        return sender

    @rule(number=ROUTERS, holdtime=HOLDTIMES | st.just(None), generation=st.sampled_from([None, 1, 2]), delay=DELAYS)
    def hello(self, number: int, holdtime: int | None, generation: int | None, delay: LanPruneDelay | None) -> None:
        message = Hello(holdtime, delay, 1, generation)
        self.model.hello(message, self.hear(message, number), self.now)

    @rule(number=ROUTERS)
    def usual_hello(self, number: int) -> None:
        message = Hello(105, LanPruneDelay(500, 2500), 1, 1)
        self.model.hello(message, self.hear(message, number), self.now)

    @rule(data=st.data(), number=ROUTERS, upstream=st.sampled_from([OURS, OURS, OURS, 2]), holdtime=HOLDTIMES)
    def join_prune(self, data: st.DataObject, number: int, upstream: int, holdtime: int) -> None:
        groups = tuple(data.draw(st.lists(group_lists(self.family), min_size=1, max_size=3)))
        message = JoinPrune(router(upstream, self.family), holdtime, groups)
        self.model.receive(message, self.hear(message, number), self.now)

    @rule(data=st.data(), number=ROUTERS, joined=NUMBERS)
    def spoilt_packet(self, data: st.DataObject, number: int, joined: int) -> None:
        """A Join that arrives broken changes nothing."""
        one = listed(group(joined, self.family), joins=(plain(source(joined, self.family)),))
        message = JoinPrune(router(OURS, self.family), 210, (one,))
        whole = encode_packet(message, router(number, self.family), ALL_PIM_ROUTERS[self.family])
        for packet in (broken := data.draw(spoilt(whole)), sealed(broken)):
            try:
                decode_packet(packet)
            except WireError:
                before = sum(self.machine.refused.values())
                self.machine.receive_packet(packet, self.now)
                assert sum(self.machine.refused.values()) == before + 1

    @rule(asked=NUMBERS, number=ROUTERS)
    def ask(self, asked: int, number: int) -> None:
        channel = Channel(source(asked, self.family), group(9, self.family))
        self.machine.join_upstream(channel, router(number, self.family), self.now)
        self.asked[channel] = router(number, self.family)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def ask_no_longer(self, data: st.DataObject) -> None:
        channel = data.draw(st.sampled_from(sorted(self.asked, key=str)))
        self.machine.prune_upstream(channel, self.now)
        del self.asked[channel]

    @rule(step=st.sampled_from([0.5, 1.0, 2.5, 3.0, 5.0, 38.0, 210.0]))
    def wait(self, step: float) -> None:
        end = self.now + step
        while (deadline := self.machine.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.machine.handle_timer(self.now)
            self.model.advance(self.now)
            self.what_is_sent_is_well_said()
        self.now = end
        self.model.advance(end)

    @invariant()
    def what_is_wanted_is_what_the_model_wants(self) -> None:
        self.machine.handle_timer(self.now)
        self.model.advance(self.now)
        for event in self.machine.events():
            if isinstance(event, InterestChanged):
                assert is_forwardable_group(event.group)
                assert event.filter.mode.value == "include" or not is_ssm_group(event.group)
                self.told[event.group] = event.filter
        wanted = {address: state for address, state in self.told.items() if not state.wants_nothing}
        assert wanted == self.model.interest()

    @invariant()
    def neighbors_are_those_of_the_model(self) -> None:
        assert {view.address for view in self.machine.neighbors()} == set(self.model.neighbors)

    @invariant()
    def what_is_sent_is_well_said(self) -> None:
        """Decodes; a Hello came before anything else; Joins go to neighbours, for what is asked of them."""
        for packet in map(decode_packet, self.machine.packets_to_send()):
            assert (packet.source, packet.ttl) == (router(OURS, self.family), 1)
            if isinstance(packet.message, Hello):
                self.greeted = True
            else:
                assert getattr(self, "greeted", False)
            if isinstance(packet.message, JoinPrune) and packet.message.upstream != router(OURS, self.family):
                assert packet.message.upstream in {view.address for view in self.machine.neighbors()}
                for said in packet.message.groups:
                    for joined in said.joins:
                        assert self.asked[Channel(joined.address, said.group)] == packet.message.upstream

    def teardown(self) -> None:
        self.machine.stop(self.now)
        assert self.machine.next_deadline() is None
        assert self.machine.channel_count == 0
        assert self.machine.neighbors() == []


TestPimLink = PimLink.TestCase

"""The querier under anything on its link: it never raises, queries in its turn only, and keeps to its limits."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from fuzzing.strategies import FAMILIES, VECTORS, group, group_messages, sealed, source, spoilt
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.protocol.channels import Address, Family, Filter, is_forwardable_group, is_ssm_group
from agent.protocol.group_state import InterestChanged
from agent.protocol.querier import Querier
from agent.protocol.querier_config import QuerierConfig
from agent.protocol.wire.group_packet import decode, encode
from agent.protocol.wire.groups import GroupMessage, GroupRecord, Query, RecordType, Report

NETWORKS = (ip_network("192.0.2.0/24"),)
STEPS = st.sampled_from([0.0, 0.5, 1.0, 31.25, 125.0, 255.0, 260.0])
GROUPS, SOURCES = 4, 5


def host(family: Family, number: int) -> Address:
    """An address on the link; ours is number 5."""
    return ip_address(f"192.0.2.{number}" if family is Family.IPV4 else f"fe80::{number:x}")


class HostileLink(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.told: dict[Address, Filter] = {}
        self.family = Family.IPV4
        self.querier = self.make(Family.IPV4, fast=False)

    def make(self, family: Family, *, fast: bool) -> Querier:
        config = QuerierConfig(max_groups=GROUPS, max_sources=SOURCES, fast_leave=fast)
        return Querier(config, family, host(family, 5), NETWORKS)

    @initialize(family=FAMILIES, fast=st.booleans())
    def begin(self, family: Family, *, fast: bool) -> None:
        self.family = family
        self.querier = self.make(family, fast=fast)
        self.querier.start(self.now)

    def deliver(self, packet: bytes) -> None:
        before = sum(self.querier.refused.values()) + sum(self.querier.received.values())
        self.querier.receive_packet(packet, self.now)
        assert sum(self.querier.refused.values()) + sum(self.querier.received.values()) > before

    @rule(data=st.data(), number=st.integers(1, 9))
    def usual_report(self, data: st.DataObject, number: int) -> None:
        groups = st.builds(
            lambda number, any_source: group(self.family, number, any_source=any_source),
            st.integers(1, 6),
            st.booleans(),
        )
        sources = st.lists(st.integers(1, 6).map(lambda number: source(self.family, number)), max_size=6).map(tuple)
        record = st.builds(GroupRecord, st.sampled_from(RecordType), groups, sources)
        records = data.draw(st.lists(record, min_size=1, max_size=4))
        self.deliver(encode(Report(tuple(records)), host(self.family, number)))

    @rule(data=st.data(), number=st.integers(0, 9))
    def any_group_message(self, data: st.DataObject, number: int) -> None:
        message: GroupMessage = data.draw(group_messages(self.family))
        self.deliver(encode(message, host(self.family, number)))

    @rule(number=st.integers(0, 9), interval=st.sampled_from([0, 1, 125, 31744]), robustness=st.integers(0, 7))
    def general_query(self, number: int, interval: int, robustness: int) -> None:
        query = Query(interval=interval, robustness=robustness, max_response_time=0.5)
        self.deliver(encode(query, host(self.family, number)))

    @rule(data=st.data(), name=st.sampled_from([name for name, vector in VECTORS.items() if vector.decoder == "group"]))
    def spoilt_packet(self, data: st.DataObject, name: str) -> None:
        packet = data.draw(spoilt(VECTORS[name].data))
        self.deliver(sealed(packet) if data.draw(st.booleans()) else packet)

    @rule(name=st.sampled_from(sorted(VECTORS)))
    def any_vector(self, name: str) -> None:
        self.deliver(VECTORS[name].data)

    @rule(number=st.none() | st.integers(1, 9))
    def renumber(self, number: int | None) -> None:
        self.querier.set_address(None if number is None else host(self.family, number), NETWORKS, self.now)

    @rule(interval=st.sampled_from([20, 125, 1000]))
    def configure(self, interval: int) -> None:
        config = QuerierConfig(query_interval=interval, max_groups=GROUPS, max_sources=SOURCES)
        self.querier.configure(config, self.now)

    @rule(step=STEPS)
    def wait(self, step: float) -> None:
        self.now += step
        self.querier.handle_timer(self.now)
        after = self.querier.next_deadline()
        assert after is None or after > self.now

    @invariant()
    def queries_leave_in_turn(self) -> None:
        packets = [decode(packet) for packet in self.querier.packets_to_send()]
        assert len(packets) <= 3 * GROUPS + 1
        for packet in packets:
            assert isinstance(packet.message, Query)
            assert (packet.ttl, packet.router_alert) == (1, True)
            assert Family.of(packet.source) is self.family
        if packets and not self.querier.is_querier:
            # The one query that a change of address or an election overtook.
            assert len(packets) <= 1
        assert self.querier.packets_to_send() == []

    @invariant()
    def limits_hold(self) -> None:
        views = self.querier.groups()
        assert len(views) <= GROUPS
        assert all(len(set(view.sources) | view.filter.sources) <= SOURCES for view in views)

    @invariant()
    def events_told_everything(self) -> None:
        for event in self.querier.events():
            if isinstance(event, InterestChanged):
                self.told[event.group] = event.filter
        wanted = {address: state for address, state in self.told.items() if not state.wants_nothing}
        assert wanted == {view.group: view.filter for view in self.querier.groups() if not view.filter.wants_nothing}

    @invariant()
    def interest_is_forwardable(self) -> None:
        for view in self.querier.groups():
            assert is_forwardable_group(view.group)
            assert view.expires is None or not is_ssm_group(view.group), "RFC 4604 §2.2"

    def teardown(self) -> None:
        self.querier.stop()
        assert self.querier.next_deadline() is None
        assert self.querier.groups() == []


TestHostileLink = HostileLink.TestCase

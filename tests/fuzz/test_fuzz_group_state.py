"""The router's table of groups does, under any reports at any time, what RFC 3376 §6 written down plainly does."""

from __future__ import annotations

from fuzzing.naive_router import NaiveRouter
from fuzzing.strategies import FAMILIES, group, source
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.protocol.channels import Address, Family, Filter
from agent.protocol.group_state import GroupLimits, GroupTable
from agent.protocol.group_timing import GroupTiming
from agent.protocol.wire.groups import (
    AnySourceReport,
    GroupRecord,
    GroupVersion,
    Leave,
    Query,
    RecordType,
    Report,
)

NUMBERS = st.integers(1, 4)
SOURCES = st.sets(st.integers(1, 4), max_size=4)
STEPS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 50.0, 130.0, 259.0, 260.0])


class TableAgainstNaiveRouter(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.table = GroupTable(timing=GroupTiming())
        self.naive = NaiveRouter()
        self.told: dict[Address, Filter] = {}
        self.family = Family.IPV4

    @initialize(family=FAMILIES)
    def choose(self, family: Family) -> None:
        self.family = family

    @rule(kind=st.sampled_from(RecordType), number=st.integers(1, 2), numbers=SOURCES)
    def report(self, kind: RecordType, number: int, numbers: set[int]) -> None:
        address = group(self.family, number, any_source=True)
        record = GroupRecord(kind, address, tuple(source(self.family, each) for each in sorted(numbers)))
        self.table.receive(Report((record,)), self.now)
        self.naive.receive(record, self.now)

    @rule(step=STEPS)
    def wait(self, step: float) -> None:
        self.now += step
        while (deadline := self.table.next_deadline()) is not None and deadline <= self.now:
            self.table.handle_timer(deadline)
            after = self.table.next_deadline()
            assert after is None or after > deadline, "a timer that is due must be over once it was handled"
        self.naive.advance(self.now)

    @invariant()
    def forwards_the_same(self) -> None:
        assert self.table.filters() == self.naive.filters()

    @invariant()
    def events_tell_the_same(self) -> None:
        for event in self.table.events():
            self.told[event.group] = event.filter
        wanted = {address: state for address, state in self.told.items() if not state.wants_nothing}
        assert wanted == self.table.filters()

    @invariant()
    def queries_are_about_something_known(self) -> None:
        for query in self.table.queries():
            assert query.group is not None
            assert query.max_response_time == 1

    def teardown(self) -> None:
        self.wait(600)
        assert self.table.filters() == {}
        assert list(self.table.views()) == []
        assert self.table.next_deadline() is None


class HostileTable(RuleBasedStateMachine):
    """Anything, in any order, against small limits."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.limits = GroupLimits(max_groups=3, max_sources=4, max_channels=6)
        self.table = GroupTable(timing=GroupTiming(), limits=self.limits)

    @initialize(fast=st.booleans())
    def choose(self, *, fast: bool) -> None:
        self.table.fast_leave = fast

    @rule(data=st.data(), family=FAMILIES, any_source=st.booleans())
    def report(self, data: st.DataObject, family: Family, *, any_source: bool) -> None:
        groups = NUMBERS.map(lambda number: group(family, number, any_source=any_source))
        sources = st.lists(st.integers(1, 9).map(lambda number: source(family, number)), max_size=9).map(tuple)
        records = st.lists(st.builds(GroupRecord, st.sampled_from(RecordType), groups, sources), max_size=8)
        self.table.receive(Report(tuple(data.draw(records))), self.now)

    @rule(number=NUMBERS, family=FAMILIES, version=st.sampled_from([1, 2]), any_source=st.booleans())
    def older(self, number: int, family: Family, version: int, *, any_source: bool) -> None:
        address = group(family, number, any_source=any_source)
        self.table.receive(AnySourceReport(address, GroupVersion(version)), self.now)

    @rule(number=NUMBERS, family=FAMILIES)
    def leave(self, number: int, family: Family) -> None:
        self.table.receive(Leave(group(family, number, any_source=True)), self.now)

    @rule(number=st.none() | NUMBERS, numbers=SOURCES, suppress=st.booleans(), response=st.floats(0, 31744))
    def query(self, number: int | None, numbers: set[int], response: float, *, suppress: bool) -> None:
        asked = None if number is None else group(Family.IPV4, number)
        sources = tuple(source(Family.IPV4, each) for each in numbers) if asked else ()
        self.table.receive_query(Query(asked, sources, response, suppress), self.now)

    @rule(querier=st.booleans())
    def elect(self, *, querier: bool) -> None:
        self.table.set_querier(querier)

    @rule(step=STEPS)
    def wait(self, step: float) -> None:
        self.now += step
        self.table.handle_timer(self.now)
        after = self.table.next_deadline()
        assert after is None or after > self.now

    @invariant()
    def limits_hold(self) -> None:
        views = list(self.table.views())
        assert len(views) <= self.limits.max_groups
        assert all(len(view.sources) + len(view.filter.sources) <= 2 * self.limits.max_sources for view in views)
        remembered = [set(view.sources) | view.filter.sources for view in views]
        assert all(len(sources) <= self.limits.max_sources for sources in remembered)
        assert sum(max(1, len(sources)) for sources in remembered) <= self.limits.max_channels

    @invariant()
    def nothing_is_sent_out_of_turn(self) -> None:
        queries = self.table.queries()
        assert not queries or (self.table.querier and not self.table.fast_leave)
        assert len(queries) <= 3 * self.limits.max_groups
        self.table.events()
        assert self.table.events() == []
        assert self.table.queries() == []

    def teardown(self) -> None:
        self.wait(100000)
        assert list(self.table.views()) == []
        assert self.table.next_deadline() is None


TestTableAgainstNaiveRouter = TableAgainstNaiveRouter.TestCase
TestHostileTable = HostileTable.TestCase

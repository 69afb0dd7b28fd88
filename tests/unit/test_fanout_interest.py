"""Who wants what: the interest table and the bounded table of flows."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from agent.dataplane.engine import Refusal
from agent.dataplane.fanout_flows import FlowTable, channel_of, flow_key, refusal_of
from agent.dataplane.fanout_interest import InterestTable
from agent.protocol.channels import NOTHING, Channel, Filter, merge_filters

GROUP = ip_address("232.1.1.1")
SOURCES = [ip_address(f"10.0.0.{number}") for number in range(1, 4)]

filters = st.builds(
    lambda exclude, sources: Filter.exclude(sources) if exclude else Filter.include(sources),
    st.booleans(),
    st.sets(st.sampled_from(SOURCES)),
)


@given(st.lists(st.tuples(st.integers(0, 4), filters)))
def test_table_agrees_with_a_plain_dictionary(changes: list[tuple[int, Filter]]) -> None:
    table: InterestTable[int] = InterestTable()
    model: dict[int, Filter] = {}
    for member, wanted in changes:
        assert table.set(member, GROUP, wanted) == (model.get(member, NOTHING) != wanted)
        model[member] = wanted
    live = {member: wanted for member, wanted in model.items() if not wanted.wants_nothing}
    assert table.merged(GROUP) == merge_filters(live.values())
    for source in SOURCES:
        assert set(table.wanting(source, GROUP)) == {member for member, wanted in live.items() if wanted.admits(source)}
    assert {member for member in range(5) if member in table} == set(live)
    assert table.all_groups() == ({GROUP} if live else set())


def test_a_member_keeps_its_other_groups() -> None:
    table: InterestTable[str] = InterestTable()
    other = ip_address("239.1.1.1")
    table.set("a", GROUP, Filter.exclude())
    table.set("a", other, Filter.exclude())
    table.set("a", GROUP, NOTHING)
    assert table.groups("a") == {other}


def test_keys_are_source_and_destination() -> None:
    ipv4 = bytes([0x45]) + bytes(11) + SOURCES[0].packed + GROUP.packed + bytes(8)
    assert channel_of(flow_key(ipv4)) == Channel(SOURCES[0], GROUP)
    source, group = ip_address("2001:db8::1"), ip_address("ff3e::8000:1")
    ipv6 = bytes([0x60]) + bytes(7) + source.packed + group.packed
    assert channel_of(flow_key(ipv6)) == Channel(source, group)


def test_what_no_router_forwards_is_refused() -> None:
    assert refusal_of(Channel(SOURCES[0], ip_address("224.0.0.5"))) is Refusal.LINK_LOCAL_GROUP
    assert refusal_of(Channel(ip_address("2001:db8::1"), ip_address("ff02::5"))) is Refusal.LINK_LOCAL_GROUP
    for source in ("0.0.0.0", "127.0.0.1", "169.254.1.1", "232.1.1.1", "255.255.255.255"):
        assert refusal_of(Channel(ip_address(source), GROUP)) is Refusal.BAD_INNER_HEADER
    for source in ("::", "::1", "fe80::1", "ff3e::1"):
        assert refusal_of(Channel(ip_address(source), ip_address("ff3e::8000:1"))) is Refusal.BAD_INNER_HEADER
    assert refusal_of(Channel(SOURCES[0], GROUP)) is None


def flow_at(table: FlowTable, number: int, now: float) -> bytes:
    channel = Channel(ip_address(0x0A00_0000 + number), GROUP)
    key = channel.source.packed + GROUP.packed  # type: ignore[union-attr]
    table.add(key, channel, now)
    return key


def test_forged_sources_do_not_grow_the_table() -> None:
    table = FlowTable(100)
    for number in range(1000):
        flow_at(table, number, float(number))
        table.refuse(number.to_bytes(8, "big"), Refusal.NOT_SUBSCRIBED)
    assert len(table) == 100
    assert len(table.of_group(GROUP)) == 100


def test_refusals_are_bounded() -> None:
    table = FlowTable(1)
    for number in range(40_000):
        table.refuse(number.to_bytes(8, "big"), Refusal.NOT_SUBSCRIBED)
    kept = sum(table.refusal(number.to_bytes(8, "big")) is not None for number in range(40_000))
    assert 0 < kept <= 16_384


def test_a_flow_with_traffic_outlives_idle_ones() -> None:
    table = FlowTable(10)
    busy = flow_at(table, 1, 0.0)
    for number in range(2, 40):
        table.by_key[busy].seen_at = 100.0 * number
        flow_at(table, number, 100.0 * number)
    assert busy in table.by_key
    assert len(table) == 10


def test_prune_forgets_what_nobody_wants() -> None:
    table = FlowTable(10)
    key = flow_at(table, 1, 5.0)
    table.prune(5.0)
    assert key in table.by_key
    table.prune(5.1)
    assert not table.by_key
    assert table.of_group(GROUP) == []

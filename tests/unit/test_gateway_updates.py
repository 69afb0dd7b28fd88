"""Reports on their way: pace, repetition, size, sources."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scripted.call_count import count_calls

from agent.protocol.channels import Family, Filter
from agent.protocol.gateway_updates import Pace
from agent.protocol.wire import amt, group_packet
from agent.protocol.wire.groups import RecordType

SOURCE = "198.51.100.1"


def groups_of(sent):
    return [
        record.group
        for _, message in sent
        if isinstance(message, amt.MembershipUpdate)
        for record in group_packet.decode(message.packet).message.records
    ]


def join_many(bench, count, base="232.0.0.0", source=SOURCE):
    groups = [ip_address(base) + offset for offset in range(1, count + 1)]
    state = Filter.include([ip_address(source)])
    for group in groups:
        bench.gateway.set_membership(group, state, bench.now)
    return groups


def test_a_change_is_repeated_within_a_second(direct_bench):
    bench = direct_bench()
    bench.join("232.1.1.1", SOURCE)
    bench.establish(robustness=3)
    bench.run(3)
    bench.join("232.1.1.2", SOURCE)
    sent = bench.run(3)
    assert groups_of(sent) == [ip_address("232.1.1.2")] * 3
    times = [when for when, _ in sent]
    assert times[0] == 0.0
    assert times[1] <= 1.0
    assert times[2] <= 2.0


@pytest.mark.parametrize(("told", "times"), [(0, 2), (1, 1), (2, 2), (7, 7)])
def test_the_robustness_of_the_query_counts_and_none_means_two(direct_bench, told, times):
    bench = direct_bench()
    bench.join("232.1.1.1", SOURCE)
    bench.establish(robustness=told)
    bench.run(10)
    bench.join("232.1.1.2", SOURCE)
    assert len(groups_of(bench.run(10))) == times


def test_joins_of_one_moment_share_an_update(direct_bench):
    bench = direct_bench()
    bench.join("232.1.1.1", SOURCE)
    bench.establish()
    bench.sent()
    join_many(bench, 100)
    assert len(bench.sent()) == 1


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize(("base", "source"), [("232.0.0.0", SOURCE), ("ff3e::8000:0", "2001:db8::5")])
def test_ten_thousand_groups_are_reported_whole_paced_and_within_the_mtu(direct_bench, address, base, source):
    bench = direct_bench(address=ip_address(address))
    groups = join_many(bench, 10_000, base, source)
    bench.establish(interval=125)
    sent = bench.run(0.9)
    assert groups_of(sent)[: len(groups)] == groups
    overhead = 28 if "." in address else 48
    assert max(len(message.encode()) for _, message in sent) <= 1500 - overhead
    bench.run(100)
    (_, request), *_ = [item for item in bench.run(25) if isinstance(item[1], amt.Request)]
    bench.query(request.nonce, Family.IPV6 if request.mld else Family.IPV4)
    answer = bench.run(1)
    assert groups_of(answer) == groups
    first_burst = [when for when, _ in answer if when == 0.0]
    assert len(first_burst) == 32
    for start in range(len(answer) - 60):  # 32 at once and 500 a second: any 60 in a row take time
        assert answer[start + 59][0] - answer[start][0] > 0.05


def test_a_join_does_not_wait_behind_a_long_answer(direct_bench):
    bench = direct_bench()
    join_many(bench, 10_000)
    bench.establish()
    assert len(bench.sent()) == 32
    bench.join("239.1.1.1")
    (record,) = bench.records()
    assert (record.type, record.group) == (RecordType.CHANGE_TO_EXCLUDE, ip_address("239.1.1.1"))


def test_a_flood_of_changes_is_paced_too_and_says_everything(direct_bench):
    bench = direct_bench(update_rate=100.0, update_burst=4)
    bench.join("239.1.1.1")
    bench.establish()
    bench.run(3)
    groups = join_many(bench, 2_000)
    sent = bench.run(0.2)
    assert len([when for when, _ in sent if when == 0.0]) == 4
    assert groups_of(sent)[:2_000] == groups


def test_ten_times_the_joins_and_their_answer_cost_ten_times_as_much(direct_bench):
    def cost(count):
        bench = direct_bench()

        def act():
            join_many(bench, count)
            bench.establish()
            bench.run(3)

        return count_calls(act)

    assert cost(10_000) < 11 * cost(1000)


def test_reports_come_from_the_configured_sources(direct_bench):
    bench = direct_bench(ipv4_source=ip_address("10.9.8.7"), ipv6_source=ip_address("fe80::99"))
    bench.join("232.1.1.1", SOURCE)
    bench.join("ff3e::8000:1", "2001:db8::5")
    bench.establish()
    packets = [group_packet.decode(update.packet) for update in bench.sent(amt.MembershipUpdate)]
    assert [str(packet.source) for packet in packets] == ["10.9.8.7", "fe80::99"]
    assert [str(packet.destination) for packet in packets] == ["224.0.0.22", "ff02::16"]
    assert all(packet.router_alert and packet.ttl == 1 for packet in packets)


def test_a_refused_join_raises_and_sends_nothing(direct_bench):
    bench = direct_bench()
    bench.gateway.start(bench.now)
    with pytest.raises(ValueError, match=r"232\.1\.1\.1 is source-specific"):
        bench.join("232.1.1.1")
    with pytest.raises(ValueError, match=r"224\.0\.0\.5"):
        bench.join("224.0.0.5")
    assert bench.run(10) == []


def test_a_pace_lets_a_burst_through_and_then_its_rate():
    pace = Pace(rate=10.0, burst=4)
    assert [pace.take(5.0) for _ in range(6)] == [True] * 4 + [False] * 2
    assert pace.ready_at() == pytest.approx(5.1)
    assert pace.take(5.1)
    assert not pace.take(5.1)
    assert [pace.take(100.0) for _ in range(5)] == [True] * 4 + [False]

"""What the API shows of a relay: channels by their subscribers, counters that never go back."""

from datetime import UTC, datetime
from ipaddress import ip_address
from types import SimpleNamespace

import pytest
from scripted.still_loop import StillLoop

from agent.dataplane.engine import Traffic
from agent.dataplane.relay import RelayCounters
from agent.protocol.channels import NOTHING, Channel, Endpoint, Filter
from agent.service.clock import Clock
from agent.service.relay_channels import RelayChannels
from agent.service.relay_views import RelayViews

ONE, TWO = ip_address("198.51.100.1"), ip_address("198.51.100.2")
SSM, ASM = ip_address("232.1.1.1"), ip_address("239.1.1.1")
FIRST, SECOND = Endpoint(ip_address("203.0.113.1"), 1001), Endpoint(ip_address("203.0.113.2"), 1002)


@pytest.fixture
def channels() -> RelayChannels:
    return RelayChannels()


def test_a_channel_is_there_from_its_first_subscriber_to_its_last(channels):
    channels.set_interest(FIRST, SSM, Filter.include([ONE]), 5.0)
    channels.set_interest(SECOND, SSM, Filter.include([ONE, TWO]), 7.0)
    shared = channels.subscribers(Channel(ONE, SSM))
    assert (shared.since, list(shared.tunnels)) == (5.0, [FIRST, SECOND])
    assert channels.subscribers(Channel(TWO, SSM)).since == 7.0
    assert [channels.count(tunnel) for tunnel in (FIRST, SECOND)] == [1, 2]
    channels.set_interest(FIRST, SSM, NOTHING, 8.0)
    channels.set_interest(SECOND, SSM, Filter.include([ONE]), 9.0)
    assert channels.channels() == [Channel(ONE, SSM)]
    assert (channels.subscribers(Channel(ONE, SSM)).since, channels.count(FIRST)) == (5.0, 0)
    channels.set_interest(SECOND, SSM, NOTHING, 10.0)
    assert len(channels) == 0
    assert channels.subscribers(Channel(ONE, SSM)) is None


def test_a_change_to_any_source_interest_is_another_channel(channels):
    channels.set_interest(FIRST, ASM, Filter.include([ONE]), 1.0)
    channels.set_interest(FIRST, ASM, Filter.exclude([TWO]), 2.0)
    assert channels.channels() == [Channel(None, ASM)]
    assert channels.filter(FIRST, ASM) == Filter.exclude([TWO])


class Role:
    """As much of a relay role as its views read."""

    def __init__(self, *interfaces: str) -> None:
        self.channels = RelayChannels()
        self.counters = RelayCounters()
        self.data = SimpleNamespace(counters=lambda: self.counters)
        self.configuration = SimpleNamespace(relay=SimpleNamespace(interfaces=interfaces or ("lan0",)))


async def test_a_channel_shows_its_own_times_and_traffic():
    role, clock = Role(), Clock(StillLoop())
    role.channels.set_interest(FIRST, SSM, Filter.include([ONE, TWO]), clock.now - 60)
    role.counters.channels[Channel(ONE, SSM)] = Traffic(3, 300)
    role.counters.seen_at[Channel(ONE, SSM)] = clock.now - 4
    before = datetime.now(UTC).timestamp() - 0.001
    rows = {row.source: row for row in RelayViews(role, clock).channels()}
    assert (rows[ONE].packets, rows[ONE].bytes, rows[ONE].incoming_interface) == (3, 300, "lan0")
    assert rows[ONE].last_packet_age == 4
    assert before <= rows[ONE].since.timestamp() + 60 <= datetime.now(UTC).timestamp() + 0.001
    assert (rows[TWO].packets, rows[TWO].last_packet_age) == (0, None)
    assert rows[ONE].tunnels == [str(FIRST)]


async def test_an_any_source_channel_shows_what_came_for_its_group():
    role, clock = Role("lan0", "lan1"), Clock(StillLoop())
    role.channels.set_interest(FIRST, ASM, Filter.exclude([TWO]), clock.now)
    for source, age in ((ONE, 9), (ip_address("198.51.100.3"), 2)):
        role.counters.channels[Channel(source, ASM)] = Traffic(1, 100)
        role.counters.seen_at[Channel(source, ASM)] = clock.now - age
    (row,) = RelayViews(role, clock).channels()
    assert (row.packets, row.bytes) == (2, 200)
    assert row.last_packet_age == 2
    assert row.interests[0].excluded_sources == [TWO]
    assert row.incoming_interface is None


async def test_only_64_subscribers_are_listed_and_all_are_counted():
    role, clock = Role(), Clock(StillLoop())
    for port in range(1, 101):
        role.channels.set_interest(Endpoint(FIRST.address, port), SSM, Filter.include([ONE]), clock.now)
    (row,) = RelayViews(role, clock).channels()
    assert (len(row.tunnels), row.tunnel_count, len(row.interests), row.interest_count) == (64, 100, 64, 100)

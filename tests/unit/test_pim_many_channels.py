"""Hundreds of thousands of (S,G) on one interface: timers stay served, counted in calls and packets, not in seconds."""

from __future__ import annotations

from ipaddress import IPv4Address

from scripted.pim_peer import HIGHER, LOWER, OURS, beside_neighbors, greet, messages, plain, router, wanted

from agent.protocol.channels import NOTHING, Address, Channel
from agent.protocol.pim import PimInterface
from agent.protocol.pim_events import NeighborDown
from agent.protocol.pim_packet import decode_packet, encode_packet
from agent.protocol.wire.pim import Hello, JoinPrune, pack_join_prunes

CHANNELS = 200_000
SHARE = 500
"""States that one call of `handle_timer` looks at, at most, of each part."""

FIRST_GROUP, FIRST_SOURCE = 0xE801_0000, 0x0A00_0000
PER_GROUP = 4


def channel(number: int) -> Channel:
    return Channel(IPv4Address(FIRST_SOURCE + number), IPv4Address(FIRST_GROUP + number // PER_GROUP))


def stream(join: bool, count: int = CHANNELS, holdtime: int = 210) -> list[bytes]:
    entries = [(each.group, plain(each.source)) for each in map(channel, range(count))]
    said = pack_join_prunes(router(OURS), holdtime, entries if join else (), () if join else entries, 1500)
    return [encode_packet(message, router(LOWER), IPv4Address("224.0.0.13")) for message in said]


def test_timers_are_served_amid_a_stream_of_joins_and_amid_its_end():
    """While they come no Hello is late; when all expire at once each call ends a share, and hides nothing behind it."""
    machine = beside_neighbors(LOWER)
    hellos, now = [], 0.0
    for packet in stream(join=True):
        now += 0.05
        machine.receive_packet(packet, now)
        if (deadline := machine.next_deadline()) is not None and deadline <= now:
            machine.handle_timer(now)
        hellos += [now for packet in machine.packets_to_send() if isinstance(decode_packet(packet).message, Hello)]
    assert machine.channel_count == CHANNELS
    gaps = [after - before for before, after in zip([0.0, *hellos], hellos, strict=False)]
    assert len(hellos) == int(now // 30)
    assert max(gaps) <= 30 + 0.1
    greet(machine, HIGHER, holdtime=100, now=now)
    greet(machine, 3, holdtime=60, now=now)
    machine.events()
    all_expire(machine, now + 210, {router(3), router(HIGHER)})


def all_expire(machine: PimInterface, now: float, lost: set[Address]) -> None:
    calls, left = 0, machine.channel_count
    while (deadline := machine.next_deadline()) is not None and deadline <= now:
        machine.handle_timer(now)
        calls += 1
        assert left - machine.channel_count <= SHARE
        left = machine.channel_count
        if calls == 1:
            assert {event.address for event in machine.events() if isinstance(event, NeighborDown)} == lost
    assert machine.channel_count == 0
    assert CHANNELS / SHARE <= calls <= CHANNELS / SHARE + 2


def test_refreshed_channels_cost_the_timers_no_more_than_once_a_holdtime():
    """A stream repeated every minute keeps everything; timers look at a channel about once per holdtime."""
    machine = beside_neighbors(LOWER)
    calls, count = 0, 5_000
    some = stream(join=True, count=count)
    for minute in range(12):
        for packet in some:
            machine.receive_packet(packet, minute * 60.0)
        for second in range(minute * 60, minute * 60 + 60):
            while (deadline := machine.next_deadline()) is not None and deadline <= second:
                machine.handle_timer(second)
                calls += 1
        machine.packets_to_send()
    assert machine.channel_count == count
    rounds = 12 * 60 / 180
    assert calls <= rounds * (count / SHARE + 2) + 12 * 60 / 30 + 2


def test_prunes_of_all_wait_and_are_echoed_in_full_messages():
    machine = beside_neighbors(LOWER, HIGHER)
    count = 5_000
    for packet in stream(join=True, count=count):
        machine.receive_packet(packet, 1)
    for packet in stream(join=False, count=count):
        machine.receive_packet(packet, 10)
    machine.events()
    echoed = packets = 0
    while (deadline := machine.next_deadline()) is not None and deadline <= 13:
        machine.handle_timer(13)
        said = messages(machine, JoinPrune)
        packets += len(said)
        echoed += sum(len(each.prunes) for message in said for each in message.groups)
    assert echoed == count
    assert packets < count / 50
    assert all(state == NOTHING for state in wanted(machine).values())
    assert machine.channel_count == 0

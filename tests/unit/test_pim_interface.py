"""The PIM interface machine: who is believed, and which part hears what."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scripted.pim_peer import (
    HIGHER,
    LOWER,
    OURS,
    beside_neighbors,
    greet,
    group,
    hear,
    interface,
    join,
    listed,
    messages,
    plain,
    router,
    rpt,
    run,
    secondary,
    sent,
    shared,
    source,
    star,
    tell,
    wanted,
)

from agent.protocol.channels import NOTHING, Channel, Family
from agent.protocol.pim_events import AssertChanged, AssertOutcome, BootstrapReceived, SourceRegistered
from agent.protocol.pim_packet import ALL_PIM_ROUTERS, decode_packet, encode_packet
from agent.protocol.wire import ip, pim
from agent.protocol.wire.pim import (
    PROTOCOL_PIM,
    Assert,
    Bootstrap,
    Hello,
    JoinPrune,
    Register,
    RegisterStop,
)

SG = Channel(source(1), group(1))
HELLO = Hello(105)


NEIGHBOR = router(LOWER)


def packet(message=HELLO, sender=NEIGHBOR, destination=None, **fields):
    """An IP packet with a message, its fields as told."""
    target = destination or ALL_PIM_ROUTERS[Family.of(sender)]
    payload = fields.pop("payload", None) or pim.encode(message, sender, target)
    said = {"protocol": PROTOCOL_PIM, "ttl": 1, **fields}
    return ip.IPPacket(sender, target, said.pop("protocol"), payload, **said).encode()


# Who is believed


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (packet()[:-1], "truncated"),
        (packet(payload=pim.encode(HELLO, router(1), router(2))[:-1] + b"\x01"), "bad_checksum"),
        (packet(payload=b"\x20\x00\xdf\xff"), "not raised"),
        (packet(payload=b"\x10\x00\xef\xff"), "malformed"),
        (packet(protocol=2), "unknown_type"),
        (packet(more_fragments=True), "malformed"),
        (packet(ttl=2), "ttl_not_1"),
        (packet(ttl=255), "ttl_not_1"),
        (packet(sender=router(LOWER, Family.IPV6)), "wrong_family"),
        (packet(sender=router(OURS)), "own_packet"),
        (packet(sender=secondary(1)), "own_packet"),
        (packet(sender=ip_address("0.0.0.0")), "source_not_unicast"),
        (packet(sender=ip_address("224.0.0.13")), "source_not_unicast"),
        (packet(destination=ip_address("224.0.0.1")), "wrong_destination"),
        (packet(destination=router(OURS)), "wrong_destination"),
        (packet(Assert(group(1), source(1), 1, 1)), "not_a_neighbor"),
        (packet(JoinPrune(router(OURS), 210)), "not_a_neighbor"),
        (packet(Bootstrap(router(9), 0, b"\0\0\0\0\1\0" + router(9).packed)), "not_a_neighbor"),
        (packet(Register(b""), ttl=64), "wrong_destination"),
        (packet(RegisterStop(shared(1), source(1))), "wrong_destination"),
    ],
)
def test_packets_that_are_not_believed_are_counted(data, reason):
    machine = beside_neighbors()
    machine.set_address(router(OURS), (secondary(1),), 0)
    machine.receive_packet(data, 1)
    assert machine.refused == ({} if reason == "not raised" else {reason: 1})
    if reason != "not raised":
        assert machine.neighbors() == []
        assert not machine.received


def test_ipv6_is_spoken_from_link_local_addresses_only():
    machine = interface(Family.IPV6)
    machine.receive_packet(packet(sender=source(1, Family.IPV6)), 1)
    assert machine.refused == {"source_not_link_local": 1}
    machine.receive_packet(packet(sender=router(LOWER, Family.IPV6)), 1)
    assert machine.received == {"hello": 1}


@pytest.mark.parametrize("why", ["not started", "no address"])
def test_nothing_is_believed_while_we_do_not_run(why):
    machine = interface(started=why != "not started")
    if why == "no address":
        machine.set_address(None, (), 0)
    machine.receive_packet(packet(), 1)
    assert machine.refused == {"not_running": 1}
    assert sent(machine) == []


def test_address_may_come_before_and_after_the_start():
    machine = interface(started=False)
    machine.set_address(router(HIGHER), (secondary(1),), 0)
    assert machine.next_deadline() is None
    assert machine.designated_router is None
    machine.start(1)
    assert machine.designated_router == router(HIGHER)
    machine.handle_timer(1)
    assert [(each.source, each.message.addresses) for each in sent(machine)] == [(router(HIGHER), (secondary(1),))]


def test_new_secondary_addresses_wait_for_the_first_hello():
    machine = interface(random=0.5)
    machine.set_address(router(OURS), (secondary(1),), 0)
    assert sent(machine) == []
    machine.handle_timer(2.5)
    assert [each.message.addresses for each in sent(machine)] == [(secondary(1),)]


def test_nobody_says_goodbye_before_a_hello():
    machine = interface(random=0.5)
    machine.set_address(None, (secondary(1),), 0)
    machine.set_address(None, (), 0)
    machine.set_address(router(OURS), (), 0)
    machine.stop(1)
    assert sent(machine) == []


# Which part hears what


def test_asserts_settle_who_forwards():
    machine = beside_neighbors(LOWER, HIGHER)
    machine.set_forwarding(SG, (200, 0), 1)
    machine.data_received(SG, 1)
    assert messages(machine, Assert) == [Assert(SG.group, SG.source, 200, 0)]
    assert tell(machine, AssertChanged) == [AssertChanged(SG, AssertOutcome.WINNER, router(OURS))]
    hear(machine, Assert(SG.group, SG.source, 10, 10), router(HIGHER), 2)
    assert tell(machine, AssertChanged) == [AssertChanged(SG, AssertOutcome.LOSER, router(HIGHER))]
    assert machine.lost_assert(SG)
    run(machine, 181)
    assert machine.lost_assert(SG)
    run(machine, 182)
    assert tell(machine, AssertChanged) == [AssertChanged(SG, AssertOutcome.NO_INFO, None)]
    machine.set_forwarding(SG, None, 183)
    assert not machine.lost_assert(SG)


def test_assert_without_a_hello_before_brings_one():
    """RFC 7761 §4.3.1."""
    machine = interface(random=0.9)
    machine.set_forwarding(SG, (200, 0), 1)
    machine.data_received(SG, 1)
    assert [type(each.message) for each in sent(machine)] == [Hello, Assert]


@pytest.mark.parametrize("options", [{"holdtime": 0}, {"generation_id": 99}])
def test_winner_that_goes_or_restarts_frees_the_channel(options):
    """RFC 7761 §4.6.1: the current winner's GenID changes, or its Neighbor Liveness Timer expires."""
    machine = beside_neighbors(HIGHER)
    machine.set_forwarding(SG, (200, 0), 1)
    hear(machine, Assert(SG.group, SG.source, 10, 10), router(HIGHER), 2)
    machine.events()
    greet(machine, HIGHER, now=3, **options)
    assert tell(machine, AssertChanged) == [AssertChanged(SG, AssertOutcome.NO_INFO, None)]


@pytest.mark.parametrize("channel", [SG, Channel(None, shared(1))])
def test_join_to_a_loser_frees_the_channel(channel):
    """RFC 7761 §4.6.1, §4.6.2: a Join to us says that somebody has not heard the winner."""
    machine = beside_neighbors(LOWER, HIGHER)
    machine.set_forwarding(channel, (200, 0), 1)
    hear(machine, Assert(channel.group, channel.source, 10, 10, rpt=channel.source is None), router(HIGHER), 2)
    assert machine.lost_assert(channel)
    shared_tree = listed(shared(1), joins=(rpt(source(9)),))
    hear(machine, JoinPrune(router(OURS), 210, (shared_tree,)), now=3)
    assert machine.lost_assert(channel)
    hear(machine, join(channel), now=3)
    assert not machine.lost_assert(channel)


def test_registers_are_answered_from_the_rendezvous_address():
    machine = interface()
    machine.set_rendezvous_addresses([secondary(9)])
    inner = ip.IPPacket(source(1), shared(1), 17, b"data").encode()
    machine.receive_packet(packet(Register(inner), source(50), secondary(9), ttl=60), 1)
    assert machine.events()[-1] == SourceRegistered(Channel(source(1), shared(1)))
    (stop,) = sent(machine)
    assert stop.message == RegisterStop(shared(1), source(1))
    assert (stop.source, stop.destination, stop.ttl) == (secondary(9), source(50), 64)
    machine.receive_packet(packet(Register(b"\x00"), source(50), secondary(9), ttl=60), 2)
    assert sum(machine.refused.values()) == 1


def test_register_stop_concerns_nobody():
    machine = interface()
    machine.receive_packet(packet(RegisterStop(shared(1), source(1)), source(50), router(OURS), ttl=60), 1)
    assert (machine.received, machine.refused) == ({"register_stop": 1}, {})


BSR = router(9)
BODY = b"\0\1\x1e\x05\1\0" + BSR.packed


@pytest.mark.parametrize(
    ("forward", "no_forward", "destination", "handed_on"),
    [
        (True, False, None, True),
        (False, False, None, False),
        (True, True, None, False),
        (True, False, router(OURS), False),
    ],
)
def test_bootstrap_is_handed_on_when_configured(forward, no_forward, destination, handed_on):
    """RFC 5059 §3.4, §3.5: what came by unicast, or says so, stays here."""
    machine = beside_neighbors(LOWER, forward_bootstrap=forward)
    message = Bootstrap(BSR, 5, BODY, no_forward=no_forward)
    data = packet(message, destination=destination)
    machine.receive_packet(data, 1)
    expected = [BootstrapReceived(BSR, router(LOWER), decode_packet(data).payload)] if handed_on else []
    assert tell(machine, BootstrapReceived) == expected
    assert machine.received["bootstrap"] == 1


def test_stop_forgets_what_asserts_settled():
    machine = beside_neighbors(HIGHER)
    machine.set_forwarding(SG, (200, 0), 1)
    hear(machine, Assert(SG.group, SG.source, 10, 10), router(HIGHER), 2)
    hear(machine, join(Channel(None, shared(1))), router(HIGHER), 2)
    machine.events()
    machine.stop(3)
    assert not machine.lost_assert(SG)
    assert wanted(machine) == {shared(1): NOTHING}


def test_views_tell_what_is_joined_by_whom_and_until_when():
    machine = beside_neighbors(LOWER)
    hear(machine, join(SG), now=1)
    one = listed(shared(1), joins=(star(router(OURS)), plain(source(2))), prunes=(rpt(source(3)),))
    hear(machine, JoinPrune(router(OURS), 100, (one,)), now=1)
    views = [
        (str(view.channel), view.rpt, view.state.value, view.expires, view.neighbor) for view in machine.channels()
    ]
    assert views == [
        ("(203.0.113.1,232.1.1.1)", False, "join", 211, router(LOWER)),
        ("(*,239.1.1.1)", False, "join", 101, router(LOWER)),
        ("(203.0.113.2,239.1.1.1)", False, "join", 101, router(LOWER)),
        ("(203.0.113.3,239.1.1.1)", True, "prune", 101, router(LOWER)),
    ]
    assert machine.channel_count == 4


def test_packets_go_out_whole_and_once():
    machine = interface()
    machine.handle_timer(0)
    (data,) = machine.packets_to_send()
    assert data == encode_packet(decode_packet(data).message, router(OURS), ALL_PIM_ROUTERS[Family.IPV4])
    assert machine.packets_to_send() == []

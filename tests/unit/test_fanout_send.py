"""The fan-out over loopback sockets: who gets what, in which order, how soon, and what errors do."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from types import SimpleNamespace

import pytest
import pytest_asyncio
from scripted.still_loop import StillLoop

from agent.dataplane.engine import Refusal
from agent.dataplane.fanout import HOLD, Fanout
from agent.dataplane.fanout_oversize import Oversize
from agent.net.precise_timer import PreciseTimer
from agent.net.send_batch import Batch, BatchSender, Outcome
from agent.protocol.channels import NOTHING, Address, Channel, Endpoint, Family, Filter

GROUP, OTHER_GROUP = ip_address("232.1.1.1"), ip_address("232.1.1.2")
ONE, TWO = ip_address("10.0.0.1"), ip_address("10.0.0.2")
LOOPBACK = ip_address("127.0.0.1")


def packet(source: Address = ONE, group: Address = GROUP, *, size: int = 100, number: int = 0) -> bytes:
    if source.version == 6:
        return (
            struct.pack("!IHBB", 6 << 28, size - 40, 17, 9)
            + source.packed
            + group.packed
            + bytes([number]) * (size - 40)
        )
    return (
        struct.pack("!BBHHHBBH", 0x45, 0, size, number, 0, 9, 17, 0)
        + source.packed
        + group.packed
        + bytes([number % 256]) * (size - 20)
    )


class Gateway:
    def __init__(self, family: Family = Family.IPV4) -> None:
        self.socket = socket.socket(socket.AF_INET if family is Family.IPV4 else socket.AF_INET6, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1" if family is Family.IPV4 else "::1", 0))
        self.socket.setblocking(False)
        self.endpoint = Endpoint(ip_address(self.socket.getsockname()[0]), self.socket.getsockname()[1])
        self.received: list[bytes] = []

    def poll(self) -> list[bytes]:
        while True:
            try:
                data, _ = self.socket.recvfrom(65_536)
            except BlockingIOError:
                return self.received
            assert data[:2] == b"\x06\x00"
            self.received.append(data[2:])

    async def gets(self, expected: list[bytes]) -> None:
        try:
            async with asyncio.timeout(30):
                while len(self.poll()) < len(expected):
                    await asyncio.sleep(0.001)
        except TimeoutError:
            pass
        assert self.received == expected


class HeldTimer:
    """Stands in for PreciseTimer: expires when a test says so."""

    def __init__(self, _loop: object, callback: Callable[[], None]) -> None:
        self.expire = callback
        self.deadline: float | None = None

    def set(self, deadline: float) -> None:
        self.deadline = deadline

    def close(self) -> None:
        self.deadline = None


@pytest.fixture
def gateways() -> Iterator[Callable[..., list[Gateway]]]:
    with ExitStack() as stack:

        def make(count: int, family: Family = Family.IPV4) -> list[Gateway]:
            made = [Gateway(family) for _ in range(count)]
            for gateway in made:
                stack.callback(gateway.socket.close)
            return made

        yield make


@pytest_asyncio.fixture
async def make_fanout() -> AsyncIterator[Callable[..., Fanout]]:
    with ExitStack() as stack:

        def make(loop: object = None, **options: object) -> Fanout:
            ipv4 = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            ipv4.bind(("127.0.0.1", 0))
            ipv6 = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            ipv6.bind(("::1", 0))
            for one in (ipv4, ipv6):
                one.setblocking(False)
            sockets = {Family.IPV4: ipv4, Family.IPV6: ipv6}
            fanout = Fanout(loop or asyncio.get_running_loop(), sockets, **options)  # type: ignore[arg-type]
            stack.callback(fanout.close)
            return fanout

        yield make


@pytest.fixture
def still(make_fanout, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Fanout, StillLoop, HeldTimer]]:
    """A fan-out for which time stands still: packets are held until the test lets the timer expire."""

    def make(**options: object) -> tuple[Fanout, StillLoop, HeldTimer]:
        timers: list[HeldTimer] = []

        def timer(loop: object, callback: Callable[[], None]) -> HeldTimer:
            timers.append(HeldTimer(loop, callback))
            return timers[-1]

        monkeypatch.setattr("agent.dataplane.fanout.PreciseTimer", timer)
        loop = StillLoop()
        fanout = make_fanout(loop, **options)
        return fanout, loop, timers[0]

    return make


@pytest.mark.parametrize("segmentation", [True, False])
async def test_each_tunnel_gets_what_its_filter_admits(make_fanout, gateways, segmentation: bool) -> None:
    fanout = make_fanout(segmentation=segmentation)
    included, excluded, everything, nothing = gateways(4)
    fanout.set_interest(included.endpoint, LOOPBACK, GROUP, Filter.include([ONE]))
    fanout.set_interest(excluded.endpoint, None, GROUP, Filter.exclude([ONE]))
    fanout.set_interest(everything.endpoint, LOOPBACK, GROUP, Filter.exclude())
    fanout.set_interest(nothing.endpoint, LOOPBACK, OTHER_GROUP, Filter.exclude())
    first = [packet(ONE, number=number) for number in range(5)]
    second = [packet(TWO, number=number) for number in range(5)]
    fanout.deliver([*first, *second])
    await included.gets(first)
    await excluded.gets(second)
    await everything.gets([*first, *second])
    await nothing.gets([])
    assert fanout.merged(GROUP) == Filter.exclude()


async def test_ipv6_packets_travel_through_ipv4_tunnels_and_the_other_way_round(make_fanout, gateways) -> None:
    fanout = make_fanout()
    (ipv4,), (ipv6,) = gateways(1), gateways(1, Family.IPV6)
    group, source = ip_address("ff3e::8000:1"), ip_address("2001:db8::1")
    for gateway in (ipv4, ipv6):
        fanout.set_interest(gateway.endpoint, None, group, Filter.include([source]))
        fanout.set_interest(gateway.endpoint, None, GROUP, Filter.include([ONE]))
    sent = [packet(source, group, number=1), packet(number=2)]
    fanout.deliver(sent)
    await ipv4.gets(sent)
    await ipv6.gets(sent)


@pytest.mark.parametrize("segmentation", [True, False])
async def test_order_within_a_channel_is_kept_whatever_the_sizes(make_fanout, gateways, segmentation: bool) -> None:
    fanout = make_fanout(segmentation=segmentation, hold_above=-1.0)
    (gateway,) = gateways(1)
    fanout.set_interest(gateway.endpoint, None, GROUP, Filter.exclude())
    sizes = [100, 100, 60, 100, 1316, 1316, 1316, 200, 200, 1400, 30, 9000, 9000, 30_000, 30_000, 30_000, 65_000, 100]
    sent = [packet(size=size, number=number) for number, size in enumerate(sizes)]
    for start in range(0, len(sent), 4):
        fanout.deliver(sent[start : start + 4])
    await gateway.gets(sent)
    assert fanout.counters().errors == {}


async def test_a_burst_of_hundreds_arrives_whole(make_fanout, gateways) -> None:
    fanout = make_fanout()
    (gateway,) = gateways(1)
    fanout.set_interest(gateway.endpoint, None, GROUP, Filter.exclude())
    sent = [packet(size=80, number=number) for number in range(200)]
    fanout.deliver(sent)
    await gateway.gets(sent)


async def test_a_waiting_packet_leaves_within_two_milliseconds(still, gateways) -> None:
    fanout, loop, timer = still(hold_above=-1.0)
    (gateway,) = gateways(1)
    fanout.set_interest(gateway.endpoint, None, GROUP, Filter.exclude())
    sent = [packet(number=number) for number in range(4)]
    for first, second in (sent[:2], sent[2:]):
        begun = loop.now
        fanout.deliver([first])
        loop.now += HOLD / 2
        fanout.deliver([second])
        assert fanout.counters().sent.packets == sent.index(first)
        assert timer.deadline == begun + HOLD < begun + 0.002
        loop.now = timer.deadline
        timer.expire()
        assert fanout.counters().sent.packets == sent.index(first) + 2
    await gateway.gets(sent)


async def test_a_packet_that_waited_long_enough_leaves_with_the_next_one_whatever_the_timer_does(
    still, gateways
) -> None:
    fanout, loop, _ = still(hold_above=-1.0)
    (gateway,) = gateways(1)
    fanout.set_interest(gateway.endpoint, None, GROUP, Filter.exclude())
    sent = [packet(number=number) for number in range(2)]
    fanout.deliver(sent[:1])
    loop.now += HOLD
    fanout.deliver(sent[1:])
    assert fanout.counters().sent.packets == 2
    await gateway.gets(sent)


async def test_packets_wait_from_a_load_on_and_no_more_when_it_is_over(still, gateways) -> None:
    fanout, loop, timer = still(hold_above=1000.0)
    (gateway,) = gateways(1)
    fanout.set_interest(gateway.endpoint, None, GROUP, Filter.exclude())
    loop.now += 0.02
    fanout.deliver([packet()] * 22)  # 1100 a second
    assert (fanout.counters().sent.packets, timer.deadline) == (0, loop.now + HOLD)
    loop.now += 0.02
    fanout.deliver([packet()] * 18)  # 900 a second
    assert fanout.counters().sent.packets == 40
    await gateway.gets([packet()] * 40)


async def test_the_precise_timer_expires_once_and_never_early() -> None:
    loop = asyncio.get_running_loop()
    expired: list[float] = []
    timer = PreciseTimer(loop, lambda: expired.append(loop.time()))
    deadline = loop.time() + 0.003
    timer.set(loop.time() + 600)
    timer.set(deadline)
    async with asyncio.timeout(30):
        while not expired:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    timer.close()
    (at,) = expired
    assert at >= deadline


async def test_an_idle_relay_sends_at_once(still, gateways) -> None:
    fanout, _, timer = still()
    (gateway,) = gateways(1)
    fanout.set_interest(gateway.endpoint, None, GROUP, Filter.exclude())
    fanout.deliver([packet()])
    assert (fanout.counters().sent.packets, timer.deadline) == (1, None)
    await gateway.gets([packet()])


async def test_packets_that_wait_share_a_burst(still, gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = BatchSender.send

    def record(self: BatchSender, batch: Batch, payload: bytes, segment: int = 0, start: int = 0) -> Outcome:
        calls.append(len(payload) // segment if segment else 1)
        return original(self, batch, payload, segment, start)

    monkeypatch.setattr(BatchSender, "send", record)
    fanout, loop, timer = still(hold_above=-1.0)
    (gateway,) = gateways(1)
    fanout.set_interest(gateway.endpoint, None, GROUP, Filter.exclude())
    sent = [packet(number=number) for number in range(67)]
    for one in sent:
        fanout.deliver([one])
    loop.now += HOLD
    timer.expire()
    await gateway.gets(sent)
    assert calls == [64, 3]


async def test_interest_changes_apply_from_the_next_packet(make_fanout, gateways) -> None:
    fanout = make_fanout(hold_above=-1.0)
    stays, leaves, comes = gateways(3)
    for gateway in (stays, leaves):
        fanout.set_interest(gateway.endpoint, None, GROUP, Filter.include([ONE]))
    before, after = packet(number=1), packet(number=2)
    fanout.deliver([before])
    fanout.set_interest(leaves.endpoint, None, GROUP, NOTHING)
    fanout.set_interest(comes.endpoint, None, GROUP, Filter.include([ONE, TWO]))
    fanout.deliver([after])
    await stays.gets([before, after])
    await comes.gets([after])
    await leaves.gets([before])
    assert fanout.merged(GROUP) == Filter.include([ONE, TWO])
    assert fanout.remove_tunnel(stays.endpoint) == {GROUP}
    assert fanout.remove_tunnel(comes.endpoint) == {GROUP}
    assert fanout.merged(GROUP).wants_nothing
    assert fanout.groups() == frozenset()
    assert fanout.remove_tunnel(comes.endpoint) == frozenset()


async def test_counters_agree_with_what_was_received(make_fanout, gateways) -> None:
    fanout = make_fanout()
    both, one_only = gateways(2)
    fanout.set_interest(both.endpoint, None, GROUP, Filter.exclude())
    fanout.set_interest(one_only.endpoint, None, GROUP, Filter.include([ONE]))
    fanout.deliver([packet(ONE, size=200), packet(ONE, size=200), packet(TWO, size=50), packet(TWO, OTHER_GROUP)])
    fanout.set_interest(one_only.endpoint, None, GROUP, Filter.include([TWO]))
    fanout.deliver([packet(TWO, size=50), packet(ip_address("127.0.0.1")), packet(ONE, ip_address("224.0.0.9"))])
    fanout.deliver([packet(TWO, OTHER_GROUP)])
    counters = fanout.counters()
    assert {endpoint: (traffic.packets, traffic.bytes) for endpoint, traffic in counters.tunnels.items()} == {
        both.endpoint: (4, 500),
        one_only.endpoint: (3, 450),
    }
    assert {channel: (traffic.packets, traffic.bytes) for channel, traffic in counters.channels.items()} == {
        Channel(ONE, GROUP): (2, 400),
        Channel(TWO, GROUP): (2, 100),
    }
    assert counters.refused == {
        Refusal.NOT_SUBSCRIBED: 2,
        Refusal.BAD_INNER_HEADER: 1,
        Refusal.LINK_LOCAL_GROUP: 1,
    }
    assert counters.errors == {}


@pytest.mark.parametrize("segmentation", [True, False])
async def test_one_tunnel_that_errs_costs_the_others_nothing(make_fanout, gateways, segmentation: bool) -> None:
    fanout = make_fanout(segmentation=segmentation)
    first, last = gateways(2)
    # Loopback-bound, the socket cannot reach this address: EINVAL or ENETUNREACH.
    unreachable = Endpoint(ip_address("192.0.2.1"), 2000)
    for endpoint in (first.endpoint, unreachable, last.endpoint):
        fanout.set_interest(endpoint, None, GROUP, Filter.exclude())
    sent = [packet(number=number) for number in range(6)]
    fanout.deliver(sent[:3])
    await asyncio.sleep(0)
    fanout.deliver(sent[3:])
    await first.gets(sent)
    await last.gets(sent)
    counters = fanout.counters()
    assert counters.tunnels[unreachable].packets == 0
    assert counters.tunnels[last.endpoint].packets == 6
    assert sum(counters.tunnel_errors[unreachable].values()) == 6
    assert sum(counters.errors.values()) == 6


async def test_a_gateway_that_is_gone_costs_the_others_nothing(make_fanout, gateways) -> None:
    fanout = make_fanout()
    gone, stays = gateways(2)
    gone.socket.close()
    # With IP_RECVERR the ICMP error of one datagram is reported on the next send to anybody.
    for sender in fanout._senders.values():
        if sender.family is Family.IPV4:
            sender._socket.setsockopt(socket.IPPROTO_IP, 11, 1)
    for gateway in (gone, stays):
        fanout.set_interest(gateway.endpoint, None, GROUP, Filter.exclude())
    sent = [packet(number=number) for number in range(20)]
    for one in sent:
        fanout.deliver([one])
    await stays.gets(sent)


async def test_a_full_socket_buffer_delays_and_loses_nothing(make_fanout, gateways, monkeypatch) -> None:
    fanout = make_fanout()
    tunnels = gateways(3)
    for gateway in tunnels:
        fanout.set_interest(gateway.endpoint, None, GROUP, Filter.exclude())
    original = BatchSender.send
    full = SimpleNamespace(left=4)

    def blocked(self: BatchSender, batch: Batch, payload: bytes, segment: int = 0, start: int = 0) -> Outcome:
        if full.left:
            full.left -= 1
            if start == 0:
                original(self, Batch(batch.destinations[:1]), payload, segment)
            return Outcome(1)
        return original(self, batch, payload, segment, start)

    monkeypatch.setattr(BatchSender, "send", blocked)
    sent = [packet(number=number) for number in range(8)]
    for start in range(0, 8, 2):
        fanout.deliver(sent[start : start + 2])
    for gateway in tunnels:
        await gateway.gets(sent)
    assert full.left == 0


async def test_a_socket_that_stays_full_drops_and_counts(still, gateways, monkeypatch) -> None:
    fanout, _, _ = still()
    (gateway,) = gateways(1)
    fanout.set_interest(gateway.endpoint, None, GROUP, Filter.exclude())

    def full(self: BatchSender, batch: Batch, payload: bytes, segment: int = 0, start: int = 0) -> Outcome:
        return Outcome(start)

    monkeypatch.setattr(BatchSender, "send", full)
    for number in range(1000):
        fanout.deliver([packet(number=number)])
    counters = fanout.counters()
    assert counters.errors == {"ENOBUFS": 1000 - 512}
    assert counters.tunnels[gateway.endpoint].packets == 512


async def test_a_tunnel_the_kernel_does_not_segment_for_is_sent_single_datagrams(
    make_fanout, gateways, monkeypatch
) -> None:
    fanout = make_fanout()
    narrow, wide = gateways(2)
    for gateway in (narrow, wide):
        fanout.set_interest(gateway.endpoint, None, GROUP, Filter.exclude())
    original = BatchSender.send
    batches: list[tuple[int, int]] = []

    def refuse(self: BatchSender, batch: Batch, payload: bytes, segment: int = 0, start: int = 0) -> Outcome:
        batches.append((len(batch), segment))
        if segment and batch.destinations[0].endpoint == narrow.endpoint:
            done = original(self, Batch(batch.destinations[1:]), payload, segment)
            return Outcome(done.position + 1, [], [0])
        return original(self, batch, payload, segment, start)

    monkeypatch.setattr(BatchSender, "send", refuse)
    sent = [packet(size=1000, number=number) for number in range(6)]
    fanout.deliver(sent[:3])
    await asyncio.sleep(0)
    batches.clear()
    fanout.deliver(sent[3:])
    await narrow.gets(sent)
    await wide.gets(sent)
    assert sorted(batches) == [(1, 0), (1, 0), (1, 0), (1, 1002)]


async def test_more_tunnels_than_one_call_takes(make_fanout, gateways) -> None:
    fanout = make_fanout()
    (gateway,) = gateways(1)
    for number in range(2500):
        # Endpoints in 127/8 with our gateway's port; it is bound to 127.0.0.1, so only that one arrives.
        endpoint = Endpoint(ip_address(0x7F00_0001 + number), gateway.endpoint.port)
        fanout.set_interest(endpoint, None, GROUP, Filter.exclude())
    fanout.deliver([packet()])
    await gateway.gets([packet()])
    assert sum(traffic.packets for traffic in fanout.counters().tunnels.values()) == 2500


async def test_a_tunnel_without_a_socket_of_its_family_is_refused(gateways) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as only:
        only.setblocking(False)
        fanout = Fanout(asyncio.get_running_loop(), {Family.IPV4: only})
        with pytest.raises(ValueError, match="no socket"):
            fanout.set_interest(Endpoint(ip_address("::1"), 9), None, GROUP, Filter.exclude())
        fanout.close()


async def test_close_leaves_the_sockets_open(make_fanout, gateways) -> None:
    fanout = make_fanout(oversize=Oversize.REFUSE)
    (gateway,) = gateways(1)
    fanout.set_interest(gateway.endpoint, None, GROUP, Filter.exclude())
    fanout.close()
    fanout.close()
    for sender in fanout._senders.values():
        assert sender._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_local_address_and_checksum_are_set_on_the_wire() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as got,
    ):
        sender.setsockopt(socket.SOL_SOCKET, 11, 1)
        sender.setblocking(False)
        got.bind(("127.0.0.1", 0))
        got.settimeout(30)
        batch_sender = BatchSender(sender)
        assert sender.getsockopt(socket.SOL_SOCKET, 11) == 0
        endpoint = Endpoint(LOOPBACK, got.getsockname()[1])
        batch = Batch([batch_sender.destination(endpoint, ip_address(local)) for local in ("127.0.0.7", "127.0.0.8")])
        outcome = batch_sender.send(batch, b"ab" * 3, 2)
        assert outcome == Outcome(2)
        received = [got.recvfrom(10) for _ in range(6)]
        assert [(data, source[0]) for data, source in received] == [(b"ab", "127.0.0.7")] * 3 + [
            (b"ab", "127.0.0.8")
        ] * 3


async def test_what_was_sent_in_all_does_not_go_back_when_a_tunnel_goes(make_fanout, gateways):
    fanout = make_fanout()
    first, second = gateways(2)
    for gateway in (first, second):
        fanout.set_interest(gateway.endpoint, None, GROUP, Filter.include([ONE]))
    begun = asyncio.get_running_loop().time()
    fanout.deliver([packet()])
    delivered = asyncio.get_running_loop().time()
    await second.gets([packet()])
    fanout.remove_tunnel(first.endpoint)
    counters = fanout.counters()
    assert (counters.sent.packets, counters.sent.bytes) == (2, 200)
    assert list(counters.tunnels) == [second.endpoint]
    assert begun <= counters.seen_at[Channel(ONE, GROUP)] <= delivered

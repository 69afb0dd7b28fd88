"""What the fast engine keeps in the kernel's maps: slots, combinations of interfaces, plans."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace

import pytest

from agent.dataplane.engine import Traffic
from agent.dataplane.fast.counters import CounterArray
from agent.dataplane.fast.layout import TRAFFIC, Plane, index_key, interface_list
from agent.dataplane.fast.planning import Planner, Wish
from agent.dataplane.fast.port import Port
from agent.dataplane.fast.sets import InterfaceSets
from agent.dataplane.fast.slots import GRACE, NoRoomError, Slots
from agent.net.bpf.maps import BpfMap
from agent.protocol.channels import Channel

CHANNEL = Channel.parse("198.51.100.1", "232.1.1.1")
FAST = frozenset((Plane.XDP, Plane.XDP_MFC, Plane.TC))


class FakeMap:
    """A map in memory."""

    numbers = count(100)

    def __init__(self) -> None:
        self.fd = next(self.numbers)
        self.entries: dict[bytes, bytes] = {}
        self.is_closed = False

    def update(self, key: bytes, value: bytes) -> None:
        self.entries[key] = value

    def lookup(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def delete(self, key: bytes) -> bool:
        return self.entries.pop(key, None) is not None

    def keys(self) -> list[bytes]:
        return list(self.entries)

    def sums(self, index: int) -> tuple[int, ...]:
        return TRAFFIC.unpack(self.entries.get(index_key(index), bytes(TRAFFIC.size)))

    def columns(self, first: int, count: int) -> tuple[list[int], ...]:
        sums = [self.sums(index) for index in range(first, first + count)]
        return [packets for packets, _ in sums], [octets for _, octets in sums]

    def zero(self, index: int) -> None:
        raise AssertionError("counters are never set back")

    def close(self) -> None:
        self.is_closed = True


class FakePrograms:
    """Maps in memory."""

    def __init__(self) -> None:
        self.maps: dict[str, FakeMap] = {}
        self.outgoing: list[FakeMap] = []

    def map(self, name: str) -> FakeMap:
        return self.maps.setdefault(name, FakeMap())

    def program(self, _name: str) -> int:
        return 7

    def make_outgoing(self, _entries: int) -> FakeMap:
        self.outgoing.append(FakeMap())
        return self.outgoing[-1]

    def make_events(self, _callback: Callable[[bytes], None]) -> None:
        raise AssertionError

    def close(self) -> None:
        """Nothing is loaded."""


class FakeHandle:
    """A timer."""

    def cancel(self) -> None:
        """It is never run after the test."""


class FakeLoop:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> FakeHandle:
        self.calls.append((when, call))
        return FakeHandle()

    def call_later(self, delay: float, call: Callable[[], None]) -> FakeHandle:
        return self.call_at(self.now + delay, call)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [each for each in self.calls if each[0] <= self.now]
        self.calls = [each for each in self.calls if each[0] > self.now]
        for _, call in due:
            call()


def make_slots(most: int = 2) -> tuple[FakeLoop, FakeMap, Slots]:
    loop, counters = FakeLoop(), FakeMap()
    return loop, counters, Slots(loop, CounterArray(counters, 2, loop.time), most, "channel")  # type: ignore[arg-type]


def test_a_slot_that_is_used_again_counts_from_zero_and_loses_nothing() -> None:
    loop, counters, slots = make_slots(1)
    folded: list[Traffic] = []
    slot = slots.allocate()
    counters.update(index_key(slot), TRAFFIC.pack(5, 500))
    slots.retire(slot, folded.append)
    counters.update(index_key(slot), TRAFFIC.pack(6, 600))  # a packet that was on its way
    with pytest.raises(NoRoomError):
        slots.allocate()
    loop.pass_time(GRACE)
    assert folded == [Traffic(6, 600)]
    assert slots.allocate() == slot
    assert slots.read(slot) == Traffic(0, 0)
    counters.update(index_key(slot), TRAFFIC.pack(9, 900))
    assert slots.read(slot) == Traffic(3, 300)
    loop.pass_time(1)
    assert slots.total() == Traffic(9, 900)


def test_slots_retired_by_what_is_heard_at_a_release_wait_for_one_timer() -> None:
    loop, _, slots = make_slots(10)
    heard = [slots.allocate() for _ in range(4)]

    def hear() -> None:
        if heard:
            slots.retire(heard.pop(), lambda _counted: None)

    slots.before_reuse = hear
    slots.retire(slots.allocate(), lambda _counted: None)
    for _ in range(6):
        loop.pass_time(GRACE)
        assert len(loop.calls) <= 1
    assert slots.in_use == 0


def test_many_reads_share_a_snapshot_and_none_is_negative() -> None:
    loop, counters, slots = make_slots(100)
    taken = [slots.allocate() for _ in range(100)]
    for slot in taken:
        counters.update(index_key(slot), TRAFFIC.pack(1, 10))
    assert [slots.read(slot).packets for slot in taken] == [1] * 100
    counters.update(index_key(99), TRAFFIC.pack(2, 20))
    assert slots.read(99).packets == 1
    loop.pass_time(0.2)
    assert slots.read(99).packets == 2


def test_a_combination_is_made_once_and_kept_for_later() -> None:
    loop, programs = FakeLoop(), FakePrograms()
    sets = InterfaceSets(programs, loop.time, most=2)  # type: ignore[arg-type]
    one = sets.acquire((3, 4), copies=True)
    assert sets.acquire((3, 4), copies=True) is one
    assert len(programs.outgoing) == 1
    assert programs.maps["set_interfaces"].entries[index_key(one.number)] == interface_list((3, 4))
    assert programs.maps["sets"].entries[index_key(one.number)] == index_key(programs.outgoing[0].fd)
    assert programs.outgoing[0].is_closed, "the kernel holds it, no descriptor does"
    sets.release(one)
    sets.release(one)
    assert sets.in_use == 0
    assert sets.acquire((3, 4), copies=True) is one
    assert len(programs.outgoing) == 1


def test_a_number_is_used_again_only_after_a_grace() -> None:
    loop, programs = FakeLoop(), FakePrograms()
    sets = InterfaceSets(programs, loop.time, most=1)  # type: ignore[arg-type]
    one = sets.acquire((3, 4), copies=True)
    with pytest.raises(NoRoomError):
        sets.acquire((5,), copies=False)
    sets.release(one)
    with pytest.raises(NoRoomError):
        sets.acquire((5,), copies=False)
    loop.pass_time(GRACE)
    assert sets.acquire((5,), copies=False).number == one.number


def test_a_combination_with_an_interface_that_is_gone_is_used_no_more() -> None:
    loop, programs = FakeLoop(), FakePrograms()
    sets = InterfaceSets(programs, loop.time)  # type: ignore[arg-type]
    one = sets.acquire((3, 4), copies=True)
    sets.forget(4)
    assert sets.acquire((3, 4), copies=True) is not one


class Ports:
    """Interfaces that are what the test says."""

    def __init__(self, *ports: Port) -> None:
        self.ports = {port.name: port for port in ports}

    def get(self, name: str) -> Port | None:
        return self.ports.get(name)


class Tunnels:
    """One tunnel, seen by all planes."""

    def reason(self, name: str) -> str:
        return "" if name == "relay" else f"there is no tunnel {name}"

    def planes(self, _name: str) -> frozenset[Plane]:
        return FAST

    def plane_reason(self, _name: str, _plane: Plane) -> str:
        return ""


LAN = Port("lan", 5, bytes(6), 1500, FAST)
VLAN = Port("vlan", 4, bytes(6), 1400, frozenset((Plane.TC,)), {Plane.XDP: "a VLAN device is no target"})


@pytest.mark.parametrize(
    ("tunnels", "interfaces", "incoming", "plane", "indexes", "reason"),
    [
        (["relay"], ["lan"], None, Plane.XDP, (5,), ""),
        (["relay"], ["lan", "later"], None, Plane.XDP, (5,), ""),
        (["relay"], ["lan", "vlan"], None, Plane.TC, (4, 5), "xdp: vlan: a VLAN device is no target"),
        (["relay"], ["later"], None, Plane.USERSPACE, (), "has no outgoing interface that is up"),
        (["relay"], ["lan"], "native", Plane.USERSPACE, (), "comes in natively on native"),
        (["relay", "b"], ["lan"], None, Plane.USERSPACE, (), "comes through several tunnels"),
        (["b"], ["lan"], None, Plane.USERSPACE, (), "there is no tunnel b"),
        ([], ["lan"], None, Plane.USERSPACE, (), "has no tunnel"),
    ],
)
def test_plan(
    tunnels: list[str],
    interfaces: list[str],
    incoming: str | None,
    plane: Plane,
    indexes: tuple[int, ...],
    reason: str,
) -> None:
    planner = Planner(Ports(LAN, VLAN), Tunnels(), planes=(Plane.XDP, Plane.TC))  # type: ignore[arg-type]
    plan = planner.plan(CHANNEL, Wish(frozenset(tunnels), frozenset(interfaces), incoming))
    assert (plan.plane, plan.indexes) == (plane, indexes)
    assert plan.reason.startswith(reason)
    assert bool(plan.reason) == bool(reason)
    if plane is Plane.TC:
        assert plan.limit == 1400


def test_without_a_wish_everything_stays_in_userspace_without_a_reason() -> None:
    planner = Planner(Ports(LAN), Tunnels())  # type: ignore[arg-type]
    plan = planner.plan(CHANNEL, Wish(frozenset(("relay",)), frozenset(("lan",))))
    assert (plan.plane, plan.reason) == (Plane.USERSPACE, "")


class SlowMap(FakeMap):
    """Counters that take some time to read."""

    def __init__(self, loop: FakeLoop, seconds: float) -> None:
        super().__init__()
        self.loop, self.seconds, self.readings = loop, seconds, 0

    def columns(self, first: int, count: int) -> tuple[list[int], ...]:
        self.readings += 1
        self.loop.now += self.seconds
        return super().columns(first, count)


@pytest.mark.parametrize("seconds", [0.0004, 0.01, 0.06])
def test_snapshots_take_their_share_of_a_processor_however_often_they_are_asked_for(seconds: float) -> None:
    loop = FakeLoop()
    counters = SlowMap(loop, seconds)
    array = CounterArray(counters, 2, loop.time, 100)
    while loop.now < 10:
        array.used += 1  # channels join all the time
        array.all()
        array.soon(3)
        array.lately(5)
        loop.now += 0.002
    assert 0.5 < counters.readings * seconds / loop.now * 20 < 1.1


@pytest.mark.parametrize("cpus", [1, 8, 9, 64])
def test_numbers_are_summed_over_processors(cpus: int) -> None:
    chosen = random.Random(cpus)
    values = [[(chosen.randrange(1 << 40), chosen.randrange(1 << 50)) for _ in range(cpus)] for _ in range(50)]
    octets = b"".join(TRAFFIC.pack(*each) for element in values for each in element)
    table = SimpleNamespace(_stride=TRAFFIC.size, _cpus=cpus)
    packets, lengths = BpfMap._sum(table, memoryview(octets).cast("Q"))  # type: ignore[arg-type]
    assert packets == [sum(each[0] for each in element) for element in values]
    assert lengths == [sum(each[1] for each in element) for element in values]

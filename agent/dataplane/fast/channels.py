"""The channels in the kernel's maps: one entry for each that is set, whoever forwards it.

A program that found an entry reads it for less than a microsecond, and nothing keeps the kernel from giving the entry's
memory to another one meanwhile. A hash map waits for no grace period of RCU (kernel/bpf/hashtab.c): `alloc_htab_elem`
replaces an entry by the one that this processor replaced before (`extra_elems`), `free_htab_elem` puts a deleted one in
front of the free list, from where the next new one is taken. BPF_F_NO_PREALLOC is no better since Linux 6.1: what
`bpf_mem_cache_free` gets, the next `bpf_mem_cache_alloc` gives; RCU only stands before pages go back.

So when a processor stops in the middle of a packet, as a virtual one may, and the agent writes two entries before it
goes on, this packet may be counted for the other channel and leave by that one's interfaces. Where it was the tunnel's
entry, the packet may be refused (`wrong_relay`, `not_subscribed`). It is one packet on each processor, and no worse:
what entries name (`slots`, `sets`) is not used again for `GRACE`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from agent.dataplane.engine import Refusal, Traffic
from agent.dataplane.fast.events import FirstPackets
from agent.dataplane.fast.groups import FastGroups
from agent.dataplane.fast.layout import ChannelEntry, Plane, channel_key
from agent.dataplane.fast.planning import Plan, Wish
from agent.dataplane.fast.port_table import PortTable
from agent.dataplane.fast.programs import Programs
from agent.dataplane.fast.sets import InterfaceSet, InterfaceSets
from agent.dataplane.fast.slots import NoRoomError, Slots
from agent.dataplane.fast.tunnels import FastTunnels
from agent.protocol.channels import Channel

_FAILED: Final = "the kernel's maps"
_NOTHING: Final = Plan(Plane.USERSPACE, "not set yet")


@dataclass(slots=True, eq=False)
class FastChannel:
    """A channel that is set.

    Attributes:
        wish: how it is to be forwarded.
        plan: who does, as the map has it.
        entry: what is in the map, None while nothing is.
        escapes: the map has no room: the group goes to the sockets instead.
        fault: why the plan could not be carried out; empty when it was.
        sets: its combination of interfaces.
        indexes: interfaces it holds in the table of ports.
        slots: counters by tunnel.
        leaving: counters of former tunnels that may still count.
        former: what those before them counted.
        announced: tunnels whose first packet was told.
        is_local: its source is one of our own addresses.
        names: of the interfaces it goes out of, those that do not exist among them.
    """

    channel: Channel
    wish: Wish
    plan: Plan = _NOTHING
    entry: ChannelEntry | None = None
    escapes: bool = False
    fault: str = ""
    sets: InterfaceSet | None = None
    indexes: tuple[int, ...] = ()
    slots: dict[str, int] = field(default_factory=dict)
    leaving: set[int] = field(default_factory=set)
    former: Traffic = field(default_factory=Traffic)
    announced: set[str] = field(default_factory=set)
    is_local: bool = False
    names: frozenset[str] = frozenset()


class Trains(Protocol):
    """Told which tunnels must not give trains."""

    def __call__(self, name: str, *, wanted: bool) -> None:
        """The first channel of a tunnel uses TC, or the last one does no longer."""


class FastChannels:
    """Keeps the maps `channels4` and `channels6` with the counters, sets and ports they name.

    Nothing here raises because the kernel refuses: what cannot be written is left to userspace, and `fault` says why.

    Args:
        programs: the loaded object.
        slots: counters of channels.
        tunnels: the tunnels' numbers.
        groups: where channels go that have no room.
        sets: combinations of interfaces.
        ports: the interfaces themselves.
        first_packets: told of slots in which a first packet is to come.
        trains: told of tunnels whose channels use TC.
    """

    def __init__(
        self,
        programs: Programs,
        slots: Slots,
        tunnels: FastTunnels,
        groups: FastGroups,
        sets: InterfaceSets,
        ports: PortTable,
        first_packets: FirstPackets,
        trains: Trains,
    ) -> None:
        self._maps = {4: programs.map("channels4"), 6: programs.map("channels6")}
        self._slots = slots
        self._tunnels = tunnels
        self._groups = groups
        self._sets = sets
        self._ports = ports
        self._first_packets = first_packets
        self._trains = trains
        self._owners: dict[int, tuple[FastChannel, str]] = {}
        self._whole: dict[str, int] = {}
        self.planes: dict[Plane, int] = dict.fromkeys(Plane, 0)
        """Channels by who forwards them."""

    def owner(self, slot: int) -> tuple[FastChannel, str] | None:
        """Whose packets a slot counts: the channel, and the tunnel they came through."""
        return self._owners.get(slot)

    def wants_whole(self, tunnel: str) -> bool:
        """Whether a tunnel's datagrams must not be joined to trains."""
        return tunnel in self._whole

    def set_wish(self, state: FastChannel, wish: Wish) -> None:
        """Give up what belongs to tunnels that no longer bring a channel."""
        state.wish = wish
        state.announced &= wish.tunnels
        for name in state.slots.keys() - wish.tunnels:
            self._retire(state, name)

    def apply(self, state: FastChannel, plan: Plan) -> None:
        """Put a channel into the map as planned, or as nearly as the kernel can."""
        try:
            self._carry_out(state, plan)
            state.fault = ""
        except (NoRoomError, OSError) as error:
            state.fault = _fault_of(error)
            self.leave_to_userspace(state, state.fault)

    def leave_to_userspace(self, state: FastChannel, reason: str) -> None:
        """Let the sockets have a channel's packets."""
        try:
            self._carry_out(state, Plan(Plane.USERSPACE, reason))
        except (NoRoomError, OSError) as error:
            state.fault = _fault_of(error)
            self._escape(state, Plan(Plane.USERSPACE, state.fault))

    def remove(self, state: FastChannel) -> None:
        """Take a channel out of the map."""
        self._delete(state)
        self._settle(state, _NOTHING, None, ())
        if state.plan is not _NOTHING:
            self.planes[state.plan.plane] -= 1
            state.plan = _NOTHING
        for name in tuple(state.slots):
            self._retire(state, name)
        if state.escapes:
            state.escapes = False
            self._groups.release(state.channel.group)

    def announce_to(self, state: FastChannel, tunnel: str) -> bool:
        """A first packet was seen; whether it was news."""
        slot = state.slots.get(tunnel)
        if slot is not None:
            self._first_packets.expect_no_more(slot)
        if tunnel in state.announced or tunnel not in state.wish.tunnels:
            return False
        state.announced.add(tunnel)
        return True

    def add_traffic(self, state: FastChannel, total: Traffic) -> None:
        """Add what the programs forwarded of a channel since it was set."""
        total.packets += state.former.packets
        total.bytes += state.former.bytes
        for slots in (state.slots.values(), state.leaving):
            for slot in slots:
                counted = self._slots.read(slot)
                total.packets += counted.packets
                total.bytes += counted.bytes

    def add_all_traffic(self, states: Iterable[FastChannel], totals: Mapping[Channel, Traffic]) -> None:
        """The same for many channels at once, those that have a total."""
        packets, octets = self._slots.read_all()
        for state in states:
            former = state.former
            more, longer = former.packets, former.bytes
            for slot in state.slots.values():
                more += packets[slot]
                longer += octets[slot]
            for slot in state.leaving:
                more += packets[slot]
                longer += octets[slot]
            total = totals.get(state.channel) if more else None
            if total is not None:
                total.packets += more
                total.bytes += longer

    def feeds(self, state: FastChannel) -> dict[str, int]:
        """What the programs forwarded of each of its tunnels."""
        return {name: self._slots.read(slot).packets for name, slot in state.slots.items()}

    def _carry_out(self, state: FastChannel, plan: Plan) -> None:
        """Take what the new entry needs, write it, let go of what the old one needed: in this order there is no gap."""
        used: InterfaceSet | None = None
        held: list[int] = []
        try:
            for port in plan.ports:
                self._ports.acquire(port)
                held.append(port.index)
            copies = plan.plane is Plane.XDP and len(plan.ports) > 1
            if copies or plan.plane is Plane.TC:
                used = self._sets.acquire(plan.indexes, copies=copies)
            entry = self._entry(state, plan, used)
            if plan.plane is Plane.TC:
                self._want_whole(plan.tunnel)
            try:
                self._write(state, entry)
            except OSError:
                if plan.plane is Plane.TC:
                    self._allow_trains(plan.tunnel)
                raise
        except (NoRoomError, OSError):
            for index in held:
                self._ports.release(index)
            if used is not None:
                self._sets.release(used)
            raise
        self._settle(state, plan, used, plan.indexes)

    def _entry(self, state: FastChannel, plan: Plan, used: InterfaceSet | None) -> ChannelEntry:
        refuse = Refusal.SPOOFED_LOCAL_SOURCE if state.is_local else None
        if not plan.is_fast:
            return ChannelEntry(slot=0, tunnel=0, plane=Plane.USERSPACE, refuse=refuse)
        slot = state.slots.get(plan.tunnel)
        if slot is None:
            slot = state.slots[plan.tunnel] = self._slots.allocate()
            self._owners[slot] = (state, plan.tunnel)
        announce = plan.tunnel not in state.announced
        if announce:
            self._first_packets.expect(slot)
        return ChannelEntry(
            slot=slot,
            tunnel=self._tunnels.slot(plan.tunnel),
            set=0 if used is None else used.number,
            single=plan.ports[0].index if len(plan.ports) == 1 else 0,
            limit=plan.limit,
            plane=plan.plane,
            announce=announce,
            refuse=refuse,
        )

    def _write(self, state: FastChannel, entry: ChannelEntry) -> None:
        """Write an entry that says something new; the programs clear `announce` themselves."""
        if state.entry is not None and replace(entry, announce=False) == replace(state.entry, announce=False):
            return
        self._maps[state.channel.group.version].update(channel_key(state.channel), entry.pack())
        state.entry = entry
        if state.escapes:
            state.escapes = False
            self._groups.release(state.channel.group)

    def _settle(self, state: FastChannel, plan: Plan, used: InterfaceSet | None, indexes: tuple[int, ...]) -> None:
        """The map says what is planned: the old plan's needs are free."""
        before, state.plan = state.plan, plan
        if before is not _NOTHING:
            self.planes[before.plane] -= 1
        if plan is not _NOTHING:
            self.planes[plan.plane] += 1
        if before.plane is Plane.TC:
            self._allow_trains(before.tunnel)
        if state.sets is not None:
            self._sets.release(state.sets)
        for index in state.indexes:
            self._ports.release(index)
        state.sets, state.indexes = used, indexes

    def _escape(self, state: FastChannel, plan: Plan) -> None:
        """No entry can be had: without one the programs would refuse the channel, unless its group goes to sockets."""
        if not state.escapes:
            state.escapes = True
            self._groups.acquire(state.channel.group)
        self._delete(state)
        self._settle(state, plan, None, ())

    def _delete(self, state: FastChannel) -> None:
        if state.entry is not None:
            state.entry = None
            self._maps[state.channel.group.version].delete(channel_key(state.channel))

    def _retire(self, state: FastChannel, tunnel: str) -> None:
        slot = state.slots.pop(tunnel)
        state.leaving.add(slot)
        self._first_packets.expect_no_more(slot)

        def fold(counted: Traffic) -> None:
            self._owners.pop(slot, None)
            state.leaving.discard(slot)
            state.former = sum_of(state.former, (counted,))

        self._slots.retire(slot, fold)

    def _want_whole(self, tunnel: str) -> None:
        self._whole[tunnel] = self._whole.get(tunnel, 0) + 1
        if self._whole[tunnel] == 1:
            self._trains(tunnel, wanted=False)

    def _allow_trains(self, tunnel: str) -> None:
        self._whole[tunnel] -= 1
        if not self._whole[tunnel]:
            del self._whole[tunnel]
            self._trains(tunnel, wanted=True)


def _fault_of(error: NoRoomError | OSError) -> str:
    if not isinstance(error, OSError):
        return str(error)
    return f"{_FAILED}: " + ("no room is left" if error.errno == errno.E2BIG else error.strerror or str(error))


def sum_of(first: Traffic, others: Iterable[Traffic]) -> Traffic:
    """All of them together."""
    total = Traffic(first.packets, first.bytes)
    for each in others:
        total.packets += each.packets
        total.bytes += each.bytes
    return total

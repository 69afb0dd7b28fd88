"""The relay's fan-out inside the kernel: which channels it serves, to which tunnels, and what it counted.

A channel is served whole or not at all, once its first packet has come by userspace and the next hop of every tunnel
is known; a tunnel whose next hop fails loses its own packets only. Channels whose tunnels need what the programs cannot
do (no Ethernet, no route) stay in userspace.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from agent.dataplane.engine import Refusal, Traffic
from agent.dataplane.fanout_adjacency import Adjacencies, Hop, Neighbour, own_hardware
from agent.dataplane.fanout_kernel_layout import (
    CHUNK,
    MOST_CAPTURES,
    AdjacencyState,
    Room,
    adjacency_value,
    channel_value,
    hop_setting,
    list_value,
    member_values,
    settings_value,
    shared_array,
    tunnel_value,
)
from agent.dataplane.fanout_list import OVERHEAD, SendList, Tunnel
from agent.dataplane.fanout_oversize import Oversize, local_address, path_mtu
from agent.net.bpf import BpfError, BpfMap, Link, attach_tc, load
from agent.protocol.channels import Family

_MEASURE_EVERY: Final = 60.0
_SLICE: Final = 64
"""Tunnels looked at again before other callbacks of the loop have their turn."""

_LOSSES: Final = 4
_PROGRAM: Final = "relay_tc"


@dataclass(slots=True, eq=False)
class _Adjacency:
    """A next hop in the map, shared by `users` tunnels."""

    hop: Hop
    number: int
    own: bytes
    neighbour: Neighbour
    users: int = 0


@dataclass(slots=True, eq=False)
class _KernelTunnel:
    """A tunnel in the map; without adjacency it is userspace's."""

    number: int
    adjacency: _Adjacency | None = None
    limit: int = 0
    told: tuple[int, ...] = (0,) * _LOSSES

    @property
    def ready(self) -> bool:
        """Whether the programs know what to do with its packets, be it to count them as lost."""
        known = self.adjacency
        return known is not None and (known.neighbour.hardware is not None or known.neighbour.failed)


@dataclass(slots=True, eq=False)
class _KernelList:
    """A list in the maps, shared by `users` channels."""

    number: int
    first: int
    tunnels: tuple[Tunnel, ...]
    users: int = 0


@dataclass(slots=True, eq=False)
class Served:
    """A channel the kernel serves; `traffic` is what has been credited already."""

    key: bytes
    slot: int
    send_list: SendList
    traffic: Traffic


class KernelFanout:
    """Lists, tunnels and channels of the programs.

    Args:
        loop: calls back from it.
        sockets: the relay's UDP sockets by family of the tunnel.
        oversize: what happens to packets that do not fit, which decides about Don't Fragment.
        on_change: tunnels became ready, or are no more: look at every channel again.

    Raises:
        BpfUnavailableError: this host has no BPF for us; the message says why.
        OSError: no rtnetlink socket could be had.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Mapping[Family, socket.socket],
        oversize: Oversize,
        on_change: Callable[[], None],
        *,
        chunk: int = CHUNK,
    ) -> None:
        self._loop = loop
        self._on_change = on_change
        self._object = load("relay")
        self._links: dict[str, Link] = {}
        self._captures: dict[str, int] = {}
        self._tunnels: dict[Tunnel, _KernelTunnel] = {}
        self._adjacencies: dict[Hop, _Adjacency] = {}
        self._lists: dict[SendList, _KernelList] = {}
        self._retired: deque[tuple[float, Served]] = deque()
        self._again: deque[Tunnel] = deque()
        self._maps = {
            name: shared_array(self._object.map(name)) for name in ("lists", "members", "tunnels", "adjacencies")
        }
        self._rooms = {name: Room(self._object.map(name).entries) for name in (*self._maps, "channel_counters")}
        self._change: asyncio.Handle | None = None
        self._lost = 0
        try:
            self._hops = Adjacencies(loop, self._neighbour_changed, self._look_again)
        except OSError:
            self._object.close()
            raise
        port = next(iter(sockets.values())).getsockname()[1]
        settings = settings_value(
            secrets.randbits(32) | 1,
            port,
            dont_fragment=oversize is Oversize.REFUSE,
            ttl=hop_setting("/proc/sys/net/ipv4/ip_default_ttl"),
            hop_limit=hop_setting("/proc/sys/net/ipv6/conf/default/hop_limit"),
            chunk=chunk,
        )
        self._object.map("settings").update(0, settings)
        self._measuring = loop.call_later(_MEASURE_EVERY, self._measure)

    @property
    def details(self) -> str:
        """How packets are sent."""
        kinds = sorted({link.kind for link in self._links.values()})
        return f"in the kernel ({', '.join(kinds) or 'no interface'}), the rest by sockets"

    def attach(self, name: str) -> int | None:
        """Serve a native interface; returns the program for its capture sockets, None where that cannot be.

        An interface made again under the same name is attached anew.
        """
        self.detach(name)
        index = socket.if_nametoindex(name)
        free = set(range(MOST_CAPTURES)) - set(self._captures.values())
        if not free or own_hardware(index) is None:
            return None
        number = min(free)
        try:
            self._links[name] = attach_tc(self._object, _PROGRAM, index)
        except BpfError:
            return None
        self._object.map("captures").update(number, struct.pack("=I", index))
        self._captures[name] = number
        return self._object.program(f"relay_capture_{number}")

    def detach(self, name: str) -> None:
        """Serve a native interface no more."""
        self._captures.pop(name, None)
        link = self._links.pop(name, None)
        if link is not None:
            with suppress(BpfError):
                link.close()

    def serve(self, key: bytes, send_list: SendList) -> Served | None:
        """Take a channel over, or give it another list; None leaves it, or gives it back, to userspace."""
        if not self._links or not all(self._tunnel(tunnel).ready for tunnel in send_list.tunnels):
            return None
        now = self._loop.time()
        known = self._lists.get(send_list) or self._make_list(send_list, now)
        slot = self._rooms["channel_counters"].take(1, now) if known is not None else None
        if known is None or slot is None:
            return None
        self._object.map("channel_counters").zero(slot)
        try:
            self._channels(key).update(key, channel_value(known.number, slot))
        except BpfError:
            self._rooms["channel_counters"].give_back(slot, 1, now)
            return None
        known.users += 1
        return Served(key, slot, send_list, Traffic())

    def is_ready(self, served: Served) -> bool:
        """Whether a channel can stay in the kernel; the limit of its list is that of now."""
        known = self._lists[served.send_list]
        self._write_list(known)
        return all(self._tunnel(tunnel).ready for tunnel in known.tunnels)

    def withdraw(self, served: Served) -> None:
        """Give a channel back to userspace."""
        self._channels(served.key).delete(served.key)
        self.retire(served)

    def retire(self, served: Served) -> None:
        """Forget a serving that another one has replaced, once it is read a last time by whoever called."""
        now = self._loop.time()
        self._rooms["channel_counters"].give_back(served.slot, 1, now)
        known = self._lists[served.send_list]
        known.users -= 1
        if not known.users:
            del self._lists[served.send_list]
            self._rooms["members"].give_back(known.first, len(known.tunnels), now)
            self._rooms["lists"].give_back(known.number, 1, now)

    def read(self, served: Served) -> Traffic:
        """What a channel's packets were since the last time."""
        packets, octets = self._object.map("channel_counters").sums(served.slot)
        fresh = Traffic(packets - served.traffic.packets, octets - served.traffic.bytes)
        served.traffic = Traffic(packets, octets)
        return fresh

    def settle_losses(self) -> None:
        """Take back from each tunnel what did not leave."""
        lost = self._object.map("lost").sums(0)[0]
        if lost == self._lost:
            return
        self._lost = lost
        most = max((known.number for known in self._tunnels.values()), default=-1) + 1
        losses = self._object.map("tunnel_losses").all_sums(0, most) if most else ()
        for tunnel, known in self._tunnels.items():
            sums = losses[known.number]
            fresh = tuple(new - old for new, old in zip(sums, known.told, strict=True))
            known.told = sums
            if fresh[0]:
                tunnel.lose("EHOSTUNREACH", fresh[0], fresh[1])
            if fresh[2]:
                tunnel.lose("ENOBUFS", fresh[2], fresh[3])

    def refused(self) -> Counter[Refusal]:
        """Packets refused by the programs."""
        counts = self._object.map("refused").all_sums()
        reasons = (Refusal.BAD_INNER_HEADER, Refusal.TTL_EXPIRED)
        return Counter({reason: count[0] for reason, count in zip(reasons, counts, strict=True) if count[0]})

    def forget(self, tunnel: Tunnel) -> None:
        """A tunnel ended, or has another local address; its losses have been settled."""
        known = self._tunnels.pop(tunnel, None)
        if known is not None:
            self._release(known.adjacency)
            self._object.map("tunnel_losses").zero(known.number)
            self._rooms["tunnels"].give_back(known.number, 1, self._loop.time())

    def close(self) -> None:
        """Detach everything."""
        self._measuring.cancel()
        if self._change is not None:
            self._change.cancel()
        self._again.clear()
        for name in list(self._links):
            self.detach(name)
        self._hops.close()
        for item in self._maps.values():
            item.close()
        self._object.close()

    def _channels(self, key: bytes) -> BpfMap:
        return self._object.map("channels4" if len(key) == 8 else "channels6")

    def _write(self, name: str, number: int, value: bytes) -> None:
        at = number * (-(-self._object.map(name).value_size // 8) * 8)
        self._maps[name][at : at + len(value)] = value

    def _tunnel(self, tunnel: Tunnel) -> _KernelTunnel:
        known = self._tunnels.get(tunnel)
        if known is None:
            number = self._rooms["tunnels"].take(1, self._loop.time())
            if number is None:
                return _KernelTunnel(0)
            known = self._tunnels[tunnel] = _KernelTunnel(number)
            self._resolve(tunnel, known)
        return known

    def _resolve(self, tunnel: Tunnel, known: _KernelTunnel) -> None:
        """Find route, next hop and path MTU of a tunnel, and write it into the map."""
        address = tunnel.endpoint.address
        local = tunnel.local or local_address(tunnel.endpoint)
        hop = None if local is None or address.is_link_local else self._hops.hop(address)
        before = known.adjacency
        known.adjacency = self._adjacency(hop) if hop is not None else None
        if known.adjacency is not None and local is not None:
            known.adjacency.users += 1
            known.limit = path_mtu(tunnel.endpoint, tunnel.local) - OVERHEAD[address.version]
            self._write("tunnels", known.number, tunnel_value(local, tunnel.endpoint, known.adjacency.number))
        self._release(before)

    def _adjacency(self, hop: Hop) -> _Adjacency | None:
        own = own_hardware(hop.interface)
        if own is None:
            return None
        known = self._adjacencies.get(hop)
        if known is None:
            number = self._rooms["adjacencies"].take(1, self._loop.time())
            if number is None:
                return None
            known = self._adjacencies[hop] = _Adjacency(hop, number, own, self._hops.watch(hop))
        known.own = own
        self._write_adjacency(known)
        return known

    def _write_adjacency(self, known: _Adjacency) -> None:
        hardware = known.neighbour.hardware
        state = AdjacencyState.READY if hardware else AdjacencyState.FAILED
        value = adjacency_value(hardware or bytes(6), known.own, known.hop.interface, state)
        self._write("adjacencies", known.number, value)

    def _release(self, known: _Adjacency | None) -> None:
        if known is None:
            return
        known.users -= 1
        if not known.users:
            del self._adjacencies[known.hop]
            self._hops.forget(known.hop)
            self._rooms["adjacencies"].give_back(known.number, 1, self._loop.time())

    def _make_list(self, send_list: SendList, now: float) -> _KernelList | None:
        tunnels = tuple(sorted(send_list.tunnels, key=lambda tunnel: tunnel.endpoint.address.version))
        number = self._rooms["lists"].take(1, now)
        first = self._rooms["members"].take(len(tunnels), now)
        if number is None or first is None:
            for room, place, count in (("lists", number, 1), ("members", first, len(tunnels))):
                if place is not None:
                    self._rooms[room].give_back(place, count, now)
            return None
        known = self._lists[send_list] = _KernelList(number, first, tunnels)
        self._write("members", first, member_values([self._tunnels[tunnel].number for tunnel in tunnels]))
        self._write_list(known)
        return known

    def _write_list(self, known: _KernelList) -> None:
        ipv4 = sum(tunnel.endpoint.address.version == 4 for tunnel in known.tunnels)
        limit = max(0, min(self._tunnel(tunnel).limit for tunnel in known.tunnels))
        self._write("lists", known.number, list_value(known.first, ipv4, len(known.tunnels) - ipv4, limit))

    def _neighbour_changed(self, hop: Hop) -> None:
        known = self._adjacencies.get(hop)
        if known is not None:
            self._write_adjacency(known)
            self._changed()

    def _look_again(self) -> None:
        """Routes may lead elsewhere, and paths may have become narrower."""
        if not self._again:
            self._again.extend(self._tunnels)
            self._loop.call_soon(self._look_at_some)

    def _look_at_some(self) -> None:
        for _ in range(min(_SLICE, len(self._again))):
            tunnel = self._again.popleft()
            known = self._tunnels.get(tunnel)
            if known is not None:
                self._resolve(tunnel, known)
        if self._again:
            self._loop.call_soon(self._look_at_some)
        self._changed()

    def _measure(self) -> None:
        self._look_again()
        self._measuring = self._loop.call_later(_MEASURE_EVERY, self._measure)

    def _changed(self) -> None:
        if self._change is None:
            self._change = self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._change = None
        self._on_change()

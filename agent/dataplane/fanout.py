"""Sends native multicast into every subscribed tunnel.

A flow is one (S,G) seen on the native side. Its packets collect in a queue that is sent as one burst: at once while the
relay has little to do, otherwise within `hold` seconds of the first packet's arrival, or when the burst is full. So
batches grow with the load, and batching never adds more than 2 ms. Under more load than that, packets wait in the
capture socket and the bursts fill by themselves.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

from agent.dataplane.engine import Refusal, Traffic
from agent.dataplane.fanout_flows import Flow, FlowTable, channel_of, flow_key, refusal_of
from agent.dataplane.fanout_interest import InterestTable
from agent.dataplane.fanout_list import SendList, Tunnel
from agent.dataplane.fanout_offload import Offload
from agent.dataplane.fanout_oversize import Oversize, apply_oversize
from agent.dataplane.fanout_refuse import RefusingPolicy
from agent.dataplane.fanout_transmit import Burst, Transmitter
from agent.net.precise_timer import PreciseTimer
from agent.net.send_batch import MAX_PAYLOAD, MAX_SEGMENTS, BatchSender
from agent.protocol.channels import NOTHING, Address, Channel, Endpoint, Family, Filter

HOLD: Final = 0.0019
"""Longest a packet waits for others, in seconds; with the timer's jitter it stays below 2 ms."""

_HOLD_ABOVE: Final = 60_000.0
_RATE_WINDOW: Final = 0.010
_FLOW_LIMIT: Final = 16_384
_BURST_PACKETS: Final = 32_768
"""Tunnel packets of one burst: it is sent in one go, and the rest of the relay waits for it, 20 to 30 ms at most."""

_FLOW_IDLE: Final = 60.0


@dataclass(slots=True)
class FanoutCounters:
    """Everything a fan-out counted since it started.

    Attributes:
        channels: inner packets that came in, per (S,G) somebody wants or wanted lately.
        tunnels: inner packets handed to the kernel, per gateway endpoint.
        refused: inner packets not sent on, by reason.
        errors: tunnel packets lost on the way out, by errno name, or `too_big` when refused for the path MTU.
        tunnel_errors: the same per tunnel, tunnels without errors left out.
        sent: inner packets handed to the kernel for all tunnels, those that are gone included.
        seen_at: when a channel last had traffic, in seconds of the loop's clock.
    """

    channels: dict[Channel, Traffic] = field(default_factory=dict)
    tunnels: dict[Endpoint, Traffic] = field(default_factory=dict)
    refused: dict[Refusal, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    tunnel_errors: dict[Endpoint, dict[str, int]] = field(default_factory=dict)
    sent: Traffic = field(default_factory=Traffic)
    seen_at: dict[Channel, float] = field(default_factory=dict)


class Fanout:
    """Fan-out of native multicast to tunnels; everything is called from the event loop's thread.

    Args:
        loop: the loop; its clock must be CLOCK_MONOTONIC, as asyncio's is.
        sockets: the relay's UDP sockets by family of the tunnel, non-blocking, bound to port 2268; they stay the
            caller's.
        oversize: what to do with packets too big for a tunnel.
        hold: longest wait of a packet for others, in seconds.
        hold_above: tunnel packets per second from which on packets wait at all.
        segmentation: False keeps from UDP segmentation even where the kernel has it.
        flow_limit: (S,G) remembered at most.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Mapping[Family, socket.socket],
        *,
        oversize: Oversize = Oversize.FRAGMENT,
        hold: float = HOLD,
        hold_above: float = _HOLD_ABOVE,
        segmentation: bool = True,
        flow_limit: int = _FLOW_LIMIT,
    ) -> None:
        self._loop = loop
        self._oversize = oversize
        self._hold = hold
        self._hold_above = hold_above
        self._senders = {key: BatchSender(value, segmentation=segmentation) for key, value in sockets.items()}
        self._transmitters: dict[BatchSender, Transmitter] = {}
        for sender, value in zip(self._senders.values(), sockets.values(), strict=True):
            apply_oversize(value, oversize)
            self._transmitters[sender] = Transmitter(loop, sender, self._on_too_big)
        self._tunnels: dict[Endpoint, Tunnel] = {}
        self._interest: InterestTable[Tunnel] = InterestTable()
        self._flows = FlowTable(flow_limit)
        self._lists: WeakValueDictionary[tuple[Tunnel, ...], SendList] = WeakValueDictionary()
        self.offload = Offload(loop, self._flows)
        self._fresh: list[Flow] = []
        self._waiting: dict[Flow, float] = {}
        self._timer = PreciseTimer(loop, self._deadline)
        self._policy = (
            RefusingPolicy(loop, self._tunnels, self._limits_changed) if oversize is Oversize.REFUSE else None
        )
        self._stale: set[Tunnel] = set()
        self._refused: Counter[Refusal] = Counter()
        self._lost: Counter[str] = Counter()
        self._sent_before = Traffic()
        self._load = 0
        self._rate = 0.0
        self._window_start = loop.time()

    @property
    def details(self) -> dict[str, str]:
        """How packets are sent on this host, for `status` and `doctor`."""
        segmenting = all(sender.segmentation for sender in self._senders.values())
        return {"send": "sendmmsg, UDP segmentation" if segmenting else "sendmmsg", "oversize": self._oversize.value}

    def set_interest(self, tunnel: Endpoint, local: Address | None, group: Address, wanted: Filter) -> None:
        """Send `tunnel` what `wanted` admits of `group`; replaces what was set before.

        Args:
            tunnel: the gateway's address and port.
            local: the address to send from, or None for the socket's own.
            group: multicast group, of either family whatever the tunnel's is.
            wanted: a filter that wants nothing ends the interest.

        Raises:
            ValueError: there is no socket of the tunnel's family.
        """
        known = self._tunnels.get(tunnel)
        if known is None:
            if wanted.wants_nothing:
                return
            known = self._tunnels[tunnel] = self._new_tunnel(tunnel, local)
        elif known.local != local:
            known.local = local
            known.destination = known.sender.destination(tunnel, local)
            self.offload.forget(known)
            self.offload.refresh()
            self._limits_changed(known)
            self._rebuild()
        if self._interest.set(known, group, wanted):
            self._ask_again(group)

    def remove_tunnel(self, tunnel: Endpoint) -> frozenset[Address]:
        """End every interest of a tunnel and forget its counters; returns the groups it had interest in."""
        known = self._tunnels.pop(tunnel, None)
        if known is None:
            return frozenset()
        groups = self._interest.groups(known)
        for group in groups:
            self._interest.set(known, group, NOTHING)
            self._ask_again(group)
        self.offload.forget(known)
        self._lost.update(known.errors)
        self._sent_before.packets += known.sent.packets
        self._sent_before.bytes += known.sent.bytes
        return groups

    def merged(self, group: Address) -> Filter:
        """What all tunnels together want of a group: what to join natively."""
        return self._interest.merged(group)

    def groups(self) -> frozenset[Address]:
        """Groups any tunnel wants anything of."""
        return self._interest.all_groups()

    def deliver(self, packets: list[bytes]) -> None:
        """Take inner IP packets, as `Capture` gives them, and send each to the tunnels that want it."""
        now = self._loop.time()
        by_key = self._flows.by_key
        load = 0
        for packet in packets:
            flow = by_key.get(flow_key(packet))
            if flow is None or flow.send_list is None:
                flow = self._resolve(flow_key(packet), now)
                if flow is None:
                    continue
            self._enqueue(flow, packet, now)
            load += len(flow.send_list or ())
        self._measure(load, now)
        self._release(self._loop.time(), at_once=self._rate <= self._hold_above)
        if self._fresh:
            # What waits goes out first: the kernel sends what comes next.
            for flow in self._fresh:
                self._flush(flow)
                self.offload.offer(flow)
            self._fresh.clear()

    def counters(self) -> FanoutCounters:
        """A snapshot of the counters."""
        self._flows.prune(self._loop.time() - _FLOW_IDLE)
        counters = FanoutCounters(refused=dict(self._refused))
        errors = Counter(self._lost)
        self.offload.credit()
        for flow in self._flows:
            counters.channels[flow.channel] = Traffic(flow.traffic.packets, flow.traffic.bytes)
            counters.seen_at[flow.channel] = flow.seen_at
            if flow.send_list is not None:
                flow.send_list.settle()
        self.offload.settle_losses()
        for endpoint, tunnel in self._tunnels.items():
            counters.tunnels[endpoint] = Traffic(tunnel.sent.packets, tunnel.sent.bytes)
            counters.sent.packets += tunnel.sent.packets
            counters.sent.bytes += tunnel.sent.bytes
            if tunnel.errors:
                counters.tunnel_errors[endpoint] = dict(tunnel.errors)
                errors.update(tunnel.errors)
        counters.sent.packets += self._sent_before.packets
        counters.sent.bytes += self._sent_before.bytes
        counters.errors = dict(errors)
        return counters

    def close(self) -> None:
        """Stop sending; the sockets stay open."""
        self.offload.close()
        self._timer.close()
        for transmitter in self._transmitters.values():
            transmitter.close()
        if self._policy is not None:
            self._policy.close()
        self._waiting.clear()

    def _new_tunnel(self, endpoint: Endpoint, local: Address | None) -> Tunnel:
        sender = self._senders.get(Family.of(endpoint.address))
        if sender is None:
            raise ValueError(f"no socket of the family of {endpoint}")
        tunnel = Tunnel(endpoint, local, sender, sender.destination(endpoint, local))
        if self._policy is not None:
            self._policy.measure(tunnel)
        return tunnel

    def _resolve(self, key: bytes, now: float) -> Flow | None:
        """The flow of `key` with its list of tunnels, or None when nobody gets it; counted."""
        reason = self._flows.refusal(key)
        if reason is None:
            channel = channel_of(key)
            reason = refusal_of(channel)
            source = channel.source
            tunnels = self._interest.wanting(source, channel.group) if reason is None and source is not None else ()
            if tunnels:
                flow = self._flows.add(key, channel, now)
                flow.send_list = self._list_of(tunnels)
                if self.offload.kernel is not None:
                    self._fresh.append(flow)
                return flow
            reason = reason or Refusal.NOT_SUBSCRIBED
            self._flows.refuse(key, reason)
        self._refused[reason] += 1
        return None

    def _ask_again(self, group: Address) -> None:
        """The interest in a group changed: what waits goes where it was meant to, later packets ask anew."""
        for flow in self._flows.of_group(group):
            if flow.send_list is not None:
                self._flush(flow)
                following = self._following(flow) if flow in self.offload else None
                flow.send_list.settle()
                flow.send_list = following
        self._flows.forget_refusals()

    def _following(self, flow: Flow) -> SendList | None:
        """Who gets a flow of the kernel's from now on; None when userspace has to see to it."""
        source = flow.channel.source
        tunnels = self._interest.wanting(source, flow.channel.group) if source is not None else ()
        following = self._list_of(tunnels) if tunnels else None
        return following if self.offload.replace(flow, following) else None

    def _list_of(self, tunnels: tuple[Tunnel, ...]) -> SendList:
        found = self._lists.get(tunnels)
        if found is None:
            found = self._lists[tunnels] = SendList(tunnels)
        return found

    def _enqueue(self, flow: Flow, packet: bytes, now: float) -> None:
        size = len(packet)
        flow.traffic.packets += 1
        flow.traffic.bytes += size
        if flow.queue and size > len(flow.queue[0]):
            self._flush(flow)
        queue = flow.queue
        if not queue:
            flow.seen_at = now
            fair = _BURST_PACKETS // len(flow.send_list or (0,))
            flow.capacity = max(1, min(MAX_SEGMENTS, MAX_PAYLOAD // (size + 2), fair))
            self._waiting[flow] = now + self._hold
        queue.append(packet)
        if len(queue) >= flow.capacity or size < len(queue[0]):
            self._flush(flow)

    def _measure(self, load: int, now: float) -> None:
        """Tunnel packets per second, as they would be without batching, over the last window."""
        self._load += load
        elapsed = now - self._window_start
        if elapsed >= _RATE_WINDOW:
            self._rate = self._load / elapsed
            self._load = 0
            self._window_start = now

    def _release(self, now: float, *, at_once: bool) -> None:
        """Send what is due, oldest first, and set the timer for the rest."""
        while self._waiting:
            flow, deadline = next(iter(self._waiting.items()))
            if deadline > now and not at_once:
                self._timer.set(deadline)
                return
            self._flush(flow)

    def _deadline(self) -> None:
        self._release(self._loop.time(), at_once=False)

    def _flush(self, flow: Flow) -> None:
        self._waiting.pop(flow, None)
        if not flow.queue or flow.send_list is None:
            return
        burst = Burst(flow.queue)
        flow.queue = []
        flow.send_list.count(len(burst.packets), burst.size)
        for part in flow.send_list.parts:
            transmitter = self._transmitters[part.sender]
            if self._policy is None or len(burst.packets[0]) <= part.inner_limit:
                transmitter.send(part, burst)
            else:
                self._policy.send(part, burst, transmitter)

    def _on_too_big(self, tunnel: Tunnel) -> None:
        if self._policy is not None:
            self._policy.measure(tunnel)
        self._limits_changed(tunnel)

    def _limits_changed(self, tunnel: Tunnel) -> None:
        """Rebuild the lists of a tunnel soon: a thousand tunnels may find their limits in one batch."""
        if not self._stale:
            self._loop.call_soon(self._rebuild)
        self._stale.add(tunnel)

    def _rebuild(self) -> None:
        for send_list in list(self._lists.values()):
            if not self._stale.isdisjoint(send_list.tunnels):
                send_list.rebuild()
        self._stale.clear()

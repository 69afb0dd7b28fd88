"""The (S,G) seen on the native side: queue, traffic and the list of tunnels of each, bounded in number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.dataplane.engine import Refusal, Traffic
from agent.dataplane.fanout_list import SendList
from agent.protocol.channels import Address, Channel, is_forwardable_group, is_unicast

_UNWANTED_LIMIT: Final = 16_384
_ACTIVE: Final = 10.0
_EVICTION_TRIES: Final = 64


@dataclass(slots=True, eq=False)
class Flow:
    """One (S,G) somebody wants, or wanted lately.

    Attributes:
        channel: source and group.
        traffic: inner packets that came in for it.
        queue: packets waiting to be sent, all of one size.
        capacity: packets of that size in one burst at most.
        send_list: who gets it; None until asked again.
        seen_at: when it last had traffic, in seconds of the loop's clock.
    """

    channel: Channel
    traffic: Traffic = field(default_factory=Traffic)
    queue: list[bytes] = field(default_factory=list)
    capacity: int = 1
    send_list: SendList | None = None
    seen_at: float = 0.0


def flow_key(packet: bytes) -> bytes:
    """Source and destination address as they stand in an IPv4 or IPv6 header."""
    return packet[12:20] if packet[0] < 0x50 else packet[8:40]


def channel_of(key: bytes) -> Channel:
    """The channel a key stands for."""
    half = len(key) // 2
    address = IPv4Address if half == 4 else IPv6Address
    return Channel(address(key[:half]), address(key[half:]))


def refusal_of(channel: Channel) -> Refusal | None:
    """Why a packet of this channel must not be forwarded at all, or None."""
    source = channel.source
    if not is_forwardable_group(channel.group):
        return Refusal.LINK_LOCAL_GROUP
    if source is None or not is_unicast(source) or source.is_link_local:
        return Refusal.BAD_INNER_HEADER
    return None


class FlowTable:
    """Flows by key, at most `limit`; what nobody wants is remembered apart, so that it can be refused cheaply.

    With any-source interest anybody on the native side can make flows by forging sources: the oldest flow without
    recent traffic goes first.
    """

    def __init__(self, limit: int) -> None:
        self.by_key: dict[bytes, Flow] = {}
        self._limit = limit
        self._groups: dict[Address, dict[bytes, None]] = {}
        self._unwanted: dict[bytes, Refusal] = {}

    def __len__(self) -> int:
        return len(self.by_key)

    def __iter__(self) -> Iterator[Flow]:
        return iter(self.by_key.values())

    def add(self, key: bytes, channel: Channel, now: float) -> Flow:
        """The flow of `key`, made when it is new."""
        flow = self.by_key.get(key)
        if flow is None:
            if len(self.by_key) >= self._limit:
                self._evict(now)
            flow = self.by_key[key] = Flow(channel, seen_at=now)
            self._groups.setdefault(channel.group, {})[key] = None
        return flow

    def of_group(self, group: Address) -> list[Flow]:
        """Flows of one group."""
        return [self.by_key[key] for key in self._groups.get(group, ())]

    def refusal(self, key: bytes) -> Refusal | None:
        """Why packets of `key` are known to be refused, or None."""
        return self._unwanted.get(key)

    def refuse(self, key: bytes, reason: Refusal) -> None:
        """Remember that packets of `key` are refused."""
        if len(self._unwanted) >= _UNWANTED_LIMIT:
            self._unwanted.clear()
        self._unwanted[key] = reason

    def forget_refusals(self) -> None:
        """Ask anew who wants what."""
        self._unwanted.clear()

    def prune(self, before: float) -> None:
        """Forget flows nobody is sent that had no traffic since `before`."""
        for key in [key for key, flow in self.by_key.items() if not flow.send_list and flow.seen_at < before]:
            self._remove(key)

    def _evict(self, now: float) -> None:
        for _ in range(_EVICTION_TRIES):
            key, flow = next(iter(self.by_key.items()))
            if now - flow.seen_at > _ACTIVE:
                break
            # Recently used: to the end of the queue.
            del self.by_key[key]
            self.by_key[key] = flow
        self._remove(next(iter(self.by_key)))

    def _remove(self, key: bytes) -> None:
        flow = self.by_key.pop(key)
        if flow.send_list is not None:
            flow.send_list.settle()
        keys = self._groups[flow.channel.group]
        del keys[key]
        if not keys:
            del self._groups[flow.channel.group]

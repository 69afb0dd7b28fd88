"""As much of a rendezvous point as a border needs.

A DR of the domain registers its sources with us when we are the RP of their groups (RFC 7761 §4.4.2). Our (*,G) leads
to a relay, not to them, so packets inside Registers are never forwarded: each Register is answered by a Register-Stop,
and our owner is told of the source, which it can join natively.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.protocol.channels import (
    Address,
    Channel,
    Network,
    is_forwardable_group,
    is_ssm_group,
    is_unicast,
)
from agent.protocol.pim_events import SourceRegistered
from agent.protocol.wire import ip
from agent.protocol.wire.errors import Malformed, Truncated, WireError
from agent.protocol.wire.pim_messages import Register, RegisterStop

KEEPALIVE_PERIOD: Final = 185.0
"""RP_Keepalive_Period: seconds a source counts as active after a Register (RFC 7761 §4.11)."""

REGISTER_STOP_INTERVAL: Final = 1.0
"""Seconds in which one DR is told only once to stop registering a source."""


@dataclass(frozen=True, slots=True)
class OutgoingRegisterStop:
    """A Register-Stop to send from the address that was registered with to the DR that registered."""

    message: RegisterStop
    source: Address
    destination: Address


@dataclass(slots=True)
class _Registration:
    """When the source stops counting as active, and the last answer: to whom and when."""

    expires: float
    answered: Address
    answered_at: float


class Rendezvous:
    """RP of some group ranges.

    Attributes:
        refused: Registers that told of no source, by reason.
    """

    def __init__(self, addresses: Iterable[Address], groups: Iterable[Network], max_sources: int = 10_000) -> None:
        """Make an RP reached at `addresses` for `groups`, which remembers `max_sources` sources at most."""
        self.refused: Counter[str] = Counter()
        self._addresses = frozenset(addresses)
        self._groups = tuple(groups)
        self._max_sources = max_sources
        self._registrations: OrderedDict[Channel, _Registration] = OrderedDict()  # that expires first stands first
        self._sources: dict[Address, set[Address]] = {}  # the same by group
        self._messages: list[OutgoingRegisterStop] = []
        self._events: list[SourceRegistered] = []

    def set_addresses(self, addresses: Iterable[Address]) -> None:
        """Follow our addresses."""
        self._addresses = frozenset(addresses)

    def set_groups(self, groups: Iterable[Network]) -> None:
        """Be the RP of other groups; sources of those we are not the RP of any more are forgotten."""
        self._groups = tuple(groups)
        for channel in [channel for channel in self._registrations if not self.is_rendezvous(channel.group)]:
            self._forget(channel)

    def sources(self, group: Address, now: float) -> list[Address]:
        """Sources of a group that count as active, by address."""
        self._drop_expired(now)
        return sorted(self._sources.get(group, ()), key=int)

    def is_rendezvous(self, group: Address) -> bool:
        """Whether we are the RP of `group`; nobody is in the source-specific range (RFC 7761 §4.8)."""
        return not is_ssm_group(group) and any(
            network.version == group.version and group in network for network in self._groups
        )

    def receive(self, register: Register, sender: Address, destination: Address, now: float) -> None:
        """Take a Register that came from `sender` to `destination`.

        Where we are not the RP it is stopped as well, but tells nothing (RFC 7761 §4.4.2).
        """
        if destination not in self._addresses or not is_unicast(sender):
            self.refused["not_for_us"] += 1
            return
        try:
            source, group = _ends(register)
        except WireError as error:
            self.refused[f"register_{error.reason}"] += 1
            return
        if source.version != sender.version or not is_unicast(source) or not is_forwardable_group(group):
            self.refused["register_address"] += 1
            return
        channel = Channel(source, group)
        if not self.is_rendezvous(group):
            self.refused["not_rendezvous"] += 1
            self._stop(channel, destination, sender)
            return
        self._drop_expired(now)
        self._remember(channel, sender, destination, now)

    def messages(self) -> list[OutgoingRegisterStop]:
        """Drain the Register-Stops to send."""
        drained, self._messages = self._messages, []
        return drained

    def events(self) -> list[SourceRegistered]:
        """Drain sources that became active."""
        drained, self._events = self._events, []
        return drained

    def _remember(self, channel: Channel, sender: Address, destination: Address, now: float) -> None:
        registration = self._registrations.get(channel)
        if registration is None:
            if len(self._registrations) >= self._max_sources:
                self.refused["too_many_sources"] += 1
                self._stop(channel, destination, sender)
                return
            self._registrations[channel] = _Registration(now + KEEPALIVE_PERIOD, sender, now)
            assert channel.source is not None
            self._sources.setdefault(channel.group, set()).add(channel.source)
            self._events.append(SourceRegistered(channel))
        else:
            registration.expires = now + KEEPALIVE_PERIOD
            self._registrations.move_to_end(channel)
            if registration.answered == sender and now - registration.answered_at < REGISTER_STOP_INTERVAL:
                return
            registration.answered, registration.answered_at = sender, now
        self._stop(channel, destination, sender)

    def _drop_expired(self, now: float) -> None:
        while self._registrations:
            channel = next(iter(self._registrations))
            if self._registrations[channel].expires > now:
                return
            self._forget(channel)

    def _forget(self, channel: Channel) -> None:
        assert channel.source is not None
        del self._registrations[channel]
        sources = self._sources[channel.group]
        sources.discard(channel.source)
        if not sources:
            del self._sources[channel.group]

    def _stop(self, channel: Channel, source: Address, destination: Address) -> None:
        assert channel.source is not None
        self._messages.append(OutgoingRegisterStop(RegisterStop(channel.group, channel.source), source, destination))


def _ends(register: Register) -> tuple[Address, Address]:
    """Source and group of the packet inside.

    Of a Null-Register only the addresses count: FRR sends a header without checksum (RFC 7761 §4.9.3).

    Raises:
        WireError: no IP packet.
    """
    packet = register.packet
    if not register.null:
        inner = ip.decode(packet)
        return inner.source, inner.destination
    version = packet[0] >> 4 if packet else 0
    if version not in (4, 6):
        raise Malformed(f"IP version {version} in a Null-Register", packet)
    if len(packet) < (20 if version == 4 else 40):
        raise Truncated(f"Null-Register of {len(packet)} bytes", packet)
    if version == 4:
        return IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    return IPv6Address(packet[8:24]), IPv6Address(packet[24:40])

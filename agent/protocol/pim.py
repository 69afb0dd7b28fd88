"""PIM sparse mode on one interface: neighbours, what they want, our own Joins, Asserts (RFC 7761).

Whole IP packets go in and come out. One machine serves one interface and one family. The parts are machines of their
own; this module checks who speaks, hands each message to its part, and sees to it that a Hello goes before all else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim_assert import AssertTable
from agent.protocol.pim_config import PimConfig
from agent.protocol.pim_downstream import DownstreamTable, DownstreamView
from agent.protocol.pim_events import AssertOutcome, BootstrapReceived, PimEvent
from agent.protocol.pim_hellos import Hellos
from agent.protocol.pim_neighbors import Greeting, NeighborTable, NeighborView
from agent.protocol.pim_packet import ALL_PIM_ROUTERS, KINDS, PimPacket, decode_packet, encode_packet, refusal
from agent.protocol.pim_rendezvous import Rendezvous
from agent.protocol.pim_upstream import UpstreamJoins, join_prune_holdtime
from agent.protocol.wire.errors import WireError
from agent.protocol.wire.pim import (
    Assert,
    Bootstrap,
    Hello,
    JoinPrune,
    Message,
    Register,
    RegisterStop,
    pack_join_prunes,
)

__all__ = ["DownstreamView", "NeighborView", "PimConfig", "PimEvent", "PimInterface"]

_SLICE: Final = 500
"""States that one call of `handle_timer` looks at, of each part: a few milliseconds of work."""

_PACKET_SIZE: Final = 1280
"""Largest IP packet of ours in bytes; every link with IPv6 carries it (RFC 8200 §5)."""


class PimInterface:
    """PIM router on one interface.

    Attributes:
        received: messages that passed the checks, by kind.
    """

    def __init__(
        self, config: PimConfig, family: Family, random: Callable[[], float], nonce32: Callable[[], int]
    ) -> None:
        """Make a machine that sends nothing before `start`, nor without an address.

        Args:
            config: timers, limits and what we are the RP for.
            family: family served.
            random: 0 up to 1, for jitter.
            nonce32: 32 random bits, for Generation IDs.
        """
        self.received: Counter[str] = Counter()
        self._own_refused: Counter[str] = Counter()
        self._config, self._family = config, family
        self._started = False
        self._now = 0.0
        self._address: Address | None = None
        self._secondaries: tuple[Address, ...] = ()
        self._rendezvous_elsewhere: frozenset[Address] = frozenset()
        self._hellos = Hellos(config, random, nonce32)
        self._neighbors = NeighborTable(config, self._own_refused)
        self._downstream = DownstreamTable(config, family, self._own_refused)
        self._upstream = UpstreamJoins(config, self._neighbors, random)
        self._asserts = AssertTable(config, family, is_joined=self._downstream.is_joined)
        self._rendezvous = Rendezvous((), config.rendezvous_groups)
        self._packets: list[bytes] = []
        self._events: list[PimEvent] = []

    # --- what is known

    @property
    def refused(self) -> Counter[str]:
        """Packets, or parts of them, that were dropped, by reason."""
        return self._own_refused + self._asserts.refused + self._rendezvous.refused

    @property
    def address(self) -> Address | None:
        """Our primary address on the link; link-local on IPv6."""
        return self._address

    @property
    def designated_router(self) -> Address | None:
        """The link's DR, ours or another's; None before `start` or without an address (RFC 7761 §4.3.2)."""
        return self._neighbors.designated_router

    @property
    def is_designated(self) -> bool:
        """Whether we are the DR."""
        return self._address is not None and self.designated_router == self._address

    def neighbors(self) -> list[NeighborView]:
        """Neighbours, by address."""
        return self._neighbors.views()

    def find_neighbor(self, address: Address) -> Address | None:
        """Primary address of the neighbour that has `address`, as primary or secondary; None when nobody has."""
        return self._neighbors.find(address)

    def channels(self) -> list[DownstreamView]:
        """Every (*,G), (S,G) and (S,G,rpt) of the link's neighbours."""
        return list(self._downstream.views())

    @property
    def channel_count(self) -> int:
        """How many of these there are."""
        return len(self._downstream)

    def joined_by(self, channel: Channel) -> Address | None:
        """The neighbour that asked for exactly `channel` last, None when nobody wants it."""
        return self._downstream.joined_by(channel)

    def lost_assert(self, channel: Channel) -> bool:
        """Whether another router forwards `channel` onto this link (RFC 7761 §4.6)."""
        return self._asserts.lost(channel)

    # --- what the owner says

    def start(self, now: float) -> None:
        """Begin: the first Hello follows within the triggered Hello delay."""
        self._now = now
        if not self._started:
            self._started = True
            self._appear(now)

    def stop(self, now: float) -> None:
        """Say goodbye and forget everything; `packets_to_send` still has the goodbye, `events` the end of interest."""
        self._now = now
        if not self._started:
            return
        self._upstream.prune_all()
        self._flush()
        self._disappear()
        self._upstream.clear()
        self._downstream.clear()
        self._asserts.set_address(None, now)
        self._started = False
        self._neighbors.set_address(None, ())
        self._neighbors.clear()

    def configure(self, config: PimConfig, now: float) -> None:
        """Go on with other timers and limits; neighbours and what they joined stay, and hear the news in a Hello.

        (*,G) of groups we are the RP for no longer end.
        """
        self._now, self._config = now, config
        for part in (self._neighbors, self._downstream, self._upstream, self._asserts):
            part.configure(config)
        self._rendezvous.set_groups(config.rendezvous_groups)
        if self._hellos.configure(config) and not self._hellos.due:
            self._say_hello()

    def set_address(self, primary: Address | None, secondaries: Iterable[Address], now: float) -> None:
        """Follow the interface's addresses; goodbye is said from an old primary one (RFC 7761 §4.3.1)."""
        self._now = now
        others = tuple(dict.fromkeys(address for address in secondaries if address != primary))
        if (primary, others) == (self._address, self._secondaries):
            return
        if primary == self._address:
            self._secondaries = others
            self._settle_addresses(now)
            if self._started and primary is not None and not self._hellos.due:
                self._say_hello()  # an updated Address List is told at once (§4.3.1)
            return
        self._flush()
        self._disappear()
        self._address, self._secondaries = primary, others
        self._appear(now)
        self._upstream.address_changed(now)

    def set_rendezvous_addresses(self, addresses: Iterable[Address]) -> None:
        """Addresses we are the RP at besides those of this interface, such as a loopback's."""
        self._rendezvous_elsewhere = frozenset(addresses)
        self._settle_addresses(self._now)

    def join_upstream(self, channel: Channel, neighbor: Address, now: float) -> None:
        """Ask `neighbor` for (S,G) until `prune_upstream`; another neighbour than before gets the channel moved.

        While nobody at that address said Hello nothing is sent.

        Raises:
            ValueError: a (*,G) channel: we join no shared tree of others.
        """
        if channel.source is None:
            raise ValueError(f"{channel} has no source: we join no shared tree of others")
        self._now = now
        self._upstream.join(channel, neighbor, now)
        self._asserts.set_tracking(channel, True, now)
        if self._asserts.outcome(channel) is AssertOutcome.LOSER:
            self._upstream.assert_changed(channel, self._asserts.winner(channel), now)

    def prune_upstream(self, channel: Channel, now: float) -> None:
        """Ask no longer; nothing happens when it was not asked for."""
        self._now = now
        if self._upstream.prune(channel):
            self._asserts.set_tracking(channel, False, now)
            self._follow_asserts(now)

    def set_forwarding(self, channel: Channel, metric: tuple[int, int] | None, now: float) -> None:
        """We can forward `channel` onto this link with this preference and metric, or no longer (RFC 7761 §4.6)."""
        self._now = now
        self._asserts.set_forwarding(channel, metric, now)
        self._follow_asserts(now)

    def data_received(self, channel: Channel, now: float) -> None:
        """A packet of `channel` came in on this link although we forward it onto it: somebody else does too."""
        self._now = now
        self._asserts.data_received(channel, now)
        self._follow_asserts(now)

    # --- what the link and the clock say

    def receive_packet(self, packet: bytes, now: float) -> None:
        """Take an IP packet seen on the interface; what is bad about it is counted in `refused`."""
        self._now = now
        try:
            received = decode_packet(packet)
        except WireError as error:
            self._own_refused[error.reason] += 1
            return
        reason = self._refusal(received)
        if reason is not None:
            self._own_refused[reason] += 1
            return
        self.received[KINDS[type(received.message)]] += 1
        self._dispatch(received, now)

    def handle_timer(self, now: float) -> None:
        """Act on what is due at `now`, a bounded share at a time: `next_deadline` tells when there is more."""
        self._now = now
        if self._hellos.expired(now):
            self._say_hello()
        for address in self._neighbors.handle_timer(now, _SLICE):
            self._lose(address, now)
        self._asserts.handle_timer(now, _SLICE)
        self._follow_asserts(now)
        self._upstream.handle_timer(now, _SLICE)
        self._downstream.handle_timer(now, _SLICE)

    def next_deadline(self) -> float | None:
        """When `handle_timer` has something to do, or None."""
        parts = (self._hellos, self._neighbors, self._asserts, self._upstream, self._downstream)
        deadlines = [part.next_deadline() for part in parts]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def packets_to_send(self) -> list[bytes]:
        """IP packets to send on the interface now, in order, drained."""
        self._flush()
        packets, self._packets = self._packets, []
        return packets

    def events(self) -> list[PimEvent]:
        """Changes since the last call, drained; of interest the last state of each group that changed."""
        interest = self._downstream.events()
        self._asserts.interest_changed((change.group for change in interest), self._now)
        self._follow_asserts(self._now)
        events, self._events = self._events, []
        return [*self._neighbors.events(), *events, *self._rendezvous.events(), *interest]

    # --- checks

    def _refusal(self, received: PimPacket) -> str | None:
        """Why a packet is not to be believed, or None."""
        if Family.of(received.source) is not self._family:
            return "wrong_family"
        if not self._started or self._address is None:
            return "not_running"
        if received.source == self._address or received.source in self._secondaries:
            return "own_packet"
        reason = refusal(received, self._address)
        if reason is None and isinstance(received.message, JoinPrune | Assert | Bootstrap):
            return None if received.source in self._neighbors else "not_a_neighbor"  # no Hello before (§4.3.1)
        return reason

    # --- messages

    def _dispatch(self, received: PimPacket, now: float) -> None:
        sender = received.source
        match received.message:
            case Hello() as hello:
                self._receive_hello(hello, sender, now)
            case JoinPrune() as message:
                self._receive_join_prune(message, sender, now)
            case Assert() as message:
                self._asserts.receive(message, sender, now)
                self._follow_asserts(now)
            case Register() as register:
                self._rendezvous.receive(register, sender, received.destination, now)
            case Bootstrap(bsr, no_forward=no_forward):
                if self._config.forward_bootstrap and not no_forward and received.destination.is_multicast:
                    self._events.append(BootstrapReceived(bsr, sender, received.payload))
            case RegisterStop():
                pass  # we register nothing

    def _receive_hello(self, hello: Hello, sender: Address, now: float) -> None:
        known = sender in self._neighbors
        match self._neighbors.receive(hello, sender, now):
            case Greeting.NEW:
                self._hellos.trigger(now)
                self._upstream.neighbor_changed(now)
            case Greeting.RESTARTED:
                self._hellos.trigger(now)
                self._asserts.neighbor_gone(sender, now)
                self._follow_asserts(now)
                self._upstream.neighbor_changed(now)
                self._upstream.neighbor_restarted(sender, now)
            case Greeting.MOVED:
                self._upstream.neighbor_changed(now)
            case Greeting.GOODBYE:
                if known:
                    self._lose(sender, now)
            case Greeting.KNOWN | Greeting.REFUSED:
                pass

    def _receive_join_prune(self, message: JoinPrune, sender: Address, now: float) -> None:
        # Neighbours should say our primary address (RFC 7761 §4.5.1); some take their next hop's, which we listed.
        if message.upstream != self._address and message.upstream not in self._secondaries:
            self._upstream.overhear(message, now)
            return
        self._downstream.receive(message, sender, now, self._neighbors.prune_override_interval)
        if not len(self._asserts):
            return
        for listed in message.groups:
            for source in listed.joins:
                if source.wildcard or not source.rpt:
                    channel = Channel(None if source.wildcard else source.address, listed.group)
                    self._asserts.join_received(channel, now)
        self._follow_asserts(now)

    def _lose(self, address: Address, now: float) -> None:
        """A neighbour is gone; what it joined stays until it expires (RFC 7761 §4.5)."""
        self._asserts.neighbor_gone(address, now)
        self._follow_asserts(now)
        self._upstream.neighbor_changed(now)

    def _follow_asserts(self, now: float) -> None:
        """Hand on what was settled anew, and ask the winner for what we join (RPF', RFC 7761 §4.1.6)."""
        for event in self._asserts.events():
            self._events.append(event)
            lost = event.outcome is AssertOutcome.LOSER
            self._upstream.assert_changed(event.channel, event.winner if lost else None, now)

    # --- what we say

    def _appear(self, now: float) -> None:
        self._settle_addresses(now)
        if self._started and self._address is not None:
            self._hellos.start(now)

    def _disappear(self) -> None:
        """Goodbye, from the address that is still ours; nothing else is said from it (RFC 7761 §4.3.1)."""
        if self._address is not None and self._hellos.known:
            self._send(self._hellos.goodbye())
        self._hellos.stop()

    def _settle_addresses(self, now: float) -> None:
        """Tell every part what addresses are ours."""
        own = self._secondaries if self._address is None else (self._address, *self._secondaries)
        self._rendezvous.set_addresses((*own, *self._rendezvous_elsewhere))
        self._downstream.rendezvous_addresses = frozenset((*own, *self._rendezvous_elsewhere))
        if self._started:
            self._neighbors.set_address(self._address, own)
            self._asserts.set_address(self._address, now)
            self._follow_asserts(now)

    def _flush(self) -> None:
        """Turn what the parts have to say into packets; a Hello goes first where one is due (RFC 7761 §4.3.1)."""
        if self._address is None or not self._started:
            return
        messages: list[Message] = []
        echoes = self._downstream.echoes()
        if echoes:
            holdtime = join_prune_holdtime(self._config)
            messages += pack_join_prunes(self._address, holdtime, (), echoes, _PACKET_SIZE)
        messages += self._upstream.messages(_PACKET_SIZE)
        messages += self._asserts.messages()
        if messages and self._hellos.due:
            self._say_hello()
        for message in messages:
            self._send(message)
        for stop in self._rendezvous.messages():
            self._packets.append(encode_packet(stop.message, stop.source, stop.destination))

    def _say_hello(self) -> None:
        self._send(self._hellos.hello(self._secondaries))
        self._hellos.said(self._now)

    def _send(self, message: Message) -> None:
        assert self._address is not None
        self._packets.append(encode_packet(message, self._address, ALL_PIM_ROUTERS[self._family]))

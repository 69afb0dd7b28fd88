"""PIM on one interface: a raw link and the machine, feeding tree and neighbours' news."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.net.group_socket import GroupSocket
from agent.net.interfaces import Interface
from agent.net.link import OpenLink
from agent.net.rawlink import RawLink
from agent.net.rawlink_filter import LinkProtocol
from agent.protocol.channels import Address, Channel, Family, Filter, FilterMode, is_forwardable_group, is_ssm_group
from agent.protocol.group_state import InterestChanged
from agent.protocol.pim import PimInterface
from agent.protocol.pim_config import PimConfig
from agent.protocol.pim_events import (
    AssertChanged,
    BootstrapReceived,
    DesignatedRouterChanged,
    NeighborDown,
    NeighborUp,
    PimEvent,
)
from agent.protocol.pim_packet import ALL_PIM_ROUTERS, encode_packet
from agent.protocol.wire import pim
from agent.service.driver import Driver
from agent.tree import InterestKind, Owner

_log = logging.getLogger(__name__)

_HEADER = 20


class Wishes(Protocol):
    """Takes what is wanted downstream, as agent.service.admission does."""

    def wish(self, owner: Owner, group: Address, wanted: Filter, neighbor: Callable[[Channel], Address | None]) -> None:
        """`owner` wants this of `group` from now on."""

    def withdraw(self, owner: Owner) -> None:
        """`owner` is gone with all it wanted."""


@dataclass(frozen=True, slots=True)
class PimEvents:
    """What a link tells its owner besides wishes; each is called with the link."""

    neighbors_changed: Callable[[PimLink], None]
    designated_changed: Callable[[PimLink, DesignatedRouterChanged], None]
    assert_changed: Callable[[PimLink, AssertChanged], None]
    bootstrap: Callable[[PimLink, BootstrapReceived], None]


class PimLink:
    """One family on one interface.

    Attributes:
        interface: its name.
        family: IP version.
        machine: the protocol machine.
        link: where its packets come and go.
        owner: whose wishes these are in the tree.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interface: str,
        family: Family,
        config: PimConfig,
        wishes: Wishes,
        events: PimEvents,
        open_link: OpenLink = RawLink,
    ) -> None:
        """Start the machine; it waits for `follow` to give it an address.

        Raises:
            PermissionError: the process lacks CAP_NET_RAW.
        """
        self.interface = interface
        self.family = family
        self.owner = Owner(InterestKind.PIM, interface)
        self._wishes = wishes
        self._events = events
        self._membership: GroupSocket | None = None
        self._member_of = 0
        system = secrets.SystemRandom()
        self.machine = PimInterface(config, family, system.random, lambda: secrets.randbits(32))
        self.link = open_link(loop, interface, family, self._receive, LinkProtocol.PIM)
        self._driver = Driver(loop, self.machine, self._drain)
        self._is_there = True
        self.machine.start(loop.time())

    def configure(self, config: PimConfig) -> None:
        """Go on with other timers and limits; neighbours and what they joined stay."""
        self.machine.configure(config, self._driver.now)
        self._driver.flush()

    def follow(self, interface: Interface | None) -> bool:
        """Take over the interface's present state: absent, down, or up with an address to speak from.

        Neighbours of an interface that is gone are gone with it; of one that is down they may come back in time.

        Returns:
            Whether the machine begins anew, and has to be told again what to join and what can be asserted.
        """
        begins = interface is not None and not self._is_there
        self._is_there = interface is not None
        if begins:
            self.machine.start(self._driver.now)
        if interface is None:
            self._leave_routers()
            self.link.close()  # a device that was renamed is another interface now
            self.machine.stop(self._driver.now)
        if interface is None or not interface.up:
            self.machine.set_address(None, (), self._driver.now)
        else:
            self.link.reopen()
            self._join_routers(interface.index)
            primary = interface.querier_address(self.family)
            others = tuple(
                item.address
                for item in interface.addresses
                if item.address.version == self.family and item.address != primary and not item.tentative
            )
            self.machine.set_address(primary, others, self._driver.now)
        self._driver.flush()
        return begins

    def flush(self) -> None:
        """Send what the machine wants sent after it was called, once in the loop's next turn."""
        self._driver.flush_soon()

    @property
    def now(self) -> float:
        """The clock the machine lives by, in seconds."""
        return self._driver.now

    def close(self) -> None:
        """Say goodbye, stop listening and withdraw what was wanted here."""
        self.machine.stop(self._driver.now)
        for packet in self.machine.packets_to_send():
            self.link.send(packet)
        self._driver.close()
        self._leave_routers()
        self.link.close()
        self._wishes.withdraw(self.owner)

    def send(self, message: pim.Message) -> bool:
        """Send a message to all PIM routers of the link from our address; False when there is none, or no link."""
        source, destination = self.machine.address, ALL_PIM_ROUTERS[self.family]
        if source is None:
            return False
        return self.link.send(encode_packet(message, source, destination))

    def _receive(self, packet: bytes) -> None:
        if _is_unicast(packet):  # what is sent to us alone comes through the rendezvous point's own sockets
            return
        self.machine.receive_packet(packet, self._driver.now)
        self._driver.flush()

    def _drain(self) -> None:
        for packet in self.machine.packets_to_send():
            self.link.send(packet)
        for event in self.machine.events():
            self._take(event)

    def _take(self, event: PimEvent) -> None:
        match event:
            case InterestChanged(group=group, filter=wanted):
                self._take_interest(group, wanted)
            case NeighborUp(address=address):
                _log.info("pim neighbor up interface=%s neighbor=%s", self.interface, address)
                self._events.neighbors_changed(self)
            case NeighborDown(address=address, reason=reason):
                _log.info("pim neighbor down interface=%s neighbor=%s reason=%s", self.interface, address, reason.value)
                self._events.neighbors_changed(self)
            case DesignatedRouterChanged(address=address, is_ours=is_ours):
                _log.info(
                    "pim designated router interface=%s family=%d address=%s ours=%s",
                    self.interface,
                    self.family,
                    address,
                    "yes" if is_ours else "no",
                )
                self._events.designated_changed(self, event)
            case AssertChanged():
                self._events.assert_changed(self, event)
            case BootstrapReceived():
                self._events.bootstrap(self, event)
            case _:  # SourceRegistered comes from the rendezvous point's own socket
                pass

    def _take_interest(self, group: Address, wanted: Filter) -> None:
        if not is_forwardable_group(group) or (wanted.mode is FilterMode.EXCLUDE and is_ssm_group(group)):
            return
        self._wishes.wish(self.owner, group, wanted, self.machine.joined_by)

    def _join_routers(self, index: int) -> None:
        """Be a member of the routers' group, so that switches that snoop deliver it."""
        if self._member_of == index:
            return
        self._leave_routers()
        membership = GroupSocket(self.family)
        try:
            membership.join(index, ALL_PIM_ROUTERS[self.family])
        except OSError as error:
            membership.close()
            _log.warning("cannot join the PIM routers' group interface=%s: %s", self.interface, error)
            return
        self._membership, self._member_of = membership, index

    def _leave_routers(self) -> None:
        if self._membership is not None:
            self._membership.close()
        self._membership, self._member_of = None, 0


def _is_unicast(packet: bytes) -> bool:
    """Whether an IP packet goes to no group; one too short to tell is the machine's to refuse."""
    if len(packet) < _HEADER:
        return False
    return packet[16] >> 4 != 0xE if packet[0] >> 4 == Family.IPV4 else packet[24:25] != b"\xff"

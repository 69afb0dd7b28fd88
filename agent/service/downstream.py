"""One downstream interface: IGMP and MLD queriers on raw links, feeding the tree."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from agent.net.interfaces import Interface
from agent.net.link import OpenLink
from agent.net.rawlink import RawLink
from agent.net.rawlink_filter import LinkProtocol
from agent.protocol.channels import NOTHING, Address, Family, Filter, FilterMode, is_forwardable_group, is_ssm_group
from agent.protocol.querier import InterestChanged, Querier, QuerierConfig
from agent.service.driver import Driver
from agent.tree import InterestKind, Owner

_log = logging.getLogger(__name__)

KIND_OF_FAMILY: Mapping[Family, InterestKind] = {Family.IPV4: InterestKind.IGMP, Family.IPV6: InterestKind.MLD}


class Wishes(Protocol):
    """Takes what is wanted downstream; agent.service.admission does it."""

    def wish(self, owner: Owner, group: Address, wanted: Filter) -> None:
        """`owner` wants this of `group` from now on; `NOTHING` withdraws it."""

    def withdraw(self, owner: Owner) -> None:
        """`owner` is gone with all it wanted."""


class Listener:
    """The router side of one family on one interface.

    Attributes:
        interface: its name.
        family: IPv4 for IGMP, IPv6 for MLD.
        querier: the machine.
        link: where its packets come and go.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interface: str,
        family: Family,
        config: QuerierConfig,
        wishes: Wishes,
        open_link: OpenLink = RawLink,
    ) -> None:
        """Start the machine; it waits for `follow` to give it an address.

        Raises:
            PermissionError: the process lacks CAP_NET_RAW.
        """
        self.family = family
        self.interface = interface
        self._wishes = wishes
        self._owner = Owner(KIND_OF_FAMILY[family], interface)
        self.querier = Querier(config, family)
        self.link = open_link(loop, interface, family, self._receive, LinkProtocol.GROUP_MEMBERSHIP)
        self._driver = Driver(loop, self.querier, self._drain)
        self.querier.start(loop.time())

    def follow(self, interface: Interface | None) -> None:
        """Take over the interface's present state: absent, down, or up with an address to query from."""
        if interface is None or not interface.up:
            self.querier.set_address(None, (), self._driver.now)
        else:
            self.link.reopen()
            networks = [item.network for item in interface.addresses if item.address.version == self.family]
            self.querier.set_address(interface.querier_address(self.family), networks, self._driver.now)
        self._driver.flush()

    def reconfigure(self, config: QuerierConfig) -> None:
        """Use other timers and limits; groups stay."""
        self.querier.configure(config, self._driver.now)
        self._driver.flush()

    def close(self) -> None:
        """Stop listening and withdraw what was wanted here."""
        self._driver.close()
        self.link.close()
        self._wishes.withdraw(self._owner)

    def _receive(self, packet: bytes) -> None:
        self.querier.receive_packet(packet, self._driver.now)
        self._driver.flush()

    def _drain(self) -> None:
        for packet in self.querier.packets_to_send():
            self.link.send(packet)
        for event in self.querier.events():
            if isinstance(event, InterestChanged):
                self._take_interest(event.group, event.filter)
            else:
                _log.info("querier changed interface=%s address=%s", self.interface, event.address)

    def _take_interest(self, group: Address, wanted: Filter) -> None:
        if not is_forwardable_group(group):
            return
        if wanted.mode is FilterMode.EXCLUDE and is_ssm_group(group):  # RFC 4604 §2.2.2: no any-source joins there
            wanted = NOTHING
        self._wishes.wish(self._owner, group, wanted)

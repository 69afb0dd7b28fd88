"""The rendezvous point of some any-source groups: Registers come in, Register-Stops go out (RFC 7761 §4.4.2)."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable

from agent.net.pim_socket import PimSocket
from agent.protocol.channels import Address, Channel, Network
from agent.protocol.pim_rendezvous import Rendezvous
from agent.protocol.wire import pim
from agent.protocol.wire.errors import WireError

_log = logging.getLogger(__name__)


class RendezvousPoint:
    """Sockets at our RP addresses and the machine behind them.

    Attributes:
        machine: what Registers mean.
        received: messages by kind.
        sent: messages by kind.
        refused: messages that meant nothing, by reason, beside those of the machine.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        addresses: Iterable[Address],
        groups: Iterable[Network],
        on_source: Callable[[Channel], None],
    ) -> None:
        """Listen at `addresses`, which need not be there yet.

        Raises:
            PermissionError: the process lacks CAP_NET_RAW.
            OSError: an address cannot be used.
        """
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._loop = loop
        self._on_source = on_source
        self._sockets: dict[Address, PimSocket] = {}
        self.machine = Rendezvous((), ())
        self.configure(addresses, groups)

    def configure(self, addresses: Iterable[Address], groups: Iterable[Network]) -> None:
        """Be the RP of other groups, at other addresses; sources that registered for groups that stay are kept.

        Raises:
            PermissionError: the process lacks CAP_NET_RAW.
            OSError: an address cannot be used; then everything is as it was.
        """
        wanted = tuple(addresses)
        opened: dict[Address, PimSocket] = {}
        try:
            for address in wanted:
                if address not in self._sockets:
                    opened[address] = PimSocket(self._loop, address, self._receive)
        except OSError:
            for one in opened.values():
                one.close()
            raise
        self._sockets.update(opened)
        for address in [address for address in self._sockets if address not in wanted]:
            self._sockets.pop(address).close()
        self.machine.set_addresses(wanted)
        self.machine.set_groups(groups)

    def sources(self, group: Address) -> list[Address]:
        """Sources of a group that registered and still count as active."""
        return self.machine.sources(group, self._loop.time())

    def close(self) -> None:
        """Stop listening."""
        for one in self._sockets.values():
            one.close()

    def _receive(self, message: bytes, sender: Address, ours: Address) -> None:
        try:
            decoded = pim.decode(message, sender, ours)
        except WireError as error:
            self.refused[error.reason] += 1
            return
        if not isinstance(decoded, pim.Register):
            self.refused["not_a_register"] += 1
            return
        self.received["register_null" if decoded.null else "register"] += 1
        self.machine.receive(decoded, sender, ours, self._loop.time())
        for answer in self.machine.messages():
            data = pim.encode(answer.message, answer.source, answer.destination)
            if self._sockets[answer.source].send(data, answer.destination):
                self.sent["register_stop"] += 1
        for event in self.machine.events():
            _log.info("pim source registered channel=%s", event.channel, extra={"reason": "source_registered"})
            self._on_source(event.channel)

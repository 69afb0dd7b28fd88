"""The rendezvous point of some any-source groups: Registers come in, Register-Stops go out (RFC 7761 §4.4.2)."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from agent.net.pim_socket import PimSocket
from agent.protocol.channels import Address, Channel, Network
from agent.protocol.pim_rendezvous import Rendezvous
from agent.protocol.wire import pim
from agent.protocol.wire.errors import WireError

_log = logging.getLogger(__name__)

_GROUPS: Final = 10_000


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
        self._known: dict[Address, set[Address]] = {}
        self._sockets: dict[Address, PimSocket] = {}
        ours = tuple(addresses)
        self.machine = Rendezvous(ours, groups)
        try:
            for address in ours:
                self._sockets[address] = PimSocket(loop, address, self._receive)
        except OSError:
            self.close()
            raise

    def sources(self, group: Address) -> list[Address]:
        """Sources of a group that registered and still count as active."""
        now = self._loop.time()
        known = self._known.get(group, set())
        known -= {source for source in known if not self.machine.is_active(Channel(source, group), now)}
        return sorted(known, key=int)

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
            self._remember(event.channel)

    def _remember(self, channel: Channel) -> None:
        if channel.source is None:
            return
        _log.info("pim source registered channel=%s", channel, extra={"reason": "source_registered"})
        if channel.group not in self._known and len(self._known) >= _GROUPS:
            self._known.pop(next(iter(self._known)))
        self._known.setdefault(channel.group, set()).add(channel.source)
        self._on_source(channel)

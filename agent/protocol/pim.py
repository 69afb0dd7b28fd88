"""PIM sparse mode on one interface: neighbours, what they want, our own Joins, Asserts (RFC 7761).

Whole IP packets go in and come out. One machine serves one interface and one family.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim_config import PimConfig
from agent.protocol.pim_downstream import DownstreamView
from agent.protocol.pim_events import PimEvent
from agent.protocol.pim_neighbors import NeighborView


class PimInterface:
    """PIM router on one interface.

    Attributes:
        received: messages that passed the checks, by kind.
        refused: packets, or parts of them, that were dropped, by reason.
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
        self.refused: Counter[str] = Counter()
        self._config, self._family, self._random, self._nonce32 = config, family, random, nonce32

    @property
    def address(self) -> Address | None:
        """Our primary address on the link; link-local on IPv6."""
        raise NotImplementedError

    @property
    def designated_router(self) -> Address | None:
        """The link's DR, ours or another's; None before `start` or without an address (RFC 7761 §4.3.2)."""
        raise NotImplementedError

    @property
    def is_designated(self) -> bool:
        """Whether we are the DR."""
        raise NotImplementedError

    def start(self, now: float) -> None:
        """Begin: the first Hello follows within the triggered Hello delay."""
        raise NotImplementedError

    def stop(self, now: float) -> None:
        """Say goodbye and forget everything; `packets_to_send` still has the goodbye."""
        raise NotImplementedError

    def set_address(self, primary: Address | None, secondaries: Iterable[Address], now: float) -> None:
        """Follow the interface's addresses; goodbye is said from an old primary one (RFC 7761 §4.3.1)."""
        raise NotImplementedError

    def set_rendezvous_addresses(self, addresses: Iterable[Address]) -> None:
        """Addresses we are the RP at besides those of this interface, such as a loopback's."""
        raise NotImplementedError

    def receive_packet(self, packet: bytes, now: float) -> None:
        """Take an IP packet seen on the interface; what is bad about it is counted in `refused`."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> None:
        """Act on what is due at `now`, a bounded share at a time: `next_deadline` tells when there is more."""
        raise NotImplementedError

    def next_deadline(self) -> float | None:
        """When `handle_timer` has something to do, or None."""
        raise NotImplementedError

    def packets_to_send(self) -> list[bytes]:
        """IP packets to send on the interface now, in order, drained."""
        raise NotImplementedError

    def events(self) -> list[PimEvent]:
        """Changes since the last call, drained; of interest the last state of each group that changed."""
        raise NotImplementedError

    def neighbors(self) -> list[NeighborView]:
        """Neighbours, by address."""
        raise NotImplementedError

    def find_neighbor(self, address: Address) -> Address | None:
        """Primary address of the neighbour that has `address`, as primary or secondary; None when nobody has."""
        raise NotImplementedError

    def join_upstream(self, channel: Channel, neighbor: Address, now: float) -> None:
        """Ask `neighbor` for (S,G) until `prune_upstream`; another neighbour than before gets the channel moved.

        While nobody at that address said Hello nothing is sent.

        Raises:
            ValueError: a (*,G) channel: we join no shared tree of others.
        """
        raise NotImplementedError

    def prune_upstream(self, channel: Channel, now: float) -> None:
        """Ask no longer; nothing happens when it was not asked for."""
        raise NotImplementedError

    def set_forwarding(self, channel: Channel, metric: tuple[int, int] | None, now: float) -> None:
        """We can forward `channel` onto this link with this preference and metric, or no longer (RFC 7761 §4.6)."""
        raise NotImplementedError

    def data_received(self, channel: Channel, now: float) -> None:
        """A packet of `channel` came in on this link although we forward it onto it: somebody else does too."""
        raise NotImplementedError

    def lost_assert(self, channel: Channel) -> bool:
        """Whether another router forwards `channel` onto this link (RFC 7761 §4.6)."""
        raise NotImplementedError

    def channels(self) -> list[DownstreamView]:
        """Every (*,G), (S,G) and (S,G,rpt) of the link's neighbours."""
        raise NotImplementedError

    @property
    def channel_count(self) -> int:
        """How many of these there are."""
        raise NotImplementedError

    def joined_by(self, channel: Channel) -> Address | None:
        """The neighbour that asked for `channel` last, None when nobody wants it."""
        raise NotImplementedError

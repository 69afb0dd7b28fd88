"""PIM neighbours of one interface: who is there, what they told, and who is DR (RFC 7761 §4.3)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Final

from agent.protocol.channels import Address
from agent.protocol.pim_config import PimConfig
from agent.protocol.pim_events import DesignatedRouterChanged, NeighborDown, NeighborLostReason, NeighborUp
from agent.protocol.timers import Timers
from agent.protocol.wire.pim import HOLDTIME_FOREVER, Hello, LanPruneDelay

DEFAULT_HELLO_HOLDTIME: Final = 105
"""Of a Hello that says none, in seconds (RFC 7761 §4.3.2, §4.11)."""

DEFAULT_PROPAGATION_DELAY: Final = 0.5
DEFAULT_OVERRIDE_INTERVAL: Final = 2.5
"""On a link where not everybody tells their own, in seconds (RFC 7761 §4.11)."""


class Greeting(Enum):
    """What a Hello turned out to be."""

    NEW = "new"
    RESTARTED = "restarted"
    MOVED = "moved"  # other secondary addresses than before
    KNOWN = "known"
    GOODBYE = "goodbye"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class NeighborView:
    """One neighbour as `status` shows it.

    Attributes:
        address: its primary address, the source of its Hellos.
        secondaries: its other addresses on the link (Address List option).
        dr_priority: None when its Hello had no such option.
        generation_id: None when its Hello had no such option.
        since: when its first Hello came, or its first after a restart.
        expires: when it is gone unless it says Hello again, None for never.
        holdtime: seconds, as told; infinite for 0xffff.
        lan_prune_delay: None when its Hello had no such option.
    """

    address: Address
    secondaries: tuple[Address, ...]
    dr_priority: int | None
    generation_id: int | None
    since: float
    expires: float | None
    holdtime: float
    lan_prune_delay: LanPruneDelay | None


@dataclass(slots=True)
class _Neighbor:
    hello: Hello
    secondaries: tuple[Address, ...]
    since: float
    holdtime: float


class NeighborTable:
    """Neighbours of one interface, and what follows from all of them together.

    Attributes:
        designated_router: the DR, ours or another's; None while we have no address.
        propagation_delay: Effective_Propagation_Delay in seconds (RFC 7761 §4.3.3).
        override_interval: Effective_Override_Interval in seconds.
        suppression_enabled: Suppression_Enabled: false when every neighbour can track Joins itself.
    """

    def __init__(self, config: PimConfig, refused: Counter[str]) -> None:
        self.designated_router: Address | None = None
        self.propagation_delay = DEFAULT_PROPAGATION_DELAY
        self.override_interval = DEFAULT_OVERRIDE_INTERVAL
        self.suppression_enabled = True
        self._config = config
        self._refused = refused
        self._address: Address | None = None
        self._own: frozenset[Address] = frozenset()
        self._neighbors: dict[Address, _Neighbor] = {}
        self._primaries: dict[Address, Address] = {}  # of secondary addresses
        self._timers: Timers[Address] = Timers()
        self._events: list[NeighborUp | NeighborDown | DesignatedRouterChanged] = []

    def __contains__(self, address: Address) -> bool:
        """Whether a neighbour's primary address is `address`."""
        return address in self._neighbors

    @property
    def prune_override_interval(self) -> float:
        """J/P_Override_Interval in seconds, 0 with a single neighbour (RFC 7761 §4.5.1, §4.5.2)."""
        return self.propagation_delay + self.override_interval if len(self._neighbors) > 1 else 0.0

    def configure(self, config: PimConfig) -> None:
        """Take another priority, delays and limit; who is there stays."""
        self._config = config
        self._settle()

    def set_address(self, primary: Address | None, own: Iterable[Address]) -> None:
        """Take part in the election with `primary`; `own` are all addresses of ours, which no neighbour has."""
        self._address, self._own = primary, frozenset(own)
        self._settle()

    def clear(self) -> None:
        """Forget everybody, without a word."""
        self._neighbors.clear()
        self._primaries.clear()
        self._timers.clear()
        self._settle()

    def receive(self, hello: Hello, sender: Address, now: float) -> Greeting:
        """Take a Hello (RFC 7761 §4.3.2)."""
        known = self._neighbors.get(sender)
        if hello.holdtime == 0:
            if known is not None:
                self._remove(sender, NeighborLostReason.GOODBYE)
            return Greeting.GOODBYE
        if known is None and len(self._neighbors) >= self._config.max_neighbors:
            self._refused["too_many_neighbors"] += 1
            return Greeting.REFUSED
        restarted = known is not None and known.hello.generation_id != hello.generation_id
        if restarted:
            self._remove(sender, NeighborLostReason.RESTARTED)
        greeting = self._note(hello, sender, now)
        return Greeting.RESTARTED if restarted else greeting

    def handle_timer(self, now: float, limit: int) -> list[Address]:
        """Who fell silent; `limit` at most."""
        lost = list(islice(self._timers.expired(now), limit))
        for address in lost:
            self._remove(address, NeighborLostReason.EXPIRED)
        return lost

    def next_deadline(self) -> float | None:
        """When the next one is gone unless it says Hello, or None."""
        return self._timers.next_deadline()

    def find(self, address: Address) -> Address | None:
        """Primary address of the neighbour that has `address`, as primary or secondary (RFC 7761 §4.3.4)."""
        return address if address in self._neighbors else self._primaries.get(address)

    def addresses_of(self, primary: Address) -> tuple[Address, ...]:
        """Every address of a neighbour, its primary one first; none when nobody is there."""
        neighbor = self._neighbors.get(primary)
        return () if neighbor is None else (primary, *neighbor.secondaries)

    def events(self) -> list[NeighborUp | NeighborDown | DesignatedRouterChanged]:
        """Changes since the last call, drained."""
        events, self._events = self._events, []
        return events

    def views(self) -> list[NeighborView]:
        """Neighbours, by address."""
        return [
            NeighborView(
                address,
                neighbor.secondaries,
                neighbor.hello.dr_priority,
                neighbor.hello.generation_id,
                neighbor.since,
                self._timers.deadline(address),
                neighbor.holdtime,
                neighbor.hello.lan_prune_delay,
            )
            for address, neighbor in sorted(self._neighbors.items(), key=lambda item: int(item[0]))
        ]

    def _note(self, hello: Hello, sender: Address, now: float) -> Greeting:
        """Write down what a neighbour says of itself; everything it said before is superseded."""
        holdtime = DEFAULT_HELLO_HOLDTIME if hello.holdtime is None else hello.holdtime
        seconds = math.inf if holdtime == HOLDTIME_FOREVER else float(holdtime)
        before = self._neighbors.get(sender)
        self._release(sender)
        secondaries = tuple(dict.fromkeys(address for address in hello.addresses if self._is_free(address, sender)))
        for address in secondaries:
            self._disclaim(address)
            self._primaries[address] = sender
        self._neighbors[sender] = _Neighbor(hello, secondaries, now if before is None else before.since, seconds)
        if seconds == math.inf:
            self._timers.cancel(sender)
        else:
            self._timers.set(sender, now + seconds)
        if before is None:
            self._events.append(NeighborUp(sender))
        self._settle()
        if before is None:
            return Greeting.NEW
        return Greeting.KNOWN if before.secondaries == secondaries else Greeting.MOVED

    def _is_free(self, address: Address, sender: Address) -> bool:
        """Whether a secondary address is nobody's of whom we know better: not ours, nor one somebody speaks from."""
        if address == sender:
            return False
        if address in self._own or address in self._neighbors or address.is_multicast:
            self._refused["address_list_conflict"] += 1
            return False
        return True

    def _release(self, primary: Address) -> None:
        """Forget a neighbour's secondary addresses, and whose secondary its primary one was thought to be."""
        for address in self.addresses_of(primary)[1:]:
            del self._primaries[address]
        self._disclaim(primary)

    def _disclaim(self, address: Address) -> None:
        """Take a secondary address from who named it before: of several the latest counts (RFC 7761 §4.3.4)."""
        claimant = self._primaries.pop(address, None)
        if claimant is not None:
            self._refused["address_list_conflict"] += 1
            other = self._neighbors[claimant]
            other.secondaries = tuple(each for each in other.secondaries if each != address)

    def _remove(self, address: Address, reason: NeighborLostReason) -> None:
        self._release(address)
        del self._neighbors[address]
        self._timers.cancel(address)
        self._events.append(NeighborDown(address, reason))
        self._settle()

    def _settle(self) -> None:
        """Work out anew what depends on everybody (RFC 7761 §4.3.2, §4.3.3)."""
        delays = [neighbor.hello.lan_prune_delay for neighbor in self._neighbors.values()]
        told = [delay for delay in delays if delay is not None]
        if len(told) == len(delays):
            self.propagation_delay = max([self._config.propagation_delay, *(d.propagation_delay / 1000 for d in told)])
            self.override_interval = max([self._config.override_interval, *(d.override_interval / 1000 for d in told)])
            self.suppression_enabled = not told or not all(delay.tracking for delay in told)
        else:
            self.propagation_delay, self.override_interval = DEFAULT_PROPAGATION_DELAY, DEFAULT_OVERRIDE_INTERVAL
            self.suppression_enabled = True
        elected = self._elect()
        if elected != self.designated_router:
            self.designated_router = elected
            self._events.append(DesignatedRouterChanged(elected, elected is not None and elected == self._address))

    def _elect(self) -> Address | None:
        """The DR: by priority, then address; by address alone when a neighbour tells no priority (§4.3.2)."""
        if self._address is None:
            return None
        told = {address: neighbor.hello.dr_priority for address, neighbor in self._neighbors.items()}
        priorities = {address: priority for address, priority in told.items() if priority is not None}
        if len(priorities) < len(told):
            return max((self._address, *told), key=int)
        priorities[self._address] = self._config.dr_priority
        return max(priorities, key=lambda address: (priorities[address], int(address)))

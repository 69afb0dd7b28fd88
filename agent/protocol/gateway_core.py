"""What the parts of a gateway share: its state, clock, timers and tunnel, and what it hands out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Final

from agent.protocol.channels import Address, Datagram, Endpoint, Family, Filter
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.gateway_events import Event, StateChanged
from agent.protocol.gateway_exchange import Chance, Discovery, RequestCycle
from agent.protocol.gateway_state import State, Trigger, transition
from agent.protocol.gateway_tunnel import GatewayTunnel
from agent.protocol.timers import Timers
from agent.protocol.wire import amt

_SENT: Final = {kind: f"sent_{kind.name.lower()}" for kind in amt.MessageType}


class Timer(Enum):
    """What a gateway waits for."""

    RETRY = auto()  # the outstanding Discovery or Request is sent again
    QUERY = auto()  # the next Request cycle (RFC 7450 §5.2.3.5)
    LIMIT = auto()  # a relay that took no new tunnel is asked again


class GatewayCore:
    """State without behaviour: `Gateway` is the machine.

    Attributes:
        config: as given; of it, `Gateway.keep_warm` changes the field of that name.
        counters: `sent_<message>` and `received_<message>` with the names of `amt.MessageType`, `dropped_<reason>`,
            `hint_<kind>`, `lost_<reason>`.
    """

    def __init__(self, config: GatewayConfig, entropy: Callable[[int], bytes]) -> None:
        """`entropy(n)` gives n bytes of the operating system's CSPRNG."""
        self.config = config
        self.counters: Final[Counter[str]] = Counter()
        self._chance = Chance(entropy)
        self._tunnel = GatewayTunnel(config, self._chance.fraction)
        self._timers: Timers[Timer] = Timers()
        self._state = State.STOPPED
        self._now = 0.0
        self._out: list[Datagram] = []
        self._events: list[Event] = []
        self._relay: Endpoint | None = None if config.discover else config.endpoint
        self._relay_heard_at = 0.0
        self._last_query: float | None = None
        self._relay_lost_told = False
        self._kernel_mld: tuple[Endpoint, bool] | None = None  # a relay, and whether its P flag is the kernel's
        self._discovery: Discovery | None = None
        self._cycle: RequestCycle | None = None
        self._limit = False
        self._hint_allowed_at = 0.0

    @property
    def state(self) -> State:
        """What the machine is doing."""
        return self._state

    @property
    def relay(self) -> Endpoint | None:
        """Unicast endpoint of the relay, once known; data is accepted only from there."""
        return self._relay

    @property
    def gateway_address(self) -> Endpoint | None:
        """Our address and port as the relay last told it (G flag)."""
        return self._tunnel.reported.endpoint if self._tunnel.reported else None

    @property
    def limit(self) -> bool:
        """Whether the relay's last Query carried the L flag."""
        return self._limit

    @property
    def last_query(self) -> float | None:
        """When the last valid Membership Query came, None before the first."""
        return self._last_query

    @property
    def query_interval(self) -> float | None:
        """Seconds between Request cycles as the relay asked for them (QQIC), None while no query came."""
        return self._cycle.interval if self._cycle is not None and self._cycle.answered else None

    @property
    def has_groups(self) -> bool:
        """Whether any group is wanted."""
        return any(membership.filters for membership in self._tunnel.updates.memberships.values())

    @property
    def memberships(self) -> dict[Address, Filter]:
        """Wanted groups of both families, a copy."""
        return {
            group: state
            for membership in self._tunnel.updates.memberships.values()
            for group, state in membership.filters.items()
        }

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called, or None."""
        deadlines = (self._timers.next_deadline(), self._tunnel.updates.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def datagrams_to_send(self) -> list[Datagram]:
        """Drain what is to be sent, in order."""
        self._send_to_relay(self._tunnel.due(self._now))
        datagrams, self._out = self._out, []
        return datagrams

    def events(self) -> list[Event]:
        """Drain what happened, in order."""
        events, self._events = self._events, []
        return events

    def _families(self) -> set[Family]:
        """Families whose Request cycle must go on."""
        return self._tunnel.updates.families | self.config.keep_warm

    def _hint_is_due(self) -> bool:
        if self._now < self._hint_allowed_at:
            return False
        self._hint_allowed_at = self._now + self.config.hint_interval
        return True

    def _let_go(self, trigger: Trigger) -> None:
        """Move to a state in which nothing is asked and no MAC is held."""
        self._tunnel.close()
        self._discovery = self._cycle = None
        self._timers.clear()
        self._move(trigger)

    def _advance(self, now: float) -> None:
        self._now = max(self._now, now)

    def _move(self, trigger: Trigger) -> None:
        old, self._state = self._state, transition(self._state, trigger)
        if old is not self._state:
            self._events.append(StateChanged(old, self._state))

    def _send_to_relay(self, messages: Iterable[amt.Message]) -> None:
        for message in messages:
            assert self._relay is not None  # a message to the relay is made from what the relay answered
            self._send(message, self._relay)

    def _send(self, message: amt.Message, destination: Endpoint) -> None:
        self.counters[_SENT[message.type]] += 1
        self._out.append(Datagram(message.encode(), destination))

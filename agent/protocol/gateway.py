"""AMT gateway (RFC 7450 §5.2), one per relay or relay discovery address and outer family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from agent.protocol.channels import Address, Datagram, Endpoint, Filter
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.gateway_events import Event
from agent.protocol.gateway_state import State


class Gateway:
    """Keeps one tunnel and the membership reported through it.

    Groups of both families travel in one tunnel of either outer family. Every method that takes `now` wants seconds of
    one monotonic clock. After any call: send what `datagrams_to_send` gives, read `events`, arm `next_deadline`.
    """

    def __init__(self, config: GatewayConfig, entropy: Callable[[int], bytes]) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self._entropy = entropy

    @property
    def state(self) -> State:
        """What the machine is doing."""
        raise NotImplementedError

    @property
    def relay(self) -> Endpoint | None:
        """Unicast endpoint of the relay, once known; data is accepted only from there."""
        raise NotImplementedError

    @property
    def gateway_address(self) -> Endpoint | None:
        """Our address and port as the relay last told it (G flag)."""
        raise NotImplementedError

    @property
    def limit(self) -> bool:
        """Whether the relay's last Query carried the L flag."""
        raise NotImplementedError

    def start(self, now: float) -> None:
        """Begin; does nothing when already started. Discovery begins once something is wanted or kept warm."""

    def stop(self, now: float) -> None:
        """Leave all groups, then Teardown where the relay told our address; datagrams are ready, nothing follows."""

    def set_membership(self, group: Address, state: Filter, now: float) -> None:
        """Set the merged filter of one group; a filter that wants nothing leaves it.

        Raises:
            ValueError: not a forwardable group, a source of another family or not unicast, or EXCLUDE inside the
                source-specific range (RFC 4607 §1).
        """

    def receive_datagram(self, data: bytes, source: Endpoint, now: float) -> None:
        """Take one UDP payload; what is not a valid answer to something asked is counted and dropped."""

    def receive_error(self, now: float) -> None:
        """Take an ICMP error on the socket as a hint: the next try comes sooner, nothing is given up."""

    def relay_silent(self, now: float) -> None:
        """Take the owner's word that subscribed data stopped: a Request cycle re-reports everything."""

    def refresh(self, now: float) -> None:
        """Try again now, as after the uplink came back: back-off starts anew."""

    def handle_timer(self, now: float) -> None:
        """Do what is due."""

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called, or None."""
        raise NotImplementedError

    def datagrams_to_send(self) -> list[Datagram]:
        """Drain what is to be sent, in order."""
        raise NotImplementedError

    def events(self) -> list[Event]:
        """Drain what happened, in order."""
        raise NotImplementedError

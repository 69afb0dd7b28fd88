"""Router side of IGMP or MLD on one interface: queries, election, and what its hosts want (RFC 3376 §6, RFC 3810 §7).

Whole IP packets go in and come out. One machine serves one family: the family of its address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from agent.protocol.channels import Address, Family, Network
from agent.protocol.group_state import GroupLimits, GroupTable, GroupView, InterestChanged
from agent.protocol.group_timing import DEFAULT_ROBUSTNESS, GroupTiming
from agent.protocol.querier_config import QuerierConfig
from agent.protocol.timers import Timers
from agent.protocol.wire import group_packet
from agent.protocol.wire.errors import WireError
from agent.protocol.wire.group_packet import GroupPacket
from agent.protocol.wire.groups import AnySourceReport, GroupVersion, Query

__all__ = ["InterestChanged", "Querier", "QuerierChanged", "QuerierConfig", "QuerierEvent"]


class QuerierTimer(Enum):
    """What a deadline is for."""

    GENERAL_QUERY = "general_query"
    OTHER_QUERIER_PRESENT = "other_querier_present"


@dataclass(frozen=True, slots=True)
class QuerierChanged:
    """The link's querier is now `address`, which may be ours; None while we have no address."""

    address: Address | None


QuerierEvent: TypeAlias = InterestChanged | QuerierChanged


class Querier:
    """IGMP or MLD router on one interface.

    Attributes:
        received: messages that passed the checks, by kind.
    """

    def __init__(
        self, config: QuerierConfig, family: Family, address: Address | None = None, networks: Iterable[Network] = ()
    ) -> None:
        """Make a machine that sends nothing before `start`.

        Args:
            config: timers, limits and checks.
            family: family served.
            address: the interface's primary IPv4 address, or its IPv6 link-local address; None while it has none.
            networks: the interface's IPv4 networks, for the check of sources.
        """
        self.received: Counter[str] = Counter()
        self._config = config
        self._family = family
        self._address = address
        self._networks = tuple(networks)
        self._table = GroupTable(config.timing, _limits(config), config.fast_leave, querier=False)
        self._timers: Timers[QuerierTimer] = Timers()
        self._started = False
        self._querier: Address | None = None
        self._startup_left = 0
        self._packets: list[bytes] = []
        self._events: list[QuerierEvent] = []

    @property
    def refused(self) -> Counter[str]:
        """Packets, records or parts of them that were dropped, by reason."""
        return self._table.refused

    @property
    def address(self) -> Address | None:
        """Our address on the link."""
        return self._address

    @property
    def querier_address(self) -> Address | None:
        """Address of the elected querier, ours or another's; None before `start` or without an address."""
        return self._querier

    @property
    def is_querier(self) -> bool:
        """Whether we are the elected querier."""
        return self._table.querier

    @property
    def timing(self) -> GroupTiming:
        """Timers in effect: ours, or with what the elected querier told."""
        return self._table.timing

    def start(self, now: float) -> None:
        """Begin as querier with the startup queries (RFC 3376 §6.6.2, §8.6)."""
        if not self._started:
            self._started = True
            self._become_querier(now)

    def stop(self) -> None:
        """Forget every group and send nothing more."""
        self._started = False
        self._timers.clear()
        self._table.set_querier(querier=False)
        self._table.clear()
        self._set_querier(None)
        self._packets.clear()

    def configure(self, config: QuerierConfig, now: float) -> None:
        """Take a new configuration without losing a group."""
        self._config = config
        self._table.limits = _limits(config)
        self._table.fast_leave = config.fast_leave
        if self.is_querier or not self._started:
            self._table.timing = config.timing
        if self._started and self.is_querier:
            self._timers.set(QuerierTimer.GENERAL_QUERY, now)

    def set_address(self, address: Address | None, networks: Iterable[Network], now: float) -> None:
        """Follow the interface's address; a new one takes part in the election from the beginning."""
        self._networks = tuple(networks)
        if address == self._address:
            return
        self._address = address
        if self._started:
            self._become_querier(now)

    def receive_packet(self, packet: bytes, now: float) -> None:
        """Take an IP packet seen on the interface; what is bad about it is counted in `refused`."""
        try:
            received = group_packet.decode(packet)
        except WireError as error:
            self.refused[error.reason] += 1
            return
        refusal = self._refusal(received)
        if refusal is not None:
            self.refused[refusal] += 1
            return
        message = received.message
        self.received[_kind(message)] += 1
        if isinstance(message, Query):
            self._receive_query(message, received.source, now)
        else:
            self._table.receive(message, now)

    def handle_timer(self, now: float) -> None:
        """Act on what is due at `now`."""
        for timer in self._timers.expired(now):
            if timer is QuerierTimer.GENERAL_QUERY:
                self._send_general_query(now)
            else:
                self._become_querier(now)
        self._table.handle_timer(now)

    def next_deadline(self) -> float | None:
        """When `handle_timer` has something to do, or None."""
        deadlines = [self._timers.next_deadline(), self._table.next_deadline()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def packets_to_send(self) -> list[bytes]:
        """IP packets to send on the interface now, drained."""
        for query in self._table.queries():
            self._send(query)
        packets, self._packets = self._packets, []
        return packets

    def events(self) -> list[QuerierEvent]:
        """Changes since the last call, in order of their kind, drained."""
        events, self._events = self._events, []
        return [*events, *self._table.events()]

    @property
    def group_count(self) -> int:
        """How many groups the hosts want."""
        return len(self._table)

    def groups(self) -> list[GroupView]:
        """Groups the hosts want, with their timers."""
        return list(self._table.views())

    def _refusal(self, received: GroupPacket) -> str | None:
        """Why a packet is not to be believed, or None."""
        if Family.of(received.source) is not self._family:
            return "wrong_family"
        if not self._started:
            return "not_running"
        if received.source == self._address:
            return "own_packet"
        if received.ttl != 1:
            return "ttl_not_1"
        if self._config.require_router_alert and not received.router_alert and not _is_version_1(received.message):
            return "no_router_alert"
        return self._source_refusal(received.source)

    def _source_refusal(self, source: Address) -> str | None:
        if self._family is Family.IPV6:
            # RFC 3810 §5.1.14 for queries; §5.2.13 for reports, those from :: included: routers drop them too.
            return None if source.is_link_local else "source_not_link_local"
        if source.is_unspecified or not self._config.check_source or not self._networks:
            return None  # hosts without an address report from 0.0.0.0 (RFC 3376 §4.2.13)
        return None if any(source in network for network in self._networks) else "source_off_link"

    def _receive_query(self, query: Query, source: Address, now: float) -> None:
        if query.version < self._config.version:
            self.received["older_query"] += 1  # the operator has to lower `version` (RFC 3376 §7.3.1)
        if source.is_unspecified or query.version is GroupVersion.ANY_SOURCE_BASIC or self._address is None:
            return  # snooping switches ask from 0.0.0.0 (RFC 4541 §2.1.1), and IGMPv1 has no election
        if int(source) < int(self._address) and (self.is_querier or int(source) <= int(self._querier or source)):
            self._follow(query, source, now)
        if source == self._querier:
            self._table.receive_query(query, now)

    def _follow(self, query: Query, source: Address, now: float) -> None:
        """Leave the queries to a router with a lower address (RFC 3376 §6.6.2), and take over its QRV and QQI."""
        self._timers.cancel(QuerierTimer.GENERAL_QUERY)
        self._table.set_querier(querier=False)
        self._set_querier(source)
        self._table.timing = self._adopted(query)
        present = self._config.other_querier_present_interval or self.timing.other_querier_present_interval
        self._timers.set(QuerierTimer.OTHER_QUERIER_PRESENT, now + present)

    def _adopted(self, query: Query) -> GroupTiming:
        """Our timers with the querier's robustness and interval, 0 meaning the defaults (RFC 3376 §4.1.6, §4.1.7)."""
        timing = self._config.timing
        if query.version is not GroupVersion.SOURCE_SPECIFIC:
            return timing
        interval = min(query.interval, self._config.maximum_adopted_interval) or timing.query_interval
        return replace(
            timing,
            robustness_variable=query.robustness or DEFAULT_ROBUSTNESS,
            query_interval=interval,
            query_response_interval=min(timing.query_response_interval, interval / 2),
        )

    def _become_querier(self, now: float) -> None:
        self._timers.cancel(QuerierTimer.OTHER_QUERIER_PRESENT)
        self._table.timing = self._config.timing
        self._table.set_querier(querier=self._address is not None)
        self._set_querier(self._address)
        self._startup_left = self._config.timing.startup_count
        self._send_general_query(now)

    def _set_querier(self, address: Address | None) -> None:
        if address != self._querier:
            self._querier = address
            self._events.append(QuerierChanged(address))

    def _send_general_query(self, now: float) -> None:
        timing = self._config.timing
        self._send(
            Query(
                max_response_time=timing.query_response_interval,
                robustness=timing.robustness,
                interval=int(timing.query_interval),
                version=self._config.version,
            )
        )
        self._startup_left = max(self._startup_left - 1, 0)
        interval = timing.startup_interval if self._startup_left else timing.query_interval
        self._timers.set(QuerierTimer.GENERAL_QUERY, now + interval)

    def _send(self, query: Query) -> None:
        if self._address is None:
            return
        if self._config.version < query.version:
            if query.sources or (query.group is not None and self._config.version is GroupVersion.ANY_SOURCE_BASIC):
                return  # older versions cannot ask about these; their timers run all the same
            query = replace(query, version=self._config.version)
        self._packets.append(group_packet.encode(query, self._address))


def _limits(config: QuerierConfig) -> GroupLimits:
    return GroupLimits(config.max_groups, config.max_sources)


def _is_version_1(message: object) -> bool:
    """IGMPv1 has no Router Alert."""
    return isinstance(message, AnySourceReport | Query) and message.version is GroupVersion.ANY_SOURCE_BASIC


def _kind(message: object) -> str:
    return {"Query": "query", "Report": "report", "AnySourceReport": "older_report", "Leave": "leave"}[
        type(message).__name__
    ]

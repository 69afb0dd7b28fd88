"""AMT gateway (RFC 7450 §5.2), one per relay or relay discovery address and outer family.

How long a fault lasts, with the default configuration; QI is the query interval the relay gave, RTT a round trip:

    a Discovery, Request or its answer is lost     1 s (doubling: 3 s after two, 7 s after three losses)
    an Update is lost                              1 s (repeated `robustness` times), else with the next query, QI
    relay restarted, or lost its state             QI + RTT; RTT after `relay_silent`
    relay rotated its key                          nothing is lost: every cycle brings a new nonce and MAC
    relay's MAC is wrong, its Updates are refused  QI + RTT once it is right; RTT after `relay_silent`
    relay gone, discovery finds another            QI + 15 s + 2 RTT, or 15 s + 2 RTT after `relay_silent`; 5 s instead
                                                   of the 15 where ICMP errors come back; with `probe_timeout`, as
                                                   soon as it is noticed, 3 times that, a quarter with ICMP errors
    relay gone and back, no other                  the wait reached by then, at most 120 s, 30 s where ICMP errors come
                                                   back; RTT after `refresh`
    NAT gave us another address or port            QI + RTT; RTT after `relay_silent`
    relay takes no new tunnel (L flag)             `RelayLimit` at once; asked again after `limit_retry`
    relay is about to close (L flag on a tunnel)   `LimitSet` with the next query; the tunnel goes on
    our uplink was down                            RTT after `refresh`, else the wait reached by then
    replayed, spoofed, malformed datagrams         nothing is lost: counted and dropped

The ECN capability flag of RFC 9601 is not sent.
"""

from __future__ import annotations

from dataclasses import replace

from agent.protocol.channels import Address, Endpoint, Family, Filter
from agent.protocol.gateway_answers import Refused, check_advertisement, check_query
from agent.protocol.gateway_core import GatewayCore, Timer
from agent.protocol.gateway_events import (
    FamilyUnanswered,
    GatewayAddressChanged,
    LimitSet,
    LostReason,
    RelayFound,
    RelayLimit,
    RelayLost,
)
from agent.protocol.gateway_exchange import Backoff, Discovery, ProbeBackoff, RequestCycle
from agent.protocol.gateway_state import State, Trigger
from agent.protocol.wire import amt
from agent.protocol.wire.errors import WireError


class Gateway(GatewayCore):
    """Keeps one tunnel and the membership reported through it.

    Groups of both families travel in one tunnel of either outer family. Every method that takes `now` wants seconds of
    one monotonic clock. After any call: send what `datagrams_to_send` gives, read `events`, arm `next_deadline`.
    """

    # What the owner wants ---------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin; does nothing when already started. Discovery begins once something is wanted or kept warm."""
        self._advance(now)
        if self._state is State.STOPPED:
            self._move(Trigger.START)
            self._relay_heard_at = now - self.config.relay_lifetime - 1  # a relay found before the stop is found anew
            if not self.config.discover:
                self._events.append(RelayFound(self.config.endpoint))
            self._wake()

    def stop(self, now: float) -> None:
        """Leave all groups, then Teardown where the relay told our address; datagrams are ready, nothing follows."""
        self._advance(now)
        if self._state is State.STOPPED:
            return
        self._send_to_relay(self._tunnel.farewell())
        self._let_go(Trigger.STOP)
        if self.config.discover:
            self._relay = None

    def set_membership(self, group: Address, state: Filter, now: float) -> None:
        """Set the merged filter of one group; a filter that wants nothing leaves it.

        Raises:
            ValueError: not a forwardable group, a source of another family or not unicast, or EXCLUDE inside the
                source-specific range (RFC 4607 §1).
        """
        self._advance(now)
        if not self._tunnel.updates.set(group, state):
            return
        family = Family.of(group)
        if self._state is State.IDLE:
            self._wake()
        elif self._state in (State.DISCOVERING, State.REQUESTING) and not self._families():
            self._let_go(Trigger.UNWANTED)
        elif self._state in (State.REQUESTING, State.ESTABLISHED):
            self._ask_for(family)

    def keep_warm(self, families: frozenset[Family], now: float) -> None:
        """Keep the Request cycle of other families going than configured; the tunnel and its groups stay."""
        self._advance(now)
        self.config = replace(self.config, keep_warm=families)
        if self._state is State.IDLE:
            self._wake()
        elif self._state in (State.DISCOVERING, State.REQUESTING) and not self._families():
            self._let_go(Trigger.UNWANTED)

    def probe_fast(self, timeout: float | None) -> None:
        """From the next hint on, wait so many seconds for each answer (see `GatewayConfig.probe_timeout`)."""
        self.config = replace(self.config, probe_timeout=timeout)

    def refresh(self, now: float) -> None:
        """Try again now, as after the uplink came back: back-off starts anew."""
        self._advance(now)
        match self._state:
            case State.DISCOVERING:
                self._discover()
            case State.REQUESTING | State.ESTABLISHED:
                self._request()
            case State.LIMITED:
                self._ask_again()

    # What comes in ----------------------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, source: Endpoint, now: float) -> None:
        """Take one UDP payload; what is not a valid answer to something asked is counted and dropped."""
        self._advance(now)
        try:
            message = amt.decode(data)
            if isinstance(message, amt.RelayAdvertisement):
                self._receive_advertisement(message, source)
            elif isinstance(message, amt.MembershipQuery):
                self._receive_query(message, source)
            elif isinstance(message, amt.MulticastData):
                self.counters["dropped_data"] += 1  # the data plane takes it; what arrives here is a stray
            else:
                self.counters["dropped_wrong_direction"] += 1
        except (WireError, Refused) as error:
            self.counters[f"dropped_{error.reason}"] += 1

    def receive_error(self, now: float) -> None:
        """Take an ICMP error on the socket as a hint: the next try comes sooner, nothing is given up."""
        self._advance(now)
        self.counters["hint_icmp"] += 1
        retry = self._timers.deadline(Timer.RETRY)
        exchange = self._discovery or self._cycle
        if retry is not None and exchange is not None:
            if exchange is self._cycle and self._state is State.ESTABLISHED:
                self._cycle.backoff = self._probing(self._cycle.backoff)
            self._timers.set(Timer.RETRY, self._now + exchange.backoff.hurry(retry - self._now))
        elif self._state is State.ESTABLISHED and self._families() and self._hint_is_due():
            if self.config.probe_timeout is not None:
                self._request(probe=True)
                return
            soon = self._now + self.config.initial_timeout
            self._timers.set(Timer.QUERY, min(self._timers.deadline(Timer.QUERY) or soon, soon))

    def relay_silent(self, now: float) -> bool:
        """Take the owner's word that subscribed data stopped: a Request cycle re-reports everything.

        At most one cycle in `hint_interval`. Where an answer is awaited anyway, the wait becomes that of a probe.

        Returns:
            False when the relay was asked too lately: the hint is to come again.
        """
        self._advance(now)
        self.counters["hint_silence"] += 1
        if self._state is not State.ESTABLISHED or not self._families():
            return True
        retry = self._timers.deadline(Timer.RETRY)
        if retry is None:
            if not self._hint_is_due():
                return False
            self._request(probe=True)
        elif self._cycle is not None and self.config.probe_timeout is not None:
            self._cycle.backoff = self._probing(self._cycle.backoff)
            self._timers.set(Timer.RETRY, min(retry, self._now + self.config.probe_timeout))
        return True

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self._advance(now)
        for timer in self._timers.expired(self._now):
            match timer:
                case Timer.RETRY:
                    self._retry()
                case Timer.QUERY:
                    self._request()
                case Timer.LIMIT:
                    self._ask_again()
        self._tunnel.updates.handle_timer(self._now)

    # Discovery (RFC 7450 §5.2.3.4) ------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Leave IDLE when something is wanted."""
        if not self._families():
            return
        self._relay_lost_told = False
        known = self._relay is not None and self._now - self._relay_heard_at <= self.config.relay_lifetime
        if known or not self.config.discover:
            self._request()
        else:
            self._discover()

    def _ask_again(self) -> None:
        """Leave LIMITED: another relay may answer a discovery."""
        if self.config.discover and self._families():
            self._discover()
        else:
            self._request()

    def _discover(self) -> None:
        self._move(Trigger.DISCOVER)
        self._timers.clear()
        self._relay = self._cycle = None
        self._limit = False
        self._discovery = Discovery(self._chance.nonce(), Backoff(self.config, self._chance))
        self._send_discovery(self._discovery)

    def _send_discovery(self, discovery: Discovery) -> None:
        self._send(amt.RelayDiscovery(discovery.nonce), self.config.endpoint)
        self._timers.set(Timer.RETRY, self._now + discovery.backoff.next_wait())

    def _receive_advertisement(self, message: amt.RelayAdvertisement, source: Endpoint) -> None:
        self._relay = check_advertisement(message, source, self._discovery, self.config)
        self.counters["received_relay_advertisement"] += 1
        self._discovery = None
        self._relay_heard_at = self._now
        self._relay_lost_told = False
        self._events.append(RelayFound(self._relay))
        self._request()

    # Requests and queries (RFC 7450 §5.2.3.5) -------------------------------------------------------------------------

    def _request(self, *, probe: bool = False) -> None:
        """Begin a Request cycle with a fresh nonce, or sink to IDLE when nothing is wanted.

        A `probe` follows a hint that the relay may be gone.
        """
        families = self._families()
        if not families:
            self._let_go(Trigger.UNWANTED)
            return
        if self._tunnel.credential is None:
            self._move(Trigger.REQUEST)
        if not self._tunnel.updates.families:
            self._tunnel.opened = False  # a whole interval without a group: the relay has dropped it
        self._timers.clear()
        backoff = Backoff(self.config, self._chance)
        if probe:
            backoff = self._probing(backoff)
        self._cycle = RequestCycle(self._chance.nonce(), backoff, families)
        self._send_requests(self._cycle)

    def _probing(self, backoff: Backoff) -> Backoff:
        """The waits of a probe, in place of others, where probes are to be fast."""
        if self.config.probe_timeout is None or isinstance(backoff, ProbeBackoff):
            return backoff
        return ProbeBackoff(self.config, self._chance, self.config.probe_timeout, backoff.attempts)

    def _ask_for(self, family: Family) -> None:
        """Ask for a family that a group came up in during the cycle; its nonce stays, and so does what it brought."""
        cycle = self._cycle
        if cycle is None or family not in self._families() or cycle.asks(family):
            return
        if cycle.pending:
            cycle.pending.add(family)
            self._send_to_relay([self._build_request(cycle, family)])
        else:
            cycle.pending.add(family)
            cycle.backoff = Backoff(self.config, self._chance)
            self._send_requests(cycle)

    def _send_requests(self, cycle: RequestCycle) -> None:
        self._send_to_relay([self._build_request(cycle, family) for family in sorted(cycle.pending)])
        self._timers.set(Timer.RETRY, self._now + cycle.backoff.next_wait())

    def _build_request(self, cycle: RequestCycle, family: Family) -> amt.Request:
        known = self._kernel_mld[1] if self._kernel_mld and self._kernel_mld[0] == self._relay else None
        return cycle.request(family, known)

    def _receive_query(self, message: amt.MembershipQuery, source: Endpoint) -> None:
        cycle = self._cycle
        answer = check_query(message, source, self._relay, cycle)
        assert cycle is not None
        assert self._relay is not None
        self.counters["received_membership_query"] += 1
        self._relay_heard_at = self._now
        self._last_query = self._now
        self._relay_lost_told = False
        was_limited, self._limit = self._limit, message.limit
        if message.limit and not self._tunnel.opened:
            self._give_way(self._relay)
            return
        if message.limit and not was_limited:
            self._events.append(LimitSet(self._relay))
        cycle.pending.discard(answer.family)
        cycle.answered.add(answer.family)
        cycle.abandoned.discard(answer.family)
        if answer.family is Family.IPV6:
            self._kernel_mld = (self._relay, cycle.kernel_mld)
        if not cycle.pending:
            self._timers.cancel(Timer.RETRY)
        self._schedule_cycle(cycle, answer.query.interval)
        moved = self._learn_address(message)
        self._tunnel.renew(answer.family, message)
        self._move(Trigger.QUERY)
        self._tunnel.report(answer.family, answer.query.robustness, set(Family) - cycle.pending, anew=moved)

    def _schedule_cycle(self, cycle: RequestCycle, interval: float) -> None:
        """Restart the query timer (RFC 7450 §5.2.3.5); of two families the one due first counts."""
        lower, upper = self.config.minimum_query_interval, self.config.maximum_query_interval
        bounded = min(max(interval or self.config.default_query_interval, lower), upper)
        cycle.interval = min(cycle.interval, bounded)
        cycle.due = min(cycle.due, self._now + bounded)
        self._timers.set(Timer.QUERY, cycle.due)

    def _learn_address(self, message: amt.MembershipQuery) -> bool:
        """Take the G fields; True when they moved, after a Teardown of the old tunnel (RFC 7450 §5.2.3.7)."""
        old, new = self._tunnel.learn_address(message)
        if new is None:
            return False
        self._events.append(GatewayAddressChanged(old.endpoint if old else None, new))
        if old is not None:
            self._send_to_relay([old.teardown()])
        return old is not None

    def _give_way(self, relay: Endpoint) -> None:
        """The relay takes no new tunnel (L flag, RFC 7450 §5.1.4.4)."""
        self._let_go(Trigger.LIMIT)
        self._events.append(RelayLimit(relay))
        if self.config.limit_retry is not None:
            self._timers.set(Timer.LIMIT, self._now + self.config.limit_retry)

    # Unanswered -------------------------------------------------------------------------------------------------------

    def _retry(self) -> None:
        if self._discovery is not None:
            self._retry_discovery(self._discovery)
        elif self._cycle is not None:
            self._retry_request(self._cycle)

    def _retry_discovery(self, discovery: Discovery) -> None:
        if discovery.backoff.attempts >= self.config.discovery_attempts and not self._relay_lost_told:
            self._tell_lost(LostReason.DISCOVERY_UNANSWERED)
        if discovery.backoff.capped and self._relay_lost_told:
            self._discover()
        else:
            self._send_discovery(discovery)

    def _retry_request(self, cycle: RequestCycle) -> None:
        cycle.pending &= self._families()
        spent = cycle.backoff.spent
        if cycle.answered and (spent or not cycle.pending):
            self._abandon(cycle)
        elif spent and not cycle.answered and not self._relay_lost_told:
            self._lose_relay(cycle)
        elif cycle.backoff.capped and self._relay_lost_told:
            self._request()
        else:
            self._send_requests(cycle)

    def _abandon(self, cycle: RequestCycle) -> None:
        """Let the families nobody answers rest until the next cycle."""
        self._events.extend(FamilyUnanswered(family) for family in sorted(cycle.pending))
        cycle.abandoned |= cycle.pending
        cycle.pending.clear()

    def _lose_relay(self, cycle: RequestCycle) -> None:
        self._tell_lost(LostReason.REQUEST_UNANSWERED)
        self._tunnel.close()
        if self.config.discover:
            self._discover()
        else:
            self._timers.clear()
            self._move(Trigger.REQUEST)
            if isinstance(cycle.backoff, ProbeBackoff):
                cycle.backoff = Backoff(self.config, self._chance)
            self._send_requests(cycle)

    def _tell_lost(self, reason: LostReason) -> None:
        self._relay_lost_told = True
        self.counters[f"lost_{reason.value}"] += 1
        self._events.append(RelayLost(self._relay, reason))

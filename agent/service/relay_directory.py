"""Every tunnel of the gateway role, to relays of the configuration and to discovered ones, and who goes through which.

The selection (`agent.protocol.relay_selection`) decides; this opens, asks, watches and closes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from agent.dataplane.engine import Engine
from agent.protocol.channels import Address, Channel
from agent.protocol.discovery import Answer, RelayLocation
from agent.protocol.gateway_events import Event, LimitSet, RelayLimit, RelayLost, StateChanged
from agent.protocol.gateway_state import State
from agent.protocol.relay_candidates import RelayCandidate
from agent.protocol.relay_selection import RelaySelection
from agent.protocol.timers import Timers
from agent.protocol.upstream import TunnelUpstream
from agent.service.config import Configuration
from agent.service.driver import Driver
from agent.service.gateway_settings import (
    discovered_candidate,
    discovered_settings,
    families,
    relay_candidates,
    selection_config,
    tunnel_settings,
)
from agent.service.port_store import PortStore
from agent.service.relay_moves import RelayMoves, Signal
from agent.service.relay_status import CandidateView, RelayView, view_candidates, view_relay
from agent.service.relay_watch import RelayWatch
from agent.service.tunnel import Tunnel, TunnelSettings

_log = logging.getLogger(__name__)

_SWEEP_SAMPLES: Final = 10
"""Samples between two looks for what nobody wants any more."""

_ATTEMPTS: Final = 8
"""Tunnels tried for a channel before giving up until something changes."""


def _ignore(_name: str) -> None:
    """What nobody listens to."""


class Discovery(Protocol):
    """Who tells relays of a source (RFC 8777)."""

    @property
    def is_enabled(self) -> bool:
        """Whether it asks anybody."""

    def lookup(self, source: Address) -> Answer | None:
        """What is known, None while nothing is; a sign of interest in the source."""

    def release(self, source: Address) -> None:
        """Nobody wants a source any more."""


class RelayDirectory:
    """Tunnels by name, those of the configuration first and in its order.

    Attributes:
        tunnels: open ones.
        selection: which channel goes through which.
        on_closing: called with the name of a tunnel before it is closed.
        on_lost: called with the name of a tunnel whose relay does not answer any more.
        on_established: called with the name of a tunnel whose relay answers.
        counters: `failed_<reason>`, `channels_moved`, `opened`, `closed`, `refused_<reason>`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        configuration: Configuration,
        engine: Engine,
        ports: PortStore,
        on_changed: Callable[[frozenset[Address]], None],
        discovery: Discovery | None = None,
    ) -> None:
        """Nothing is opened before `start`.

        Args:
            loop: the event loop.
            configuration: of role gateway.
            engine: what reads the tunnels.
            ports: local ports across restarts.
            on_changed: called with the groups whose `select` may answer otherwise now.
            discovery: asked for sources no relay of the configuration serves.
        """
        self.tunnels: Final[dict[str, Tunnel]] = {}
        self.selection = RelaySelection(selection_config(configuration), relay_candidates(configuration))
        self.counters: Final[Counter[str]] = Counter()
        self.on_closing: Callable[[str], None] = _ignore
        self.on_lost: Callable[[str], None] = _ignore
        self.on_established: Callable[[str], None] = _ignore
        self._loop = loop
        self._configuration = configuration
        self._engine = engine
        self._ports = ports
        self._on_changed = on_changed
        self._discovery = discovery
        self._locations: dict[str, RelayLocation] = {}
        self._used_at: dict[str, float] = {}
        self._asked: set[str] = set()
        self._watch = RelayWatch(engine, configuration.failover)
        self._moves = RelayMoves()
        self._timers: Timers[str] = Timers()
        self._driver = Driver(loop, self, self._settle)
        self._samples = 0

    def start(self) -> None:
        """Open the tunnels of the configuration.

        Raises:
            OSError: a configured port is in use, or an address family is not there.
        """
        self._replace(tunnel_settings(self._configuration))
        self._timers.set("watch", self._loop.time() + self._watch.period)
        self._driver.flush()

    def reconfigure(self, configuration: Configuration) -> None:
        """Run with another configuration; tunnels whose settings did not change go on.

        Raises:
            OSError: a configured port is in use.
        """
        self._configuration = configuration
        self._watch.reconfigure(configuration.failover)
        wanted = tunnel_settings(configuration)
        for name, location in self._locations.items():
            wanted.setdefault(name, discovered_settings(configuration, name, location))
        self._replace({name: item for name, item in wanted.items() if name in self.tunnels or not self._is_found(name)})
        self.selection.reconfigure(selection_config(configuration), relay_candidates(configuration))
        if self._discovery is None or not self._discovery.is_enabled:
            self._forget_discovered()
        self._driver.flush_soon()

    def close(self, *, farewell: bool = True) -> None:
        """Close every tunnel; with `farewell`, leave what is asked of the relays."""
        self._driver.close()
        for tunnel in self.tunnels.values():
            tunnel.close(farewell=farewell)
        self.tunnels.clear()

    # What is asked of it ----------------------------------------------------------------------------------------------

    def select(self, channel: Channel) -> TunnelUpstream | None:
        """Tunnels that bring a channel now; None when no relay serves it, or none is found yet.

        `on_changed` tells when the answer may be another one.
        """
        now = self._loop.time()
        self._look_up(channel)
        before = self.selection.assigned.get(channel) or ()
        opened: tuple[str, ...] = ()
        for _ in range(_ATTEMPTS):
            names = self.selection.select(channel, now)
            opened = tuple(name for name in names if self._open(name))
            if opened or not names:
                break
        if before and before != opened:
            self._tell_move(channel, before, opened, now)
        self._driver.flush_soon()
        return TunnelUpstream(opened) if opened else None

    def first_packet(self, channel: Channel, tunnel: str) -> None:
        """A tunnel's first packet of a channel came."""
        self._moves.first_packet(channel, tunnel, self._loop.time())

    def answered(self, source: Address) -> None:
        """Discovery has an answer for a source, or another one."""
        answer = self._discovery.lookup(source) if self._discovery is not None else None
        if answer is not None:
            self._take(source, answer)
            self._driver.flush_soon()

    def refresh(self) -> None:
        """Try every relay again now: the way there may be back, and what failed was not the relays."""
        self.selection.forgive(self._loop.time())
        for tunnel in self.tunnels.values():
            tunnel.refresh()
        self._driver.flush_soon()

    def sampled(self, is_wanted: Callable[[Channel], bool]) -> None:
        """To be called once a second: forget what nobody wants, close tunnels that have been idle for long."""
        self._samples += 1
        now = self._loop.time()
        self._close_idle(now)
        if self._samples % _SWEEP_SAMPLES:
            return
        for channel in self.selection.assigned.channels():
            if not is_wanted(channel):
                self._watch.forget_channel(channel)
                self._moves.forget(channel)
                if self.selection.release(channel) and self._discovery is not None and channel.source is not None:
                    self._discovery.release(channel.source)
        for source in self.selection.assigned.sources():
            if self.selection.knows(source) and self._discovery is not None:
                self._discovery.lookup(source)
        self.selection.health.prune(self.tunnels, now, self._configuration.failover.hold_down)
        self._driver.flush_soon()

    # What it shows ----------------------------------------------------------------------------------------------------

    def view(self, name: str) -> RelayView:
        """Origin and hold-down of a tunnel."""
        return view_relay(self.selection, name, self._loop.time())

    def candidates(self, channel: Channel) -> tuple[CandidateView, ...]:
        """Relays that serve a channel, most preferred first, and which of them bring it."""
        return view_candidates(self.selection, channel, self._loop.time())

    # What the driver calls --------------------------------------------------------------------------------------------

    def handle_timer(self, now: float) -> None:
        """End hold-downs, look for silence."""
        self.selection.handle_timer(now)
        for _ in self._timers.expired(now):
            self._timers.set("watch", now + self._watch.period)
            self._watch_silence(now)

    def next_deadline(self) -> float | None:
        """When `handle_timer` has something to do."""
        deadlines = (self.selection.next_deadline(), self._timers.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _settle(self) -> None:
        """Ask the relays that are to be asked, and tell which groups may move."""
        for name in self.selection.released():
            if name in self.tunnels:
                _log.info("hold-down ends tunnel=%s", name)
                self.tunnels[name].refresh()
        asked = self.selection.asked(self._loop.time())
        for name in asked - self.tunnels.keys():
            self._open(name)
        self._asked = asked
        warm = frozenset(families(self._configuration)[:1])
        timeout = self._configuration.failover.probe_timeout
        for name, tunnel in self.tunnels.items():
            is_choice = self.selection.has_choice(name)
            tunnel.ask(warm if name in asked else frozenset(), timeout if is_choice else None)
        groups = self.selection.changed()
        if groups:
            self._on_changed(frozenset(groups))

    # Tunnels ----------------------------------------------------------------------------------------------------------

    def _replace(self, wanted: dict[str, TunnelSettings]) -> None:
        """Close tunnels whose settings changed, open those that are missing."""
        for name, tunnel in list(self.tunnels.items()):
            if wanted.get(name) != tunnel.settings:
                self._close(name)
        for name, settings in wanted.items():
            if name not in self.tunnels:
                self._make(settings)
        for name in wanted:  # the order of the file
            self.tunnels[name] = self.tunnels.pop(name)

    def _make(self, settings: TunnelSettings) -> None:
        self.tunnels[settings.name] = Tunnel(self._loop, settings, self._engine, self._ports, self._event)
        self._used_at[settings.name] = self._loop.time()
        self.counters["opened"] += 1

    def _open(self, name: str) -> bool:
        """Have a tunnel there; False when that cannot be, and its relay is held down."""
        if name in self.tunnels:
            return True
        now = self._loop.time()
        location = self._locations.get(name)
        if location is None:
            return False
        if sum(self._is_found(other) for other in self.tunnels) >= self._configuration.discovery.relay_limit:
            self._fail(name, "too_many_relays", now)
            self.counters["refused_relay_limit"] += 1
            return False
        try:
            self._make(discovered_settings(self._configuration, name, location))
        except (OSError, ValueError) as error:
            _log.warning("relay cannot be used tunnel=%s: %s", name, error, extra={"reason": "relay_unusable"})
            self._fail(name, "unusable", now)
            self.counters["refused_unusable"] += 1
            return False
        _log.info("tunnel opened tunnel=%s origin=%s", name, location.method.value)
        return True

    def _close(self, name: str) -> None:
        self.on_closing(name)
        tunnel = self.tunnels.pop(name)
        self._used_at.pop(name, None)
        self._watch.forget_tunnel(name)
        self.selection.ended(name)
        tunnel.close()
        self.counters["closed"] += 1

    def _close_idle(self, now: float) -> None:
        """Close tunnels of discovered relays that nothing came through for long."""
        for name in [name for name in self.tunnels if self._is_found(name)]:
            if self.tunnels[name].has_groups or name in self._asked:
                self._used_at[name] = now
            elif now - self._used_at[name] >= self._configuration.discovery.idle_time:
                _log.info("tunnel closed, nothing comes through it tunnel=%s", name)
                self._close(name)
                self._locations.pop(name, None)

    def _forget_discovered(self) -> None:
        for source in self.selection.assigned.sources():
            if self.selection.knows(source):
                self.selection.discovered(source, ())
        for name in [name for name in self.tunnels if self._is_found(name)]:
            self._close(name)
        self._locations.clear()

    def _is_found(self, name: str) -> bool:
        """Whether a tunnel is to a discovered relay alone."""
        candidate = self.selection.candidate(name)
        return name in self._locations and (candidate is None or not candidate.is_configured)

    # Discovery --------------------------------------------------------------------------------------------------------

    def _look_up(self, channel: Channel) -> None:
        source, discovery = channel.source, self._discovery
        if source is None or discovery is None or not discovery.is_enabled or self.selection.knows(source):
            return
        if self.selection.candidates(channel):
            return
        if (answer := discovery.lookup(source)) is not None:
            self._take(source, answer)

    def _take(self, source: Address, answer: Answer) -> None:
        found: list[RelayCandidate] = []
        for location in answer.candidates:
            candidate = discovered_candidate(location)
            if candidate.name not in self.tunnels:
                self._locations[candidate.name] = location
            found.append(candidate)
        self.selection.discovered(source, found)

    # What happens -----------------------------------------------------------------------------------------------------

    def _event(self, tunnel: Tunnel, event: Event) -> None:
        now = self._loop.time()
        match event:
            case RelayLost(_, reason):
                self.on_lost(tunnel.name)
                self._fail(tunnel.name, reason.value, now)
                self._probe_others(tunnel, now)
            case RelayLimit():
                self._fail(tunnel.name, "relay_limit", now)
            case LimitSet():
                if self.selection.limited(tunnel.name, now):
                    self.counters["failed_relay_limit"] += 1
                    _log.warning("relay is left because of its L flag tunnel=%s", tunnel.name)
            case StateChanged(_, State.ESTABLISHED):
                self.on_established(tunnel.name)
                self.selection.established(tunnel.name, tunnel.machine.relay, now)
            case StateChanged(_, State.DISCOVERING | State.REQUESTING):
                self.selection.trying(tunnel.name, now)
            case StateChanged():
                self.selection.idle(tunnel.name)
            case _:
                return
        self._driver.flush_soon()

    def _fail(self, name: str, reason: str, now: float) -> None:
        until = self.selection.failed(name, reason, now)
        self.counters[f"failed_{reason}"] += 1
        _log.warning("relay held down tunnel=%s reason=%s seconds=%.0f", name, reason, until - now)

    def _probe_others(self, lost: Tunnel, now: float) -> None:
        """What took one relay may have taken others: those that nothing comes from are asked now."""
        for name, tunnel in self.tunnels.items():
            if (
                tunnel is not lost
                and tunnel.machine.state is State.ESTABLISHED
                and not self._watch.is_flowing(name, now)
            ):
                tunnel.probe()

    def _watch_silence(self, now: float) -> None:
        for name in self._watch.silent_tunnels(self.tunnels, now):
            if self.tunnels[name].probe() and self._watch.probed(name, now):
                _log.warning("tunnel fell silent tunnel=%s", name, extra={"reason": "tunnel_silent"})
        assigned = self.selection.assigned
        for channel, name in self._watch.silent_channels(assigned.channels(), lambda key: assigned.get(key) or (), now):
            if self.selection.channel_silent(channel, name, now):
                self._watch.tried_elsewhere(channel, name)
                self.counters["failed_channel_silent"] += 1

    def _tell_move(self, channel: Channel, before: tuple[str, ...], after: tuple[str, ...], now: float) -> None:
        self.counters["channels_moved"] += 1
        left = (self.tunnels[name].signal for name in before if name not in after and name in self.tunnels)
        signal = next(filter(None, left), Signal("move", now))
        self._moves.moved(channel, before, after, self.selection.why_left(channel, before, after, now), signal)

"""One tunnel of the gateway role: the gateway machine, its socket and its place in the engine."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from agent.dataplane.engine import Engine, TunnelSocket
from agent.net import udp
from agent.protocol.channels import Address, Endpoint, Family, Filter
from agent.protocol.gateway import Gateway
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.gateway_events import (
    Event,
    FamilyUnanswered,
    GatewayAddressChanged,
    LimitSet,
    RelayFound,
    RelayLimit,
    RelayLost,
    StateChanged,
)
from agent.protocol.gateway_state import State
from agent.service.driver import Driver
from agent.service.port_store import PortStore
from agent.service.relay_moves import Signal

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """What a tunnel is told beside its machine's configuration.

    Attributes:
        name: key of the tunnel, stable across restarts.
        gateway: configuration of the machine.
        port: local UDP port, 0 for the one stored or any.
        interface: uplink to bind to, None to follow the routes.
        strict_port: refuse data from another port of the relay.
        receive_buffer: bytes.
    """

    name: str
    gateway: GatewayConfig
    port: int
    interface: str | None
    strict_port: bool
    receive_buffer: int


class Tunnel:
    """A gateway machine on a socket that the engine reads.

    Attributes:
        established_at: loop time of the last change to ESTABLISHED, None before it.
        last_error: why the relay was last lost, None when it never was.
        send_errors: datagrams the kernel did not take.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: TunnelSettings,
        engine: Engine,
        ports: PortStore,
        on_event: Callable[[Tunnel, Event], None],
    ) -> None:
        """Open the socket and start the machine.

        Raises:
            OSError: a configured port is in use, or the family is not there.
        """
        self.settings = settings
        self.established_at: float | None = None
        self.last_error: str | None = None
        self.send_errors = 0
        self._signal: Signal | None = None
        self._loop = loop
        self._engine = engine
        self._on_event = on_event
        self.machine = Gateway(settings.gateway, os.urandom)
        self._driver = Driver(loop, self.machine, self._drain)
        self._socket = _open_socket(settings, ports)
        self._has_uplink = True
        self._bind_uplink()
        self._data_from = settings.gateway.endpoint
        self._attach()
        self.machine.start(loop.time())
        self._driver.flush_soon()

    @property
    def name(self) -> str:
        """Key of the tunnel."""
        return self.settings.name

    @property
    def local_port(self) -> int:
        """Our UDP port."""
        return int(self._socket.getsockname()[1])

    @property
    def has_groups(self) -> bool:
        """Whether anything is wanted through it."""
        return self.machine.has_groups

    @property
    def signal(self) -> Signal | None:
        """What told that the relay may be gone, or is going, since it last answered."""
        signal, answered = self._signal, self.machine.last_query
        return signal if signal is not None and (answered is None or answered <= signal.at) else None

    def set_membership(self, group: Address, wanted: Filter) -> None:
        """Tell the machine what is wanted of a group; flushed in the loop's next turn."""
        try:
            self.machine.set_membership(group, wanted, self._driver.now)
        except ValueError as error:
            _log.warning("group not reported tunnel=%s: %s", self.name, error, extra={"reason": "group_refused"})
            return
        self._driver.flush_soon()

    def ask(self, families: frozenset[Family], probe_timeout: float | None) -> None:
        """Keep the relay asked for families, whether or not a group is wanted; flushed in the loop's next turn.

        With a `probe_timeout` (seconds) a relay that may be gone is soon given up.
        """
        config = self.machine.config
        if config.probe_timeout != probe_timeout:
            self.machine.probe_fast(probe_timeout)
        if config.keep_warm != families:
            self.machine.keep_warm(families, self._driver.now)
            self._driver.flush_soon()

    def refresh(self) -> None:
        """Try again now: the way to the relay may be back, on an uplink that was made anew."""
        self._bind_uplink()
        self.machine.refresh(self._driver.now)
        self._driver.flush_soon()

    def probe(self) -> bool:
        """Have the relay asked now whether it is there, and told again what is wanted; False: it was just asked."""
        is_asked = self.machine.relay_silent(self._driver.now)
        if is_asked and self.signal is None:
            self._signal = Signal("silence", self._driver.now)
        self._driver.flush_soon()
        return is_asked

    def close(self, *, farewell: bool = True) -> None:
        """Leave everything (with `farewell`, say so to the relay) and close the socket."""
        if farewell:
            self.machine.stop(self._driver.now)
            self._driver.flush()
        self._driver.close()
        self._engine.remove_tunnel(self.name)
        self._socket.close()

    def _bind_uplink(self) -> None:
        """Bind to whatever carries the uplink's name now: a socket stays on the device it was bound to, gone or not.

        Without the uplink nothing is sent: another way out is not what the operator asked for.
        """
        interface = self.settings.interface
        if interface is None:
            return
        try:
            udp.bind_to_interface(self._socket, interface)
        except OSError as error:
            self._has_uplink = False
            _log.warning("uplink not usable tunnel=%s interface=%s: %s", self.name, interface, error)
        else:
            self._has_uplink = True

    def _attach(self) -> None:
        self._engine.add_tunnel(
            TunnelSocket(
                name=self.name,
                socket=self._socket,
                relay=self._data_from,
                on_control=self._receive,
                on_error=self._receive_error,
                strict_port=self.settings.strict_port,
                receive_buffer=self.settings.receive_buffer,
            )
        )

    def _receive(self, data: bytes, source: Endpoint) -> None:
        self.machine.receive_datagram(data, source, self._driver.now)
        self._driver.flush()

    def _receive_error(self, hint: udp.IcmpHint) -> None:
        relay = self.machine.relay or self.settings.gateway.endpoint
        if hint.destination == relay and hint.error != errno.EMSGSIZE:
            if self.signal is None or self.signal.kind != "icmp":
                self._signal = Signal("icmp", self._driver.now)
                reporter, error = hint.reporter or "unknown", errno.errorcode.get(hint.error, str(hint.error))
                _log.info("icmp error tunnel=%s reporter=%s error=%s", self.name, reporter, error)
            self.machine.receive_error(self._driver.now)
            self._driver.flush()

    def _drain(self) -> None:
        for datagram in self.machine.datagrams_to_send():
            error = udp.send(self._socket, datagram) if self._has_uplink else OSError(errno.ENODEV, "uplink is absent")
            if error is not None:
                self.send_errors += 1
                _log.warning(
                    "send failed tunnel=%s destination=%s: %s",
                    self.name,
                    datagram.destination,
                    error,
                    extra={"reason": "send_failed"},
                )
        for event in self.machine.events():
            self._handle(event)

    def _handle(self, event: Event) -> None:
        match event:
            case StateChanged(old, new):
                _log.info("tunnel state changed tunnel=%s old=%s new=%s", self.name, old.value, new.value)
                if new is State.ESTABLISHED:
                    self.established_at = self._driver.now
            case RelayFound(relay):
                _log.info("relay found tunnel=%s relay=%s", self.name, relay)
                if relay != self._data_from:
                    self._data_from = relay
                    self._attach()
            case RelayLost(relay, reason):
                self.last_error = reason.value
                _log.warning("relay lost tunnel=%s relay=%s reason=%s", self.name, relay, reason.value)
            case LimitSet(relay):
                self._signal = Signal("limit", self._driver.now)
                _log.warning("relay takes no more tunnels, ours goes on tunnel=%s relay=%s", self.name, relay)
            case RelayLimit(relay):
                self.last_error = "relay_limit"
                _log.warning("relay takes no new tunnels tunnel=%s relay=%s", self.name, relay)
            case GatewayAddressChanged(old, new):
                _log.info("our address as the relay sees it tunnel=%s old=%s new=%s", self.name, old, new)
            case FamilyUnanswered(family):
                _log.warning("relay does not answer for IPv%d tunnel=%s", family, self.name)
        self._on_event(self, event)


def _open_socket(settings: TunnelSettings, ports: PortStore) -> socket.socket:
    """Socket on the configured port, else on the one used last time, else on any."""
    stored = 0 if settings.port else ports.get(settings.name)
    wanted = settings.port or stored
    for port in dict.fromkeys((wanted, 0) if stored else (wanted,)):
        try:
            opened = udp.open_tunnel_socket(
                settings.gateway.address,
                port=port,
                receive_buffer=settings.receive_buffer,
                error_queue=True,
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port != stored or not stored:
                where = f"tunnel {settings.name}, local UDP port {port or 'any'}"
                raise OSError(error.errno, f"{where}: {error.strerror}") from error
            _log.warning("stored port in use, taking another tunnel=%s port=%d", settings.name, port)
            continue
        if not settings.port:
            ports.put(settings.name, int(opened.getsockname()[1]))
        return opened
    raise OSError(errno.EADDRINUSE, f"no port for tunnel {settings.name}")

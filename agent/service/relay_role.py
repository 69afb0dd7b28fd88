"""The relay role: one relay machine on the relay's UDP sockets, and the data plane that feeds its tunnels."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from typing import Final

from agent.dataplane.fanout_oversize import Oversize
from agent.dataplane.relay import RelayDataPlane
from agent.net import udp
from agent.net.interfaces import ChangeKind, InterfaceChange, InterfaceMonitor
from agent.net.socket_options import set_send_buffer
from agent.protocol.channels import Address, Endpoint, Family
from agent.protocol.relay import InterestChanged, Relay, RelayConfig, TunnelClosed, TunnelOpened
from agent.service.config import Configuration
from agent.service.config.sections import EngineChoice
from agent.service.driver import Driver
from agent.service.fixed_keys import refuse_fixed
from agent.service.relay_channels import RelayChannels

_log = logging.getLogger(__name__)

_DRAIN: Final = 64
_BURST_SECONDS: Final = 20
"""Requests answered at once, in seconds of the rate: gateways behind one address ask together after a fault."""

_FIXED: Final = ("interfaces", "address", "discovery_address", "port", "oversize", "state_dir")
"""Keys of [relay] that take a restart."""


class RelayRole:
    """Everything of a running relay.

    Attributes:
        configuration: what it runs on.
        machine: the relay machine.
        data: capture, joins and fan-out.
        monitor: the host's interfaces.
        channels: who subscribed to what.
        send_errors: control messages the kernel did not take.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, configuration: Configuration) -> None:
        """Open sockets and interfaces; what was opened is closed again when something fails.

        Raises:
            OSError: an address, port or interface is not to be had.
        """
        self._loop = loop
        self.configuration = configuration
        self.send_errors = 0
        self.channels = RelayChannels()
        self.machine = Relay(relay_config(configuration), os.urandom)
        self._driver = Driver(loop, self.machine, self._drain)
        self._sockets: dict[Address, socket.socket] = {}
        try:
            self._open_sockets()
            self.data = RelayDataPlane(
                loop,
                {Family.of(address): self._sockets[address] for address in configuration.relay.address},
                configuration.relay.interfaces,
                oversize=Oversize(configuration.relay.oversize.value),
                on_join_failure=_join_failed,
                kernel=configuration.dataplane.engine is not EngineChoice.USERSPACE,
            )
        except BaseException:
            self._close_sockets()
            raise
        try:
            self.monitor = InterfaceMonitor(loop, self._interface_changed)
        except OSError:
            self.data.close()
            self._close_sockets()
            raise
        for address, opened in self._sockets.items():
            loop.add_reader(opened, self._receive, address, opened)

    @property
    def draining(self) -> bool:
        """Whether new gateways are told the L flag."""
        return self.machine.draining_since is not None

    def set_drain(self, enabled: bool) -> None:
        """Turn new gateways away, or take them again."""
        self.machine.drain(enabled, self._driver.now)
        _log.info("drain %s", "begins" if enabled else "ends")

    def reconfigure(self, configuration: Configuration) -> None:
        """Run with another configuration; tunnels stay.

        Raises:
            RefusedError: it changes what only a restart can change.
        """
        refuse_fixed(self.configuration, configuration, "relay", _FIXED, movable=("engine",))
        self.data.set_kernel(enabled=configuration.dataplane.engine is not EngineChoice.USERSPACE)
        self.machine.configure(relay_config(configuration))
        self.configuration = configuration
        self._driver.flush()

    def close(self, *, farewell: bool = True) -> None:
        """End every tunnel and close everything; `farewell` changes nothing, gateways are not told."""
        del farewell
        self.machine.stop(self._driver.now)
        self._driver.flush()
        self._driver.close()
        self.data.close()
        self._close_sockets()
        self.monitor.close()

    def _open_sockets(self) -> None:
        relay = self.configuration.relay
        for address in dict.fromkeys((*relay.address, *relay.discovery_address)):
            try:
                opened = udp.open_relay_socket(
                    address, port=relay.port, receive_buffer=self.configuration.dataplane.receive_buffer
                )
            except OSError as error:
                raise OSError(error.errno, f"UDP {Endpoint(address, relay.port)}: {error.strerror}") from error
            self._sockets[address] = opened
            if address in relay.address:
                set_send_buffer(opened, self.configuration.dataplane.send_buffer)

    def _close_sockets(self) -> None:
        for opened in self._sockets.values():
            self._loop.remove_reader(opened)
            opened.close()
        self._sockets.clear()

    def _receive(self, address: Address, opened: socket.socket) -> None:
        for _ in range(_DRAIN):
            try:
                received = udp.receive(opened)
            except OSError as error:
                _log.debug("receive failed address=%s: %s", address, error)
                continue
            if received is None:
                break
            self.machine.receive_datagram(received.data, received.source, received.local or address, self._driver.now)
        self._driver.flush()

    def _drain(self) -> None:
        for datagram in self.machine.datagrams_to_send():
            opened = self._sockets.get(datagram.source) if datagram.source is not None else None
            error = udp.send(opened or self._socket_towards(datagram.destination.address), datagram)
            if error is not None:
                self.send_errors += 1
                _log.warning(
                    "send failed destination=%s: %s", datagram.destination, error, extra={"reason": "send_failed"}
                )
        for event in self.machine.events():
            match event:
                case InterestChanged(tunnel, local, group, wanted):
                    self.channels.set_interest(tunnel, group, wanted, self._driver.now)
                    self.data.set_interest(tunnel, local, group, wanted)
                case TunnelOpened(tunnel, local):
                    _log.info("tunnel opened gateway=%s local=%s", tunnel, local)
                case TunnelClosed(tunnel, reason):
                    _log.info("tunnel closed gateway=%s reason=%s", tunnel, reason.value)
                    self.data.remove_tunnel(tunnel)

    def _socket_towards(self, destination: Address) -> socket.socket:
        return next(opened for address, opened in self._sockets.items() if address.version == destination.version)

    def _interface_changed(self, change: InterfaceChange) -> None:
        name = change.interface.name
        if name in self.configuration.relay.interfaces and change.kind in {
            ChangeKind.ADDED,
            ChangeKind.REMOVED,
            ChangeKind.RENAMED,
            ChangeKind.UP,
        }:
            _log.info("interface %s interface=%s index=%d", change.kind.value, name, change.interface.index)
            self.data.interface_changed(name)


def _join_failed(interface: str, group: Address, error: OSError) -> None:
    _log.warning(
        "native join failed interface=%s group=%s: %s", interface, group, error, extra={"reason": "join_failed"}
    )


def relay_config(configuration: Configuration) -> RelayConfig:
    """From the configuration file to the machine's."""
    relay = configuration.relay
    return RelayConfig(
        addresses=relay.address,
        robustness_variable=relay.robustness_variable,
        query_interval=relay.query_interval,
        query_response_interval=relay.query_response_interval,
        tunnel_limit=relay.tunnel_limit,
        channels_per_tunnel=relay.channels_per_tunnel,
        requests_per_second=relay.requests_per_second,
        request_burst=math.ceil(_BURST_SECONDS * relay.requests_per_second),
        gateway_address_in_query=relay.gateway_address_in_query,
        secret_lifetime=relay.secret_rotation,
        families=frozenset(
            family for family, wanted in ((Family.IPV4, relay.ipv4), (Family.IPV6, relay.ipv6)) if wanted
        ),
    )

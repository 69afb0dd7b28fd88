"""One subscription of the host role: a UDP socket, the gateway machine, and the stream that comes of it.

Plain sockets and a selector loop only, so that it runs wherever Python does.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address
from types import FrameType
from typing import Final

from agent.net.routing import local_address_towards
from agent.protocol.channels import Address, Channel, Datagram, Endpoint, Filter
from agent.protocol.gateway import Gateway
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.gateway_events import Event as GatewayEvent
from agent.protocol.gateway_events import (
    FamilyUnanswered,
    GatewayAddressChanged,
    LimitSet,
    RelayFound,
    RelayLimit,
    RelayLost,
)
from agent.protocol.wire.amt import MessageType
from agent.receive.output import Output, OutputError
from agent.receive.stream import ChannelFilter, Measurement

ANYCAST_RELAYS: Final = (ip_address("192.52.193.1"), ip_address("2001:3::1"))
"""Relay discovery addresses (RFC 7450 §7.1)."""

STABLE_PORT: Final = 2268

_RECEIVE_BUFFER: Final = 8 << 20
_DRAIN: Final = 64
_DATA_HEADER: Final = 2
_TICK: Final = 1.0
_SILENCE: Final = 5.0


class SessionError(Exception):
    """This host cannot do what was asked: no route, no socket."""


class Ending(Enum):
    """Why a session ended."""

    FINISHED = "finished"  # the time asked for is over
    INTERRUPTED = "interrupted"
    NOTHING_CAME = "nothing came"
    OUTPUT_CLOSED = "output closed"


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """What to receive, and how.

    Attributes:
        channel: (S,G) or (*,G).
        port: UDP port the stream goes to; None takes any.
        relays: relay or discovery addresses in order of preference; the next is tried when one does not answer or
            takes no more tunnels.
        relay_port: their UDP port.
        discover: ask for a relay first; off means that `relays` are the relays themselves.
        local_port: local UDP port; None tries 2268 and takes any other when that is in use. Some relays know a host
            by the port it used first.
        seconds: end this long after the first packet; None goes on until interrupted.
        timeout: end when nothing has come after this many seconds.
    """

    channel: Channel
    port: int | None = None
    relays: tuple[Address, ...] = ANYCAST_RELAYS
    relay_port: int = STABLE_PORT
    discover: bool = True
    local_port: int | None = None
    seconds: float | None = None
    timeout: float = 20.0


class Session:
    """Receives one channel. Create it, `await run()`, read the figures.

    Attributes:
        options: what was asked.
        measurement: figures of the stream.
        packets: what was refused, and why.
        relay: the relay found last.
        gateway_address: this host as the relay sees it, where it says so.
        unexpected: tunnel datagrams of data from anybody but the relay.
        started_at: when `run` began.
        joined_at: when the membership was first reported.
    """

    def __init__(
        self,
        options: ReceiveOptions,
        output: Output,
        on_progress: Callable[[Session], None],
        on_event: Callable[[str], None],
    ) -> None:
        self.options = options
        self.measurement = Measurement()
        self.packets = ChannelFilter(options.channel, options.port)
        self.relay: Endpoint | None = None
        self.gateway_address: Endpoint | None = None
        self.unexpected = 0
        self.started_at = 0.0
        self.joined_at: float | None = None
        self._output = output
        self._output_failed = False
        self._on_progress = on_progress
        self._on_event = on_event
        self._relays: tuple[Address, ...] = ()
        self._attempt = 0
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def join_latency(self) -> float | None:
        """Seconds from the first membership report to the first packet."""
        if self.joined_at is None or self.measurement.first_at is None:
            return None
        return self.measurement.first_at - self.joined_at

    async def run(self) -> Ending:
        """Receive until the time is over, nothing came, the output closed or the user interrupts.

        The subscription has been left and the tunnel torn down on return.

        Raises:
            SessionError: no route to any relay, or no socket.
        """
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.started_at = self._loop.time()
        self._relays = tuple(relay for relay in self.options.relays if local_address_towards(relay) is not None)
        if not self._relays:
            raise SessionError("no route to " + " or ".join(str(relay) for relay in self.options.relays))
        with self._interruptible():
            try:
                self._subscribe()
                return await self._wait_for_the_end()
            finally:
                self._unsubscribe()

    async def _wait_for_the_end(self) -> Ending:
        next_tick = self.started_at + _TICK
        while True:
            now = self._loop.time()
            ending = self._ending(now)
            if ending is not None:
                return ending
            if now >= next_tick:
                self._look_after(now)
                next_tick += _TICK * max(1, int(now - next_tick) + 1)
            end = self._end_time()
            wait = min(next_tick, end if end is not None else next_tick) - now
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), max(wait, 0.001))

    def _ending(self, now: float) -> Ending | None:
        if self._output_failed:
            return Ending.OUTPUT_CLOSED
        if self._stop.is_set():
            return Ending.INTERRUPTED
        end = self._end_time()
        if end is None or now < end:
            return None
        return Ending.NOTHING_CAME if self.measurement.first_at is None else Ending.FINISHED

    def _end_time(self) -> float | None:
        if self.measurement.first_at is None:
            return self.started_at + self.options.timeout
        return None if self.options.seconds is None else self.measurement.first_at + self.options.seconds

    def _look_after(self, now: float) -> None:
        last = self.measurement.last_at
        if last is not None and now - last > _SILENCE:
            self._gateway.relay_silent(now)
            self._pump()
        self._on_progress(self)

    # -- the tunnel

    def _subscribe(self) -> None:
        address = self._relays[self._attempt % len(self._relays)]
        config = GatewayConfig(address, port=self.options.relay_port, discover=self.options.discover)
        if len(self._relays) > 1:  # others are waiting
            config = replace(config, discovery_attempts=2, request_attempts=3)
        self._open_socket(address)
        self.relay = self.gateway_address = self.joined_at = None
        self._gateway = Gateway(config, secrets.token_bytes)
        self._on_event(f"asking {config.endpoint}")
        now = self._loop.time()
        self._gateway.start(now)
        channel = self.options.channel
        state = Filter.exclude() if channel.source is None else Filter.include([channel.source])
        self._gateway.set_membership(channel.group, state, now)
        self._pump()

    def _unsubscribe(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._gateway.stop(self._loop.time())
            self._send(self._gateway.datagrams_to_send())
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _open_socket(self, relay: Address) -> None:
        family = socket.AF_INET6 if relay.version == 6 else socket.AF_INET
        requested = self.options.local_port
        ports = (STABLE_PORT, 0) if requested is None else (requested,)
        for port in ports:
            udp = socket.socket(family, socket.SOCK_DGRAM)
            try:
                if relay.version == 6:  # else it would take the port for IPv4 too
                    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                udp.bind(("::" if relay.version == 6 else "0.0.0.0", port))
            except OSError as error:
                udp.close()
                if port == ports[-1]:
                    raise SessionError(f"local port {port}: {error.strerror}") from error
                continue
            break
        udp.setblocking(False)
        with contextlib.suppress(OSError):
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._socket = udp
        self._loop.add_reader(udp, self._drain)

    def _pump(self) -> None:
        """Do everything the machine wants done, then sleep until its next deadline."""
        self._send(self._gateway.datagrams_to_send())
        give_up = False
        for event in self._gateway.events():
            self._on_event(_describe(event))
            give_up = self._take(event) or give_up
        if give_up and self.measurement.first_at is None:
            self._attempt += 1
            self._unsubscribe()
            self._subscribe()
            return
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._gateway.next_deadline()
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._handle_timer)

    def _take(self, event: GatewayEvent) -> bool:
        """Note an event; whether another relay should be tried.

        Silent relays are tried in turn for ever. Refusals come within a round trip: each relay may refuse once.
        """
        if isinstance(event, RelayFound):
            self.relay = event.relay
        elif isinstance(event, GatewayAddressChanged):
            self.gateway_address = event.new
        elif isinstance(event, RelayLimit):
            return self._attempt + 1 < len(self._relays)
        return isinstance(event, RelayLost) and len(self._relays) > 1

    def _handle_timer(self) -> None:
        self._gateway.handle_timer(self._loop.time())
        self._pump()

    def _send(self, datagrams: list[Datagram]) -> None:
        for datagram in datagrams:
            if self._socket is None:
                return
            if self.joined_at is None and datagram.data[0] == MessageType.MEMBERSHIP_UPDATE:
                self.joined_at = self._loop.time()
            try:
                self._socket.sendto(datagram.data, (str(datagram.destination.address), datagram.destination.port))
            except OSError as error:  # the machine repeats itself
                self._on_event(f"not sent to {datagram.destination}: {error.strerror}")

    def _drain(self) -> None:
        for _ in range(_DRAIN):
            if self._socket is None:
                return
            try:
                data, sender = self._socket.recvfrom(65535)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # an ICMP error; Windows tells about those here
                self._gateway.receive_error(self._loop.time())
                self._pump()
                continue
            now = self._loop.time()
            if data and data[0] == MessageType.MULTICAST_DATA:
                self._receive_data(data, sender, now)
            else:
                self._gateway.receive_datagram(data, _endpoint(*sender[:2]), now)
                self._pump()
        try:
            self._output.flush()
        except OutputError as error:
            self._on_event(str(error))
            self._output_failed = True
            self._stop.set()

    def _receive_data(self, data: bytes, sender: tuple[str, int], now: float) -> None:
        if _endpoint(*sender[:2]) != self.relay:
            self.unexpected += 1
            return
        accepted = self.packets.accept(data[_DATA_HEADER:], now)
        if accepted is not None:
            flow, payload = accepted
            self.measurement.add(flow, payload, now)
            self._output.write(payload)

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the session in order; plain `signal`, which Windows has too."""

        def interrupt(_number: int, _frame: FrameType | None) -> None:
            self._loop.call_soon_threadsafe(self._stop.set)

        previous = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not the main thread: the caller handles signals
                previous[number] = signal.signal(number, interrupt)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@lru_cache(maxsize=64)
def _endpoint(host: str, port: int) -> Endpoint:
    return Endpoint(ip_address(host.partition("%")[0]), port)


def _describe(event: GatewayEvent) -> str:
    match event:
        case RelayFound(relay):
            return f"relay is {relay}"
        case RelayLimit(relay) | LimitSet(relay):
            return f"{relay} takes no more tunnels"
        case RelayLost(relay, reason):
            return f"{relay or 'no relay'}: {reason.value.replace('_', ' ')}"
        case GatewayAddressChanged(_, new):
            return f"the relay sees this host as {new}"
        case FamilyUnanswered(family):
            return f"the relay does not answer for IPv{int(family)} groups"
        case _:
            return f"{event.old.value} -> {event.new.value}"


def receive(session: Session) -> Ending:
    """Run a session to its end on a loop of its own.

    Raises:
        SessionError: this host cannot do what was asked.
    """
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:  # Windows' default loop has no add_reader
        return runner.run(session.run())

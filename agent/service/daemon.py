"""The agent as one process: role, API, configuration, signals, watchdog."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from agent.net.mroute import MulticastRoutingError
from agent.net.tap import TapError
from agent.service import logs
from agent.service.api.server import ApiServer
from agent.service.clock import Clock
from agent.service.config import Configuration, ConfigurationError
from agent.service.configuration_store import ConfigurationStore
from agent.service.engine_model import EngineStatus
from agent.service.gateway_role import GatewayRole
from agent.service.gateway_views import GatewayViews
from agent.service.model import (
    AgentStatus,
    ChannelStatus,
    Counts,
    DrainStatus,
    InterfaceStatus,
    JoinRequest,
    JoinStatus,
    NeighborStatus,
    Role,
    StatisticsReport,
    TunnelStatus,
)
from agent.service.plane_views import engine_status
from agent.service.port import RefusedError
from agent.service.relay_role import RelayRole
from agent.service.relay_views import RelayViews
from agent.service.systemd import Notifier

_log = logging.getLogger(__name__)

_VERSION: Final = version("isthmus")

EXIT_OK: Final = 0
EXIT_CONFIGURATION: Final = 2
EXIT_ENVIRONMENT: Final = 3
"""The host refuses what the configuration asks for: an interface, a port, a capability."""

_YOUNGER_COLLECTIONS: Final = 100
"""Collections of what is young before everything is walked; the interpreter's own 10 means often while it grows."""


class Agent:
    """The running agent; implements `agent.service.port.AgentService`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, store: ConfigurationStore, on_lost: Callable[[str], None]
    ) -> None:
        """Start the role of the running configuration.

        Args:
            loop: the event loop.
            store: the configuration.
            on_lost: called with the reason when something is gone that only a new start brings back.

        Raises:
            OSError, TapError, MulticastRoutingError: the host refuses it.
        """
        self._loop = loop
        self._store = store
        self._clock = Clock(loop)
        configuration = store.configuration
        self._role: GatewayRole | RelayRole
        self._views: GatewayViews | RelayViews
        if configuration.role is Role.GATEWAY:
            self._role = GatewayRole(loop, configuration, on_lost)
            self._views = GatewayViews(self._role, self._clock)
        else:
            self._role = RelayRole(loop, configuration)
            self._views = RelayViews(self._role, self._clock)

    def status(self) -> AgentStatus:
        """The agent in short."""
        configuration = self._role.configuration
        problems = list(self._views.problems())
        tunnels, channels = self._views.counts()
        interfaces = self._views.interfaces()
        return AgentStatus(
            name=socket.gethostname(),
            version=_VERSION,
            role=configuration.role,
            started_at=self._clock.utc(self._clock.started),
            uptime=self._clock.uptime,
            ready=all(status.up for status in interfaces),
            draining=self._role.draining,
            engine=self._engine(),
            counts=Counts(
                tunnels=tunnels,
                channels=channels,
                joins=len(self._role.joins) if isinstance(self._role, GatewayRole) else 0,
                interfaces=sum(status.up for status in interfaces),
            ),
            configuration=self._store.state(),
            problems=problems,
        )

    def tunnels(self) -> Iterator[TunnelStatus]:
        """Every tunnel."""
        return self._views.tunnels()

    def channels(self) -> Iterator[ChannelStatus]:
        """Every channel with an interest."""
        return self._views.channels()

    def interfaces(self) -> Sequence[InterfaceStatus]:
        """Every interface of the configuration, existing or not."""
        return self._views.interfaces()

    def neighbors(self) -> Sequence[NeighborStatus]:
        """Other multicast routers seen."""
        return self._views.neighbors()

    def statistics(self) -> StatisticsReport:
        """Counters since the start."""
        forwarded, refused = self._views.forwarding()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return StatisticsReport(
            collected_at=datetime.now(UTC),
            uptime=self._clock.uptime,
            forwarded_packets=forwarded.packets,
            forwarded_bytes=forwarded.bytes,
            refused=refused,
            exceptions=self._role.fast.exceptions() if isinstance(self._role, GatewayRole) else {},
            control=self._views.control(),
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            resident_bytes=_resident_bytes(),
        )

    def joins(self) -> Sequence[JoinStatus]:
        """Static joins; a relay has none."""
        return self._role.joins.rows() if isinstance(self._role, GatewayRole) else []

    def add_join(self, request: JoinRequest) -> tuple[JoinStatus, bool]:
        """Want a channel until it is removed.

        Raises:
            RefusedError: the role has no joins, the interface is not ours, or a limit is reached.
        """
        return self._gateway().add_join(request)

    def remove_join(self, request: JoinRequest) -> bool:
        """Stop wanting a channel; False when there is no such join of the API.

        Raises:
            RefusedError: the role has no joins, or the join belongs to the configuration.
        """
        role = self._gateway()
        removed = role.joins.remove(request)
        role.changed()
        return removed

    def set_drain(self, enabled: bool) -> DrainStatus:
        """Turn new tunnels away (relay) or leave every channel (gateway), or end that."""
        self._role.set_drain(enabled)
        return DrainStatus(draining=self._role.draining, tunnels=self._views.counts()[0])

    async def apply(self, configuration: Configuration) -> None:
        """Run with another configuration without losing a stream.

        Raises:
            RefusedError: it takes a restart, or the host refuses it; the agent runs on with the previous one.
        """
        previous = self._role.configuration
        if configuration.role is not previous.role:
            raise RefusedError("needs_restart", "the role can only be changed by a restart")
        if configuration.api != previous.api:
            raise RefusedError("needs_restart", "[api] can only be changed by a restart")
        try:
            self._role.reconfigure(configuration)
        except RefusedError:
            raise
        except Exception as error:
            _log.warning("configuration not applied, returning to the one before: %s", error)
            self._role.reconfigure(previous)
            raise RefusedError("not_applicable", f"it cannot be applied: {error}") from error
        logs.configure(configuration.log)

    def close(self, *, farewell: bool = True) -> None:
        """Leave everything and close everything."""
        self._role.close(farewell=farewell)

    def _gateway(self) -> GatewayRole:
        if isinstance(self._role, GatewayRole):
            return self._role
        raise RefusedError("wrong_role", "a relay has no joins; gateways ask it for channels")

    def _engine(self) -> EngineStatus:
        if isinstance(self._role, GatewayRole):
            return engine_status(self._role.fast, self._role.configuration)
        data, choice = self._role.data, self._role.configuration.dataplane.engine
        return EngineStatus(name=data.name, configured=choice.value, details=data.details)


def run(config_path: Path) -> int:
    """Run the agent until SIGTERM or SIGINT; returns the exit code of the process."""
    try:
        return asyncio.run(_run(config_path))
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIGURATION
    except (OSError, TapError, MulticastRoutingError) as error:
        _log.critical("cannot start: %s", error)
        return EXIT_ENVIRONMENT


async def _run(config_path: Path) -> int:
    loop = asyncio.get_running_loop()
    _allow_open_files()
    store = ConfigurationStore(config_path)
    logs.configure(store.configuration.log)
    notifier = Notifier()
    stopping = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(_reload(store, server, notifier))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    lost: list[str] = []

    def give_up(reason: str) -> None:
        _log.critical("cannot go on: %s", reason)
        lost.append(reason)
        stopping.set()

    agent = Agent(loop, store, give_up)
    try:
        store.start(agent.apply)
        server = ApiServer(store.configuration.api, agent, store)
        await server.start()
        _spare_collector()
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopping.set)
            loop.add_signal_handler(signal.SIGHUP, reload)
            notifier.ready()
            _log.info("agent started role=%s config=%s", store.configuration.role.value, config_path)
            await _watch(stopping, notifier)
            notifier.stopping()
            for task in reloads:
                task.cancel()
            _log.info("agent stops")
        finally:
            await server.stop()
            store.close()
    finally:
        agent.close()
    return EXIT_ENVIRONMENT if lost else EXIT_OK


async def _reload(store: ConfigurationStore, server: ApiServer, notifier: Notifier) -> None:
    """SIGHUP: take the file as it is now; a bad one changes nothing."""
    notifier.reloading()
    try:
        await store.reload()
        server.reload_certificate()
    except (ConfigurationError, RefusedError, OSError) as error:
        _log.error("reload refused, running on as before: %s", error)
    else:
        _log.info("configuration reloaded")
    finally:
        notifier.ready()


async def _watch(stopping: asyncio.Event, notifier: Notifier) -> None:
    """Wait for the end, petting systemd's watchdog meanwhile."""
    interval = notifier.watchdog_interval
    while not stopping.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), interval)
        notifier.watchdog()


def _allow_open_files() -> None:
    """As many as the system lets us have: a relay joins twenty IPv4 groups a socket, no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _spare_collector() -> None:
    """Have packets stopped seldom: walking everything takes 50 ms after the start, 100 ms with ten thousand channels.

    What is there after the start stays and is walked no more, the rest less often: it is made with hardly any cycles.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _YOUNGER_COLLECTIONS)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()

"""Wires the manager: database, sealing, devices, jobs, pollers, API. The only module that knows all of them."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import uvicorn
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import SQLAlchemyError

from relaymgr import logs
from relaymgr.api.app import create_app
from relaymgr.api.services import PresentedHostKey, Services
from relaymgr.domain.platforms import Platform
from relaymgr.drivers.access import DeviceAccess, LoadTarget
from relaymgr.drivers.errors import NotConfigured
from relaymgr.drivers.protocol import Credential, DeviceTarget
from relaymgr.drivers.ssh import scan_host_key
from relaymgr.jobs.assembly import Jobs, assemble_from_settings, engine_name
from relaymgr.listening import Listening, listening
from relaymgr.poll.metrics import PollCollector
from relaymgr.poll.poller import Poller
from relaymgr.poll.recorder import Recorder
from relaymgr.poll.shards import Shards
from relaymgr.settings import Settings
from relaymgr.store import credentials, relay_records, retention, tokens
from relaymgr.store.credentials import CredentialUnusable
from relaymgr.store.database import Database
from relaymgr.store.envelope import Sealer
from relaymgr.store.observation_writer import ObservationWriter
from relaymgr.store.relay_records import RelayUnknown
from relaymgr.store.sealing import load_key
from relaymgr.store.urls import normalise

_log = logging.getLogger(__name__)

_PRUNE_SECONDS = 3600.0
_GRACEFUL_SECONDS = 10


@dataclass(slots=True)
class Running:
    """The parts of a manager that works, in one process."""

    settings: Settings
    database: Database
    sealer: Sealer
    access: DeviceAccess
    jobs: Jobs
    registry: CollectorRegistry
    poller: Poller | None = None
    broken: dict[str, str] = field(default_factory=dict)
    """Parts that ended by themselves, and why."""


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Everything but the API, from the database up; leaving it ends it in the opposite order, nothing half done."""
    _allow_open_files()
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url)
        stack.push_async_callback(database.close)
        await database.upgrade()
        sealer = Sealer(load_key(settings))
        access = DeviceAccess(_loader(database, sealer, settings), threads=settings.device_threads)
        stack.push_async_callback(access.close)
        jobs = assemble_from_settings(settings, database, access, sealer)
        manager = Running(settings, database, sealer, access, jobs, CollectorRegistry())
        await jobs.start(work=settings.run_jobs)
        stack.push_async_callback(jobs.stop)
        if settings.poll:
            await _start_polling(manager, stack)
        _spawn(manager, stack, "retention", _pruning(database, settings))
        yield manager


def _allow_open_files() -> None:
    """As many as the administrator allows: most start with 1 024, and a session kept to each device takes one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def serve(settings: Settings) -> None:
    """The API, jobs and polling until SIGTERM or SIGINT.

    Raises:
        ListenRefused, KeyUnusable, SchemaUnusable, ValueError: the settings cannot be served; the message tells why.
        OSError: the address is in use.
    """
    logs.configure(settings.log_level, as_json=settings.log_json)
    place = listening(settings)
    if not settings.run_jobs:
        _require_procrastinate(settings, "a server that leaves jobs to workers")
    listener = _bind(place)
    stopped = _stop_signals()
    async with running(settings) as manager:
        await _first_administrator(manager.database, place.url)
        app = create_app(_services(manager))
        # Nothing is listening yet for whoever asks during the start; then requests are let end.
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=settings.trusted_proxies is not None,
            forwarded_allow_ips=settings.trusted_proxies,
            ssl_certfile=place.certificate,
            ssl_keyfile=place.key,
            timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        )
        _log.info("serving", extra={"url": place.url, "database": manager.database.safe_url})
        await _serve_until(stopped, _Server(config), listener)
    _log.info("ended")


async def work(settings: Settings) -> None:
    """Jobs and polling without the API, until SIGTERM or SIGINT; for more processes on one PostgreSQL.

    Raises:
        KeyUnusable, SchemaUnusable, ValueError: the settings cannot be worked with.
    """
    logs.configure(settings.log_level, as_json=settings.log_json)
    if not settings.run_jobs and not settings.poll:
        raise ValueError("this worker would do nothing: it is to run no jobs and to poll nothing")
    _require_procrastinate(settings, "a worker process")
    stopped = _stop_signals()
    async with running(settings) as manager:
        _log.info("working", extra={"worker": manager.jobs.parts.worker, "database": manager.database.safe_url})
        await stopped.wait()
    _log.info("ended")


def _require_procrastinate(settings: Settings, what: str) -> None:
    """Jobs go from one process to another by procrastinate only; without it they would wait for ever, unseen.

    Raises:
        ValueError: another engine is set, or follows from the database.
    """
    if engine_name(settings.engine, normalise(settings.database_url).get_backend_name()) != "procrastinate":
        raise ValueError(f"{what} needs PostgreSQL and the procrastinate engine; one process alone does both")


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: it would die of the signal it was stopped by."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


async def _serve_until(stopped: asyncio.Event, server: uvicorn.Server, listener: socket.socket) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="api")
    stopping = asyncio.create_task(stopped.wait(), name="signals")
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopping.cancel()
    await serving


def _stop_signals() -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


def _bind(place: Listening) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((place.host, place.port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {place.host} port {place.port}: {error.strerror}") from error
    return listener


def _loader(database: Database, sealer: Sealer, settings: Settings) -> LoadTarget:
    async def load(relay_id: str) -> tuple[DeviceTarget, Credential]:
        try:
            async with database.session() as session:
                target, credential_id = await relay_records.load_target(session, relay_id)
                if credential_id is None and target.platform is Platform.ISTHMUS:
                    return target, Credential("")  # its Unix socket or loopback address asks for none
                stored = await credentials.load(session, credential_id)
            return target, await credentials.fetch(stored, sealer, settings)
        except (CredentialUnusable, RelayUnknown) as error:
            raise NotConfigured(relay_id, str(error)) from None

    return load


async def _start_polling(manager: Running, stack: AsyncExitStack) -> None:
    database, settings = manager.database, manager.settings
    shards = Shards(database, f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}")
    stack.push_async_callback(shards.release)
    writer = await stack.enter_async_context(ObservationWriter(database))
    recorder = Recorder(database, writer)
    manager.poller = Poller(manager.access, recorder, shards.intervals, concurrency=settings.poll_concurrency)
    PollCollector(manager.poller.counters, lambda: writer.backlog).register(manager.registry)
    _spawn(manager, stack, "poller", manager.poller.run())


def _spawn(manager: Running, stack: AsyncExitStack, name: str, doing: Coroutine[None, None, None]) -> None:
    """Run something until the manager ends. Should it end by itself, readiness tells so."""
    task = asyncio.create_task(doing, name=name)

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            manager.broken[name] = "ended by itself; the log tells why"
            _log.critical("%s ended", name, exc_info=task.exception())

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    task.add_done_callback(ended)
    stack.push_async_callback(end)


async def _pruning(database: Database, settings: Settings) -> None:
    while True:
        try:
            deleted = await retention.prune(database, settings, datetime.now(UTC))
            _log.info("deleted what is past its retention", extra={key: n for key, n in deleted.items() if n})
        except SQLAlchemyError as error:
            _log.warning("retention waits for the database", extra={"error": type(error).__name__})
        await asyncio.sleep(_PRUNE_SECONDS)


async def _first_administrator(database: Database, url: str) -> None:
    """The one-time token of a new installation goes to the terminal, not to the log."""
    async with database.begin() as session:
        token = await tokens.bootstrap(session, datetime.now(UTC))
    if token is not None:
        sys.stderr.write(
            f"\n  First administrator's token, valid for a day and shown once:\n\n    {token}\n\n"
            f"  Make a lasting one: ISTHMUS_URL={url} ISTHMUS_TOKEN={token} \\\n"
            "      relaymgr token create --role admin --name YOU\n\n"
        )
        sys.stderr.flush()


def _services(manager: Running) -> Services:
    jobs = manager.jobs
    return Services(
        database=manager.database,
        settings=manager.settings,
        sealer=manager.sealer,
        planner=jobs.planner,
        jobs=jobs.service,
        rollouts=jobs.rollouts,
        drift=jobs.drift,
        access=_Sessions(manager),
        scan_host_key=_scan,
        metrics=manager.registry,
        ready=lambda: dict(manager.broken),
    )


class _Sessions:
    """An edited relay gets a new session, and a poll at once."""

    def __init__(self, manager: Running) -> None:
        self._manager = manager

    def forget(self, relay_id: str) -> None:
        self._manager.access.forget(relay_id)
        if self._manager.poller is not None:
            self._manager.poller.soon(relay_id)


async def _scan(host: str, port: int, *, legacy: bool, timeout: float) -> PresentedHostKey:  # noqa: ASYNC109
    found = await scan_host_key(host, port, legacy=legacy, timeout=timeout)
    return PresentedHostKey(found.line, found.fingerprint)

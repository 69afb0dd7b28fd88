"""Puts the parts of this package together."""

from __future__ import annotations

from dataclasses import dataclass

from relaymgr.jobs.backups import Backups
from relaymgr.jobs.change_workflow import ChangeWorkflow
from relaymgr.jobs.drift import DriftChecker
from relaymgr.jobs.embedded import EmbeddedEngine
from relaymgr.jobs.engine import JobEngine
from relaymgr.jobs.notifier import Notifier
from relaymgr.jobs.parts import Access, Clock, Parts, Sealing, Timing, utc_now
from relaymgr.jobs.periodic import Periodic
from relaymgr.jobs.planner import Planner
from relaymgr.jobs.probe import Probe, probe_relay
from relaymgr.jobs.procrastinate_engine import ProcrastinateEngine
from relaymgr.jobs.reading_jobs import ReadingJobs
from relaymgr.jobs.reaper import Reaper
from relaymgr.jobs.rollouts import Rollouts
from relaymgr.jobs.service import JobService
from relaymgr.jobs.settling import Settler
from relaymgr.jobs.starting import Starter
from relaymgr.jobs.verifying import Verifier
from relaymgr.settings import Settings
from relaymgr.store.database import Database


@dataclass(frozen=True, slots=True)
class Jobs:
    """Everything of jobs in one process. `await start()`, later `await stop()`."""

    parts: Parts
    engine: JobEngine
    notifier: Notifier
    planner: Planner
    backups: Backups
    drift: DriftChecker
    service: JobService
    rollouts: Rollouts
    reaper: Reaper
    periodic: Periodic

    async def start(self, *, work: bool = True) -> None:
        """Begin; without `work` (an API process beside workers) jobs are only handed on."""
        await self.engine.start(self.service.run if work else None)
        await self.reaper.start()
        if work:
            await self.periodic.start()

    async def stop(self) -> None:
        """Take no more jobs, hand back those running, end."""
        await self.periodic.stop()
        await self.reaper.stop()
        await self.engine.stop()


def assemble(
    parts: Parts,
    engine: JobEngine,
    *,
    probe: Probe = probe_relay,
    drift_interval: float = 900.0,
    backup_interval: float = 3600.0,
    reaper_interval: float = 5.0,
) -> Jobs:
    """The parts around a database, a door to the devices and an engine."""
    notifier = Notifier()
    planner, backups, drift = Planner(parts), Backups(parts), DriftChecker(parts)
    starter = Starter(parts, planner, backups)
    settler = Settler(parts, backups, Verifier(parts, probe))
    readings = ReadingJobs(parts, planner, drift, backups)
    service = JobService(parts, engine, ChangeWorkflow(parts, starter, settler), readings, notifier)
    rollouts = Rollouts(parts, engine)
    service.on_rollout_news = rollouts.push
    reaper = Reaper(parts, engine, rollouts, interval=reaper_interval)
    periodic = Periodic(parts, drift, backups, drift_interval=drift_interval, backup_interval=backup_interval)
    return Jobs(parts, engine, notifier, planner, backups, drift, service, rollouts, reaper, periodic)


def assemble_from_settings(
    settings: Settings, database: Database, access: Access, sealer: Sealing, clock: Clock = utc_now
) -> Jobs:
    """As the service runs it."""
    timing = Timing(lease=settings.job_lease_seconds, plan_lifetime=float(settings.plan_lifetime_seconds))
    return assemble(
        Parts(database, access, sealer, clock, timing=timing),
        make_engine(settings, database, clock),
        drift_interval=settings.drift_interval_seconds,
        backup_interval=settings.backup_interval_seconds,
    )


def engine_name(wanted: str, dialect: str) -> str:
    """The engine `auto` stands for on a database; any other name is that."""
    if wanted != "auto":
        return wanted
    return "procrastinate" if dialect == "postgresql" else "embedded"


def make_engine(settings: Settings, database: Database, clock: Clock = utc_now) -> JobEngine:
    """The engine the settings ask for.

    Raises:
        ValueError: procrastinate without PostgreSQL, or an engine nobody knows.
    """
    name = engine_name(settings.engine, database.dialect)
    if name == "embedded":
        return EmbeddedEngine(workers=settings.workers, clock=clock)
    if name != "procrastinate":
        raise ValueError(f"engine {name!r} is not embedded, procrastinate or auto")
    if database.dialect != "postgresql":
        raise ValueError("the procrastinate engine needs PostgreSQL")
    return ProcrastinateEngine(database.url.render_as_string(hide_password=False), workers=settings.workers)

"""The real API over a real SQLite database on a loopback port, with devices and workers played (synthetic)."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from sqlalchemy import select

from relaymgr.api.app import create_app
from relaymgr.api.services import PresentedHostKey, Services
from relaymgr.settings import Settings
from relaymgr.store import tokens
from relaymgr.store.database import Database
from relaymgr.store.principals import Role
from relaymgr.store.sealing import Sealer
from relaymgr.store.tables import DriftRow, Job, JobEvent, Plan, Relay, Rollout, RolloutRelay

Result = TypeVar("Result")
KEY = PresentedHostKey(
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH9mT1Zb0nDhWlRLxqnKrJXGwL4nS0VZ5cWnXH2cPq7K",
    "SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDbUZLDQfKtNuHCXKU",
)
DIFF = "[edit protocols amt relay]\n+   tunnel-limit 5000;\n-   tunnel-limit 100;\n"


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Script:
    """What the played devices and workers do next."""

    diff: str = DIFF
    steps: list[tuple[str, int, str]] = field(
        default_factory=lambda: [
            ("lock", 10, "locked"),
            ("commit", 50, "commit confirmed 5"),
            ("verify", 80, "AMT answers"),
        ]
    )
    state: str = "succeeded"
    error: tuple[str, str] | None = None
    ends_with_stream: bool = False
    """Jobs run until somebody read their log to its end."""
    break_streams: int = 0
    """So many streams break after their first event."""
    followed_after: list[int] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)
    rollout_state: str = "succeeded"
    presented: PresentedHostKey = KEY


class PlayedWork:
    """Planner, job service, rollouts and drift at once: rows as the real ones leave them, at once."""

    def __init__(self, database: Database, script: Script) -> None:
        self.database, self.script = database, script

    async def make_plan(self, relay_id: str, kind: str, actor: str) -> Plan:
        self.script.planned.append(kind)
        async with self.database.begin() as session:
            relay = await session.get(Relay, relay_id)
            assert relay is not None
            plan = Plan(
                relay_id=relay_id, kind=kind, intent_version=relay.intent_version, drained=kind == "drain",
                diff=self.script.diff, diff_source="device", commands="set protocols amt relay tunnel-limit 5000\n",
                desired_scope=[], desired_text="", before_scope=[], before_text="", device_fingerprint="f" * 64,
                new_scope=[], actor=actor, created_at=now(), expires_at=now() + timedelta(hours=1),
            )  # fmt: skip
            session.add(plan)
        return plan

    async def submit(self, kind: str, **given: Any) -> Job:
        self.script.submitted.append({"kind": kind, **given})
        async with self.database.begin() as session:
            job = Job(
                id=given["job_id"], kind=kind,
                relay_id=given["relay_id"], plan_id=given.get("plan_id"), phase="done", progress=100,
                state="running" if self.script.ends_with_stream else self.script.state,
                result={"unchanged": not self.script.diff}, actor=given["actor"],
                parameters=given.get("parameters") or {}, comment=given.get("comment", ""), ticket=given.get("ticket"),
                created_at=now(), started_at=now(), finished_at=now(), attempt=1,
            )  # fmt: skip
            if self.script.error is not None:
                job.error_code, job.error_detail = self.script.error
            session.add(job)
            await session.flush()
            for phase, progress, message in self.script.steps:
                session.add(JobEvent(job_id=job.id, at=now(), phase=phase, progress=progress, message=message))
                await session.flush()
        return job

    async def cancel(self, job_id: str, actor: str, why: Any) -> Job:
        async with self.database.begin() as session:
            job = await session.get(Job, job_id)
            assert job is not None
            job.cancel_requested = True
        return job

    async def follow(self, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        self.script.followed_after.append(after)
        async with self.database.session() as session:
            found = await session.scalars(
                select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after).order_by(JobEvent.id)
            )
            rows = list(found)
        for row in rows:
            yield row
            if self.script.break_streams:
                self.script.break_streams -= 1
                raise ConnectionResetError("the stream broke, as the test wants")
        if self.script.ends_with_stream:
            async with self.database.begin() as session:
                job = await session.get(Job, job_id)
                assert job is not None
                job.state = self.script.state

    async def create(self, **given: Any) -> Rollout:
        self.script.submitted.append(given)
        waves = given.pop("waves")
        given.pop("request_id")
        given["id"] = given.pop("rollout_id")
        async with self.database.begin() as session:
            rollout = Rollout(
                waves={"relays": waves}, current_wave=len(waves) - 1, created_at=now(), updated_at=now(),
                state=self.script.rollout_state, **given,
            )  # fmt: skip
            session.add(rollout)
            await session.flush()
            for wave, relays in enumerate(waves):
                for relay_id in relays:
                    session.add(RolloutRelay(rollout_id=rollout.id, relay_id=relay_id, wave=wave, state="succeeded"))
        return rollout

    async def _become(self, rollout_id: str, state: str) -> Rollout:
        async with self.database.begin() as session:
            rollout = await session.get(Rollout, rollout_id)
            assert rollout is not None
            rollout.state = state
        return rollout

    async def pause(self, rollout_id: str, actor: str, why: Any) -> Rollout:
        return await self._become(rollout_id, "paused")

    async def resume(self, rollout_id: str, actor: str, why: Any) -> Rollout:
        return await self._become(rollout_id, "running")

    async def abort(self, rollout_id: str, actor: str, why: Any) -> Rollout:
        return await self._become(rollout_id, "aborted")

    async def accept(self, relay_id: str, actor: str, why: Any) -> None:
        async with self.database.begin() as session:
            row = await session.get(DriftRow, relay_id)
            assert row is not None
            row.state, row.diff = "none", ""

    def forget(self, relay_id: str) -> None:
        """Nothing is held."""

    async def scan(self, host: str, port: int, *, legacy: bool, timeout: float) -> PresentedHostKey:  # noqa: ASYNC109
        self.script.planned.append(f"scan {host} {port}")
        return self.script.presented


class RunningManager:
    """An API server in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.database_url = f"sqlite:///{folder / 'relaymgr.db'}"
        self.script = Script()
        self.token = ""
        self._loop = asyncio.new_event_loop()
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._main(),), daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(60), "the manager did not start"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._loop.close()
        self._socket.close()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the server's loop."""
        future: Future[Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(60)

    def add(self, *rows: Any) -> None:
        """Put rows into the database."""

        async def work() -> None:
            async with self.database.begin() as session:
                for row in rows:
                    session.add(row)
                    await session.flush()

        self.run(work())

    def make_token(self, role: str, ad_ids: tuple[str, ...] = ()) -> str:
        async def work() -> str:
            async with self.database.begin() as session:
                made = await tokens.create(
                    session, name=f"{role}-of-test", role=Role(role), created_by="test", now=now(), ad_ids=ad_ids
                )
                return made.text

        return self.run(work())

    async def _main(self) -> None:
        self.database = Database(self.database_url)
        await self.database.upgrade()
        played = PlayedWork(self.database, self.script)
        services = Services(
            database=self.database, settings=Settings(database_url=self.database_url), sealer=Sealer(bytes(32)),
            planner=played, jobs=played, rollouts=played, drift=played, access=played, scan_host_key=played.scan,
        )  # fmt: skip
        async with self.database.begin() as session:
            made = await tokens.create(session, name="test", role=Role.ADMIN, created_by="test", now=now())
        self.token = made.text
        config = uvicorn.Config(create_app(services), log_config=None, ws="none", lifespan="off", access_log=False)
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.01)
        self._ready.set()
        await serving
        await self.database.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:  # closing a connection whose query was cancelled is never done in aiosqlite
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

"""A database, devices, and processes of the manager around them."""

from __future__ import annotations

from typing import Any

from jobs.fake_device import SEALER, START, Crash, FakeAccess, FakeDevice, Process, World

from relaymgr.domain.verification import Check
from relaymgr.jobs.assembly import Jobs, assemble
from relaymgr.jobs.parts import ACTIVE, Parts, Timing
from relaymgr.store.tables import IntentRevision, Job, Relay

INTENT = {"inet": {"anycast_prefix": "192.0.2.0/24", "local_address": "198.51.100.7"}, "tunnel_limit": 100}


async def probe(discovery_address: str | None, local_address: str) -> Check:
    return Check("probe", passed=True, detail="synthetic")


class Setting:
    """One world with relays."""

    def __init__(self, database: Any, world: World | None = None, **device: Any) -> None:
        self.database = database
        self.world = world or World()
        self.devices: dict[str, FakeDevice] = {}
        self._device = device
        self.patience = 60.0
        self.stride = 3.0
        """Seconds between two looks of the reaper."""

    @property
    def device(self) -> FakeDevice:
        return next(iter(self.devices.values()))

    async def add_relay(self, name: str = "mx1", **values: Any) -> str:
        async with self.database.begin() as session:
            relay = Relay(
                **{
                    "name": name,
                    "platform": "junos",
                    "host": "192.0.2.9",
                    "host_key": "ssh-ed25519 synthetic",
                    "created_at": START,
                    "updated_at": START,
                    "intent": INTENT,
                    "intent_version": 1,
                    "commit_timeout_seconds": 20.0,
                    "applied_scope": [],
                    **values,
                }
            )
            session.add(relay)
            await session.flush()
            if relay.intent is not None:
                session.add(
                    IntentRevision(relay_id=relay.id, version=1, body=relay.intent, actor="test", created_at=START)
                )
        self.devices[relay.id] = FakeDevice(self.world, **self._device)
        return relay.id

    async def set_intent(self, relay_id: str, **changes: Any) -> None:
        async with self.database.begin() as session:
            relay = await session.get(Relay, relay_id)
            relay.intent = {**relay.intent, **changes}
            relay.intent_version += 1
            session.add(
                IntentRevision(
                    relay_id=relay_id,
                    version=relay.intent_version,
                    body=relay.intent,
                    actor="test",
                    created_at=self.world.now,
                )
            )

    def process(self, crash_at: int | None = None) -> tuple[Process, Jobs]:
        process = Process(self.database, crash_at)
        parts = Parts(
            process.database,
            FakeAccess(process, self.devices),
            SEALER,
            self.world.clock,
            self.world.sleep,
            Timing(lease=30.0, plan_wait=0.1, verify_patience=self.patience, read_again=self.stride),
        )
        return process, assemble(parts, process, probe=probe)

    async def job(self, job_id: str) -> Job:
        async with self.database.session() as session:
            job = await session.get(Job, job_id)
        assert job is not None
        return job

    async def relay(self, relay_id: str) -> Relay:
        async with self.database.session() as session:
            relay = await session.get(Relay, relay_id)
        assert relay is not None
        return relay

    async def finish(self, process: Process, jobs: Jobs, *job_ids: str, seconds: float = 7200) -> None:
        """Let time pass and the reaper look until the jobs have ended."""
        deadline = self.world.clock().timestamp() + seconds
        while True:
            await self._work(process, jobs)
            states = [(await self.job(job_id)).state for job_id in job_ids]
            if not any(state in ACTIVE for state in states):
                return
            assert self.world.clock().timestamp() < deadline, states
            self.world.advance(self.stride)
            await jobs.reaper.tick()

    async def _work(self, process: Process, jobs: Jobs) -> None:
        while ready := [job for job, at in process.woken.items() if at is None or at <= self.world.now]:
            for job_id in ready:
                del process.woken[job_id]
                await jobs.service.run(job_id)

    async def until_crash(self, process: Process, jobs: Jobs, job_id: str) -> bool:
        """Run a job in a process that is to die. Returns whether it did."""
        try:
            await self.finish(process, jobs, job_id)
        except Crash:
            return True
        return process.dead

"""Every step at which a worker can die, in every way a change can go.

A worker dies at step N: before or after a call to the device takes effect, before or after a transaction commits. A
new worker and its reaper must bring device and database to agreement. Then the new worker dies too, at a step of its
own, and a third one does the rest.
"""

from __future__ import annotations

import itertools
import shutil

import pytest
from databases import _sqlite_template
from jobs.job_world import Setting
from sqlalchemy import select

from relaymgr.drivers.errors import SessionLost
from relaymgr.jobs.parts import CHANGES
from relaymgr.store.database import Database
from relaymgr.store.tables import Backup, Job


def well(device):
    pass


def harmful(device):
    device.neighbors_with_change = []


def cut_off(device):
    device.reachable_with_change = False


def answer_lost(device):
    device.faults["begin_change"] = ("after", SessionLost("synthetic", "gone"))


def late(device):
    device.late_commit = 8.0


def confirmation_lost(device):
    device.faults["confirm_change"] = ("after", SessionLost("synthetic", "gone"))


def silent(device):
    device.tells = False


def confirmed_by_somebody(device):
    device.on["begin_change"] = lambda: device.foreign("hostname", "other")


def changed_by_somebody(device):
    device.on["begin_change"] = lambda: device.foreign("amt", "something else")


def window_of_somebody(device):
    device.on["plan"] = lambda: device.foreign("hostname", "other", confirmed=False, minutes=30)


SITUATIONS = [
    well, harmful, cut_off, answer_lost, late, confirmation_lost, silent,
    confirmed_by_somebody, changed_by_somebody, window_of_somebody,
]  # fmt: skip


class Story:
    """One change of one device and those who die over it."""

    def __init__(self, path, situation) -> None:
        shutil.copy(_sqlite_template(), path)
        self.database = Database(f"sqlite:///{path}", readers=1)
        self.setting = Setting(self.database, tells=situation is not silent)
        self.situation = situation

    async def begin(self) -> None:
        self.relay_id = await self.setting.add_relay()
        _, jobs = self.setting.process()
        self.situation(self.setting.device)
        self.job = await jobs.service.submit(
            "apply", relay_id=self.relay_id, parameters={"confirm_minutes": 2}, actor="operator"
        )
        self.desired = "amt: local 198.51.100.7 limit 100\nanycast: 192.0.2.0/24\n"

    async def worker(self, crash_at=None):
        """Let a worker go on until the job ends or the worker does. Returns the steps it made."""
        process, jobs = self.setting.process(crash_at)
        process.woken[self.job.id] = None
        await self.setting.until_crash(process, jobs, self.job.id)
        return process.steps, process.dead

    async def agree(self) -> None:
        """Device and database tell the same story, and it is a good one."""
        setting, device = self.setting, self.setting.device
        job, relay = await setting.job(self.job.id), await setting.relay(self.relay_id)
        mark = f"isthmus {job.id}"
        if device.window is not None and device.window.mark == mark:
            raise AssertionError("the job ended while its window is open")
        assert relay.window_job_id is None
        assert job.worker is None
        assert job.lease_until is None
        assert device.count("begun", mark) <= 1, "sent twice"
        owned = device.owned(("amt", "anycast")).text
        if owned == self.desired:
            assert job.state == "succeeded"
            assert relay.applied_text == owned
        elif owned == "":
            assert job.state in {"failed", "rolled_back"}, (job.state, job.error_detail)
            assert relay.applied_text is None
        else:
            assert job.state == "uncertain"
            assert relay.applied_text is None
        if device.count("confirmed", mark):
            assert job.result["verification"]["passed"] is True
            assert self.situation is not harmful
        if self.situation is window_of_somebody:
            assert not {event for event, who in device.log if who == "somebody"} - {"timer"}
        async with self.database.session() as session:
            rows = list(await session.scalars(select(Backup)))
            assert len({row.sha256 for row in rows}) == len(rows)
            assert len(list(await session.scalars(select(Job).where(Job.kind.in_(CHANGES))))) == 1
        plan = await self.setting.process()[1].planner.make_plan(self.relay_id, "apply", "operator")
        assert (plan.diff == "") is (owned == self.desired)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
async def test_a_worker_may_die_at_every_step(situation, tmp_path):
    for crash_at in itertools.count(1):
        story = Story(tmp_path / f"{crash_at}.db", situation)
        try:
            await story.begin()
            steps, died = await story.worker(crash_at)
            if died:
                await story.worker()
            if situation is window_of_somebody:
                story.setting.world.advance(3600)
            try:
                await story.agree()
            except AssertionError as error:
                raise AssertionError(f"died at step {crash_at}, {steps[-1]}: {error}") from error
        finally:
            await story.database.close()
        if not died:
            break
    assert crash_at > 20, "nobody died"


@pytest.mark.parametrize("situation", [well, harmful], ids=lambda situation: situation.__name__)
async def test_the_one_who_comes_after_may_die_too(situation, tmp_path):
    for first, second in itertools.product(range(14, 42, 4), range(1, 30, 4)):
        story = Story(tmp_path / f"{first}-{second}.db", situation)
        try:
            await story.begin()
            _, died = await story.worker(first)
            if died and (await story.worker(second))[1]:
                await story.worker()
            story.setting.world.advance(60)
            await story.agree()
        finally:
            await story.database.close()

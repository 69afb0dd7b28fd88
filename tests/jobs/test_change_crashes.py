"""Every step at which a worker can die, in every way a change can go.

A worker dies at step N: before or after a call to the device takes effect, before or after a transaction commits. A
new worker and its reaper must bring device and database to agreement. Then the new worker dies too, at a step of its
own, and a third one does the rest.
"""

from __future__ import annotations

import itertools

import pytest
from jobs.fake_device import World
from jobs.job_world import Setting
from sqlalchemy import select

from relaymgr.drivers.errors import SessionLost
from relaymgr.store.tables import Backup, new_id


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


def saves_apart(device):
    device.saved = True


SITUATIONS = [
    well, harmful, cut_off, answer_lost, late, confirmation_lost, silent,
    confirmed_by_somebody, changed_by_somebody, window_of_somebody, saves_apart,
]  # fmt: skip


FIRST_OF_ITS_OWN = 15
"""Steps before this are the same in every situation."""
LONGEST = 40
"""Steps after which a change only waits and repeats itself."""


class Story:
    """One change of one device and those who die over it."""

    def __init__(self, database, situation, world) -> None:
        self.database = database
        self.setting = Setting(database, world, tells=situation is not silent)
        self.setting.patience, self.setting.stride = 4.0, 30.0
        self.situation = situation

    async def begin(self) -> None:
        self.relay_id = await self.setting.add_relay(new_id())
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
        setting.world.advance(3600 if self.situation is window_of_somebody else 60)  # the dead hold leases
        assert relay.window_job_id is None
        assert job.worker is None
        assert job.lease_until is None
        assert device.count("begun", mark) <= 1, "sent twice"
        owned = device.owned(("amt", "anycast")).text
        if owned == self.desired:
            assert job.state == "succeeded"
            assert device.saved is not False, "a restart of the device would undo the change"
            assert relay.applied_text == owned
        elif owned == "":
            # Behind a window of somebody else that stays open nobody knows what the device will go back to.
            unknown = {"uncertain"} if self.situation is window_of_somebody else set()
            assert job.state in {"failed", "rolled_back"} | unknown, (job.state, job.error_detail)
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
            rows = list(await session.scalars(select(Backup).where(Backup.relay_id == self.relay_id)))
            assert len({row.sha256 for row in rows}) == len(rows)
        plan = await self.setting.process()[1].planner.make_plan(self.relay_id, "apply", "operator")
        assert (plan.diff == "") is (owned == self.desired)


@pytest.fixture
def world():
    """One for all stories on a database: from a past one, leases of its reaper would hold up the next one's."""
    return World()


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
async def test_a_worker_may_die_at_every_step(situation, one_database, world):
    for crash_at in range(1 if situation is well else FIRST_OF_ITS_OWN, LONGEST):
        story = Story(one_database, situation, world)
        await story.begin()
        steps, died = await story.worker(crash_at)
        if died:
            await story.worker()
        try:
            await story.agree()
        except AssertionError as error:
            raise AssertionError(f"died at step {crash_at}, {steps[-1]}: {error}") from error
        if not died:
            break
    assert crash_at > 20, "nobody died"


async def test_a_device_that_cannot_save_ends_as_a_change_with_a_warning(one_database, world):
    story = Story(one_database, saves_apart, world)
    await story.begin()
    story.setting.device.unsavable = True
    await story.worker()
    job = await story.setting.job(story.job.id)
    assert job.state == "succeeded"
    assert story.setting.device.count("confirmed", f"isthmus {job.id}") == 1


@pytest.mark.parametrize("situation", [well, harmful], ids=lambda situation: situation.__name__)
async def test_the_one_who_comes_after_may_die_too(situation, one_database, world):
    for first, second in itertools.product((20, 24, 28, 33), (3, 6, 9, 13, 18)):
        story = Story(one_database, situation, world)
        await story.begin()
        _, died = await story.worker(first)
        if died and (await story.worker(second))[1]:
            await story.worker()
        await story.agree()

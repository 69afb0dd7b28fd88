"""Workers that stand still, databases that go away, relays that are edited: who acts on a device, and who is told."""

from __future__ import annotations

import asyncio

import pytest
from jobs.job_world import Setting
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from relaymgr.domain.verification import Check
from relaymgr.jobs.assembly import assemble
from relaymgr.jobs.errors import Conflict
from relaymgr.jobs.heartbeat import kept
from relaymgr.store.tables import JobEvent, Relay


class Lost(Exception):
    pass


@pytest.mark.parametrize("fault", ["taken", "silent", "refused"])
async def test_whoever_cannot_renew_stops_before_his_lease_ends(fault):
    async def renew():
        if fault == "silent":
            await asyncio.Event().wait()
        if fault == "refused":
            raise OperationalError("", {}, Exception())
        return False

    async def work():
        async with kept(renew, 0.3, "synthetic", Lost):
            try:
                await asyncio.Event().wait()
            finally:
                raise OperationalError("", {}, Exception())  # giving back fails as well

    with pytest.raises(Lost):
        await asyncio.wait_for(work(), 20)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    for left in asyncio.all_tasks() - {task}:
        left.cancel()


async def test_a_lease_that_is_renewed_is_kept():
    renewed = 0

    async def renew():
        nonlocal renewed
        renewed += 1
        return True

    async with asyncio.timeout(20), kept(renew, 0.6, "synthetic", Lost):
        while renewed < 5:
            await asyncio.sleep(0.01)


async def test_the_log_tells_that_a_worker_was_lost(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process(crash_at=None)
    job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    setting.device.on["begin_change"] = lambda: setattr(process, "crash_at", len(process.steps) + 1)
    assert await setting.until_crash(process, jobs, job.id)
    other, others = setting.process()
    await setting.finish(other, others, job.id)
    async with database.session() as session:
        lines = list(await session.scalars(select(JobEvent.message).order_by(JobEvent.id)))
    assert any("was lost in the middle of the change; reading the device again" in line for line in lines), lines
    assert (await setting.job(job.id)).state == "succeeded"
    second = await others.service.submit("drain", relay_id=relay_id, actor="operator")
    await setting.finish(other, others, second.id)
    async with database.session() as session:
        statement = select(JobEvent.message).where(JobEvent.job_id == second.id)
        assert not any("was lost" in line for line in await session.scalars(statement))


async def test_a_relay_edited_while_its_change_is_prepared_is_begun_again(database):
    """The session may reach the device it was before."""
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    connection = []
    jobs.parts.access.renew = connection.append
    edit = update(Relay).where(Relay.id == relay_id).values(host="192.0.2.10", version=Relay.version + 1)
    take = jobs.backups.take_with

    async def edited_meanwhile(driver, *given, **named):
        if len(connection) == 1:
            async with database.begin() as session:
                await session.execute(edit)
        return await take(driver, *given, **named)

    jobs.backups.take_with = edited_meanwhile
    job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, job.id)
    assert connection == [relay_id, relay_id]
    assert (await setting.job(job.id)).state == "succeeded"
    assert setting.device.count("begun", f"isthmus {job.id}") == 1


async def test_a_database_that_is_away_for_a_minute_in_a_window_changes_nothing_of_the_outcome(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    alive = process.alive
    away = {"until": None}

    def absent():
        alive()
        if away["until"] is not None and setting.world.now.timestamp() < away["until"]:
            raise OperationalError("synthetic", {}, Exception("away"))

    process.alive = absent
    setting.device.on["begin_change"] = lambda: away.update(until=setting.world.now.timestamp() + 60)
    job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    for _ in range(40):
        try:
            await setting.finish(process, jobs, job.id)
            break
        except OperationalError:
            setting.world.advance(3)
    job = await setting.job(job.id)
    assert job.state == "succeeded", job.error_detail
    mark = f"isthmus {job.id}"
    assert setting.device.log == [("begun", mark), ("confirmed", mark)]
    assert (await setting.relay(relay_id)).applied_text == setting.device.owned(("amt", "anycast")).text


async def test_a_plan_to_restore_ends_when_the_drift_is_accepted(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    first = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, first.id)
    setting.device.foreign("amt", "something else")
    await jobs.drift.check(relay_id)
    plan = await jobs.planner.make_plan(relay_id, "restore", "operator")
    await jobs.drift.accept(relay_id, "operator")
    with pytest.raises(Conflict) as refused:
        await jobs.service.submit("restore", relay_id=relay_id, plan_id=plan.id, actor="operator")
    assert refused.value.code == "plan_expired"


async def test_a_rollback_takes_back_what_somebody_else_confirmed_too(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    first = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, first.id)
    good = dict(setting.device.sections)
    await setting.set_intent(relay_id, tunnel_limit=7)
    setting.device.neighbors_with_change = []

    def confirmed_by_somebody():
        if setting.device.window is not None:
            setting.device.foreign("hostname", "other")
        else:
            setting.device.on["observe"] = confirmed_by_somebody

    setting.device.on["observe"] = confirmed_by_somebody
    second = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, second.id)
    second = await setting.job(second.id)
    assert second.phase == "confirmed", (second.state, second.phase)
    assert (await setting.relay(relay_id)).applied_intent_version == 2
    third = await jobs.service.submit("rollback", relay_id=relay_id, actor="operator")
    setting.device.neighbors_with_change = setting.device.neighbors
    await setting.finish(process, jobs, third.id)
    assert setting.device.sections == good | {"hostname": "other"}
    assert (await setting.relay(relay_id)).applied_intent_version == 1


async def test_every_family_of_a_relay_is_probed(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    family = {"anycast_prefix": "2001:db8::/64", "local_address": "2001:db8:1::1"}
    await setting.set_intent(relay_id, inet6=family)
    process, jobs = setting.process()
    asked = []

    async def probe(discovery_address, local_address):
        asked.append(local_address)
        return Check("probe", passed=":" not in local_address, detail=local_address)

    jobs = assemble(jobs.parts, process, probe=probe)
    job = await jobs.service.submit("apply", relay_id=relay_id, parameters={"probe": True}, actor="operator")
    await setting.finish(process, jobs, job.id)
    assert set(asked) == {"198.51.100.7", "2001:db8:1::1"}
    assert (await setting.job(job.id)).error_code == "verification_failed"

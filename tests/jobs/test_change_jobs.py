from __future__ import annotations

import pytest
from jobs.job_world import INTENT, Setting
from sqlalchemy import select, update

from relaymgr.drivers.errors import ConfigurationRefused, DeviceBusy, SessionLost
from relaymgr.jobs.errors import Conflict, Invalid, NotFound
from relaymgr.store.tables import AuditRow, Backup, Event, JobEvent, Plan, Relay


async def test_a_change_is_planned_committed_verified_and_confirmed(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    plan = await jobs.planner.make_plan(relay_id, "apply", "operator")
    assert "+anycast: 192.0.2.0/24" in plan.diff
    assert plan.diff_source == "device"
    job = await jobs.service.submit("apply", relay_id=relay_id, plan_id=plan.id, actor="operator", comment="first")
    await setting.finish(process, jobs, job.id)
    job = await setting.job(job.id)
    assert (job.state, job.phase, job.progress, job.error_code) == ("succeeded", "confirmed", 100, None)
    assert job.result["verification"]["passed"] is True
    mark = f"isthmus {job.id}"
    assert setting.device.log == [("begun", mark), ("confirmed", mark)]
    relay = await setting.relay(relay_id)
    assert relay.applied_text == plan.desired_text == setting.device.owned(("amt", "anycast")).text
    assert relay.applied_scope == ["amt", "anycast"]
    assert relay.applied_intent_version == 1
    assert relay.window_job_id is None
    async with database.session() as session:
        log = [row.phase for row in await session.scalars(select(JobEvent).order_by(JobEvent.id))]
        assert [phase for index, phase in enumerate(log) if log[:index].count(phase) == 0] == [
            "locking", "loading", "pending", "verifying", "confirming", "confirmed"
        ]  # fmt: skip
        assert [row.reason for row in await session.scalars(select(Backup).order_by(Backup.id))] == [
            "before_change", "after_change"
        ]  # fmt: skip
        assert "job.succeeded" in list(await session.scalars(select(Event.kind)))
        row = await session.scalar(select(AuditRow).where(AuditRow.action == "job.apply"))
        assert row.actor == "operator"
        assert row.comment == "first"
        assert row.after["diff"] == plan.diff


async def test_nothing_is_sent_when_nothing_is_to_be_changed(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    first = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, first.id)
    sent = list(setting.device.log)
    second = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, second.id)
    second = await setting.job(second.id)
    assert (second.state, second.phase, second.result["unchanged"]) == ("succeeded", "unchanged", True)
    assert setting.device.log == sent


async def test_a_relay_that_is_as_intended_already_is_watched_from_then_on(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    first = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, first.id)
    never = {"applied_text": None, "applied_scope": [], "applied_intent_version": None}
    async with database.begin() as session:
        await session.execute(update(Relay).where(Relay.id == relay_id).values(**never))
    second = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, second.id)
    relay = await setting.relay(relay_id)
    assert relay.applied_text == setting.device.owned(("amt", "anycast")).text
    assert relay.applied_intent_version == 1


async def test_a_change_that_harms_is_taken_back(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    setting.device.neighbors_with_change = []
    process, jobs = setting.process()
    job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, job.id)
    job = await setting.job(job.id)
    assert (job.state, job.phase, job.error_code) == ("rolled_back", "reverted", "verification_failed")
    assert "192.0.2.2 on ge-0/0/0.0" in str(job.result["verification"])
    mark = f"isthmus {job.id}"
    assert setting.device.log == [("begun", mark), ("reverted", mark)]
    assert (await setting.relay(relay_id)).applied_text is None


async def test_a_neighbor_that_takes_a_while_is_waited_for(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    device = setting.device
    neighbors, device.neighbors_with_change = device.neighbors_with_change, []
    looked = 0

    def after_a_look():
        nonlocal looked
        looked += 1
        device.on["observe"] = after_a_look
        if looked == 5:
            device.neighbors_with_change = neighbors

    device.on["observe"] = after_a_look
    process, jobs = setting.process()
    job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, job.id)
    assert (await setting.job(job.id)).state == "succeeded"
    assert looked > 5


async def test_a_device_cut_off_by_the_change_goes_back_by_itself(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    setting.device.reachable_with_change = False
    process, jobs = setting.process()
    job = await jobs.service.submit("apply", relay_id=relay_id, parameters={"confirm_minutes": 2}, actor="operator")
    await setting.finish(process, jobs, job.id)
    job = await setting.job(job.id)
    assert (job.state, job.error_code) == ("rolled_back", "confirm_window_elapsed")
    assert setting.device.log == [("begun", f"isthmus {job.id}"), ("timer", f"isthmus {job.id}")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["begin_change", "read_change", "confirm_change", "observe"])
@pytest.mark.parametrize("tells", [True, False], ids=["telling", "silent"])
async def test_the_device_decides_whatever_a_call_came_to(one_database, method, when, tells):
    setting = Setting(one_database, tells=tells)
    setting.stride = 15.0
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    plan = await jobs.planner.make_plan(relay_id, "apply", "operator")
    setting.device.faults[method] = (when, SessionLost("synthetic", "gone"))
    job = await jobs.service.submit("apply", relay_id=relay_id, plan_id=plan.id, actor="operator")
    await setting.finish(process, jobs, job.id)
    job = await setting.job(job.id)
    has_it = setting.device.owned(("amt", "anycast")).text == plan.desired_text
    assert (job.state == "succeeded") is has_it
    assert ((await setting.relay(relay_id)).applied_text == plan.desired_text) is has_it
    assert setting.device.window is None
    assert setting.device.count("begun", f"isthmus {job.id}") <= 1


async def test_a_commit_that_comes_late_is_not_missed(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    setting.device.late_commit = 15.0
    process, jobs = setting.process()
    job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, job.id)
    job = await setting.job(job.id)
    assert job.state == "succeeded", job.error_detail
    assert setting.device.log == [("begun", f"isthmus {job.id}"), ("confirmed", f"isthmus {job.id}")]


@pytest.mark.parametrize("error", [ConfigurationRefused("synthetic", "syntax"), DeviceBusy("synthetic", "locked")])
async def test_a_refusal_ends_the_job_with_its_code(database, error):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    setting.device.faults["begin_change"] = ("before", error)
    process, jobs = setting.process()
    job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, job.id, seconds=30)
    job = await setting.job(job.id)
    assert (job.state, job.phase, job.error_code) == ("failed", "refused", error.code)
    assert (await setting.relay(relay_id)).window_job_id is None


async def test_a_foreign_window_is_left_alone(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    plan = await jobs.planner.make_plan(relay_id, "apply", "operator")
    setting.device.foreign("hostname", "other", confirmed=False)
    job = await jobs.service.submit("apply", relay_id=relay_id, plan_id=plan.id, actor="operator")
    await setting.finish(process, jobs, job.id, seconds=30)
    job = await setting.job(job.id)
    assert (job.state, job.error_code) == ("failed", "device_confirm_window_open")
    assert setting.device.window.mark == "somebody"
    assert setting.device.log == [("foreign", "hostname")]


@pytest.mark.parametrize("method", ["begin_change", "read_change", "observe"])
async def test_somebody_else_commits_into_our_window(database, method):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    plan = await jobs.planner.make_plan(relay_id, "apply", "operator")
    setting.device.on[method] = lambda: setting.device.foreign("amt", "something else")
    job = await jobs.service.submit("apply", relay_id=relay_id, plan_id=plan.id, actor="operator")
    await setting.finish(process, jobs, job.id)
    job = await setting.job(job.id)
    if setting.device.count("begun", f"isthmus {job.id}") == 0:
        assert (job.state, job.error_code) == ("failed", "device_changed")
        return
    assert (job.state, job.error_code) == ("uncertain", "outcome_uncertain")
    assert "+amt: something else" in job.result["desired_to_actual"]
    assert "+amt: something else" in job.result["before_to_actual"]
    assert setting.device.count("confirmed", f"isthmus {job.id}") == 0


async def test_who_confirms_our_change_for_us_is_told_of(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    setting.device.on["begin_change"] = lambda: setting.device.foreign("hostname", "other")
    process, jobs = setting.process()
    job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, job.id)
    job = await setting.job(job.id)
    assert job.state == "succeeded"
    assert job.result["verification"]["passed"] is True
    assert setting.device.count("confirmed", f"isthmus {job.id}") == 0


async def test_a_harmful_change_somebody_confirmed_is_no_success(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    setting.device.neighbors_with_change = []
    process, jobs = setting.process()
    plan = await jobs.planner.make_plan(relay_id, "apply", "operator")
    setting.device.faults["revert_change"] = ("before", SessionLost("synthetic", "gone"))

    def confirmed_by_somebody():
        if setting.device.log and "revert_change" not in setting.device.faults:
            setting.device.foreign("hostname", "other")
        else:
            setting.device.on["read_change"] = confirmed_by_somebody

    setting.device.on["read_change"] = confirmed_by_somebody
    job = await jobs.service.submit("apply", relay_id=relay_id, plan_id=plan.id, actor="operator")
    await setting.finish(process, jobs, job.id)
    job = await setting.job(job.id)
    assert (job.state, job.error_code) == ("failed", "verification_failed")
    assert (await setting.relay(relay_id)).applied_text == plan.desired_text  # the database says what the device has


async def test_drain_and_undrain_move_only_the_anycast_section(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    for kind in ("apply", "drain"):
        job = await jobs.service.submit(kind, relay_id=relay_id, actor="operator")
        await setting.finish(process, jobs, job.id)
        assert (await setting.job(job.id)).state == "succeeded"
    assert (await setting.relay(relay_id)).drained is True
    assert set(setting.device.sections) == {"hostname", "amt"}
    await setting.set_intent(relay_id, tunnel_limit=7)  # not applied, so undraining must not bring it
    job = await jobs.service.submit("undrain", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, job.id)
    assert (await setting.relay(relay_id)).drained is False
    assert setting.device.sections["amt"].endswith("limit 100")
    assert "anycast" in setting.device.sections
    assert (await setting.relay(relay_id)).applied_intent_version == 1


async def test_rollback_brings_back_what_was_there_and_what_was_recorded(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    for limit in (100, 200):
        await setting.set_intent(relay_id, tunnel_limit=limit)
        job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
        await setting.finish(process, jobs, job.id)
    assert setting.device.sections["amt"].endswith("limit 200")
    job = await jobs.service.submit("rollback", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, job.id)
    assert (await setting.job(job.id)).state == "succeeded"
    assert setting.device.sections["amt"].endswith("limit 100")
    assert (await setting.relay(relay_id)).applied_intent_version == 2


async def test_rolled_back_to_before_the_manager_nothing_is_owned_and_nothing_drifts(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    setting.device.sections["amt"] = "configured by hand"
    process, jobs = setting.process()
    for kind in ("apply", "rollback"):
        job = await jobs.service.submit(kind, relay_id=relay_id, actor="operator")
        await setting.finish(process, jobs, job.id)
        assert (await setting.job(job.id)).state == "succeeded"
    assert setting.device.sections["amt"] == "configured by hand"
    relay = await setting.relay(relay_id)
    assert (relay.applied_scope, relay.applied_text) == ([], None)
    assert (await jobs.drift.check(relay_id)).state == "unmanaged"


async def test_after_a_rollback_drift_is_measured_against_what_was_expected_before(database):
    expected = {}
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    for limit in (100, 200):
        await setting.set_intent(relay_id, tunnel_limit=limit)
        job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
        await setting.finish(process, jobs, job.id)
        expected[limit] = (await setting.relay(relay_id)).applied_text
    job = await jobs.service.submit("rollback", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, job.id)
    assert (await setting.relay(relay_id)).applied_text == expected[100] != expected[200]
    assert (await jobs.drift.check(relay_id)).state == "none"


async def test_what_cannot_be_confirmed_is_not_sent(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    from relaymgr.domain.platforms import Capability

    setting.device.capabilities = frozenset(Capability) - {Capability.CONFIRMED_COMMIT}
    process, jobs = setting.process()
    job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, job.id)
    assert (await setting.job(job.id)).error_code == "capability_missing"
    assert setting.device.log == []


async def test_cancelling_a_queued_job_and_one_that_waits_for_confirmation(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    queued = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    assert (await jobs.service.cancel(queued.id, "operator")).state == "cancelled"
    with pytest.raises(Conflict, match="has ended"):
        await jobs.service.cancel(queued.id, "operator")
    await setting.finish(process, jobs, queued.id)
    assert setting.device.log == []

    job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    setting.device.neighbors_with_change = []  # it would wait for them
    real = setting.world.sleep

    async def cancelled_while_waiting(seconds):
        if not (await setting.job(job.id)).cancel_requested:
            await jobs.service.cancel(job.id, "operator")
        await real(seconds)

    object.__setattr__(jobs.parts, "sleep", cancelled_while_waiting)
    await setting.finish(process, jobs, job.id)
    job = await setting.job(job.id)
    assert (job.state, job.error_code) == ("rolled_back", "cancelled")
    assert setting.device.log[-1] == ("reverted", f"isthmus {job.id}")


async def test_what_the_service_refuses(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    bare = await setting.add_relay("mx2", intent=None)
    _, jobs = setting.process()
    submit = jobs.service.submit
    plan = await jobs.planner.make_plan(relay_id, "apply", "operator")
    with pytest.raises(NotFound):
        await submit("apply", relay_id="0" * 32, actor="a")
    with pytest.raises(Invalid):
        await submit("reboot", relay_id=relay_id, actor="a")
    for parameters in ({"confirm_minutes": 0}, {"confirm_minutes": "5"}, {"probe": 1}, {"colour": "red"}):
        with pytest.raises(Invalid):
            await submit("apply", relay_id=relay_id, parameters=parameters, actor="a")
    with pytest.raises(Conflict, match="no intent"):
        await submit("apply", relay_id=bare, actor="a")
    for kind in ("restore", "rollback"):
        with pytest.raises(Conflict):
            await submit(kind, relay_id=relay_id, actor="a")
    with pytest.raises(Conflict) as mismatch:
        await submit("drain", relay_id=relay_id, plan_id=plan.id, actor="a")
    assert mismatch.value.code == "plan_mismatch"
    job = await submit("apply", relay_id=relay_id, plan_id=plan.id, actor="a")
    with pytest.raises(Conflict, match=job.id):
        await submit("apply", relay_id=relay_id, plan_id=plan.id, actor="a")
    await jobs.service.cancel(job.id, "a")
    setting.world.advance(4000)
    with pytest.raises(Conflict) as old:
        await submit("apply", relay_id=relay_id, plan_id=plan.id, actor="a")
    assert old.value.code == "plan_expired"


async def test_a_plan_of_an_intent_since_replaced_is_refused(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    _, jobs = setting.process()
    plan = await jobs.planner.make_plan(relay_id, "apply", "operator")
    await setting.set_intent(relay_id, tunnel_limit=5)
    with pytest.raises(Conflict) as old:
        await jobs.service.submit("apply", relay_id=relay_id, plan_id=plan.id, actor="a")
    assert old.value.code == "plan_expired"


async def test_nothing_else_touches_a_device_inside_a_window(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    setting.device.reachable_with_change = False
    job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await jobs.service.run(job.id)
    assert (await setting.relay(relay_id)).window_job_id == job.id
    setting.device.reachable_with_change = True
    _, other = setting.process()
    for attempt in (
        lambda: other.planner.make_plan(relay_id, "apply", "a"),
        lambda: other.service.submit("backup", relay_id=relay_id, actor="a"),
        lambda: other.service.submit("apply", relay_id=relay_id, actor="a"),
        lambda: other.drift.check(relay_id),
        lambda: other.backups.take(relay_id, "requested"),
    ):
        with pytest.raises(Conflict) as refused:
            await attempt()
        assert refused.value.code == "confirm_window_open"
    assert setting.device.window is not None
    await setting.finish(process, jobs, job.id)
    assert (await setting.job(job.id)).state == "succeeded"
    assert await other.planner.make_plan(relay_id, "apply", "a")


async def test_a_job_that_ended_badly_is_tried_again_with_its_plan(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    plan = await jobs.planner.make_plan(relay_id, "apply", "operator")
    setting.device.faults["begin_change"] = ("before", DeviceBusy("synthetic", "locked"))
    job = await jobs.service.submit("apply", relay_id=relay_id, plan_id=plan.id, actor="operator")
    await setting.finish(process, jobs, job.id)
    again = await jobs.service.retry(job.id, "operator")
    await setting.finish(process, jobs, again.id)
    again = await setting.job(again.id)
    assert (again.state, again.plan_id) == ("succeeded", plan.id)
    with pytest.raises(Conflict):
        await jobs.service.retry(again.id, "operator")


async def test_the_log_of_a_job_can_be_followed_to_its_end(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, job.id)
    events = [event async for event in jobs.service.follow(job.id)]
    assert events[-1].phase == "confirmed"
    rest = [event.id async for event in jobs.service.follow(job.id, events[2].id)]
    assert rest == [event.id for event in events[3:]]


async def test_plan_drift_and_backup_as_jobs(database):
    setting = Setting(database)
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    results = {}
    for kind in ("plan", "drift", "backup"):
        job = await jobs.service.submit(kind, relay_id=relay_id, actor="operator")
        await setting.finish(process, jobs, job.id)
        job = await setting.job(job.id)
        assert (job.state, job.phase) == ("succeeded", "done"), job.error_detail
        results[kind] = job.result
    async with database.session() as session:
        assert await session.get(Plan, results["plan"]["plan_id"])
        assert await session.get(Backup, results["backup"]["backup_id"])
    assert results["drift"]["drift"] == "unmanaged"
    assert INTENT["inet"]["local_address"] in results["drift"]["diff"] or not results["drift"]["diff"]

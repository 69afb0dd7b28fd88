from __future__ import annotations

import asyncio

import pytest
from jobs.fake_device import SEALER
from jobs.job_world import Setting
from sqlalchemy import select

from relaymgr.drivers.errors import Unreachable
from relaymgr.jobs.embedded import EmbeddedEngine
from relaymgr.jobs.errors import Conflict, Invalid
from relaymgr.jobs.periodic import due
from relaymgr.jobs.probe import probe_relay
from relaymgr.jobs.rollouts import waves_of
from relaymgr.store.tables import DriftRow, Event, Job, Relay, RolloutRelay


async def roll(setting, process, jobs, waves, **options):
    values = {"error_budget": 0, "confirm_minutes": 2, "probe": False, **options}
    return await jobs.rollouts.create(name="limits", kind="apply", waves=waves, actor="operator", **values)


async def relay_states(database, rollout_id):
    async with database.session() as session:
        rows = await session.scalars(select(RolloutRelay).where(RolloutRelay.rollout_id == rollout_id))
        return {row.relay_id: row.state for row in rows}


async def push_through(setting, process, jobs, rollout_id):
    for _ in range(100):
        await setting.finish(process, jobs)
        await jobs.reaper.tick()
        rollout = await jobs.rollouts._get(rollout_id)
        if rollout.finished_at is not None or (rollout.state == "paused" and not process.woken):
            return rollout
        setting.world.advance(5)
    raise AssertionError("the rollout does not end")


async def test_a_rollout_goes_wave_by_wave_to_its_end(database):
    setting = Setting(database)
    relays = [await setting.add_relay(f"mx{number}") for number in range(5)]
    process, jobs = setting.process()
    rollout = await roll(setting, process, jobs, waves_of(relays, ["1", "100%"]))
    assert list(process.woken) != []
    async with database.session() as session:
        assert len(list(await session.scalars(select(Job)))) == 1  # the canary alone
    rollout = await push_through(setting, process, jobs, rollout.id)
    assert rollout.state == "succeeded"
    assert set((await relay_states(database, rollout.id)).values()) == {"succeeded"}
    async with database.session() as session:
        assert len(list(await session.scalars(select(Job)))) == 5


async def test_a_canary_that_fails_saves_the_others(database):
    setting = Setting(database)
    relays = [await setting.add_relay(f"mx{number}") for number in range(4)]
    setting.devices[relays[0]].neighbors_with_change = []
    process, jobs = setting.process()
    rollout = await roll(setting, process, jobs, [relays[:1], relays[1:]])
    rollout = await push_through(setting, process, jobs, rollout.id)
    assert rollout.state == "failed"
    assert await relay_states(database, rollout.id) == {
        relays[0]: "rolled_back", relays[1]: "skipped", relays[2]: "skipped", relays[3]: "skipped"
    }  # fmt: skip
    assert all(setting.devices[relay].log == [] for relay in relays[1:])


async def test_pause_resume_abort_and_a_restart_in_between(database):
    setting = Setting(database)
    relays = [await setting.add_relay(f"mx{number}") for number in range(3)]
    process, jobs = setting.process()
    rollout = await roll(setting, process, jobs, [[relay] for relay in relays])
    await jobs.rollouts.pause(rollout.id, "operator")
    assert (await push_through(setting, process, jobs, rollout.id)).state == "paused"
    states = list((await relay_states(database, rollout.id)).values())
    assert sorted(states) == ["pending", "pending", "succeeded"]
    other, others = setting.process()  # the first process is gone, without having told anybody
    setting.world.advance(60)
    await others.rollouts.resume(rollout.id, "operator")
    assert len(other.woken) == 1
    await others.rollouts.abort(rollout.id, "operator")
    rollout = await push_through(setting, other, others, rollout.id)
    assert rollout.state == "aborted"
    assert sorted((await relay_states(database, rollout.id)).values()) == ["skipped", "skipped", "succeeded"]
    with pytest.raises(Conflict):
        await others.rollouts.resume(rollout.id, "operator")


async def test_what_rollouts_refuse(database):
    setting = Setting(database)
    relays = [await setting.add_relay(f"mx{number}") for number in range(2)]
    process, jobs = setting.process()
    for waves in ([], [[]], [[relays[0]], [relays[0]]]):
        with pytest.raises(Invalid):
            await roll(setting, process, jobs, waves)
    await roll(setting, process, jobs, [relays[:1]])
    with pytest.raises(Conflict, match="limits"):
        await roll(setting, process, jobs, [relays])


async def applied(setting):
    relay_id = await setting.add_relay()
    process, jobs = setting.process()
    job = await jobs.service.submit("apply", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, job.id)
    return relay_id, process, jobs


async def test_drift_is_found_with_who_did_it_and_restored(database):
    setting = Setting(database)
    relay_id, process, jobs = await applied(setting)
    assert (await jobs.drift.check(relay_id)).state == "none"
    setting.device.foreign("hostname", "not ours")
    assert (await jobs.drift.check(relay_id)).state == "none"
    setting.device.foreign("amt", "by hand")
    finding = await jobs.drift.check(relay_id)
    assert finding.state == "drifted"
    assert "+amt: by hand" in finding.diff
    async with database.session() as session:
        row = await session.get(DriftRow, relay_id)
        assert (row.changed_by, row.since) == ("somebody", setting.world.now)
        assert "drift.found" in list(await session.scalars(select(Event.kind)))
    job = await jobs.service.submit("restore", relay_id=relay_id, actor="operator")
    await setting.finish(process, jobs, job.id)
    assert (await setting.job(job.id)).state == "succeeded"
    assert (await jobs.drift.check(relay_id)).state == "none"
    assert setting.device.sections["hostname"] == "not ours"


async def test_accepted_drift_is_what_is_expected_from_then_on(database):
    setting = Setting(database)
    relay_id, _, jobs = await applied(setting)
    with pytest.raises(Conflict):
        await jobs.drift.accept(relay_id, "operator")
    setting.device.foreign("amt", "by hand")
    await jobs.drift.check(relay_id)
    await jobs.drift.accept(relay_id, "operator")
    assert (await jobs.drift.check(relay_id)).state == "none"
    assert "by hand" in (await setting.relay(relay_id)).applied_text


async def test_a_device_that_cannot_be_read_has_unknown_drift(database):
    setting = Setting(database)
    relay_id, _, jobs = await applied(setting)
    setting.device.reachable = False
    with pytest.raises(Unreachable):
        await jobs.drift.check(relay_id)
    assert (await setting.relay(relay_id)).drift_state == "unknown"
    async with database.session() as session:
        assert "no route" in (await session.get(DriftRow, relay_id)).reason


async def test_backups_differ_with_secrets_masked(database):
    setting = Setting(database)
    relay_id, _, jobs = await applied(setting)
    setting.device.foreign("snmp-server community", "SYNTHETIC-1 RO")
    setting.device.foreign("user", 'secret "SYNTHETIC-2"')
    first = await jobs.backups.take(relay_id, "requested")
    assert await jobs.backups.take(relay_id, "requested") is None
    setting.device.foreign("user", 'secret "SYNTHETIC-3"')
    second = await jobs.backups.take(relay_id, "requested")
    diff = await jobs.backups.diff(first, second)
    assert diff.count("<secret>") >= 2
    assert "SYNTHETIC-3" not in diff
    assert SEALER


async def test_periodic_checks_find_drift_once_an_interval(database):
    setting = Setting(database)
    relay_id, _, jobs = await applied(setting)
    setting.device.foreign("amt", "by hand")
    started = 0
    for _ in range(60):
        setting.world.advance(60)
        started += await jobs.periodic.tick()
        await jobs.periodic.idle()
    assert 4 <= started <= 6  # drift at 900 s, backup at 3600 s
    assert (await setting.relay(relay_id)).drift_state == "drifted"
    _, other = setting.process()
    assert await other.periodic.tick() == 0  # another process has the lease


async def test_the_rhythm_of_backups_outlives_the_process(database):
    setting = Setting(database)
    relay_id, _, _ = await applied(setting)
    setting.world.advance(3600)
    _, jobs = setting.process()
    assert await jobs.periodic.tick() == 2, "a drift check and a backup are due, whoever asks"
    await jobs.periodic.idle()
    await jobs.periodic.tick()  # the one of them that found the other at the device
    await jobs.periodic.idle()
    assert (await setting.relay(relay_id)).backup_checked_at == setting.world.now
    await jobs.periodic.stop()
    _, later = setting.process()
    assert await later.periodic.tick() == 0


def test_turns_are_spread_and_come_once():
    setting = Setting(None)
    turns = []
    for number in range(100):
        last = setting.world.now
        for second in range(0, 900, 10):
            setting.world.advance(10)
            if due(f"relay-{number}", 900, setting.world.now, last):
                turns.append(second)
                last = setting.world.now
    assert 95 <= len(turns) <= 105
    assert len(set(turns)) > 40


async def test_a_window_nobody_owns_is_cleared_only_after_its_time(database):
    setting = Setting(database)
    relay_id = await setting.add_relay(window_job_id="f" * 32, window_until=None)
    async with database.begin() as session:
        relay = await session.get(Relay, relay_id)
        relay.window_until = setting.world.now
    _, jobs = setting.process()
    await jobs.reaper.tick()
    assert (await setting.relay(relay_id)).window_job_id is not None
    setting.world.advance(1)
    await jobs.reaper.tick()
    assert (await setting.relay(relay_id)).window_job_id is None


async def test_the_embedded_engine_is_bounded_and_runs_again_what_is_woken_meanwhile():
    running, most, ran = 0, 0, []
    gate = asyncio.Event()

    async def run(job_id):
        nonlocal running, most
        running += 1
        most = max(most, running)
        ran.append(job_id)
        await gate.wait()
        running -= 1

    engine = EmbeddedEngine(workers=2)
    await engine.start(run)
    for number in range(4):
        await engine.wake(str(number))
    while len(ran) < 2:
        await asyncio.sleep(0)
    await engine.wake("0")
    gate.set()
    async with asyncio.timeout(60):
        while len(ran) < 5:
            await asyncio.sleep(0.01)
    await engine.stop()
    assert most == 2
    assert sorted(ran) == ["0", "0", "1", "2", "3"]


class Relaying(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        nonce = data[4:8]
        if data[0] == 1:
            self.transport.sendto(b"\x02\0\0\0" + nonce + bytes([127, 0, 0, 1]), addr)
        else:
            inner = bytes.fromhex("46c0002400000000010200000a000001e0000001940400001164ec1e00000000027d0000")
            self.transport.sendto(b"\x04\x02" + bytes(6) + nonce + inner, addr)


async def test_the_probe_makes_a_real_handshake():
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Relaying, local_addr=("127.0.0.1", 0))
    try:
        check = await probe_relay("127.0.0.1", "127.0.0.1", port=transport.get_extra_info("sockname")[1])
    finally:
        transport.close()
    assert check.passed is True
    assert "IGMP" in check.detail
    assert "no new tunnels" in check.detail

"""Every fault of the simulated MX80, seen from the other end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import asyncssh
import pytest
from lxml import etree
from sim.mx80_client import eventually, raw_session

from lab.sim import mx80
from lab.sim.faults import FAULTS, FaultSwitch, UnknownFault, parse
from lab.sim.options import RunningSim, SimOptions


@pytest.fixture
async def sim() -> AsyncIterator[RunningSim]:
    async with mx80.start(SimOptions(tunnels=2, configured=True)) as running:
        yield running


async def test_slow(sim: RunningSim) -> None:
    sim.set_fault("slow:0.3")
    async with raw_session(sim) as session:
        began = time.monotonic()
        await session.rpc("<get-amt-summary/>")
        assert time.monotonic() - began >= 0.3


async def test_hang_mid_rpc_leaves_the_session_open(sim: RunningSim) -> None:
    async with raw_session(sim) as session:
        sim.set_fault("hang-mid-rpc")
        await session.send("<get-amt-summary/>")
        await eventually(lambda: sim.log[-1]["summary"] == "half a reply")
        part = await session.process.stdout.read(65536)
        assert part.startswith(b"<rpc-reply")
        assert b"]]>]]>" not in part
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await session.process.stdout.read(65536)
        assert len(sim.device.sessions) == 1
    await eventually(lambda: not sim.device.sessions)


async def test_drop_session_cuts_a_reply(sim: RunningSim) -> None:
    async with raw_session(sim) as session:
        sim.set_fault("drop-session")
        await session.send("<get-amt-summary/>")
        with pytest.raises((EOFError, asyncssh.Error)):
            await session.receive()
    await eventually(lambda: not sim.device.sessions)


@pytest.mark.parametrize("body", ["<confirmed/>", ""])
async def test_drop_after_commit_has_committed(sim: RunningSim, body: str) -> None:
    async with raw_session(sim) as session:
        await session.set("set system host-name done")
        sim.set_fault("drop-after-commit")
        await session.ok("<commit-configuration><check/></commit-configuration>")
        await session.send(f"<commit-configuration>{body}</commit-configuration>")
        with pytest.raises((EOFError, asyncssh.Error)):
            await session.receive()
    assert "set system host-name done" in sim.device.committed_set()
    assert (sim.device.history.deadline is not None) == bool(body)


async def test_garbage_is_no_xml(sim: RunningSim) -> None:
    async with raw_session(sim) as session:
        sim.set_fault("garbage")
        await session.send("<get-amt-summary/>")
        with pytest.raises(etree.XMLSyntaxError):
            etree.fromstring(await session.receive())


async def test_vty_full_refuses_connections_and_keeps_those_there_are(sim: RunningSim) -> None:
    async with raw_session(sim) as session:
        sim.set_fault("vty-full")
        with pytest.raises((OSError, asyncssh.Error)):
            async with raw_session(sim):
                pass
        await session.rpc("<get-amt-summary/>")


async def test_refuse_login(sim: RunningSim) -> None:
    sim.set_fault("refuse-login")
    with pytest.raises(asyncssh.PermissionDenied):
        async with raw_session(sim):
            pass
    sim.set_fault(None)
    async with raw_session(sim) as session:
        await session.rpc("<get-amt-summary/>")


async def test_change_host_key(sim: RunningSim) -> None:
    before = sim.host_key_line
    pinned = ([sim.host_key().convert_to_public()], [], [])
    sim.set_fault("change-host-key")
    assert sim.host_key_line != before
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        async with raw_session(sim, known_hosts=pinned):
            pass
    async with raw_session(sim) as session:
        await session.rpc("<get-amt-summary/>")
    sim.set_fault(None)
    assert sim.host_key_line == before


async def test_lock_held(sim: RunningSim) -> None:
    sim.set_fault("lock-held")
    async with raw_session(sim) as session:
        for body in ("<lock-configuration/>", "<commit-configuration/>"):
            error = await session.error(body)
            assert error.findtext("error-tag") == "lock-denied"
            assert "noc" in error.findtext("error-message")
        sim.faults.clear("lock-held")
        await session.ok("<lock-configuration/>")


async def test_no_reply_rpc_silences_one_only(sim: RunningSim) -> None:
    sim.set_fault("no-reply-rpc:get-amt-summary")
    async with raw_session(sim) as session:
        await session.send("<get-amt-summary/>")
        reply = await session.rpc("<get-amt-statistics/>")
        assert reply.find("amt-instance-statistics") is not None


async def test_commit_refused(sim: RunningSim) -> None:
    sim.set_fault("commit-refused")
    before = sim.device.committed_set()
    async with raw_session(sim) as session:
        await session.set("set system host-name never")
        await session.error("<commit-configuration/>")
        await session.error("<commit-configuration><check/></commit-configuration>")
    assert sim.device.committed_set() == before


async def test_faults_may_be_on_from_the_start() -> None:
    async with mx80.start(SimOptions(fault=("refuse-login", "slow:1"))) as sim:
        assert set(sim.faults.active) == {"refuse-login", "slow"}
        with pytest.raises(asyncssh.PermissionDenied):
            async with raw_session(sim):
                pass


@pytest.mark.parametrize("wrong", ["", "nothing", "slow", "slow:soon", "garbage:1", "no-reply-rpc"])
def test_wrong_faults_are_refused(wrong: str) -> None:
    with pytest.raises(UnknownFault):
        parse(wrong)


def test_a_switch_knows_what_is_on() -> None:
    switch = FaultSwitch(("slow:2",))
    switch.set("garbage")
    assert switch.delay == 2.0
    assert "garbage" in switch
    switch.set(None)
    assert switch.active == {}
    assert all(name in text or text for name, text in FAULTS.items())

"""PyEZ, unmodified, drives the simulated MX80."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from jnpr.junos import Device
from jnpr.junos.exception import (
    CommitError,
    ConfigLoadError,
    ConnectAuthError,
    ConnectRefusedError,
    LockError,
    RpcError,
)
from jnpr.junos.exception import PermissionError as JunosPermissionError
from jnpr.junos.utils.config import Config
from sim.mx80_client import PASSWORD, eventually, ssh_config

from lab.sim import mx80
from lab.sim.options import RunningSim, SimOptions

Drive = Callable[..., Any]
RELAY = (
    "set protocols amt relay family inet anycast-prefix 198.18.5.0/24\n"
    "set protocols amt relay family inet local-address 192.0.2.80\n"
)


@pytest.fixture
async def sim() -> AsyncIterator[RunningSim]:
    options = SimOptions(tunnels=3, read_only_user="viewer", minute_seconds=0.3)
    async with mx80.start(options) as running:
        yield running


@pytest.fixture
def drive(sim: RunningSim, tmp_path: Path) -> Drive:
    """Runs a function of (device, configuration) in a thread, with a session opened for it."""

    def with_session(work: Callable[[Any, Any], Any], user: str) -> Any:
        config = ssh_config(sim, tmp_path)
        device = Device(
            host=sim.host,
            port=sim.port,
            user=user,
            passwd=PASSWORD,
            gather_facts=False,
            hostkey_verify=True,
            ssh_config=config,
            conn_open_timeout=10,
        )
        device.open()
        device.timeout = 10
        try:
            return work(device, Config(device))
        finally:
            if device.connected:
                device.close()

    async def run(work: Callable[[Any, Any], Any], user: str = "isthmus") -> Any:
        return await asyncio.to_thread(with_session, work, user)

    return run


async def test_facts(drive: Drive) -> None:
    facts = await drive(lambda device, _: {name: device.facts[name] for name in ("hostname", "model", "version")})
    assert facts == {"hostname": "mx80", "model": "MX80", "version": "18.4R3.3"}
    assert await drive(lambda device, _: device.facts["serialnumber"])


async def test_lock_load_diff_check_commit(sim: RunningSim, drive: Drive) -> None:
    def work(_device: Any, config: Any) -> str:
        config.lock()
        config.load(RELAY, format="set")
        diff = config.diff()
        assert config.commit_check()
        config.commit(comment="isthmus 7")
        assert config.diff() is None
        config.unlock()
        return str(diff)

    diff = await drive(work)
    assert diff.strip().splitlines()[0] == "[edit protocols]"
    assert "+                   anycast-prefix 198.18.5.0/24;" in diff
    assert "set protocols amt relay family inet local-address 192.0.2.80" in sim.device.committed_set()
    assert sim.device.history.commits[0].log == "isthmus 7"
    assert sim.device.lock_holder is None


async def test_load_text_and_xml_with_merge_and_replace(sim: RunningSim, drive: Drive) -> None:
    def work(_device: Any, config: Any) -> None:
        config.load("protocols { amt { relay { tunnel-limit 10; accounting; } } }", format="text", merge=True)
        config.load(
            "<configuration><protocols><amt><relay><tunnel-limit>20</tunnel-limit></relay></amt></protocols>"
            "</configuration>",
            format="xml",
            merge=True,
        )
        config.load("protocols { replace: pim { interface all; } }", format="text")
        config.commit()

    await drive(work)
    text = sim.device.committed_set()
    assert "set protocols amt relay tunnel-limit 20\nset protocols amt relay accounting\n" in text
    assert "set protocols pim interface all" in text
    assert "xe-0/0/0.0" not in text

    def replace(_device: Any, config: Any) -> None:
        config.load(
            '<configuration><protocols><amt replace="replace"><relay><tunnel-limit>5</tunnel-limit></relay></amt>'
            "</protocols></configuration>",
            format="xml",
        )
        config.commit()

    await drive(replace)
    assert "accounting" not in sim.device.committed_set()


async def test_load_override_replaces_all(sim: RunningSim, drive: Drive) -> None:
    text = 'system { host-name new; root-authentication { encrypted-password "x"; } }'
    await drive(lambda _, config: (config.load(text, format="text", overwrite=True), config.commit()))
    assert sim.device.committed_set() == (
        "set system host-name new\nset system root-authentication encrypted-password x\n"
    )


async def test_confirmed_commit_is_taken_back_by_the_timer(sim: RunningSim, drive: Drive) -> None:
    before = sim.device.committed_set()
    await drive(lambda _, config: (config.load(RELAY, format="set"), config.commit(confirm=1)))
    assert sim.device.history.commits[0].comment == "commit confirmed, rollback in 1mins"
    await eventually(lambda: sim.device.history.deadline is None)
    assert sim.device.committed_set() == before
    assert [commit.client for commit in sim.device.history.commits[:2]] == ["other", "netconf"]
    assert await drive(lambda _, config: config.diff()) is None


@pytest.mark.parametrize("confirm", ["commit", "commit_check"])
async def test_commit_and_commit_check_confirm(sim: RunningSim, drive: Drive, confirm: str) -> None:
    sim.device.minute_seconds = 3600.0

    def work(_device: Any, config: Any) -> None:
        config.load(RELAY, format="set")
        config.commit(confirm=5)
        assert sim.device.history.deadline is not None
        getattr(config, confirm)()

    await drive(work)
    assert sim.device.history.deadline is None
    assert "amt relay" in sim.device.committed_set()


async def test_somebody_elses_commit_confirms_too(sim: RunningSim, drive: Drive) -> None:
    sim.device.minute_seconds = 3600.0
    await drive(lambda _, config: (config.load(RELAY, format="set"), config.commit(confirm=5)))
    sim.device.edit("set system host-name elsewhere")
    assert sim.device.history.deadline is None
    assert "amt relay" in sim.device.committed_set()


async def test_rollback_and_compare_with_older(drive: Drive) -> None:
    def work(_device: Any, config: Any) -> None:
        config.load("set system host-name first", format="set")
        config.commit()
        config.load("set system host-name second", format="set")
        config.commit()
        assert "-   host-name mx80;" in config.diff(rb_id=2)
        config.rollback(2)
        assert "+   host-name mx80;" in config.diff()
        config.rollback(0)
        assert config.diff() is None
        with pytest.raises(RpcError):
            config.rollback(40)

    await drive(work)


async def test_history_ends_at_49(sim: RunningSim, drive: Drive) -> None:
    for number in range(60):
        sim.device.edit(f"set system host-name n{number}")
    assert len(sim.device.history.commits) == 50

    def work(_device: Any, config: Any) -> str:
        config.rollback(49)
        return str(config.diff())

    assert "+   host-name n10;" in await drive(work)


async def test_lock_conflict_names_the_holder(drive: Drive) -> None:
    def work(_device: Any, config: Any, other: Any) -> None:
        config.lock()
        with pytest.raises(LockError) as caught:
            other.lock()
        assert "configuration database locked by" in str(caught.value)
        assert "isthmus" in str(caught.value)
        with pytest.raises(ConfigLoadError):
            other.load("set system host-name x", format="set")
        config.load("set system host-name lost", format="set")

    loop = asyncio.get_running_loop()

    def first(device: Any, config: Any) -> None:
        def second(_device: Any, other: Any) -> None:
            work(device, config, other)

        asyncio.run_coroutine_threadsafe(drive(second), loop).result(20)

    await drive(first)

    def after(_device: Any, config: Any) -> None:  # the session with the lock is gone, and what it had not committed
        config.lock()
        assert config.diff() is None

    await drive(after)


async def test_lock_is_refused_over_a_changed_candidate(drive: Drive) -> None:
    def work(_device: Any, config: Any) -> None:
        config.load("set system host-name x", format="set")
        with pytest.raises(LockError, match="configuration database modified"):
            config.lock()

    await drive(work)


async def test_errors_have_path_and_element(drive: Drive) -> None:
    def work(_device: Any, config: Any) -> None:
        with pytest.raises(ConfigLoadError) as caught:
            config.load("set protocols amtt relay", format="set")
        assert caught.value.errs[0]["bad_element"] == "amtt"
        assert caught.value.errs[0]["edit_path"] == "[edit protocols]"
        with pytest.raises(ConfigLoadError) as caught:
            config.load("delete protocols ldp", format="set")
        assert caught.value.errs[0]["severity"] == "warning"
        config.load("delete protocols ldp", format="set", ignore_warning=True)
        config.load("set protocols bgp export nowhere", format="set")
        for attempt in (config.commit_check, config.commit):
            with pytest.raises(CommitError, match="nowhere referenced but not defined"):
                attempt()
        config.rollback(0)
        assert config.diff() is None

    await drive(work)


async def test_unknown_rpc_is_a_syntax_error(drive: Drive) -> None:
    def work(device: Any, _config: Any) -> None:
        with pytest.raises(RpcError, match="syntax error"):
            device.rpc.get_nonsense_information()

    await drive(work)


async def test_viewer_may_look_only(drive: Drive) -> None:
    def work(device: Any, config: Any) -> None:
        assert device.rpc.get_config(filter_xml="system/host-name").findtext(".//host-name") == "mx80"
        for attempt in (config.lock, config.commit, lambda: config.load("set system host-name x", format="set")):
            with pytest.raises((JunosPermissionError, RpcError), match="permission denied"):
                attempt()

    await drive(work, user="viewer")


async def test_get_config_filters_and_tells_the_committer(sim: RunningSim, drive: Drive) -> None:
    sim.device.edit(RELAY, user="noc")

    def work(device: Any, _config: Any) -> Any:
        return device.rpc.get_config(filter_xml="protocols/amt", options={"database": "committed"})

    reply = await drive(work)
    assert reply.get("commit-user") == "noc"
    assert [child.tag for child in reply] == ["protocols"]
    assert reply.findtext(".//anycast-prefix") == "198.18.5.0/24"


async def test_get_config_as_text_and_set(drive: Drive) -> None:
    def work(device: Any, _config: Any) -> tuple[Any, Any]:
        text = device.rpc.get_config(filter_xml="protocols/pim", options={"format": "text"})
        commands = device.rpc.get_config(filter_xml="protocols/pim", options={"format": "set"})
        return text.text, commands.text

    text, commands = await drive(work)
    assert "pim {\n        interface xe-0/0/0.0 {" in text
    assert commands.strip() == "set protocols pim interface xe-0/0/0.0 mode sparse"


async def test_commit_history(sim: RunningSim, drive: Drive) -> None:
    sim.device.minute_seconds = 3600.0

    def work(device: Any, config: Any) -> Any:
        config.load(RELAY, format="set")
        config.commit(confirm=3, comment="isthmus 12")
        return device.rpc.get_commit_information()

    reply = await drive(work)
    latest = reply.find("commit-history")
    assert {child.tag: child.text for child in latest} | {"date-time": ""} == {
        "sequence-number": "0",
        "user": "isthmus",
        "client": "netconf",
        "date-time": "",
        "comment": "commit confirmed, rollback in 3mins",
        "log": "isthmus 12",
    }
    assert int(latest.find("date-time").get("seconds")) > 1_700_000_000


async def test_amt_through_pyez(sim: RunningSim, drive: Drive) -> None:
    sim.device.edit(RELAY)
    reply = await drive(lambda device, _: device.rpc.get_amt_tunnel_information(detail=True))
    assert len(reply.findall("amt-tunnel")) == 3
    assert reply.find("amt-tunnel/mgm-group/multicast-group-address") is not None


async def test_wrong_password_and_changed_host_key(sim: RunningSim, tmp_path: Path) -> None:
    config = ssh_config(sim, tmp_path)

    def connect(password: str) -> None:
        device = Device(
            host=sim.host,
            port=sim.port,
            user="isthmus",
            passwd=password,
            gather_facts=False,
            hostkey_verify=True,
            ssh_config=config,
            allow_agent=False,
            look_for_keys=False,
        )
        device.open()
        device.close()

    with pytest.raises(ConnectAuthError):
        await asyncio.to_thread(connect, "wrong")
    sim.set_fault("change-host-key")
    with pytest.raises(ConnectRefusedError):
        await asyncio.to_thread(connect, PASSWORD)
    sim.set_fault(None)
    await asyncio.to_thread(connect, PASSWORD)

"""Every fault as clients of the simulated IOS-XE meet it."""

from __future__ import annotations

import contextlib
import time

import pytest
from ncclient.operations.errors import TimeoutExpiredError
from ncclient.transport.errors import SessionCloseError, SSHError
from netmiko import NetmikoAuthenticationException, NetmikoTimeoutException, ReadTimeout
from sim.ios_clients import cli, eventually, in_thread, netconf

from lab.sim import iosxe
from lab.sim.options import SimOptions

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:paramiko"),
    pytest.mark.filterwarnings("ignore:TripleDES"),
]
GET = ("subtree", '<pim-oper-data xmlns="http://cisco.com/ns/yang/Cisco-IOS-XE-pim-oper"/>')
LOST = (OSError, EOFError, ReadTimeout)


async def drive(tmp_path, work, options: SimOptions | None = None):
    async with iosxe.start(options or SimOptions(tunnels=2)) as sim:
        await in_thread(work, sim)
        return sim


@contextlib.contextmanager
def connected(sim, tmp_path, **more):
    """A connection that may be gone at the end."""
    device = cli(sim, tmp_path, **more)
    try:
        yield device
    finally:
        with contextlib.suppress(*LOST):
            if device.remote_conn is not None:
                device.paramiko_cleanup()


async def test_slow(tmp_path):
    def work(sim):
        with connected(sim, tmp_path) as device:
            sim.set_fault("slow:1.2")
            began = time.monotonic()
            assert "17.9.4a" in device.send_command("show version", read_timeout=20)
            assert time.monotonic() - began >= 1.2

    await drive(tmp_path, work)


async def test_hang_in_the_middle_of_output(tmp_path):
    def work(sim):
        with connected(sim, tmp_path) as device:
            sim.set_fault("hang-mid-rpc")
            with pytest.raises(ReadTimeout):
                device.send_command("show running-config", read_timeout=1.5)
        sim.set_fault(None)
        session = netconf(sim, tmp_path, timeout=1.5)
        sim.set_fault("hang-mid-rpc")
        with pytest.raises(TimeoutExpiredError):
            session.get(filter=GET)
        session._session.close()

    sim = await drive(tmp_path, work)
    assert any(entry["summary"] == "half a reply" for entry in sim.log)


async def test_session_dropped(tmp_path):
    def work(sim):
        with connected(sim, tmp_path) as device:
            sim.set_fault("drop-session")
            with pytest.raises(LOST):
                device.send_command("show running-config", read_timeout=2)
            assert not device.is_alive()
        sim.set_fault(None)
        session = netconf(sim, tmp_path)
        sim.set_fault("drop-session")
        with pytest.raises(SessionCloseError):
            session.get(filter=GET)

    await drive(tmp_path, work)


async def test_change_done_but_connection_cut_instead_of_an_answer(tmp_path):
    def work(sim):
        with connected(sim, tmp_path) as device:
            device.send_config_set(["interface Loopback9"], config_mode_command="configure terminal revert timer 5")
            sim.set_fault("drop-after-commit")
            with pytest.raises(LOST):
                device.send_command("configure confirm", read_timeout=2)

    sim = await drive(tmp_path, work)
    assert sim.device.revert is None
    assert sim.device.running.section("interface Loopback9") is not None


async def test_garbage(tmp_path):
    def work(sim):
        with connected(sim, tmp_path) as device:
            sim.set_fault("garbage")
            printed = device.send_command("show version")
            assert "17.9.4a" not in printed
            assert printed

    await drive(tmp_path, work)


async def test_all_lines_taken(tmp_path):
    def work(sim):
        sim.set_fault("vty-full")
        with pytest.raises(NetmikoTimeoutException):
            cli(sim, tmp_path)
        with pytest.raises(SSHError):
            netconf(sim, tmp_path)
        sim.set_fault(None)
        cli(sim, tmp_path).disconnect()

    await drive(tmp_path, work)


async def test_login_refused(tmp_path):
    def work(sim):
        sim.set_fault("refuse-login")
        with pytest.raises(NetmikoAuthenticationException):
            cli(sim, tmp_path)

    await drive(tmp_path, work)


async def test_other_host_key(tmp_path):
    def work(sim):
        before = sim.host_key_line
        cli(sim, tmp_path).disconnect()
        sim.set_fault("change-host-key")
        assert sim.host_key_line != before
        pinned = tmp_path / "pinned"
        pinned.write_text(f"[{sim.host}]:{sim.port} {before}\n")
        with pytest.raises(NetmikoTimeoutException):
            cli(sim, tmp_path, alt_key_file=str(pinned))

    await drive(tmp_path, work)


async def test_somebody_else_holds_the_lock(tmp_path):
    def work(sim):
        with connected(sim, tmp_path) as device:
            sim.set_fault("lock-held")
            assert "locked exclusively by user 'other'" in device.send_command("configure terminal revert timer 5")
            assert sim.device.revert is None
            assert device.find_prompt() == "xe-relay#"

    await drive(tmp_path, work)


async def test_every_change_refused(tmp_path):
    def work(sim):
        with connected(sim, tmp_path) as device:
            sim.set_fault("commit-refused")
            assert "% Authorization failed." in device.send_config_set(["interface Loopback9"])

    sim = await drive(tmp_path, work)
    assert sim.device.running.section("interface Loopback9") is None


async def test_one_command_never_answered(tmp_path):
    def work(sim):
        with connected(sim, tmp_path) as device:
            sim.set_fault("no-reply-rpc:show ip pim neighbor")
            assert "17.9.4a" in device.send_command("show version")
            with pytest.raises(ReadTimeout):
                device.send_command("sh ip pim neigh", read_timeout=1)

    await drive(tmp_path, work)


async def test_lines_that_hang_are_free_again_when_the_client_leaves(tmp_path):
    def work(sim):
        with connected(sim, tmp_path) as device:
            sim.set_fault("hang-mid-rpc")
            with pytest.raises(ReadTimeout):
                device.send_command("show version", read_timeout=1)
            assert len(sim.device.terminals) == 1

    async with iosxe.start(SimOptions()) as sim:
        await in_thread(work, sim)
        await eventually(lambda: not sim.device.terminals)


async def test_old_ssh_is_refused_unless_asked_for(tmp_path):
    async with iosxe.start(SimOptions(old_ssh=True)) as sim:
        assert sim.host_key_line.startswith("ssh-rsa ")
        key = tmp_path / "old"
        key.write_text(f"[{sim.host}]:{sim.port} {sim.host_key_line}\n")
        algorithms = {"keys": ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"]}
        with pytest.raises(NetmikoTimeoutException):
            await in_thread(cli, sim, tmp_path, disabled_algorithms=algorithms)

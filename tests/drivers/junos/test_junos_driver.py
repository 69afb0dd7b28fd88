"""JunosDriver against the simulated MX80, over PyEZ and over our own session: what happens is read from the device."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import resources
from types import SimpleNamespace
from typing import Any

import asyncssh
import pytest

from lab.sim.mx80 import rpc_facts
from relaymgr.domain.configuration import Change, Confirmation, DiffSource, OwnedConfiguration
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.platforms import Platform
from relaymgr.drivers.errors import (
    ConfigurationChanged,
    ConfigurationRefused,
    ConfirmWindowOpen,
    DeadlineExceeded,
    DeviceBusy,
    DriverError,
    Garbage,
    HostKeyMismatch,
    LoginRefused,
    SessionLost,
    Unreachable,
)
from relaymgr.drivers.junos import JunosDriver
from relaymgr.drivers.junos.configuration_session import wants_native
from relaymgr.drivers.protocol import Credential, Deadlines, DeviceTarget, DriverContext
from relaymgr.drivers.ssh import fingerprint, scan_host_key

mx80 = pytest.importorskip("lab.sim.mx80")
options = pytest.importorskip("lab.sim.options")

# PyEZ warns about exceptions it does not know; what became of them is what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:jnpr.junos"),
    pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields"),
]

PASSWORD = "synthetic-secret-7f3a"
MINUTE = 60.0
TRANSPORTS = ("pyez", "native")  # native serves RSA keys, old or not


_host_key = functools.cache(asyncssh.generate_private_key)
"""Of each kind one for all tests: an RSA key takes longer to make than a test."""


class Bench:
    """A simulator and a driver to it."""

    def __init__(self, sim: Any, driver: JunosDriver, target: DeviceTarget, context: DriverContext) -> None:
        self.sim, self.driver, self.target, self.context = sim, driver, target, context

    def another(self, **changed: Any) -> JunosDriver:
        values = {name: getattr(self.target, name) for name in self.target.__slots__} | changed
        credential = values.pop("credential", Credential("isthmus", PASSWORD))
        return JunosDriver(DeviceTarget(**values), credential, self.context)

    @property
    def requests(self) -> list[str]:
        return [entry["kind"] for entry in self.sim.log if entry["direction"] == "in"]

    def commits(self) -> int:
        return len(self.sim.device.history.commits)


@asynccontextmanager
async def bench(
    transport: str, *, minute: float = MINUTE, deadlines: Deadlines | None = None, **more: Any
) -> AsyncIterator[Bench]:
    key = _host_key("ssh-ed25519" if transport == "pyez" else "ssh-rsa")
    chosen = options.SimOptions(
        password=PASSWORD, host_key=key, old_ssh=transport == "old-ssh", minute_seconds=minute, tunnels=3, **more
    )
    executor = ThreadPoolExecutor(4)
    async with mx80.start(chosen) as sim:
        target = DeviceTarget(
            name="mx80",
            platform=Platform.JUNOS,
            host=sim.host,
            port=sim.port,
            host_key=sim.host_key_line,
            legacy_ssh=transport == "old-ssh",
            deadlines=deadlines or Deadlines(connect=15, rpc=15, commit=20),
        )
        assert wants_native(target) is (transport != "pyez")
        context = DriverContext(executor)
        driver = JunosDriver(target, Credential("isthmus", PASSWORD), context)
        try:
            yield Bench(sim, driver, target, context)
        finally:
            await driver.close()
            # Whatever happened, no thread of the executor hangs on a dead session.
            await asyncio.wait_for(asyncio.to_thread(executor.shutdown), 15)


async def planned(
    driver: JunosDriver, desired: OwnedConfiguration, mark: str = "isthmus 01J0", minutes: int = 5
) -> Change:
    plan = await driver.plan(desired)
    return Change(mark, desired, plan.before, plan.device_fingerprint, minutes, "made by a test")


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_plan_shows_the_devices_diff_and_leaves_no_trace(transport, full):
    async with bench(transport) as b:
        before, commits = b.sim.device.committed_text(), b.commits()
        desired = b.driver.render(full, drained=False)
        plan = await b.driver.plan(desired)
        assert plan.diff_source is DiffSource.DEVICE
        assert "+" in plan.diff
        assert "anycast-prefix 192.0.2.0/24" in plan.diff
        assert plan.before == await b.driver.read_owned(desired.scope)
        assert "replace" in plan.commands
        assert (b.sim.device.committed_text(), b.commits()) == (before, commits)
        assert not b.sim.device.candidate_differs
        assert b.sim.device.lock_holder is None
        assert "commit-configuration" not in b.requests


@pytest.mark.parametrize("transport", [*TRANSPORTS, "old-ssh"])
async def test_apply_confirm_and_nothing_else_changes(transport, full):
    async with bench(transport) as b:
        foreign = _without_ours(b.sim.device.committed_set())
        desired = b.driver.render(full, drained=False)
        change = await planned(b.driver, desired)
        reading = await b.driver.read_change(change)
        assert (reading.owned, reading.device_fingerprint) == (change.before, change.device_fingerprint)
        assert reading.committed is False
        await b.driver.begin_change(change)
        reading = await b.driver.read_change(change)
        assert reading.owned == desired
        assert reading.confirmation is Confirmation.PENDING
        assert reading.confirmation_is_ours is True
        assert reading.seconds_left is None or 200 < reading.seconds_left <= 300
        assert reading.last_commit is not None
        assert reading.last_commit.user == "isthmus"
        assert reading.device_fingerprint != change.device_fingerprint
        await b.driver.confirm_change(change)
        reading = await b.driver.read_change(change)
        assert (reading.owned, reading.confirmation) == (desired, Confirmation.NONE)
        assert _without_ours(b.sim.device.committed_set()) == foreign
        again = await b.driver.plan(desired)
        assert (again.diff, again.commands) == ("", "")


def _without_ours(commands: str) -> list[str]:
    ours = ("amt", "AMT-", "ge-0/0/0", "ae0.5", "192.0.2.1/32", "198.51.100.7", "fpc 1 ", "static route 192.0.2.0/24")
    return [line for line in commands.splitlines() if not any(word in line for word in ours)]


async def test_the_timer_takes_an_unconfirmed_change_back(transport, full):
    async with bench(transport, minute=0.3) as b:
        before = b.sim.device.committed_text()
        change = await planned(b.driver, b.driver.render(full, drained=False), minutes=1)
        await b.driver.begin_change(change)
        async with asyncio.timeout(20):
            # History and configuration are read one after the other; the rollback may come in between.
            while (reading := await b.driver.read_change(change)).confirmation is not Confirmation.NONE:
                await asyncio.sleep(0.05)
        assert reading.owned == change.before
        assert reading.committed is True  # its history still tells that it took the change
        assert b.sim.device.committed_text() == before
        with pytest.raises(ConfigurationChanged):
            await b.driver.confirm_change(change)


async def test_revert_takes_it_back_at_once(transport, full):
    async with bench(transport) as b:
        before = b.sim.device.committed_text()
        change = await planned(b.driver, b.driver.render(full, drained=False))
        await b.driver.begin_change(change)
        await b.driver.revert_change(change)
        reading = await b.driver.read_change(change)
        assert (reading.owned, reading.confirmation) == (change.before, Confirmation.NONE)
        assert b.sim.device.committed_text() == before


async def test_a_drain_and_what_is_not_wanted_any_more(full, smallest):
    async with bench("native") as b:
        up, drained = b.driver.render(full, drained=False), b.driver.render(full, drained=True)
        await _apply(b.driver, up)
        diff = await _apply(b.driver, drained)
        assert "tunnel-limit" not in diff
        assert await b.driver.read_owned(up.scope) == drained
        less = b.driver.render(smallest, drained=False).widened(up.scope)
        await _apply(b.driver, less)
        assert await b.driver.read_owned(less.scope) == less
        assert "AMT-" not in b.sim.device.committed_text()


async def _apply(driver: JunosDriver, desired: OwnedConfiguration) -> str:
    plan = await driver.plan(desired)
    change = Change("isthmus 01J1", desired, plan.before, plan.device_fingerprint, 5)
    await driver.begin_change(change)
    await driver.confirm_change(change)
    return plan.diff


async def test_an_open_window_is_never_touched(transport, full):
    """Any commit or check would confirm it: also ours, also when it is ours."""
    async with bench(transport) as b:
        desired = b.driver.render(full, drained=False)
        change = await planned(b.driver, desired)
        b.sim.device.commit("noc", "cli", "manual work", confirm_minutes=10)
        for doing in (b.driver.plan(desired), b.driver.begin_change(change)):
            with pytest.raises(ConfirmWindowOpen, match="noc"):
                await doing
        for doing in (b.driver.confirm_change(change), b.driver.revert_change(change)):
            with pytest.raises(ConfigurationChanged, match="not of this change"):
                await doing
        reading = await b.driver.read_change(change)
        assert (reading.confirmation, reading.confirmation_is_ours) == (Confirmation.PENDING, False)
        assert b.sim.device.history.deadline is not None
        assert "commit-configuration" not in b.requests
        assert "lock-configuration" not in b.requests[-12:]


async def test_a_job_whose_name_begins_alike_is_not_ours(full):
    async with bench("native") as b:
        change = await planned(b.driver, b.driver.render(full, drained=False), mark="isthmus 12")
        other = Change("isthmus 1", change.desired, change.before, change.device_fingerprint, 5)
        await b.driver.begin_change(change)
        assert (await b.driver.read_change(other)).confirmation_is_ours is False
        with pytest.raises(ConfigurationChanged):
            await b.driver.confirm_change(other)


async def test_somebody_elses_edits_and_lock_are_left_alone(transport, full):
    async with bench(transport) as b:
        desired = b.driver.render(full, drained=False)
        change = await planned(b.driver, desired)
        tree = b.sim.device.candidate
        tree.find("system/host-name").text = "half-done"
        for doing in (b.driver.plan(desired), b.driver.begin_change(change)):
            with pytest.raises(DeviceBusy):
                await doing
        assert b.sim.device.candidate.findtext("system/host-name") == "half-done"
        b.sim.device.discard()
        b.sim.faults.set("lock-held")
        with pytest.raises(DeviceBusy):
            await b.driver.plan(desired)
        b.sim.faults.set(None)
        await b.driver.plan(desired)


async def test_a_plan_expires_with_any_other_commit(transport, full):
    async with bench(transport) as b:
        change = await planned(b.driver, b.driver.render(full, drained=False))
        b.sim.device.edit("set system host-name elsewhere")
        commits = b.commits()
        with pytest.raises(ConfigurationChanged):
            await b.driver.begin_change(change)
        assert b.commits() == commits
        assert b.sim.device.lock_holder is None
        assert not b.sim.device.candidate_differs


async def test_a_refused_commit_leaves_a_clean_candidate(transport, full):
    async with bench(transport) as b:
        change = await planned(b.driver, b.driver.render(full, drained=False))
        b.sim.faults.set("commit-refused")
        commits = b.commits()
        with pytest.raises(ConfigurationRefused):
            await b.driver.begin_change(change)
        assert b.commits() == commits
        assert not b.sim.device.candidate_differs
        assert b.sim.device.lock_holder is None


async def test_a_user_who_may_only_look_is_told_so(transport, full):
    async with bench(transport, read_only_user="viewer") as b:
        viewer = b.another(credential=Credential("viewer", PASSWORD))
        assert (await viewer.observe()).tunnels is not None
        with pytest.raises(ConfigurationRefused, match="permission"):
            await viewer.plan(viewer.render(full, drained=False))
        await viewer.close()


async def test_the_truth_after_a_commit_without_an_answer(transport, full):
    async with bench(transport) as b:
        desired = b.driver.render(full, drained=False)
        change = await planned(b.driver, desired)
        b.sim.faults.set("drop-after-commit")
        with pytest.raises(SessionLost):
            await b.driver.begin_change(change)
        b.sim.faults.set(None)
        reading = await b.driver.read_change(change)
        assert (reading.owned, reading.confirmation) == (desired, Confirmation.PENDING)
        assert reading.confirmation_is_ours is True
        await b.driver.confirm_change(change)


async def test_a_hanging_commit_ends_at_its_deadline(transport, full):
    async with bench(transport, deadlines=Deadlines(connect=10, rpc=10, commit=1)) as b:
        change = await planned(b.driver, b.driver.render(full, drained=False))
        b.sim.faults.set("no-reply-rpc:commit-configuration")
        async with asyncio.timeout(15):
            with pytest.raises((DeadlineExceeded, SessionLost)):
                await b.driver.begin_change(change)
        b.sim.faults.set(None)
        async with asyncio.timeout(10):
            while b.sim.device.lock_holder is not None:
                await asyncio.sleep(0.05)
        assert (await b.driver.read_change(change)).owned == change.before
        await b.driver.plan(change.desired)


@pytest.mark.parametrize("fault", ["hang-mid-rpc", "drop-session", "garbage"])
async def test_faults_of_the_session_are_errors_in_time(transport, full, fault):
    async with bench(transport, deadlines=Deadlines(connect=2, rpc=1, commit=2)) as b:
        desired = b.driver.render(full, drained=False)
        await b.driver.observe()
        b.sim.faults.set(fault)
        async with asyncio.timeout(25):
            for doing in (b.driver.observe(), b.driver.read_configuration(), b.driver.plan(desired)):
                with pytest.raises((DeadlineExceeded, SessionLost, Garbage, Unreachable)):
                    await doing
        b.sim.faults.set(None)
        assert (await b.driver.observe()).tunnels is not None
        assert (await b.driver.plan(desired)).diff


@pytest.mark.parametrize("transport", [*TRANSPORTS, "old-ssh"])
async def test_a_changed_host_key_is_refused_with_its_fingerprint(transport, full):
    async with bench(transport) as b:
        desired = b.driver.render(full, drained=False)
        await b.driver.observe()
        b.sim.faults.set("change-host-key")
        await b.driver.close()
        presented = (await scan_host_key(b.sim.host, b.sim.port, legacy=transport == "old-ssh")).fingerprint
        assert presented != fingerprint(b.target.host_key)
        sessions = len(b.sim.log)
        for doing in (b.driver.plan(desired), b.driver.observe()):
            with pytest.raises(HostKeyMismatch) as refused:
                await doing
            assert refused.value.presented == presented
        assert len(b.sim.log) == sessions


async def test_no_pin_no_session(full):
    async with bench("pyez") as b:
        driver = b.another(host_key=None)
        for doing in (driver.facts(), driver.plan(driver.render(full, drained=False))):
            with pytest.raises(HostKeyMismatch):
                await doing


async def test_refused_logins_and_dead_devices(transport, full, caplog):
    caplog.set_level(logging.DEBUG)
    async with bench(transport) as b:
        wrong = b.another(credential=Credential("isthmus", "not-" + PASSWORD))
        desired = wrong.render(full, drained=False)
        for doing in (wrong.plan(desired), wrong.observe()):
            with pytest.raises(LoginRefused) as refused:
                await doing
            assert PASSWORD not in str(refused.value)
        port = b.target.port
    dead = b.another(port=port)
    for doing in (dead.plan(desired), dead.observe()):
        with pytest.raises(Unreachable):
            await doing
    assert PASSWORD not in caplog.text


async def test_old_ssh_only_on_request():
    async with bench("old-ssh") as b:
        with pytest.raises(Unreachable, match="legacy_ssh"):
            await b.another(legacy_ssh=False).facts()
        with pytest.raises(DriverError):
            await scan_host_key(b.sim.host, b.sim.port, timeout=5)


@pytest.mark.parametrize("transport", ["native", "old-ssh"])
async def test_what_is_observed(transport, full):
    async with bench(transport, channels=2) as b:
        await _apply(b.driver, b.driver.render(full, drained=False))
        await b.driver.close()
        b.sim.log.clear()
        facts = await b.driver.facts()
        assert facts.hostname == "mx80"
        assert facts.version is not None
        seen = await b.driver.observe()
        again = await b.driver.observe()
        assert len(b.sim.device.sessions) == 1
        assert b.requests.count("hello") == 1
        assert seen.tunnels is not None
        assert len(seen.tunnels) == len(again.tunnels or ()) == 3
        assert all(tunnel.channels == 2 for tunnel in seen.tunnels)
        assert seen.missing == {}
        assert seen.channels
        assert seen.statistics is not None
        assert seen.statistics.active_tunnels == 3


async def test_one_session_a_device(transport, full):
    async with bench(transport) as b:
        await b.driver.observe()
        most = 0
        watched = type(b.sim.device).open_session

        def counted(device: Any, session: Any) -> int:
            nonlocal most
            number = watched(device, session)
            most = max(most, len(device.sessions))
            return number

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(b.sim.device), "open_session", counted)
            await b.driver.plan(b.driver.render(full, drained=False))
            await b.driver.observe()
        assert most == 1


async def test_a_backup_is_the_configuration_as_text(transport):
    async with bench(transport) as b:
        text = await b.driver.read_configuration()
        assert "host-name mx80;" in text
        assert text.count("{") == text.count("}") > 5


async def test_a_device_without_a_free_line_is_busy_or_out_of_reach(transport, full):
    async with bench(transport, deadlines=Deadlines(connect=3, rpc=3, commit=3)) as b:
        b.sim.faults.set("vty-full")
        for doing in (b.driver.observe(), b.driver.plan(b.driver.render(full, drained=False))):
            with pytest.raises((DeviceBusy, Unreachable)):
                await doing


async def test_a_relay_that_is_not_configured_has_no_tunnels():
    async with bench("native") as b:
        seen = await b.driver.observe()
        assert seen.tunnels == ()
        assert seen.statistics is not None
        assert seen.statistics.active_tunnels is None


async def test_what_the_device_does_not_know_is_refused_with_its_place(transport):
    async with bench(transport) as b:
        text = "<configuration><protocols><amt><relay><nonsense>1</nonsense></relay></amt></protocols></configuration>"
        with pytest.raises(ConfigurationRefused) as refused:
            await b.driver.plan(OwnedConfiguration(("protocols/amt",), text))
        assert "nonsense" in f"{refused.value} {refused.value.path}"
        assert not b.sim.device.candidate_differs
        assert b.sim.device.lock_holder is None


async def test_a_load_that_touches_anything_else_is_refused(transport, full):
    """A device may do more than it was told, by a commit script for one."""
    async with bench(transport) as b:
        load = b.sim.device.handlers["load-configuration"]

        def meddling(device: Any, session: Any, request: Any) -> Any:
            answer = load(device, session, request)
            if request.get("action") == "replace":
                device.candidate.find("system/host-name").text = "meddled"
            return answer

        desired = b.driver.render(full, drained=False)
        change = await planned(b.driver, desired)
        commits = b.commits()
        b.sim.device.handlers = {**b.sim.device.handlers, "load-configuration": meddling}
        for doing in (b.driver.plan(desired), b.driver.begin_change(change)):
            with pytest.raises(ConfigurationRefused, match="outside"):
                await doing
        assert b.commits() == commits
        assert not b.sim.device.candidate_differs


async def test_a_session_the_device_ended_meanwhile_is_made_again():
    async with bench("native") as b:
        await b.driver.observe()
        for session in list(b.sim.device.sessions.values()):
            session.kill()
        async with asyncio.timeout(10):
            while b.sim.device.sessions or b.driver._session.is_open:
                await asyncio.sleep(0.02)
        assert (await b.driver.observe()).tunnels is not None


async def test_a_loopback_shared_with_the_operator_keeps_the_rest(full):
    async with bench("native") as b:
        before = b.sim.device.committed_set()
        await _apply(b.driver, b.driver.render(full, drained=False))
        addresses = [line for line in b.sim.device.committed_set().splitlines() if "lo0 unit 0 family inet" in line]
        assert len(addresses) == 2 + before.count("lo0 unit 0 family inet address")
        await _apply(b.driver, b.driver.render(full, drained=True))
        after = b.sim.device.committed_set()
        assert "lo0 unit 0 family inet address 192.0.2.1/32" not in after
        assert "lo0 unit 0 family inet address 198.51.100.7/32" in after


def _with_loopback(line: str, *more: str) -> str:
    """The simulator's first configuration with another address on lo0."""
    text = resources.files("lab.sim.mx80").joinpath("factory.conf").read_text()
    own = re.compile(r"address 192\.0\.2\.80/32 \{\s+primary;\s+\}")
    assert own.search(text)
    return own.sub(line, text) + "\n".join(more)


async def test_a_router_whose_own_address_would_become_the_anycast_one_is_left_alone(full, full_values):
    async with bench("native", configuration=_with_loopback("address 198.18.0.9/32;")) as b:
        with pytest.raises(ConfigurationRefused) as refused:
            await b.driver.plan(b.driver.render(full, drained=False))
        assert "192.0.2.1 would become the address that speaks for the router" in refused.value.detail
        assert "set interfaces lo0 unit 0 family inet address 198.18.0.9/32 primary" in refused.value.detail
        assert not b.sim.device.candidate_differs
        # The local address does no such thing when another one is lower, nor does an anycast address that is higher.
        higher = RelayIntent.model_validate(
            full_values | {"inet": {"anycast_prefix": "203.0.113.0/24", "local_address": "198.51.100.7"}}
        )
        assert (await b.driver.plan(b.driver.render(higher, drained=False))).diff


async def test_a_loopback_without_addresses_never_gets_the_anycast_one_for_its_own(full):
    async with bench("native", configuration=_with_loopback("")) as b:
        with pytest.raises(ConfigurationRefused, match=r"192\.0\.2\.1 would become the address that speaks"):
            await b.driver.plan(b.driver.render(full, drained=False))
        assert (await b.driver.plan(b.driver.render(full, drained=True))).diff


async def test_a_local_address_that_is_the_routers_own_stays_primary(full_values):
    own = {"anycast_prefix": "192.0.2.0/28", "local_address": "192.0.2.80"}
    intent = RelayIntent.model_validate(full_values | {"inet": own})
    async with bench("native") as b:
        await _apply(b.driver, b.driver.render(intent, drained=False))
        assert "set interfaces lo0 unit 0 family inet address 192.0.2.80/32 primary" in b.sim.device.committed_set()
        assert (await b.driver.plan(b.driver.render(intent, drained=False))).diff == ""


async def test_a_clock_set_forward_within_the_window_is_no_confirmation(full, monkeypatch):
    """The timer of a router runs on whatever its clock says; a change taken for confirmed would be gone later."""
    async with bench("native") as b:
        change = await planned(b.driver, b.driver.render(full, drained=False))
        await b.driver.begin_change(change)
        ahead = SimpleNamespace(time=lambda: time.time() + 7200)
        monkeypatch.setattr(rpc_facts, "time", ahead)
        reading = await b.driver.read_change(change)
        assert (reading.owned, reading.confirmation) == (change.desired, Confirmation.UNKNOWN)
        monkeypatch.undo()
        assert (await b.driver.read_change(change)).confirmation is Confirmation.PENDING


async def test_nothing_is_sent_once_a_deadline_was_told(transport, full):
    """Whoever was told of the deadline reads the device and decides; a thread that goes on would overrule him."""
    async with bench(transport, deadlines=Deadlines(connect=15, rpc=1, commit=1)) as b:
        change = await planned(b.driver, b.driver.render(full, drained=False))
        commits = b.commits()
        b.sim.faults.set("no-reply-rpc:load-configuration")
        with pytest.raises((DeadlineExceeded, SessionLost)):
            await b.driver.begin_change(change)
        heard = len(b.requests)
        b.sim.faults.set(None)
        await asyncio.wait_for(asyncio.to_thread(b.context.executor.shutdown), 15)
        assert "commit-configuration" not in b.requests[heard:]
        assert b.commits() == commits
        assert not b.sim.device.candidate_differs


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_logs_in_with_a_key_alone(transport, full, tmp_path, monkeypatch):
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = key.export_public_key("openssh").decode().strip()
    async with bench(transport, authorized_keys=(public,)) as b:
        private = key.export_private_key("openssh").decode()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        driver = b.another(credential=Credential("isthmus", private_key=private))
        assert (await driver.plan(driver.render(full, drained=False))).diff
        assert (await driver.facts()).hostname == "mx80"
        await driver.close()
        stranger = asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh").decode()
        with pytest.raises(LoginRefused):
            await b.another(credential=Credential("isthmus", private_key=stranger)).plan(
                driver.render(full, drained=False)
            )
    assert not any(tmp_path.iterdir()), "a file was left behind"


async def test_a_rollback_by_plan_leaves_nothing_but_empty_containers(full):
    """Apply and confirm, then make the sections what they were; Junos keeps the containers they stood in."""
    async with bench("native") as b:
        before = b.sim.device.committed_set().splitlines()
        desired = b.driver.render(full, drained=False)
        plan = await b.driver.plan(desired)
        await _apply(b.driver, desired)
        assert b.sim.device.committed_set().splitlines() != before
        await _apply(b.driver, plan.before)
        assert await b.driver.read_owned(desired.scope) == plan.before
        after = b.sim.device.committed_set().splitlines()
        assert [line for line in after if line in before] == before
        assert set(after) - set(before) <= {
            "set chassis fpc 1 pic 0",
            "set firewall family inet",
            "set routing-options static",
        }


async def test_a_cancelled_change_lets_go_of_the_device(transport, full):
    async with bench(transport) as b:
        change = await planned(b.driver, b.driver.render(full, drained=False))
        b.sim.faults.set("no-reply-rpc:commit-configuration")
        doing = asyncio.create_task(b.driver.begin_change(change))
        async with asyncio.timeout(15):
            while "commit-configuration" not in b.requests:
                await asyncio.sleep(0.02)
            doing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await doing
            while b.sim.device.lock_holder is not None or b.sim.device.sessions:
                await asyncio.sleep(0.02)
        b.sim.faults.set(None)
        assert (await b.driver.read_change(change)).owned == change.before
        assert not b.sim.device.candidate_differs

"""IsthmusDriver with `amt-agent run` in the relay role, in a network namespace of its own, over its unix socket."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.own_namespace import ip, missing_for_own_namespace, run_in_own_namespace
from relaymgr.domain.configuration import Change, Confirmation
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.platforms import Platform
from relaymgr.drivers.errors import DriverError
from relaymgr.drivers.isthmus import IsthmusDriver
from relaymgr.drivers.protocol import Credential, Deadlines, DeviceTarget, DriverContext

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing_for_own_namespace()), reason=missing_for_own_namespace()),
]

TEXT = """role = "relay"

[relay]
interfaces = "native0"
address = "198.51.100.7"
discovery_address = "192.0.2.1"
state_dir = "{folder}/state"

[api]
listen = "{folder}/api.sock"
"""
INTENT = RelayIntent.model_validate(
    {"inet": {"anycast_prefix": "192.0.2.0/24", "local_address": "198.51.100.7"}, "tunnel_limit": 9}
)


def test_a_change_is_confirmed_another_goes_back_and_both_survive_a_restart(tmp_path):
    run_in_own_namespace(lambda: _scenario(tmp_path), timeout=60.0)


async def _scenario(folder: Path) -> None:
    ip(
        "link add native0 type veth peer name native1",
        "link set native0 up",
        "link set native1 up",
        "address add 198.51.100.7/32 dev lo",
        "address add 192.0.2.1/32 dev lo",
    )
    path = folder / "agent.toml"
    path.write_text(TEXT.format(folder=folder))
    target = DeviceTarget(
        "relay", Platform.ISTHMUS, f"unix://{folder}/api.sock", deadlines=Deadlines(connect=5, rpc=10, commit=10)
    )
    driver = IsthmusDriver(target, Credential(""), DriverContext(ThreadPoolExecutor(1)))
    process = _start(path)
    try:
        await _ready(driver)
        assert (await driver.observe()).tunnels == ()
        kept = await _begin(driver, drained=False, minutes=1)
        await driver.confirm_change(kept)
        lost = await _begin(driver, drained=True, minutes=1 / 12)
        assert (await driver.read_change(lost)).confirmation is Confirmation.PENDING
        process.kill()
        process.wait()
        process = _start(path)
        await _ready(driver)
        async with asyncio.timeout(20):
            while (await driver.read_change(lost)).confirmation is not Confirmation.NONE:
                await asyncio.sleep(0.1)
        assert await driver.read_owned(kept.desired.scope) == kept.desired
    finally:
        await driver.close()
        process.kill()
        process.wait()


def _start(path: Path) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name("amt-agent")
    with path.with_suffix(".log").open("ab") as log:
        return subprocess.Popen([program, "run", "--config", path], stdout=log, stderr=log)


async def _ready(driver: IsthmusDriver) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await driver.facts()
            except DriverError:
                await asyncio.sleep(0.1)
            else:
                return


async def _begin(driver: IsthmusDriver, *, drained: bool, minutes: float) -> Change:
    wanted = driver.render(INTENT, drained=drained)
    plan = await driver.plan(wanted)
    change = Change("isthmus 1", wanted, plan.before, plan.device_fingerprint, minutes)  # type: ignore[arg-type]
    await driver.begin_change(change)
    return change

"""Whatever goes wrong with a device, nothing that an exception carries holds a credential."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import pytest
from drivers.contract.devices import EVERY, FAST, SECRET, bench

from relaymgr.drivers.errors import DriverError
from relaymgr.drivers.protocol import Credential

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:jnpr.junos"),
    pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(paramiko|netmiko|ncclient|jnpr).*"),
]

WRONG = "synthetic-wrong-secret"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("name", [*EVERY, "junos-pyez"])
async def test_no_exception_holds_a_secret(name, tmp_path):
    raised: list[DriverError] = []
    async with bench(name, tmp_path) as device:
        wanted = None
        if device.intent is not None:
            wanted = device.driver().render(device.intent, drained=False)
        changes = [device.other_key, {"port": 1, "netconf_port": None}, {}]
        credentials = [Credential("isthmus", SECRET, token=SECRET)] * 2 + [Credential("isthmus", WRONG, token=WRONG)]
        if name == "isthmus":
            changes[1] = {"host": "https://127.0.0.1:1"}
        for change, credential in zip(changes, credentials, strict=True):
            driver = device.driver(credential, deadlines=FAST, **change)
            calls = [driver.read_configuration()] if wanted is None else [driver.observe(), driver.plan(wanted)]
            for call in calls:
                with pytest.raises(DriverError) as caught:
                    await call
                raised.append(caught.value)
        for fault in ("garbage", "drop-session") if device.set_fault else ():
            device.set_fault(fault)
            driver = device.driver(deadlines=FAST)
            with pytest.raises(DriverError) as caught:
                await (driver.plan(wanted) if wanted is not None else driver.read_configuration())
            raised.append(caught.value)
            device.set_fault(None)
    for error in raised:
        told = "".join(traceback.format_exception(error))
        for one in chain(error):
            told += repr(one) + repr(one.args) + repr(vars(one))
        assert SECRET not in told
        assert WRONG not in told

"""What every driver promises of sessions that cannot be had, or break: an error of ours, in time, without a secret."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from drivers.contract.devices import EVERY, FAST, SECRET, Bench, bench

from relaymgr.drivers.errors import DeadlineExceeded, DriverError, HostKeyMismatch, LoginRefused, Unreachable
from relaymgr.drivers.protocol import Credential, Deadlines

# What PyEZ, ncclient and paramiko say about themselves is not what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:jnpr.junos"),
    pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(paramiko|netmiko|ncclient|jnpr).*"),
]

ON_SSH = tuple(name for name in EVERY if name != "isthmus")


async def refused(device: Bench, deadlines: Deadlines = FAST, **changes: Any) -> DriverError:
    """What a driver to `changes` of the device raises; no secret is in it, however it is printed."""
    driver = device.driver(deadlines=deadlines, **changes)
    async with asyncio.timeout(30):
        with pytest.raises(DriverError) as caught:
            await driver.read_configuration()
    no_secret(caught.value)
    return caught.value


def no_secret(error: BaseException) -> None:
    printed = "".join(traceback.format_exception(error))
    current: BaseException | None = error
    while current is not None:
        printed += str(current) + repr(current) + repr(current.args)
        current = current.__cause__ or current.__context__
    assert SECRET not in printed
    assert "wrong-" not in printed


@pytest.mark.parametrize("name", EVERY)
async def test_a_wrong_password_is_refused_and_not_told(name, tmp_path):
    async with bench(name, tmp_path) as device:
        wrong = Credential("isthmus", password="wrong-synthetic-password", token="wrong-synthetic-token")
        assert isinstance(await refused(device, credential=wrong), LoginRefused)


@pytest.mark.parametrize("name", EVERY)
async def test_another_host_key_than_the_pinned_one_is_refused(name, tmp_path):
    async with bench(name, tmp_path) as device:
        assert isinstance(await refused(device, **device.other_key), HostKeyMismatch)


@pytest.mark.parametrize("name", EVERY)
async def test_without_a_pinned_key_no_session_is_made(name, tmp_path):
    async with bench(name, tmp_path) as device:
        unpinned = {"options": {}} if name == "isthmus" else {"host_key": None}
        assert isinstance(await refused(device, **unpinned), HostKeyMismatch)


@pytest.mark.parametrize("name", EVERY)
async def test_a_closed_port_is_unreachable(name, tmp_path):
    async with bench(name, tmp_path) as device:
        server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        found = await refused(device, **elsewhere(name, port))
        assert isinstance(found, Unreachable)


@pytest.mark.parametrize("name", EVERY)
async def test_a_device_that_says_nothing_ends_within_the_deadline(name, tmp_path):
    async with bench(name, tmp_path) as device, silent() as port:
        found = await refused(device, Deadlines(0.5, 0.5, 0.5), **elsewhere(name, port))
        assert isinstance(found, DeadlineExceeded)


@pytest.mark.parametrize("name", ON_SSH)
async def test_an_answer_that_stops_in_the_middle_ends_within_the_deadline(name, tmp_path):
    async with bench(name, tmp_path) as device:
        driver = device.driver(deadlines=Deadlines(connect=20, rpc=1, commit=1))
        await driver.facts()
        assert device.set_fault is not None
        device.set_fault("hang-mid-rpc")
        async with asyncio.timeout(30):
            with pytest.raises(DeadlineExceeded) as caught:
                await driver.read_configuration()
        no_secret(caught.value)
        device.set_fault(None)
        assert await driver.read_configuration()


@pytest.mark.parametrize("fault", ["drop-session", "garbage", "vty-full", "refuse-login"])
@pytest.mark.parametrize("name", [name for name in ON_SSH if name != "iosxe-cli"])
async def test_a_broken_device_is_an_error_of_ours_and_recovers(name, fault, tmp_path):
    async with bench(name, tmp_path) as device:
        assert device.set_fault is not None
        device.set_fault(fault)
        await refused(device)
        device.set_fault(None)
        assert (await device.driver().facts()).version


def elsewhere(name: str, port: int) -> dict[str, Any]:
    return {"host": f"https://127.0.0.1:{port}"} if name == "isthmus" else {"port": port}


@asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """A port that takes connections and never says a word."""
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: writers.append(writer), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        await server.wait_closed()

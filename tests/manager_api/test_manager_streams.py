"""Event streams by themselves: numbered, kept awake, ended with their source; and what the drivers say of intents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from manager_api.manager import HOST_KEY, INTENT

from relaymgr.api import event_streams
from relaymgr.api.capabilities import refuse_impossible
from relaymgr.api.event_streams import Sent
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.platforms import Capability, CapabilityMissing, Platform
from relaymgr.drivers.protocol import DeviceTarget


async def test_a_silent_stream_is_kept_awake_and_ends_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "HEARTBEAT_SECONDS", 0.01)
    go_on = asyncio.Event()

    async def source() -> AsyncIterator[Sent]:
        yield Sent(7, "log", {"message": "one\ntwo"})
        await go_on.wait()
        yield Sent(None, "job", {})

    lines = event_streams._lines(source())
    assert await anext(lines) == b"retry: 2000\n\n"
    assert await anext(lines) == b'id: 7\nevent: log\ndata: {"message":"one\\ntwo"}\n\n'
    assert await anext(lines) == b": still here\n\n"
    go_on.set()
    rest = [line async for line in lines]
    assert rest[-1] == b"event: job\ndata: {}\n\n"


async def test_a_client_that_leaves_ends_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "HEARTBEAT_SECONDS", 0.01)
    ended = asyncio.Event()

    async def source() -> AsyncIterator[Sent]:
        try:
            await asyncio.Event().wait()
            yield Sent(1, "never", {})
        finally:
            ended.set()

    lines = event_streams._lines(source())
    await anext(lines)
    await anext(lines)
    await lines.aclose()
    async with asyncio.timeout(20):
        await ended.wait()


def target(platform: Platform) -> DeviceTarget:
    return DeviceTarget(name="r1", platform=platform, host="192.0.2.1", host_key=HOST_KEY)


def test_junos_takes_ipv4_and_names_what_it_lacks() -> None:
    refuse_impossible(target(Platform.JUNOS), RelayIntent.model_validate(INTENT))
    family = {"anycast_prefix": "2001:db8::/64", "local_address": "2001:db8:1::1"}
    with pytest.raises(CapabilityMissing) as refused:
        refuse_impossible(target(Platform.JUNOS), RelayIntent.model_validate(INTENT | {"inet6": family}))
    assert refused.value.capability is Capability.AMT_IPV6


def test_classic_ios_has_no_amt() -> None:
    with pytest.raises(CapabilityMissing):
        refuse_impossible(target(Platform.IOS), RelayIntent.model_validate(INTENT))

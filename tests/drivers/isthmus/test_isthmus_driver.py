"""IsthmusDriver: what only our own relay has. The store and the API behind it are the agent's."""

from __future__ import annotations

import ssl
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from drivers.contract.devices import Bench, bench

from relaymgr.domain.configuration import Change, DiffSource
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.platforms import Capability, CapabilityMissing, Platform
from relaymgr.drivers.errors import ConfigurationRefused, DeviceBusy, Unreachable
from relaymgr.drivers.isthmus import IsthmusDriver, document
from relaymgr.drivers.isthmus.client import endpoint
from relaymgr.drivers.isthmus.render import render
from relaymgr.drivers.protocol import DeviceTarget

INET: dict[str, Any] = {"anycast_prefix": "192.0.2.0/24", "local_address": "198.51.100.7"}
INET6: dict[str, Any] = {"anycast_prefix": "2001:db8::/64", "local_address": "2001:db8:1::1"}


def intent(**more: Any) -> RelayIntent:
    return RelayIntent.model_validate({"inet": INET} | more)


@asynccontextmanager
async def agent(folder: Path) -> AsyncIterator[tuple[Bench, IsthmusDriver]]:
    async with bench("isthmus", folder) as device:
        made = device.driver()
        assert isinstance(made, IsthmusDriver)
        yield device, made


@asynccontextmanager
async def another_hand(device: Bench) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody else at the agent's API."""
    headers = {"Authorization": f"Bearer {device.credential.token}"}
    trusting = ssl.create_default_context(cafile=device.target.options["ca"])
    async with httpx.AsyncClient(base_url=device.target.host, headers=headers, verify=trusting) as client:
        yield client


def test_both_families_are_rendered():
    owned = render(intent(inet6=INET6, key_timeout_minutes=60), drained=True)
    assert owned.text == (
        "drain = true\n"
        'relay.address = ["198.51.100.7", "2001:db8:1::1"]\n'
        'relay.discovery_address = ["192.0.2.1", "2001:db8::1"]\n'
        "relay.secret_rotation = 3600\n"
    )
    assert owned.scope == ("drain", "relay.address", "relay.discovery_address", "relay.secret_rotation")


@pytest.mark.parametrize(
    ("asked", "capability"),
    [
        ({"stream_limit": 5}, Capability.STREAM_LIMIT),
        ({"tunnel_limit": 2_000_000}, Capability.TUNNEL_LIMIT),
        ({"group_policy": {"name": "G", "permit": ["232.0.0.0/8"]}}, Capability.GROUP_POLICY),
        ({"pim_interfaces": [{"name": "eth1"}]}, Capability.PIM_INTERFACES),
        ({"protection_filter": {"name": "P"}}, Capability.PROTECTION_FILTER),
        ({"tunnel_services": {"fpc": 0, "pic": 0, "bandwidth_gbps": 1}}, Capability.TUNNEL_SERVICES),
        ({"trace": {"file": "t"}}, Capability.TRACE_OPTIONS),
        ({"advertise": {"protocol": "bgp", "policy": "A"}}, Capability.ADVERTISE),
        ({"igmp": {"version": 2}}, Capability.IGMP_PARAMETERS),
        ({"igmp": {"robustness": 8}}, Capability.IGMP_PARAMETERS),
        ({"igmp": {"group_threshold_percent": 8}}, Capability.IGMP_PARAMETERS),
    ],
)
def test_what_the_agent_cannot_do_is_named(asked, capability):
    with pytest.raises(CapabilityMissing) as caught:
        render(intent(**asked), drained=False)
    assert caught.value.capability is capability
    assert caught.value.reason.startswith("Isthmus: ")


async def test_the_diff_is_the_agents_and_the_candidate_is_gone_afterwards(tmp_path):
    async with agent(tmp_path) as (device, made), another_hand(device) as client:
        plan = await made.plan(made.render(intent(tunnel_limit=7), drained=False))
        assert plan.diff_source is DiffSource.DEVICE
        assert "+tunnel_limit = 7\n" in plan.diff
        assert (await client.get("/v1/config")).json()["candidate"] is None


@pytest.mark.parametrize("key", ["relay.address", "relay.discovery_address", "relay.interfaces"])
async def test_what_takes_a_restart_is_refused_by_its_name_before_anything_is_sent(key, tmp_path):
    changed = {
        "relay.address": {"inet": INET | {"local_address": "198.51.100.8"}},
        "relay.discovery_address": {"inet": INET | {"anycast_address": "192.0.2.9"}},
        "relay.interfaces": {"isthmus": {"native_interface": "eth9"}},
    }[key]
    async with agent(tmp_path) as (_, made):
        before = await made.read_configuration()
        with pytest.raises(ConfigurationRefused) as caught:
            await made.plan(made.render(intent(**changed), drained=False))
        assert caught.value.path == key
        assert "restart" in caught.value.detail
        assert await made.read_configuration() == before


async def test_what_the_agent_finds_wrong_is_told_with_its_key(tmp_path):
    async with agent(tmp_path) as (_, made):
        wanted = made.render(intent(tunnel_limit=7), drained=False)
        wrong = replace(wanted, text=wanted.text.replace("tunnel_limit = 7", "tunnel_limit = -7"))
        with pytest.raises(ConfigurationRefused) as caught:
            await made.plan(wrong)
        assert caught.value.path == "relay.tunnel_limit"


async def test_the_candidate_of_another_is_left_alone(tmp_path):
    async with agent(tmp_path) as (device, made), another_hand(device) as client:
        running = (await client.get("/v1/config")).json()
        theirs = running["text"].replace("send_buffer = 8_388_608", "send_buffer = 4_194_304")
        posted = await client.post(
            "/v1/config/candidate",
            content=theirs,
            headers={"If-Match": running["etag"], "Content-Type": "application/toml"},
        )
        assert posted.status_code == 200
        with pytest.raises(DeviceBusy):
            await made.plan(made.render(intent(tunnel_limit=7), drained=False))
        assert (await client.get("/v1/config")).json()["candidate"] == theirs


async def test_a_candidate_of_ours_that_was_left_behind_does_not_block(tmp_path):
    async with agent(tmp_path) as (device, made), another_hand(device) as client:
        running = (await client.get("/v1/config")).json()
        ours = document.merge(running["text"], ("relay.tunnel_limit",), "relay.tunnel_limit = 7\n")
        headers = {"If-Match": running["etag"], "Content-Type": "application/toml"}
        assert (await client.post("/v1/config/candidate", content=ours, headers=headers)).status_code == 200
        wanted = made.render(intent(tunnel_limit=8), drained=False)
        plan = await made.plan(wanted)
        await made.begin_change(Change("isthmus 1", wanted, plan.before, plan.device_fingerprint, 1))
        assert (await made.read_owned(wanted.scope)) == wanted


async def test_a_drained_relay_takes_no_tunnel_and_gets_its_own_limit_back(tmp_path):
    async with agent(tmp_path) as (_, made):
        for drained, limit in ((False, 7), (True, 0), (False, 7)):
            wanted = made.render(intent(tunnel_limit=7), drained=drained)
            plan = await made.plan(wanted)
            change = Change("isthmus 1", wanted, plan.before, plan.device_fingerprint, 1)
            await made.begin_change(change)
            await made.confirm_change(change)
            assert tomllib.loads(await made.read_configuration())["relay"]["tunnel_limit"] == limit


async def test_a_drain_by_hand_is_shown(tmp_path):
    async with agent(tmp_path) as (device, made), another_hand(device) as client:
        assert (await made.observe()).statistics.counters["draining"] == 0
        assert (await client.put("/v1/drain", json={"enabled": True})).is_success
        assert (await made.observe()).statistics.counters["draining"] == 1


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("relay.example", None, "https://relay.example:8443"),
        ("192.0.2.1", 9443, "https://192.0.2.1:9443"),
        ("2001:db8::1", None, "https://[2001:db8::1]:8443"),
        ("https://relay.example/agent/", None, "https://relay.example/agent"),
        ("http://127.0.0.1:8080", None, "http://127.0.0.1:8080"),
        ("unix:///run/isthmus-agent/api.sock", None, "http://agent"),
    ],
)
def test_where_an_agent_may_be(host, port, url):
    assert endpoint(DeviceTarget("r", Platform.ISTHMUS, host, port)).base_url == url


@pytest.mark.parametrize(
    "host", ["http://192.0.2.1", "http://relay.example", "ftp://127.0.0.1", "https://user:secret@relay.example"]
)
def test_a_token_never_goes_out_in_clear(host):
    with pytest.raises(Unreachable) as caught:
        endpoint(DeviceTarget("r", Platform.ISTHMUS, host))
    assert "secret" not in str(caught.value)

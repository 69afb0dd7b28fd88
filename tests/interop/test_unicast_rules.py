"""Unicast stays on the uplink while half-default routes lead into the tunnel interface, wherever the default leads."""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest

from agent.net.short_routes import read_short_routes
from agent.net.tap import Tap, TapSettings
from agent.net.unicast_rules import PROTOCOL, UnicastRules
from agent.protocol.channels import Family
from lab.own_namespace import ip, missing_for_own_namespace, run_in_own_namespace, until, wait_for_carrier

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_own_namespace()), reason=missing or "never"),
]

BOTH = (Family.IPV4, Family.IPV6)
TARGET = {Family.IPV4: "203.0.113.9", Family.IPV6: "2a00::9"}
EVERYTHING = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}
HALVES = {Family.IPV4: ("0.0.0.0/1", "128.0.0.0/1"), Family.IPV6: ("::/1", "8000::/1")}


def make_host():
    """Two uplinks, one of them with default routes, and half-default routes into `amt0`."""
    ip(
        "link add up0 type veth peer name up0-peer",
        "link add up1 type veth peer name up1-peer",
        "link add amt0 type veth peer name amt0-peer",
        "addr add 192.0.2.1/24 dev up0",
        "addr add 198.51.100.1/24 dev up1",
        "addr add 2001:db8:1::1/64 dev up0 nodad",
        "addr add 2001:db8:2::1/64 dev up1 nodad",
        "addr add 169.254.226.9/30 dev amt0",
        "link set up0 up",
        "link set up0-peer up",
        "link set up1 up",
        "link set up1-peer up",
        "link set amt0 up",
        "link set amt0-peer up",
        "route add default via 192.0.2.254 metric 100",
        "route add default via 2001:db8:1::fe metric 100",
    )
    wait_for_carrier("up0", "up1", "amt0")
    for half in HALVES[Family.IPV4]:
        ip(f"route add {half} via 169.254.226.10 dev amt0 proto static metric 20")
    for half in HALVES[Family.IPV6]:
        ip(f"route add {half} dev amt0 proto static metric 20")


def rules(priority=80):
    return UnicastRules(asyncio.get_running_loop(), "amt0", BOTH, priority=priority, table=226)


def way(family):
    """The interface unicast to an address out there takes, "" when it is unreachable."""
    done = subprocess.run(["ip", "-j", "route", "get", TARGET[family]], capture_output=True, text=True, check=False)
    return json.loads(done.stdout)[0].get("dev", "") if done.returncode == 0 and done.stdout.strip() else ""


def ours():
    return {(family, route) for family in BOTH for route in read_short_routes(family) if route.protocol == PROTOCOL}


def table():
    return subprocess.run(["ip", "route", "show", "table", "226"], capture_output=True, text=True, check=True).stdout


def listed_rules():
    text = "".join(
        subprocess.run(["ip", f"-{int(family)}", "rule"], capture_output=True, text=True, check=True).stdout
        for family in BOTH
    )
    return text.count("suppress_prefixlength 1"), text.count("lookup 226")


@pytest.mark.parametrize("family", BOTH)
def test_unicast_takes_the_default_route_and_everything_goes_with_the_rules(family):
    async def scenario():
        make_host()
        assert way(family) == "amt0"
        kept = rules()
        assert way(family) == "up0"
        assert listed_rules() == (2, 2)
        kept.close()
        kept.close()
        assert way(family) == "amt0"
        assert listed_rules() == (0, 0)
        assert not ours()

    run_in_own_namespace(scenario)


@pytest.mark.parametrize("family", BOTH)
def test_a_changed_default_route_is_followed(family):
    async def scenario():
        make_host()
        kept = rules()
        other = {Family.IPV4: "198.51.100.254", Family.IPV6: "2001:db8:2::fe"}[family]
        ip(f"route add default via {other} metric 50")
        await until(lambda: way(family) == "up1")
        ip(f"route del {EVERYTHING[family]} metric 100", f"route del {EVERYTHING[family]} metric 50")
        await until(lambda: way(family) == "")
        ip(f"route add default via {other} metric 100")
        await until(lambda: way(family) == "up1")
        assert kept.copies[family] == 1
        assert kept.errors == 0
        kept.close()

    run_in_own_namespace(scenario)


def test_equal_paths_and_somebody_elses_half_default_routes_are_copied_whole():
    async def scenario():
        make_host()
        ip("route replace default metric 100 nexthop via 192.0.2.254 weight 3 nexthop via 198.51.100.254 weight 1")
        ip("route add 128.0.0.0/1 via 198.51.100.253 metric 5")
        kept = rules()
        assert kept.errors == 0
        text = table()
        assert "nexthop via 192.0.2.254 dev up0 weight 3" in text
        assert "128.0.0.0/1 via 198.51.100.253 dev up1" in text
        assert "amt0" not in text
        kept.close()

    run_in_own_namespace(scenario)


def test_what_a_killed_agent_left_is_taken_over():
    async def scenario():
        make_host()
        left = rules()
        asyncio.get_running_loop().remove_reader(left._news)
        left._news.close()
        ip("route del default", "route add default via 198.51.100.254 metric 100")
        assert way(Family.IPV4) == "up0"  # nobody follows
        kept = rules()
        assert way(Family.IPV4) == "up1"
        assert listed_rules() == (2, 2)
        before = ours()
        kept._follow()
        assert ours() == before
        assert kept.errors == 0
        kept.close()
        assert not ours()
        assert listed_rules() == (0, 0)

    run_in_own_namespace(scenario)


def test_routes_out_of_a_lowered_tunnel_interface_count_no_more_at_once():
    """Within one second as often as this, the kernel would tell its routes of a closed descriptor too late."""

    async def scenario():
        make_host()
        ip("link del amt0")
        for _ in range(3):
            with Tap(TapSettings("amt0")) as tap:
                await until(lambda: "LOWER_UP" in subprocess.getoutput("ip link show amt0"))
                kept = rules()
                ip("route replace 0.0.0.0/1 dev amt0", "route replace 128.0.0.0/1 dev amt0")
                tap.lower()
                kept.close()
                assert way(Family.IPV4) == "up0"

    run_in_own_namespace(scenario)


def test_flushed_rules_come_back_and_other_peoples_routes_stay():
    async def scenario():
        make_host()
        ip("route add 192.0.2.0/25 dev up0 table 226")
        kept = rules()
        ip("rule del priority 80")
        await until(lambda: listed_rules() == (2, 2))
        kept.close()
        text = table()
        assert text.split() == ["192.0.2.0/25", "dev", "up0", "scope", "link"]

    run_in_own_namespace(scenario)

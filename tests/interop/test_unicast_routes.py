"""Unicast routes against a real kernel, in a namespace of its own."""

import asyncio
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from agent.net.rpf import Hop, UnicastRoutes
from lab.own_namespace import ip, missing_for_own_namespace, run_in_own_namespace, until, wait_for_carrier

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_own_namespace()), reason=missing or "never"),
]

ON_LINK, BEYOND, ELSEWHERE = ip_address("10.1.0.9"), ip_address("10.9.1.1"), ip_address("198.51.100.7")
ROUTER, OTHER = ip_address("10.1.0.2"), ip_address("10.1.0.3")


def make_links():
    ip(
        "link add name one type veth peer name two",
        "link add name three type veth peer name four",
        *(f"link set dev {name} up" for name in ("one", "two", "three", "four")),
        "addr add 10.1.0.1/24 dev one",
        "addr add fd01::1/64 dev one nodad",
        "addr add 10.2.0.1/24 dev three",
    )
    wait_for_carrier("one", "three")


@asynccontextmanager
async def following():
    changed = []
    routes = UnicastRoutes(asyncio.get_running_loop(), changed.append)
    try:
        yield routes, changed
    finally:
        routes.close()


def hops(routes, address):
    route = routes.towards(ip_address(address) if isinstance(address, str) else address)
    return route.hops if route is not None else None


def run(scenario):
    async def whole():
        make_links()
        async with following() as (routes, changed):
            await scenario(routes, changed)

    run_in_own_namespace(whole)


def test_every_shape_of_route_is_understood():
    async def scenario(routes, _):
        ip(
            "route add default via 10.2.0.9 metric 7",
            "route add 10.9.0.0/16 nexthop via 10.1.0.2 nexthop via 10.2.0.2",
            "route add unreachable 10.8.0.0/16",
            "route add 10.7.0.0/16 via inet6 fd01::9 dev one",
            "nexthop add id 5 via 10.1.0.3 dev one",
            "route add 10.6.0.0/16 nhid 5",
            "route add fd09::/32 via fd01::3",
        )
        assert hops(routes, ON_LINK) == (Hop("one", None),)
        assert routes.towards(ON_LINK).prefix_length == 24
        assert hops(routes, BEYOND) == (Hop("one", ROUTER), Hop("three", ip_address("10.2.0.2")))
        assert hops(routes, "10.8.0.1") is None
        assert hops(routes, "10.7.0.1") == (Hop("one", ip_address("fd01::9")),)
        assert hops(routes, "10.6.0.1") == (Hop("one", OTHER),)
        assert hops(routes, "fd09::1") == (Hop("one", ip_address("fd01::3")),)
        assert hops(routes, "2001:db8::1") is None
        assert hops(routes, "10.1.0.1") is None  # ourselves
        default = routes.towards(ELSEWHERE)
        assert (default.prefix_length, default.metric, default.hops) == (0, 7, (Hop("three", ip_address("10.2.0.9")),))

    run(scenario)


def test_a_route_that_comes_moves_and_goes_is_told_once_each():
    async def scenario(routes, changed):
        assert hops(routes, BEYOND) is None
        assert hops(routes, ON_LINK) == (Hop("one", None),)
        for command, expected in (
            ("route add 10.9.0.0/16 via 10.1.0.2", (Hop("one", ROUTER),)),
            ("route add 10.9.1.0/24 via 10.1.0.3", (Hop("one", OTHER),)),
            ("route del 10.9.1.0/24", (Hop("one", ROUTER),)),
            ("route del 10.9.0.0/16", None),
        ):
            changed.clear()
            ip(command)
            await until(lambda: changed)
            assert changed == [frozenset({BEYOND})]
            assert hops(routes, BEYOND) == expected

    run(scenario)


def test_routes_that_vanish_with_their_link_without_a_message_are_noticed():
    async def scenario(routes, changed):
        ip("route add 10.9.0.0/16 via 10.1.0.2")
        assert hops(routes, BEYOND) == (Hop("one", ROUTER),)
        ip("link set dev one down")
        await until(lambda: changed and hops(routes, BEYOND) is None)

    run(scenario)


def test_a_rule_that_leads_elsewhere_counts():
    async def scenario(routes, changed):
        ip("route add 10.9.0.0/16 via 10.1.0.2", "route add 10.9.0.0/16 via 10.2.0.7 table 77")
        assert hops(routes, BEYOND) == (Hop("one", ROUTER),)
        ip("rule add to 10.9.0.0/16 lookup 77")
        await until(lambda: changed)
        assert hops(routes, BEYOND) == (Hop("three", ip_address("10.2.0.7")),)

    run(scenario)


def test_more_news_than_the_socket_holds_lose_no_change():
    async def scenario(routes, changed):
        assert hops(routes, BEYOND) is None
        lines = [f"route add 172.16.{n // 250}.{n % 250}/32 via 10.1.0.2" for n in range(12_000)]
        ip(*lines, "route add 10.9.0.0/16 via 10.1.0.2")  # nothing is read meanwhile: the socket overflows
        await until(lambda: hops(routes, BEYOND) == (Hop("one", ROUTER),))
        assert changed == [frozenset({BEYOND})]
        assert routes.rounds <= 5

    run(scenario)


def test_what_was_forgotten_is_reported_no_longer():
    async def scenario(routes, changed):
        routes.towards(BEYOND)
        routes.towards(ip_address("10.9.1.2"))
        routes.forget(BEYOND)
        ip("route add 10.9.0.0/16 via 10.1.0.2")
        await until(lambda: changed)
        assert changed == [frozenset({ip_address("10.9.1.2")})]

    run(scenario)

"""The interface monitor against a real kernel, in a namespace of its own."""

import asyncio
import socket
import subprocess
import time
from ipaddress import ip_address, ip_network

import pytest

from agent.net.interfaces import ChangeKind, InterfaceMonitor, local_address_towards, local_networks
from agent.protocol.channels import Family
from lab.own_namespace import ip, missing_for_own_namespace, run_in_own_namespace, until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_own_namespace()), reason=missing or "never"),
]


class Watch:
    """A monitor and what it reported."""

    def __init__(self):
        self.changes = []
        self.monitor = InterfaceMonitor(asyncio.get_running_loop(), self.changes.append)

    def kinds(self, name):
        return [change.kind for change in self.changes if change.interface.name == name]


def watching(scenario, timeout=30.0):
    async def run():
        watch = Watch()
        try:
            await scenario(watch)
        finally:
            watch.monitor.close()

    run_in_own_namespace(run, timeout)


def test_the_first_state_is_there_at_once_and_reported_as_no_change():
    async def scenario():
        ip("link add one type veth peer name two", "addr add 10.1.0.1/24 dev one", "link set one up", "link set two up")
        ip("link set one mtu 1400", "link set one address 02:00:00:00:00:01", "addr add fd00::1/64 dev one nodad")
        watch = Watch()
        watch.monitor.close()
        one = watch.monitor.get("one")
        assert watch.changes == []
        assert (one.name, one.index, one.up, one.mtu) == ("one", socket.if_nametoindex("one"), True, 1400)
        assert (one.mac, one.loopback, one.multicast) == (bytes.fromhex("020000000001"), False, True)
        addresses = {str(item.address): item.prefix_length for item in one.addresses}
        assert addresses.items() >= {"10.1.0.1": 24, "fd00::1": 64}.items()
        assert watch.monitor.interfaces["lo"].loopback
        assert set(watch.monitor.interfaces) == {"lo", "one", "two"}

    run_in_own_namespace(scenario)


def test_links_that_come_go_up_and_down_are_reported():
    async def scenario(watch):
        ip("link add one type veth peer name two")
        await until(lambda: watch.kinds("one") == [ChangeKind.ADDED])
        assert not watch.monitor.get("one").up
        ip("link set one up")
        await until(lambda: watch.monitor.get("one").administratively_up)
        assert not watch.monitor.get("one").up  # the other end is down: no carrier
        ip("link set two up")
        await until(lambda: ChangeKind.UP in watch.kinds("one"))
        ip("link set two down")
        await until(lambda: ChangeKind.DOWN in watch.kinds("one"))
        assert not watch.monitor.get("one").up
        ip("link delete one")
        await until(lambda: watch.kinds("one")[-1] is ChangeKind.REMOVED)
        assert watch.monitor.get("one") is None

    watching(scenario)


def test_a_rename_keeps_the_index():
    async def scenario(watch):
        ip("link add one type veth peer name two", "link set one name uplink")
        await until(lambda: ChangeKind.RENAMED in watch.kinds("uplink") or ChangeKind.ADDED in watch.kinds("uplink"))
        ip("link set uplink name wan")
        await until(lambda: ChangeKind.RENAMED in watch.kinds("wan"))
        change = next(change for change in watch.changes if change.interface.name == "wan")
        assert (change.previous.name, change.previous.index) == ("uplink", change.interface.index)

    watching(scenario)


def test_a_device_made_anew_under_the_same_name_is_removed_and_added():
    async def scenario(watch):
        ip("link add one type veth peer name two")
        await until(lambda: watch.monitor.get("one"))
        before = watch.monitor.get("one").index
        watch.changes.clear()
        ip("link delete one", "link add one type veth peer name two")
        await until(lambda: watch.monitor.get("one") and watch.monitor.get("one").index != before)
        assert watch.kinds("one")[:2] == [ChangeKind.REMOVED, ChangeKind.ADDED]

    watching(scenario)


def test_addresses_and_their_tentative_flag_are_followed():
    async def scenario(watch):
        ip("link add one type veth peer name two", "link set one up", "link set two up", "addr add 10.1.0.1/24 dev one")
        await until(lambda: watch.monitor.get("one") and watch.monitor.get("one").ipv4_address())
        during = Watch()  # the kernel tells of a new link-local address only when it may be used, a dump always
        during.monitor.close()
        one = during.monitor.get("one")
        assert [item.tentative for item in one.addresses if item.address.is_link_local] == [True]
        assert one.querier_address(Family.IPV6) is None
        await until(lambda: watch.monitor.get("one").ipv6_link_local(), seconds=10)
        one = watch.monitor.get("one")
        assert one.querier_address(Family.IPV4) == ip_address("10.1.0.1")
        assert one.querier_address(Family.IPV6).is_link_local
        watch.changes.clear()
        ip("addr del 10.1.0.1/24 dev one")
        await until(lambda: ChangeKind.ADDRESSES in watch.kinds("one"))
        assert watch.monitor.get("one").ipv4_address() is None

    watching(scenario)


def test_a_bridge_port_that_leaves_its_bridge_is_not_removed():
    async def scenario(watch):
        ip("link add one type veth peer name two")
        try:
            ip("link add bridge type bridge")
        except subprocess.CalledProcessError:
            pytest.skip("needs bridge devices")
        ip("link set one master bridge", "link set one nomaster", "link set one mtu 1300")
        await until(lambda: watch.monitor.get("one") and watch.monitor.get("one").mtu == 1300)
        assert ChangeKind.REMOVED not in watch.kinds("one")

    watching(scenario)


def test_lost_messages_are_made_up_for():
    async def scenario(watch):
        # A receive buffer this small cannot hold what the storm below makes while the loop is busy.
        watch.monitor._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ip("link add one type veth peer name two", "link set one up", "link set two up")
        for number in range(60):
            ip(f"addr add 10.2.{number}.1/24 dev one")
        ip("link set one mtu 1280")
        await until(lambda: watch.monitor.get("one") and watch.monitor.get("one").mtu == 1280)
        await until(lambda: len([a for a in watch.monitor.get("one").addresses if a.address.version == 4]) == 60)
        assert watch.monitor.resynchronisations >= 1
        ip("link set one mtu 1290")
        await until(lambda: watch.monitor.get("one").mtu == 1290)

    watching(scenario, timeout=60)


def test_messages_of_other_processes_are_ignored():
    async def scenario(watch):
        pid = watch.monitor._socket.getsockname()[0]
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as forger:
            forger.bind((0, 0))
            forger.sendto(bytes.fromhex("2000000010000000") + bytes(8) + bytes(16), (pid, 0))
        ip("link add one type veth peer name two")
        await until(lambda: watch.monitor.get("one"))
        assert watch.monitor.resynchronisations == 0

    watching(scenario)


def test_a_hundred_interfaces_never_hold_the_loop_for_long():
    async def scenario(watch):
        longest = 0.0
        ready = asyncio.Event()

        async def measure():
            nonlocal longest
            while not ready.is_set():
                before = time.monotonic()
                await asyncio.sleep(0)
                longest = max(longest, time.monotonic() - before)
                await asyncio.sleep(0.001)

        def make():
            ip(*(f"link add a{number} type veth peer name b{number}" for number in range(50)))

        make()
        measuring = asyncio.ensure_future(measure())
        watch.monitor._resynchronise()
        await until(lambda: len(watch.monitor.interfaces) == 101, seconds=20)
        ready.set()
        await measuring
        assert longest < 0.5

    watching(scenario, timeout=60)


def test_local_networks_are_the_prefixes_of_real_interfaces():
    async def scenario(watch):
        ip("link add one type veth peer name two", "addr add 10.1.0.1/24 dev one", "addr add 10.1.0.2/24 dev one")
        ip("addr add 192.0.2.1/32 dev two", "addr add fd00::1/64 dev one nodad", "link set one up")
        await until(lambda: len(local_networks(watch.monitor.interfaces.values())) == 3)
        assert local_networks(watch.monitor.interfaces.values()) == (
            ip_network("10.1.0.0/24"),
            ip_network("192.0.2.1/32"),
            ip_network("fd00::/64"),
        )

    watching(scenario)


def test_the_local_address_towards_a_relay_follows_routing():
    async def scenario():
        ip("link add one type veth peer name two", "link set one up", "link set two up")
        ip("addr add 10.1.0.1/24 dev one", "addr add fd00::1/64 dev one nodad", "addr add 10.3.0.1/24 dev two")
        assert local_address_towards(ip_address("192.52.193.1")) is None
        ip("route add default via 10.1.0.9 src 10.1.0.1", "route add default via fd00::9")
        assert local_address_towards(ip_address("192.52.193.1")) == ip_address("10.1.0.1")
        assert local_address_towards(ip_address("10.3.0.9")) == ip_address("10.3.0.1")
        assert local_address_towards(ip_address("2001:3::1")) == ip_address("fd00::1")
        assert local_address_towards(ip_address("10.3.0.9"), "two") == ip_address("10.3.0.1")
        assert local_address_towards(ip_address("10.3.0.9"), "missing") is None

    run_in_own_namespace(scenario)

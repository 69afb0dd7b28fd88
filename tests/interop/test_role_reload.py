"""The gateway role takes over other configurations while it runs, and leaves nothing behind when it ends or fails."""

import asyncio
import gc
import json
import subprocess
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.net.interfaces import InterfaceMonitor
from agent.protocol.channels import Channel, Family
from agent.protocol.pim_config import PimConfig
from agent.protocol.upstream import NativeUpstream
from agent.service.config import Configuration
from agent.service.daemon import Agent
from agent.service.gateway_role import GatewayRole
from agent.service.pim_service import PimCallbacks, PimService
from agent.service.port import RefusedError
from agent.tree import InterestKind, Owner, Tree
from lab.own_namespace import ip, missing_for_own_namespace, run_in_own_namespace, until, wait_for_carrier

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_own_namespace()), reason=missing or "never"),
]

BORDER, ROUTER = ip_address("10.1.0.1"), ip_address("10.1.0.2")
CHANNEL = Channel(ip_address("198.51.100.7"), ip_address("232.1.1.1"))
RELAY = {"address": "192.0.2.1"}
QUICK = {"hello_interval": 1.0}


def make_links():
    """`lan` and `core` are the border's; `router` is the far end of `lan`."""
    ip(
        "link add lan type veth peer name router",
        "link add core type veth peer name farcore",
        "addr add 10.1.0.1/24 dev lan",
        "addr add 10.1.0.2/24 dev router",
        "addr add 10.2.0.1/24 dev core",
        "addr add 192.0.2.9/24 dev lo",
        "link set lan up",
        "link set router up",
        "link set core up",
        "link set farcore up",
    )
    wait_for_carrier("lan", "router", "core")


def configuration(path, gateway=(), **sections):
    values = {"downstream": ["lan"], "relay": [RELAY], "state_dir": str(path), "ipv6": False, **dict(gateway)}
    sections.setdefault("pim", QUICK)
    return Configuration.model_validate({"role": "gateway", "gateway": values, **sections}, strict=False)


def start(path, **settings):
    return GatewayRole(asyncio.get_running_loop(), configuration(path, **settings), lambda _: None)


class Router:
    """The domain's router behind `lan`: it joins what it is told to."""

    def __init__(self):
        loop = asyncio.get_running_loop()
        tree = Tree(lambda _: None)
        self.monitor = InterfaceMonitor(loop, lambda _: None)
        callbacks = PimCallbacks(
            get_interface=self.monitor.get,
            select=lambda _: None,
            route_metric=lambda _: 0,
            towards=lambda _: (),
            neighbors_changed=lambda _: None,
            source_met=lambda _: None,
            tree_changed=lambda: None,
        )
        self.service = PimService(loop, tree, None, callbacks)
        config = PimConfig(hello_interval=1.0, triggered_hello_delay=0.1)
        self.service.configure(config, [("router", Family.IPV4)], ())

    def neighbors(self):
        return self.service.links["router", Family.IPV4].machine.neighbors()

    def join(self):
        self.service.join(CHANNEL, NativeUpstream("router", BORDER))

    def close(self):
        self.monitor.close()
        self.service._wishes = SimpleNamespace(withdraw=lambda _: None)
        for link in self.service.links.values():
            link._wishes = self.service._wishes
        self.service.close()


def open_files():
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def kernel(*arguments):
    shown = subprocess.run(["ip", "-j", *arguments], check=True, capture_output=True, text=True, timeout=10).stdout
    return json.loads(shown or "[]")


def routed_interfaces():
    """Interfaces of the kernel's multicast routing, below the heading."""
    return len(Path("/proc/thread-self/net/ip_mr_vif").read_text().splitlines()) - 1


def test_a_reload_of_pim_ends_no_join_and_keeps_neighbours(tmp_path):
    async def scenario():
        make_links()
        role, router = start(tmp_path), Router()
        try:
            router.join()
            await until(lambda: role.control.ledger.get(CHANNEL) is not None, 10.0)
            record, seen = role.control.ledger.get(CHANNEL), router.neighbors()[0]
            ended = []
            role.control.ledger.close = ended.append
            others = (
                {"pim": QUICK | {"dr_priority": 9}},
                {"pim": QUICK | {"assert_metric": 7, "propagation_delay": 0.2}},
                {"pim": QUICK | {"rendezvous_address": "10.1.0.1", "rendezvous_groups": ["239.1.0.0/16"]}},
                {"policy": {"joins_per_second": 5.0}},
                {"gateway": {"native": ["core"]}},
                {"discovery": {"methods": ["anycast"]}, "failover": {"hold_down": 60.0}},
                {"gateway": {"channel_limit": 1}},
            )
            for other in (*others, {}):
                role.reconfigure(configuration(tmp_path, **other))
                await asyncio.sleep(0)
                assert role.control.ledger.get(CHANNEL) is record
            await until(lambda: router.neighbors()[0].dr_priority == 1)
            now = router.neighbors()[0]
            assert (now.since, now.generation_id) == (seen.since, seen.generation_id)
            assert ended == []
            role.reconfigure(configuration(tmp_path, policy={"rule": [{"action": "deny", "neighbor": "10.1.0.2/32"}]}))
            await until(lambda: ended == [CHANNEL])
            assert list(role.admission.refused_to(CHANNEL)) == [(Owner(InterestKind.PIM, "lan"), ROUTER)]
        finally:
            router.close()
            role.close()

    run_in_own_namespace(scenario)


def test_a_hundred_reloads_leave_no_file_and_no_task_open(tmp_path):
    async def scenario():
        make_links()
        role = start(tmp_path)
        await asyncio.sleep(0.1)
        files, tasks = open_files(), len(asyncio.all_tasks())
        for number in range(50):
            role.reconfigure(
                configuration(
                    tmp_path,
                    {"native": ["core"], "relay": [{"address": f"192.0.2.{100 + number}"}]},
                    pim={"rendezvous_address": "10.1.0.1", "rendezvous_groups": ["239.1.0.0/16"]},
                    discovery={"methods": ["anycast"]},
                    policy={"bandwidth": 1e6},
                )
            )
            await asyncio.sleep(0)
            role.reconfigure(configuration(tmp_path, {"downstream": ["lan", "core"]}, pim={"enabled": False}))
            await asyncio.sleep(0)
        role.reconfigure(configuration(tmp_path))
        await until(lambda: (open_files(), len(asyncio.all_tasks())) == (files, tasks))
        role.close()

    run_in_own_namespace(scenario, 60.0)


def test_nothing_is_left_in_the_kernel_or_open_after_the_end(tmp_path):
    async def scenario():
        make_links()
        (start(tmp_path)).close()  # what is opened once a process, such as a thread pool
        await asyncio.sleep(0.1)
        files, rules = open_files(), kernel("rule")
        for mode in ("router", "frr"):
            role = start(tmp_path, gateway={"mode": mode, "native": ["core"]}, discovery={"methods": ["anycast"]})
            await asyncio.sleep(0.05)
            role.close()
            await until(lambda: open_files() == files)
            assert kernel("rule") == rules
            assert routed_interfaces() == 0

    run_in_own_namespace(scenario)


@pytest.mark.parametrize("broken", ["InterfaceMonitor", "StaticJoins", "GatewayPim", "RelayDirectory", "PortStore"])
def test_a_start_that_fails_leaves_no_rule_and_no_file(tmp_path, monkeypatch, broken):
    def fail(*_):
        raise OSError("not today")

    async def scenario():
        make_links()
        start(tmp_path).close()
        await asyncio.sleep(0.1)
        files, rules = open_files(), kernel("rule")
        with monkeypatch.context() as patched:
            patched.setattr(f"agent.service.gateway_role.{broken}", fail)
            with pytest.raises(OSError, match="not today"):
                start(tmp_path, gateway={"mode": "frr"})
        await until(lambda: open_files() == files)
        assert kernel("rule") == rules
        start(tmp_path, gateway={"mode": "frr"}).close()

    run_in_own_namespace(scenario)


def agent_of(role):
    agent = Agent.__new__(Agent)
    agent._role = role
    return agent


@pytest.mark.parametrize("error", [OSError("no such address"), ValueError("a mistake of ours")])
def test_a_change_that_fails_half_way_is_taken_back(tmp_path, monkeypatch, error):
    async def scenario():
        make_links()
        role, router = start(tmp_path), Router()
        try:
            router.join()
            await until(lambda: role.control.ledger.get(CHANNEL) is not None, 10.0)
            record = role.control.ledger.get(CHANNEL)

            def fail(*_):
                raise error

            configure, calls = role.pim.configure, []
            role.pim.configure = lambda *given: fail() if not calls.append(1) and len(calls) == 1 else configure(*given)
            other = configuration(tmp_path, {"relay": [{"address": "192.0.2.2"}]}, pim=QUICK | {"dr_priority": 9})
            with pytest.raises(RefusedError) as refused:
                await agent_of(role).apply(other)
            assert refused.value.code == "not_applicable"
            assert role.configuration == configuration(tmp_path)
            assert list(role.tunnels) == ["192.0.2.1"]
            assert role.control.ledger.get(CHANNEL) is record
            assert role.pim.service.config.dr_priority == 1
        finally:
            router.close()
            role.close()

    run_in_own_namespace(scenario)


@pytest.mark.parametrize(
    "change", [{"gateway": {"mode": "frr"}}, {"gateway": {"mroute_table": 7}}, {"frr": {"rule_priority": 7}}]
)
def test_what_takes_a_restart_is_refused_and_said_so(tmp_path, change):
    async def scenario():
        make_links()
        role = start(tmp_path)
        try:
            with pytest.raises(RefusedError, match="can only be changed by a restart") as refused:
                await agent_of(role).apply(configuration(tmp_path, **change))
            assert refused.value.code == "needs_restart"
            assert role.configuration == configuration(tmp_path)
        finally:
            role.close()

    run_in_own_namespace(scenario)

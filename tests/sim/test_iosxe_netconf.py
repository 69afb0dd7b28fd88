"""Unmodified ncclient reads the simulated IOS-XE and sends it configuration lines. All data is synthetic."""

from __future__ import annotations

import pytest
from lxml import etree
from ncclient.operations.rpc import RPCError
from ncclient.transport.errors import AuthenticationError, SSHUnknownHostError
from ncclient.xml_ import to_ele
from sim.ios_clients import cli, in_thread, netconf

from lab.sim import iosxe
from lab.sim.iosxe.operational import NAMESPACE
from lab.sim.options import SimOptions

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:paramiko"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ncclient"),
    pytest.mark.filterwarnings("ignore:TripleDES"),
]
CLI_RPC = NAMESPACE + "Cisco-IOS-XE-cli-rpc"
MROUTE = NAMESPACE + "Cisco-IOS-XE-mroute-oper"
OPTIONS = SimOptions(configured=True, tunnels=3, channels=2, tick_seconds=0)


def read(session, container: str, module: str, inside: str = "") -> etree._Element:
    reply = session.get(filter=("subtree", f'<{container} xmlns="{NAMESPACE}{module}">{inside}</{container}>'))
    return etree.fromstring(reply.data_xml.encode())


def texts(tree: etree._Element, name: str) -> list[str]:
    return [element.text or "" for element in tree.iter(f"{{*}}{name}")]


def send(session, lines: list[str], patterns: dict[str, str] | None = None) -> dict[str, str]:
    rpc = etree.Element(f"{{{CLI_RPC}}}config-ios-cli-rpc")
    etree.SubElement(rpc, f"{{{CLI_RPC}}}config-clis").text = "\n".join(lines)
    for tag, pattern in (patterns or {}).items():
        entry = etree.SubElement(rpc, f"{{{CLI_RPC}}}error-patterns")
        etree.SubElement(entry, f"{{{CLI_RPC}}}error-tag").text = tag
        etree.SubElement(entry, f"{{{CLI_RPC}}}error-pattern").text = pattern
    reply = to_ele(session.dispatch(to_ele(etree.tostring(rpc).decode())).xml)
    return {etree.QName(child).localname: child.text or "" for child in reply}


async def test_every_gateway_of_every_route_is_told(tmp_path):
    def work(sim):
        with netconf(sim, tmp_path) as session:
            assert any("Cisco-IOS-XE-mroute-oper" in uri for uri in session.server_capabilities)
            tree = read(session, "mroute-oper-data", "Cisco-IOS-XE-mroute-oper")
        told = set()
        for state in tree.iter(f"{{{MROUTE}}}mroute-state"):
            source, group = (state.findtext(f"{{{MROUTE}}}{name}") for name in ("source", "group"))
            for entry in state.iter(f"{{{MROUTE}}}mcast-egress-if-entry"):
                assert entry.findtext(f"{{{MROUTE}}}if-name") == "Tunnel2268"
                kind = next(entry.iter(f"{{{MROUTE}}}mfib-next-hop-type")).text
                assert kind == "mfib-nh-type-amt-ipv4"
                hop = next(entry.iter(f"{{{MROUTE}}}amt-next-hop-addr-v4"))
                told.add((source, group, *(child.text for child in hop)))
        assert told == {
            (str(source), str(group), str(tunnel.gateway_address), str(tunnel.gateway_port))
            for tunnel in sim.population.snapshot().tunnels
            for source, group in tunnel.channels
        }

    async with iosxe.start(OPTIONS) as sim:
        await in_thread(work, sim)


async def test_tunnel_interfaces_and_neighbours_are_told(tmp_path):
    def work(sim):
        with netconf(sim, tmp_path) as session:
            tunnel = read(session, "tunnel-oper-data", "Cisco-IOS-XE-tunnel-oper")
            pim = read(session, "pim-oper-data", "Cisco-IOS-XE-pim-oper")
        assert texts(tunnel, "mode") == ["tunnel-mode-mudp-ip"]
        assert texts(tunnel, "status") == ["tunnel-up"]
        assert texts(tunnel, "src-addr") == ["203.0.113.7"]
        assert texts(pim, "pim-neighbor-address") == ["10.255.0.2"]
        assert texts(pim, "if-name") == ["GigabitEthernet1"]

    async with iosxe.start(OPTIONS) as sim:
        await in_thread(work, sim)


async def test_filters_choose_entries_and_leaves(tmp_path):
    def work(sim):
        group = str(sim.population.snapshot().channels[0].group)
        module = "Cisco-IOS-XE-mroute-oper"
        with netconf(sim, tmp_path) as session:
            one = read(session, "mroute-oper-data", module, f"<mroute-state><group>{group}</group></mroute-state>")
            leaves = read(session, "mroute-oper-data", module, "<mroute-state><hw-packet-count/></mroute-state>")
            none = read(session, "mroute-oper-data", module, "<mroute-state><group>239.9.9.9</group></mroute-state>")
        assert texts(one, "group") == [group]
        assert texts(one, "nh-ip-addr")
        assert {etree.QName(element).localname for element in leaves.iter()} == {
            "data",
            "mroute-oper-data",
            "mroute-state",
            "hw-packet-count",
        }
        assert len(none) == 0

    async with iosxe.start(OPTIONS) as sim:
        await in_thread(work, sim)


async def test_with_the_key_of_the_model_one_gateway_is_left(tmp_path):
    def work(sim):
        with netconf(sim, tmp_path) as session:
            tree = read(session, "mroute-oper-data", "Cisco-IOS-XE-mroute-oper")
        for state in tree.iter(f"{{{MROUTE}}}mroute-state"):
            assert len(list(state.iter(f"{{{MROUTE}}}mcast-egress-if-entry"))) == 1

    async with iosxe.start(SimOptions(configured=True, tunnels=40, channels=2), one_gateway=True) as sim:
        await in_thread(work, sim)


async def test_a_relay_that_is_not_configured_has_no_routes(tmp_path):
    def work(sim):
        with netconf(sim, tmp_path) as session:
            assert len(read(session, "mroute-oper-data", "Cisco-IOS-XE-mroute-oper")) == 0
            assert len(read(session, "tunnel-oper-data", "Cisco-IOS-XE-tunnel-oper")) == 0

    async with iosxe.start(SimOptions()) as sim:
        await in_thread(work, sim)


async def test_configuration_lines_change_what_the_command_line_shows(tmp_path):
    def work(sim):
        with netconf(sim, tmp_path) as session:
            lines = [
                "interface Loopback9",
                " ip address 192.0.2.9 255.255.255.255",
                "!",
                "interface Tunnel2268",
                " no amt relay traffic ip",
            ]
            assert send(session, lines) == {"result": "RPC request successful"}
        with cli(sim, tmp_path) as device:
            assert "192.0.2.9" in device.send_command("show running-config interface Loopback9")
            assert "amt" not in device.send_command("show running-config interface Tunnel2268")

    async with iosxe.start(OPTIONS) as sim:
        await in_thread(work, sim)


async def test_a_wrong_line_is_named_and_what_came_before_stays(tmp_path):
    def work(sim):
        with netconf(sim, tmp_path) as session:
            answer = send(
                session,
                ["interface Loopback9", "description kept", "amt relay traffik ip", "shutdown"],
                {"bad-line": "Invalid input"},
            )
        assert (answer["lineno"], answer["error-tag"]) == ("3", "bad-line")
        assert "Invalid input" in answer["error-string"]

    async with iosxe.start(OPTIONS) as sim:
        await in_thread(work, sim)
        section = sim.device.running.section("interface Loopback9")
        assert [line.text for line in section.children] == ["description kept", "no ip address"]


async def test_older_releases_have_no_rpc_for_configuration_lines(tmp_path):
    def work(sim):
        with netconf(sim, tmp_path) as session:
            assert not any("cli-rpc" in uri for uri in session.server_capabilities)
            with pytest.raises(RPCError) as refused:
                send(session, ["interface Loopback9"])
            assert refused.value.tag == "unknown-element"

    async with iosxe.start(OPTIONS, ios_version="17.6.5") as sim:
        await in_thread(work, sim)
        assert sim.device.running.section("interface Loopback9") is None


async def test_who_may_look_cannot_send_lines_and_strangers_stay_out(tmp_path):
    def work(sim):
        with netconf(sim, tmp_path, username="watcher") as session:
            assert texts(read(session, "pim-oper-data", "Cisco-IOS-XE-pim-oper"), "pim-neighbor-address")
            with pytest.raises(RPCError) as refused:
                send(session, ["interface Loopback9"])
            assert refused.value.tag == "access-denied"
        with pytest.raises(AuthenticationError):
            netconf(sim, tmp_path, password="wrong")

    async with iosxe.start(SimOptions(read_only_user="watcher")) as sim:
        await in_thread(work, sim)


async def test_both_ports_serve_the_same_host_key_also_when_it_changes(tmp_path):
    def work(sim):
        netconf(sim, tmp_path).close_session()
        before = sim.host_key_line.split()[1]
        sim.set_fault("change-host-key")
        with pytest.raises(SSHUnknownHostError):
            netconf(sim, tmp_path, hostkey_b64=before)
        netconf(sim, tmp_path).close_session()
        cli(sim, tmp_path).disconnect()

    async with iosxe.start(SimOptions()) as sim:
        await in_thread(work, sim)


async def test_netconf_can_be_off(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            assert device.find_prompt() == "xe-relay#"

    async with iosxe.start(SimOptions(netconf_port=None)) as sim:
        assert sim.netconf_port is None
        await in_thread(work, sim)

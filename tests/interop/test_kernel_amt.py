"""The Linux kernel's AMT driver, booted in User Mode Linux, against our agents: both directions, both families."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from ipaddress import ip_address

import pytest

from agent.protocol.channels import Filter
from agent.protocol.wire import amt, igmp
from agent.protocol.wire.groups import GroupRecord, Report
from agent.protocol.wire.ip import PROTOCOL_IGMP, ROUTER_ALERT_IPV4, IPPacket, decode, decode_udp
from lab.agents import Agent, AgentPlace, gateway_configuration
from lab.kernel_amt.guest import Guest
from lab.kernel_amt.roles import gateway_script, relay_script
from lab.namespaces import in_namespace, wait_until
from lab.topology import (
    ASM_GROUP_IPV4,
    ASM_GROUP_IPV6,
    GUEST,
    HOST_INTERFACE,
    PAYLOAD_PORT,
    RELAY,
    SOURCE,
    SSM_GROUP_IPV4,
    SSM_GROUP_IPV6,
)

QUICK_LISTENERS = """
[igmp]
query_interval = 4.0
query_response_interval = 1.0

[mld]
query_interval = 4.0
query_response_interval = 1.0
"""

pytestmark = [pytest.mark.root, pytest.mark.uml]


EXCHANGE = """
import socket, sys
relay = (sys.argv[1], 2268)
gateway = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
gateway.settimeout(5)
for line in sys.stdin:
    gateway.sendto(bytes.fromhex(line), relay)
    print(gateway.recv(2048).hex(), flush=True)
"""


def test_the_guest_is_a_working_relay_by_the_bytes_of_the_rfc(make_lab):
    """Discovery, Request, Update, Data, exchanged by hand; our machines have no part in it."""
    lab = make_lab()
    send = f"in_source $PYTHON -m lab send {SSM_GROUP_IPV4} --interface eth0 --seconds 20 --rate 100 --size 100 &"
    with Guest(lab, lab.topology.internet, relay_script(send)) as guest:
        guest.wait_for("ready")
        command = in_namespace(lab.topology.border, [sys.executable, "-c", EXCHANGE, str(GUEST.ipv4)])
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as gateway:

            def ask(message: amt.Message) -> amt.Message:
                gateway.stdin.write(message.encode().hex() + "\n")
                gateway.stdin.flush()
                return amt.decode(bytes.fromhex(gateway.stdout.readline()))

            assert ask(amt.RelayDiscovery(0x01020304)) == amt.RelayAdvertisement(0x01020304, GUEST.ipv4)
            query = ask(amt.Request(0x05060708))
            assert (query.type, query.nonce) == (amt.MessageType.MEMBERSHIP_QUERY, 0x05060708)
            record = GroupRecord.current_state(ip_address(SSM_GROUP_IPV4), Filter.exclude())
            report = IPPacket(
                ip_address("0.0.0.0"),
                ip_address("224.0.0.22"),
                PROTOCOL_IGMP,
                igmp.encode(Report((record,))),
                ttl=1,
                options=ROUTER_ALERT_IPV4,
            )
            data = ask(amt.MembershipUpdate(query.response_mac, query.nonce, report.encode()))
            assert data.type is amt.MessageType.MULTICAST_DATA
            assert decode_udp(decode(data.packet)).destination_port == PAYLOAD_PORT
            gateway.stdin.close()
        guest.tell("stop")
        assert guest.finish() == 0


KINDS = {
    "IGMP, source-specific": (str(SOURCE.ipv4), SSM_GROUP_IPV4),
    "MLD, source-specific": (str(SOURCE.ipv6), SSM_GROUP_IPV6),
    "IGMP, any source": ("*", ASM_GROUP_IPV4),
    "MLD, any source": ("*", ASM_GROUP_IPV6),
}
WHOLE = dict.fromkeys(KINDS, (400, 0))


def receive(kind):
    """Arguments of a receiver that ends after 400 packets, or without them after 30 s."""
    source, group = KINDS[kind]
    ends = ["--packets", "400", "--seconds", "30"]
    return ["-m", "lab", "receive", source, group, "--interface", HOST_INTERFACE, *ends]


def told(line):
    figures = json.loads(line)
    return figures["received"], figures["lost"]


def received_behind(lab):
    """What receivers of every kind, all at once, got at the lab's receiver."""
    running = {
        kind: lab.start(lab.topology.receiver(), sys.executable, *receive(kind), stdout=subprocess.PIPE)
        for kind in KINDS
    }
    return {kind: told(process.communicate(timeout=60)[0].splitlines()[-1]) for kind, process in running.items()}


@pytest.mark.slow
def test_our_gateway_receives_from_the_kernels_relay(make_lab, tmp_path):
    """Membership of both families over one IPv4 tunnel, the relay's P flag at the wrong end; again after SIGKILL."""
    lab = make_lab()
    names = lab.topology
    send = "\n".join(
        f"in_source $PYTHON -m lab send {group} --interface {HOST_INTERFACE} --rate 100 --size 1000 --seconds 120 &"
        for _, group in KINDS.values()
    )
    with Guest(lab, names.internet, relay_script(send)) as guest:
        guest.wait_for("ready")
        configuration = gateway_configuration(names.downstream_interfaces, str(GUEST.ipv4), sections=QUICK_LISTENERS)
        border = Agent(lab, AgentPlace(names.border, tmp_path, "border"), configuration)
        try:
            border.start()
            assert received_behind(lab) == WHOLE, border.log_tail()
            border.kill()
            border.start()
            assert received_behind(lab) == WHOLE, border.log_tail()
        finally:
            border.close()


@pytest.mark.slow
def test_the_kernels_gateway_receives_from_our_relay(make_scenario):
    """Our relay answers a gateway that sets P at 0x80, re-Requests every second and refuses the G flag."""
    scenario = make_scenario(relay={"gateway_address_in_query": False})
    for _, group in KINDS.values():
        scenario.send(group, "--rate", "100", "--size", "1000")
    listen = "\n".join(
        f"in_listener $PYTHON {' '.join(shlex.quote(word) for word in receive(kind))} > $OUT/figures{number} &"
        for number, kind in enumerate(KINDS)
    )
    lab = scenario.lab
    with Guest(
        lab, lab.topology.internet, gateway_script(str(RELAY.ipv4), f"{listen}\nwait || true\nsay done")
    ) as guest:
        guest.wait_for("done", 60.0)
        lines = {kind: guest.read(f"figures{number}").splitlines() for number, kind in enumerate(KINDS)}
        assert {kind: told(line[-1]) for kind, line in lines.items()} == WHOLE, guest.log()
        wait_until(lambda: len(scenario.relay.tunnels()) == 1, 5.0, "the relay shows one tunnel")

"""The Linux kernel's AMT driver, booted in User Mode Linux, against our agents: both directions, both families."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address

import pytest

from agent.protocol.channels import Filter
from agent.protocol.wire import amt, igmp
from agent.protocol.wire.groups import GroupRecord, Report
from agent.protocol.wire.ip import PROTOCOL_IGMP, ROUTER_ALERT_IPV4, IPPacket, decode, decode_udp
from lab.kernel_amt.guest import Guest, missing_to_boot
from lab.kernel_amt.roles import relay_script
from lab.namespaces import in_namespace
from lab.topology import GUEST, PAYLOAD_PORT, SSM_GROUP_IPV4

pytestmark = [pytest.mark.root, pytest.mark.uml]


@pytest.fixture(autouse=True, scope="module")
def _guest_boots():
    if missing := missing_to_boot():
        pytest.skip("needs " + ", ".join(missing))


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

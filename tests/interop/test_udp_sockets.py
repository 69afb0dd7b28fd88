"""Gateway and relay sockets against the kernel, in a namespace of its own."""

import errno
import os
import socket
import struct
import subprocess
import time
from ipaddress import ip_address

import pytest

from agent.net.socket_options import set_receive_buffer
from agent.net.udp import open_relay_socket, open_tunnel_socket, read_error_queue, receive, send
from agent.protocol.channels import Datagram, Endpoint
from agent.protocol.wire.ip import IPPacket, UDPDatagram, encode_udp
from lab.own_namespace import ip, missing_for_own_namespace, run_in_own_namespace, until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_own_namespace()), reason=missing or "never"),
]

ANYCAST = {4: ip_address("192.52.193.1"), 6: ip_address("2001:3::1")}
RELAY = {4: ip_address("10.0.0.1"), 6: ip_address("fd00::1")}
OTHER = {4: ip_address("10.0.0.2"), 6: ip_address("fd00::2")}
ANY = {4: ip_address("0.0.0.0"), 6: ip_address("::")}
families = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


def make_addresses():
    ip("link add one type veth peer name two", "link set one up", "link set two up")
    for addresses in (RELAY, OTHER, ANYCAST):
        ip(f"addr add {addresses[4]}/32 dev lo", f"addr add {addresses[6]}/128 dev lo nodad")
    deadline = time.monotonic() + 5
    while not all(f"local {addresses[6]} dev lo" in local_routes() for addresses in (RELAY, OTHER, ANYCAST)):
        assert time.monotonic() < deadline  # an IPv6 address takes packets a moment after it was added


def local_routes():
    command = ["ip", "-6", "route", "show", "table", "local"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def next_datagram(udp):
    found = []

    def take():
        item = receive(udp)
        if item is not None:
            found.append(item)
        return found

    await until(take)
    return found[0]


@families
def test_the_answer_leaves_from_the_address_that_was_asked(version):
    async def scenario():
        make_addresses()
        with open_relay_socket(ANY[version]) as relay, open_tunnel_socket(ANYCAST[version]) as gateway:
            for asked in (ANYCAST[version], OTHER[version], RELAY[version]):
                assert send(gateway, Datagram(b"discovery", Endpoint(asked, 2268))) is None
                question = await next_datagram(relay)
                assert (question.data, question.local) == (b"discovery", asked)
                assert send(relay, Datagram(b"advertisement", question.source, question.local)) is None
                answer = await next_datagram(gateway)
                assert (answer.data, answer.source) == (b"advertisement", Endpoint(asked, 2268))

    run_in_own_namespace(scenario)


@families
def test_a_relay_may_listen_on_an_anycast_address_not_yet_there(version):
    async def scenario():
        with open_relay_socket(ANYCAST[version]) as relay, open_tunnel_socket(ANYCAST[version]) as gateway:
            make_addresses()
            assert send(gateway, Datagram(b"x", Endpoint(ANYCAST[version], 2268))) is None
            assert (await next_datagram(relay)).local == ANYCAST[version]

    run_in_own_namespace(scenario)


@families
def test_sockets_of_both_families_and_of_several_addresses_share_the_port(version):
    async def scenario():
        make_addresses()
        with (
            open_relay_socket(RELAY[4]) as ipv4,
            open_relay_socket(RELAY[6]) as ipv6,
            open_relay_socket(ANYCAST[version]) as anycast,
            open_tunnel_socket(RELAY[version]) as gateway,
        ):
            send(gateway, Datagram(b"x", Endpoint(ANYCAST[version], 2268)))
            assert (await next_datagram(anycast)).local == ANYCAST[version]
            assert receive(ipv4) is None
            assert receive(ipv6) is None

    run_in_own_namespace(scenario)


@families
def test_a_tunnel_keeps_its_port_and_says_when_it_is_taken(version):
    async def scenario():
        make_addresses()
        with open_tunnel_socket(RELAY[version], port=40123) as first:
            assert first.getsockname()[1] == 40123
            with pytest.raises(OSError, match="in use") as caught:
                open_tunnel_socket(RELAY[version], port=40123)
            assert caught.value.errno == errno.EADDRINUSE

    run_in_own_namespace(scenario)


@families
def test_the_tos_byte_of_the_outer_header_is_told(version):
    async def scenario():
        make_addresses()
        with open_tunnel_socket(RELAY[version]) as gateway, open_relay_socket(RELAY[version]) as relay:
            if version == 4:
                relay.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xB9 & ~3 | 1)
            else:
                relay.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0xB9)
            local = Endpoint(RELAY[version], gateway.getsockname()[1])
            assert send(relay, Datagram(b"data", local, RELAY[version])) is None
            assert (await next_datagram(gateway)).tos == 0xB9

    run_in_own_namespace(scenario)


@families
@pytest.mark.parametrize("kind", ["tunnel", "relay"])
def test_outer_checksums_of_zero_are_received(version, kind):
    async def scenario():
        make_addresses()
        opened = (
            open_tunnel_socket(RELAY[version], port=2268) if kind == "tunnel" else open_relay_socket(RELAY[version])
        )
        with opened as udp, open_tunnel_socket(RELAY[version]) as marker:
            segment = bytearray(encode_udp(OTHER[version], RELAY[version], UDPDatagram(2268, 2268, b"zero")))
            segment[6:8] = bytes(2)
            packet = IPPacket(OTHER[version], RELAY[version], 17, bytes(segment)).encode()
            send_whole(packet, RELAY[version])
            segment[6:8] = b"\x12\x34"
            send_whole(IPPacket(OTHER[version], RELAY[version], 17, bytes(segment)).encode(), RELAY[version])
            send(marker, Datagram(b"after", Endpoint(RELAY[version], 2268)))
            assert (await next_datagram(udp)).data == b"zero"
            assert (await next_datagram(udp)).data == b"after"  # and the wrong one is not

    run_in_own_namespace(scenario)


def send_whole(packet, destination):
    """Send an IP packet as it is; over IPv6 a raw socket needs IPV6_HDRINCL (36)."""
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(packet, (str(destination), 0))


@families
def test_outer_fragments_are_put_together(version):
    async def scenario():
        make_addresses()
        data = os.urandom(9000)
        ip("link set lo mtu 1500")
        with open_tunnel_socket(RELAY[version]) as gateway, open_relay_socket(OTHER[version]) as relay:
            local = Endpoint(RELAY[version], gateway.getsockname()[1])
            assert send(relay, Datagram(data, local, OTHER[version])) is None
            assert (await next_datagram(gateway)).data == data

    run_in_own_namespace(scenario)


@families
def test_an_icmp_error_becomes_a_hint_and_spares_the_next_datagram(version):
    async def scenario():
        make_addresses()
        with (
            open_tunnel_socket(RELAY[version], error_queue=True) as gateway,
            open_relay_socket(OTHER[version]) as relay,
        ):
            assert send(gateway, Datagram(b"x", Endpoint(RELAY[version], 2268))) is None  # nobody listens there
            hints = []
            await until(lambda: hints.extend(read_error_queue(gateway)) or hints)
            assert [(hint.destination, hint.error) for hint in hints] == [
                (Endpoint(RELAY[version], 2268), errno.ECONNREFUSED)
            ]
            assert hints[0].reporter == RELAY[version]
            assert (hints[0].icmp_type, hints[0].icmp_code) == ((3, 3) if version == 4 else (1, 4))
            assert read_error_queue(gateway) == []

            assert send(gateway, Datagram(b"x", Endpoint(RELAY[version], 2268))) is None
            # The pending error must not swallow this one, whether or not it is there already.
            assert send(gateway, Datagram(b"y", Endpoint(OTHER[version], 2268))) is None
            assert (await next_datagram(relay)).data == b"y"

    run_in_own_namespace(scenario)


@families
def test_without_an_error_queue_icmp_errors_never_disturb(version):
    async def scenario():
        make_addresses()
        with open_tunnel_socket(RELAY[version]) as gateway:
            for _ in range(3):
                assert send(gateway, Datagram(b"x", Endpoint(RELAY[version], 2268))) is None
            assert receive(gateway) is None
            assert read_error_queue(gateway) == []

    run_in_own_namespace(scenario)


@families
def test_a_datagram_without_a_route_is_refused_and_nothing_raised(version):
    async def scenario():
        make_addresses()
        with open_tunnel_socket(RELAY[version]) as gateway:
            failure = send(
                gateway, Datagram(b"x", Endpoint(ip_address("203.0.113.1" if version == 4 else "2001:db8::1"), 9))
            )
            assert failure is not None
            assert failure.errno == errno.ENETUNREACH

    run_in_own_namespace(scenario)


def test_a_tunnel_bound_to_its_uplink_uses_no_other():
    destination = ip_address("10.8.0.9")

    async def scenario():
        make_addresses()
        ip("addr add 10.9.0.1/24 dev one", "addr add 10.8.0.1/24 dev two")  # routing alone would choose "two"
        ip("neigh add 10.8.0.9 lladdr 02:00:00:00:00:09 dev one", "neigh add 10.8.0.9 lladdr 02:00:00:00:00:09 dev two")
        with (
            open_tunnel_socket(destination) as free,
            open_tunnel_socket(destination, interface="one") as bound,
            socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other_end,
        ):
            other_end.bind(("two", 0x0800))

            def arrived():
                send(free, Datagram(b"free", Endpoint(destination, 2268)))
                send(bound, Datagram(b"bound", Endpoint(destination, 2268)))
                try:
                    return other_end.recv(2000)[28:]
                except BlockingIOError:
                    return None

            payloads = []
            await until(lambda: payloads.append(arrived()) or len([item for item in payloads if item]) > 3)
            assert set(filter(None, payloads)) == {b"bound"}
        with pytest.raises(OSError, match="No such device"):
            open_tunnel_socket(ip_address("10.9.0.9"), interface="missing")

    run_in_own_namespace(scenario)


def test_the_receive_buffer_goes_beyond_the_systems_limit():
    async def scenario():
        with open_tunnel_socket(ip_address("127.0.0.1"), receive_buffer=32 << 20) as gateway:
            assert gateway.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 64 << 20  # the kernel doubles it
            assert set_receive_buffer(gateway, 1 << 20) == 2 << 20

    run_in_own_namespace(scenario)


def test_a_hint_tells_the_mtu_of_a_path():
    async def scenario():
        make_addresses()
        ip("addr add 10.9.0.1/24 dev one", "neigh add 10.9.0.9 lladdr 02:00:00:00:00:09 dev one")
        with open_tunnel_socket(ip_address("10.9.0.9"), error_queue=True) as gateway:
            gateway.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_PMTUDISC_DO: refuse instead of fragmenting
            send(gateway, Datagram(b"x", Endpoint(ip_address("10.9.0.9"), 2268)))
            port = gateway.getsockname()[1]
            quoted = IPPacket(
                ip_address("10.9.0.1"),
                ip_address("10.9.0.9"),
                17,
                struct.pack("!HHHH", port, 2268, 9, 0) + b"x",
            ).encode()
            message = bytearray(struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + quoted)
            total = sum(struct.unpack(f"!{len(message) // 2}H", message[: len(message) // 2 * 2]))
            total += message[-1] << 8 if len(message) % 2 else 0
            while total >> 16:
                total = (total & 0xFFFF) + (total >> 16)
            message[2:4] = (total ^ 0xFFFF).to_bytes(2)
            packet = IPPacket(ip_address("10.9.0.254"), ip_address("10.9.0.1"), 1, bytes(message)).encode()
            hints = []
            with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as wire:

                def tell():
                    wire.sendto(packet, ("two", 0x0800, 0, 0, mac_of("one")))
                    return hints.extend(read_error_queue(gateway)) or hints

                await until(tell)
            assert (hints[0].error, hints[0].mtu) == (errno.EMSGSIZE, 1400)
            assert hints[0].reporter == ip_address("10.9.0.254")

    run_in_own_namespace(scenario)


def mac_of(interface):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((interface, 0))
        return link.getsockname()[4]

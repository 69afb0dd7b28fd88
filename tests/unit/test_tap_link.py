"""Frames out of the tunnel interface: control packets go to links, questions are answered, the rest is counted."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from agent.net.rawlink_filter import LinkProtocol
from agent.net.tap import VIRTIO_HEADER_SIZE
from agent.net.tap_frames import FrameKind, parse_frame
from agent.net.tap_link import TapNeighbor
from agent.protocol.channels import Family
from agent.protocol.wire.checksum import internet_checksum, pseudo_header, verifies
from agent.protocol.wire.ip import PROTOCOL_ICMPV6, ROUTER_ALERT_IPV6, IPPacket, decode

HOST = bytes.fromhex("020000000001")
OURS_IPV4, OURS_IPV6 = ip_address("169.254.226.10"), ip_address("fe80::226:a")
HOST_IPV4, HOST_IPV6 = ip_address("169.254.226.9"), ip_address("fe80::226:9")
ALL_ROUTERS = {Family.IPV4: ip_address("224.0.0.13"), Family.IPV6: ip_address("ff02::d")}
HELLO = b"\x20\x00\xdf\xff"


class Device:
    """A tap whose kernel side the test holds."""

    def __init__(self) -> None:
        self.kernel, self._agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.kernel, self._agent):
            end.setblocking(False)
        self.tap = SimpleNamespace(name="amt0", fd=self._agent.fileno(), hardware_address="02:00:00:00:00:01")

    def close(self) -> None:
        self.kernel.close()
        self._agent.close()

    def emit(self, ethertype: int, packet: bytes, destination: bytes = b"\x01\x00\x5e\x00\x00\x0d") -> None:
        self.kernel.send(bytes(VIRTIO_HEADER_SIZE) + destination + HOST + ethertype.to_bytes(2) + packet)

    def taken(self) -> bytes | None:
        """The next frame written to the device."""
        try:
            data = self.kernel.recv(70_000)
        except BlockingIOError:
            return None
        assert data[:VIRTIO_HEADER_SIZE] == bytes(VIRTIO_HEADER_SIZE)
        return data[VIRTIO_HEADER_SIZE:]


@contextmanager
def neighbor():
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        loop = runner.get_loop()
        device = Device()
        made = TapNeighbor(loop, device.tap, (OURS_IPV4, OURS_IPV6))

        async def turn():
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        try:
            yield SimpleNamespace(neighbor=made, device=device, loop=loop, turn=lambda: runner.run(turn()))
        finally:
            made.close()
            device.close()


def pim(family):
    source = HOST_IPV4 if family is Family.IPV4 else HOST_IPV6
    return IPPacket(source, ALL_ROUTERS[family], 103, HELLO, ttl=1).encode()


ETHERTYPE = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}


@pytest.mark.parametrize("family", list(Family))
def test_pim_reaches_its_link_without_padding_and_no_other(family):
    with neighbor() as world:
        heard, others = [], []
        link = world.neighbor.open_link(world.loop, "amt0", family, heard.append, LinkProtocol.PIM)
        world.neighbor.open_link(world.loop, "amt0", family, others.append, LinkProtocol.GROUP_MEMBERSHIP)
        world.device.emit(ETHERTYPE[family], pim(family) + bytes(30))
        world.turn()
        assert heard == [pim(family)]
        assert not others
        assert link.counters.received == 1
        assert not world.neighbor.dropped


@pytest.mark.parametrize("family", list(Family))
def test_what_a_link_sends_is_a_frame_to_the_group_from_our_own_address(family):
    with neighbor() as world:
        link = world.neighbor.open_link(world.loop, "amt0", family, lambda _: None, LinkProtocol.PIM)
        source = OURS_IPV4 if family is Family.IPV4 else OURS_IPV6
        packet = IPPacket(source, ALL_ROUTERS[family], 103, HELLO, ttl=1).encode()
        assert link.send(packet)
        frame = world.device.taken()
        group = "01005e00000d" if family is Family.IPV4 else "33330000000d"
        assert frame[:6].hex() == group
        assert frame[6:12] == world.neighbor.hardware_address
        assert frame[12:] == ETHERTYPE[family].to_bytes(2) + packet
        unicast = IPPacket(source, HOST_IPV4 if family is Family.IPV4 else HOST_IPV6, 103, HELLO).encode()
        assert link.send(unicast)
        assert world.device.taken()[:6] == HOST


def test_a_closed_link_hears_nothing_until_it_is_opened_again():
    with neighbor() as world:
        heard = []
        link = world.neighbor.open_link(world.loop, "amt0", Family.IPV4, heard.append, LinkProtocol.PIM)
        link.close()
        assert not link.is_open
        assert not link.send(pim(Family.IPV4))
        world.device.emit(0x0800, pim(Family.IPV4))
        world.turn()
        assert (heard, dict(world.neighbor.dropped)) == ([], {"not_spoken": 1})
        assert link.reopen()
        world.device.emit(0x0800, pim(Family.IPV4))
        world.turn()
        assert len(heard) == 1
        world.neighbor.close()
        assert not link.is_open
        assert not link.reopen()
        assert (link.counters.send_errors, link.counters.open_errors) == (1, 1)


def test_our_mac_address_is_stable_and_not_the_devices():
    with neighbor() as one, neighbor() as other:
        assert one.neighbor.hardware_address == other.neighbor.hardware_address != HOST
        assert one.neighbor.hardware_address[0] & 3 == 2  # unicast, locally administered


def arp(target, operation=1):
    fields = b"\x00\x01\x08\x00\x06\x04" + operation.to_bytes(2)
    return fields + HOST + HOST_IPV4.packed + bytes(6) + target.packed


def test_an_arp_request_for_our_address_is_answered_to_the_asker():
    with neighbor() as world:
        world.device.emit(0x0806, arp(OURS_IPV4) + bytes(18), b"\xff" * 6)
        world.turn()
        ours = world.neighbor.hardware_address
        reply = b"\x00\x01\x08\x00\x06\x04\x00\x02" + ours + OURS_IPV4.packed + HOST + HOST_IPV4.packed
        assert world.device.taken() == HOST + ours + b"\x08\x06" + reply
        assert world.neighbor.answered == 1


@pytest.mark.parametrize(
    "question",
    [arp(ip_address("169.254.226.11")), arp(OURS_IPV4, 2), arp(OURS_IPV4)[:20]],
    ids=["other", "reply", "cut"],
)
def test_other_arp_packets_are_not_answered(question):
    with neighbor() as world:
        world.device.emit(0x0806, question, b"\xff" * 6)
        world.turn()
        assert world.device.taken() is None
        assert dict(world.neighbor.dropped) == {"question_for_others": 1}


def solicitation(source, target, *, hops=255, damage=0):
    destination = ip_address("ff02::1:ff26:a")
    body = bytes((135, 0, 0, 0, 0, 0, 0, 0)) + target.packed + b"\x01\x01" + HOST
    checksum = internet_checksum(pseudo_header(source, destination, PROTOCOL_ICMPV6, len(body)) + body) ^ damage
    body = body[:2] + checksum.to_bytes(2) + body[4:]
    return IPPacket(source, destination, PROTOCOL_ICMPV6, body, ttl=hops).encode()


@pytest.mark.parametrize(
    ("asker", "to", "flags"), [(HOST_IPV6, HOST_IPV6, 0xE0), (ip_address("::"), ip_address("ff02::1"), 0xA0)]
)
def test_a_neighbour_solicitation_for_our_address_is_answered(asker, to, flags):
    with neighbor() as world:
        world.device.emit(0x86DD, solicitation(asker, OURS_IPV6), bytes.fromhex("3333ff26000a"))
        world.turn()
        frame = world.device.taken()
        answer = decode(frame[14:])
        assert (answer.source, answer.destination, answer.ttl) == (OURS_IPV6, to, 255)
        body = answer.payload
        assert verifies(pseudo_header(OURS_IPV6, to, PROTOCOL_ICMPV6, len(body)) + body)
        assert (body[0], body[4], body[8:24]) == (136, flags, OURS_IPV6.packed)
        assert body[24:] == b"\x02\x01" + world.neighbor.hardware_address


@pytest.mark.parametrize(
    "packet",
    [
        solicitation(HOST_IPV6, HOST_IPV6),
        solicitation(HOST_IPV6, OURS_IPV6, hops=64),
        solicitation(HOST_IPV6, OURS_IPV6, damage=1),
        solicitation(HOST_IPV6, OURS_IPV6)[:50],
    ],
    ids=["other", "routed", "checksum", "cut"],
)
def test_solicitations_for_others_or_broken_are_not_answered(packet):
    with neighbor() as world:
        world.device.emit(0x86DD, packet, bytes.fromhex("3333ff26000a"))
        world.turn()
        assert world.device.taken() is None
        assert dict(world.neighbor.dropped) == {"question_for_others": 1}


def test_data_that_leaves_by_the_tunnel_interface_is_counted_by_kind():
    with neighbor() as world:
        to_us = world.neighbor.hardware_address
        data = IPPacket(HOST_IPV4, ip_address("232.1.1.1"), 17, bytes(8)).encode()
        world.device.emit(0x0800, data, b"\x01\x00\x5e\x01\x01\x01")
        world.device.emit(0x0800, IPPacket(HOST_IPV4, ip_address("203.0.113.9"), 17, bytes(8)).encode(), to_us)
        world.device.emit(0x0800, IPPacket(HOST_IPV4, ip_address("203.0.113.9"), 103, HELLO).encode(), HOST)
        world.device.emit(0x0800, IPPacket(HOST_IPV4, OURS_IPV4, 1, bytes(8)).encode(), to_us)
        world.device.emit(0x86DD, IPPacket(HOST_IPV6, OURS_IPV6, 17, bytes(8)).encode(), to_us)
        world.device.emit(0x88CC, bytes(46))
        world.device.emit(0x0800, b"\x45")
        world.turn()
        assert dict(world.neighbor.dropped) == {
            "multicast": 1,
            "unicast": 2,
            "for_us": 2,
            "other": 1,
            "malformed": 1,
        }


def test_membership_reports_are_told_from_other_icmpv6():
    report = IPPacket(
        HOST_IPV6, ip_address("ff02::16"), PROTOCOL_ICMPV6, bytes((143,)) + bytes(7), ttl=1, options=ROUTER_ALERT_IPV6
    ).encode()
    solicited = IPPacket(HOST_IPV6, ip_address("ff02::2"), PROTOCOL_ICMPV6, bytes((133,)) + bytes(7), ttl=255).encode()
    group = b"\x33\x33\x00\x00\x00\x16"
    kinds = [parse_frame(group + HOST + b"\x86\xdd" + packet, b"").kind for packet in (report, solicited)]
    assert kinds == [FrameKind.GROUP_MEMBERSHIP, FrameKind.OTHER]


def test_a_fragment_is_no_control_packet():
    fragment = IPPacket(HOST_IPV4, ip_address("224.0.0.22"), 2, bytes(8), ttl=1, more_fragments=True).encode()
    assert parse_frame(b"\x01\x00\x5e\x00\x00\x16" + HOST + b"\x08\x00" + fragment, b"").kind is FrameKind.MULTICAST


def test_links_are_for_the_tunnel_interface_only():
    with neighbor() as world, pytest.raises(ValueError, match="eth0 is not amt0"):
        world.neighbor.open_link(world.loop, "eth0", Family.IPV4, lambda _: None)

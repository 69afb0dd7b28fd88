"""Control packets of the tunnel interface: what the host's own routing daemon says on it, and our answers.

In mode `frr` the daemon has us as its neighbour on the tap device: every frame the kernel sends out of the device is
read here. PIM, IGMP and MLD go to the machines, questions for our addresses are answered, the rest is dropped and
counted. A `TapLink` is to a protocol machine what an `agent.net.rawlink.RawLink` is on any other interface.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Iterable
from typing import Final

from agent.net.rawlink import DRAIN_SECONDS, OnPacket, RawLinkCounters, deliver, multicast_mac
from agent.net.rawlink_filter import LinkProtocol
from agent.net.tap import VIRTIO_HEADER_SIZE, Tap, hardware_address_for
from agent.net.tap_frames import (
    ETHERTYPE,
    Frame,
    FrameKind,
    answer_address_question,
    ethernet_frame,
    is_multicast,
    parse_frame,
)
from agent.protocol.channels import Address, Family

_NO_OFFLOAD: Final = bytes(VIRTIO_HEADER_SIZE)
_LARGEST_FRAME: Final = VIRTIO_HEADER_SIZE + 14 + 65535
_DRAIN: Final = 64

_PROTOCOL_OF: Final = {
    FrameKind.PIM: LinkProtocol.PIM,
    FrameKind.GROUP_MEMBERSHIP: LinkProtocol.GROUP_MEMBERSHIP,
}


class TapNeighbor:
    """Us, as the kernel and its routing daemon see us behind the tunnel interface.

    Nothing else may read the tap. Closing this does not close the tap.

    Attributes:
        interface: name of the tunnel interface.
        hardware_address: our MAC address there, the same after every restart.
        dropped: frames that were not for us, by what they were: `multicast` is data the daemon forwarded into the
            tunnel interface, `unicast` is traffic its routes sent there, `for_us` other unicast to our addresses.
        answered: questions for our MAC address that were answered.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tap: Tap, addresses: Iterable[Address]) -> None:
        """Start reading the tap.

        Args:
            loop: event loop packets are delivered on.
            tap: the open device.
            addresses: ours on the link.
        """
        self.interface = tap.name
        self.hardware_address = bytes.fromhex(hardware_address_for(f"{tap.name} neighbor").replace(":", ""))
        self.dropped: Counter[str] = Counter()
        self.answered = 0
        self._loop = loop
        self._fd = tap.fd
        self._their_address = bytes.fromhex(tap.hardware_address.replace(":", ""))
        self._addresses = frozenset(address.packed for address in addresses)
        self._links: dict[tuple[LinkProtocol, Family], TapLink] = {}
        loop.add_reader(self._fd, self._drain)

    @property
    def is_open(self) -> bool:
        """Whether frames are read."""
        return self._fd >= 0

    def open_link(
        self,
        loop: asyncio.AbstractEventLoop,
        interface: str,
        family: Family,
        on_packet: OnPacket,
        protocol: LinkProtocol = LinkProtocol.GROUP_MEMBERSHIP,
    ) -> TapLink:
        """A link for one protocol and family, with the arguments of `RawLink`; replaces an earlier one.

        Raises:
            ValueError: for another interface or event loop.
        """
        if interface != self.interface or loop is not self._loop:
            raise ValueError(f"{interface} is not {self.interface}")
        return TapLink(self, family, on_packet, protocol)

    def close(self) -> None:
        """Stop reading; safe to call twice."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._fd = -1

    def attach(self, link: TapLink) -> None:
        """Give `link` the packets of its protocol and family."""
        self._links[link.protocol, link.family] = link

    def detach(self, link: TapLink) -> None:
        """Give `link` no more packets."""
        if self._links.get((link.protocol, link.family)) is link:
            del self._links[link.protocol, link.family]

    def is_attached(self, link: TapLink) -> bool:
        """Whether `link` gets the packets of its protocol and family."""
        return self.is_open and self._links.get((link.protocol, link.family)) is link

    def write(self, packet: bytes, family: Family) -> None:
        """Send an IP packet to the host, to the MAC address of its group or to the host's own.

        Raises:
            OSError: the device is closed, down or full.
        """
        destination = multicast_mac(packet) if is_multicast(packet) else self._their_address
        self._write(ethernet_frame(destination, self.hardware_address, ETHERTYPE[family], packet))

    def _write(self, frame: bytes) -> None:
        if self._fd < 0:
            raise OSError(errno.ENODEV, "tap is closed", self.interface)
        os.write(self._fd, _NO_OFFLOAD + frame)

    def _drain(self) -> None:
        """Take a bounded number of frames, so that a daemon forwarding in a loop does not stop the others' work."""
        until = self._loop.time() + DRAIN_SECONDS
        for _ in range(_DRAIN):
            if self._fd < 0 or self._loop.time() > until:  # it may be closed by what a packet did
                return
            try:
                data = os.read(self._fd, _LARGEST_FRAME)
            except BlockingIOError:
                return
            except OSError:  # EBADFD and the like while the interface goes away, which the monitor reports
                self.dropped["read_error"] += 1
                return
            self._take(parse_frame(data[VIRTIO_HEADER_SIZE:], self.hardware_address))

    def _take(self, frame: Frame) -> None:
        if frame.kind is FrameKind.ADDRESS_QUESTION:
            answer = answer_address_question(frame, self.hardware_address, self._addresses)
            if answer is None:
                self.dropped["question_for_others"] += 1
                return
            try:
                self._write(answer)
            except OSError:
                self.dropped["write_error"] += 1
                return
            self.answered += 1
            return
        protocol = _PROTOCOL_OF.get(frame.kind)
        if protocol is None or frame.family is None:
            self.dropped["for_us" if self._is_for_us(frame) else frame.kind.value] += 1
            return
        link = self._links.get((protocol, frame.family))
        if link is None:
            self.dropped["not_spoken"] += 1
            return
        link.deliver(frame.packet)

    def _is_for_us(self, frame: Frame) -> bool:
        where = slice(16, 20) if frame.family is Family.IPV4 else slice(24, 40)
        return frame.kind is FrameKind.UNICAST and frame.packet[where] in self._addresses


class TapLink:
    """Control packets of one protocol and family on the tunnel interface; see `RawLink`.

    Attributes:
        interface: name of the interface.
        family: IP version.
        protocol: what is let through.
        counters: packets and errors.
        last_error: the last error counted, for `status`.
    """

    def __init__(self, neighbor: TapNeighbor, family: Family, on_packet: OnPacket, protocol: LinkProtocol) -> None:
        self.interface = neighbor.interface
        self.family = family
        self.protocol = protocol
        self.counters = RawLinkCounters()
        self.last_error: OSError | None = None
        self._neighbor = neighbor
        self._on_packet = on_packet
        self.reopen()

    @property
    def overflows(self) -> None:
        """The tunnel interface's own count of dropped packets (`ip -s link`) holds those of all links."""
        return

    @property
    def is_open(self) -> bool:
        """Whether packets can arrive."""
        return self._neighbor.is_attached(self)

    def reopen(self) -> bool:
        """Have packets delivered again after `close`, and say whether they can arrive."""
        if not self._neighbor.is_open:
            self.counters.open_errors += 1
            return False
        self._neighbor.attach(self)
        return True

    def send(self, packet: bytes) -> bool:
        """Send a whole IP packet to the host; False (and counted) when it was not sent.

        Raises:
            ValueError: not an IP packet of this family.
        """
        if not packet or packet[0] >> 4 != self.family:
            raise ValueError(f"not an IPv{int(self.family)} packet")
        try:
            if not self.is_open:
                raise OSError(errno.ENODEV, "link is closed", self.interface)  # noqa: TRY301 - counted with the others
            self._neighbor.write(packet, self.family)
        except OSError as error:
            self.counters.send_errors += 1
            self.last_error = error
            return False
        self.counters.sent += 1
        return True

    def deliver(self, packet: bytes) -> None:
        """Take a packet that came out of the device."""
        self.counters.received += 1
        deliver(self._on_packet, packet, self.counters)

    def close(self) -> None:
        """Stop delivering; `reopen()` starts again."""
        self._neighbor.detach(self)

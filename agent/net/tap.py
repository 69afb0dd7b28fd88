"""The tap device through which decapsulated packets enter the kernel.

It is persistent: name, MAC address and interface index survive a restart of the agent, so that multicast routing
state and a neighbouring routing daemon see the same interface again. Frames carry a virtio-net header, which lets one
write hand the kernel a whole train of UDP datagrams where the kernel can segment them (Linux 6.2 and later).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Final, Self

from pyroute2 import IPRoute, NetlinkError

from agent.net.rtnetlink import with_rtnetlink
from agent.net.sysctl import read_sysctl, write_sysctl

_log = logging.getLogger(__name__)

VIRTIO_HEADER_SIZE: Final = 10
"""Octets of struct virtio_net_hdr before every frame."""

_TUNSETIFF: Final = 0x400454CA
_TUNSETPERSIST: Final = 0x400454CB
_TUNSETCARRIER: Final = 0x400454E2
_TUNSETOFFLOAD: Final = 0x400454D0
_SIOCGIFFLAGS: Final = 0x8913
_IFF_RUNNING: Final = 0x40
_LOWERED_SECONDS: Final = 2.0  # linkwatch waits a second between two rounds
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6, _TUN_F_USO4, _TUN_F_USO6 = 0x01, 0x02, 0x04, 0x20, 0x40
_NAME_SIZE: Final = 16  # IFNAMSIZ, with the closing NUL
_LARGEST_MTU: Final = 65535 - 14  # the kernel's limit for an Ethernet-like tap
_DUMMY_ADDRESS: Final = ip_interface("192.0.0.8/32")  # RFC 7600 §4.8: the IPv4 dummy address


class TapError(Exception):
    """The tap device cannot be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class TapSettings:
    """What a tap device should be.

    Attributes:
        name: interface name.
        addresses: addresses to assign; others the device has stay.
        mtu: octets.
        segmentation: False keeps to one packet a write even where the kernel could segment.
        queue: packets out of the interface that wait for whoever reads the device.
    """

    name: str = "amt0"
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    mtu: int = _LARGEST_MTU
    segmentation: bool = True
    queue: int = 1000


class Tap:
    """An open, configured tap device.

    Attributes:
        fd: file descriptor; each write is a virtio-net header followed by an Ethernet frame.
        segmentation: whether the kernel takes UDP segmentation offload (IPv4 and IPv6) from this device.
        index: interface index.
        hardware_address: the device's own MAC address.
        details: how it was set up, for `status` and `doctor`.
    """

    def __init__(self, settings: TapSettings | None = None) -> None:
        """Create or reopen the device and bring it up.

        Raises:
            TapError: no permission, no tun driver, name taken by another kind of interface or another process.
        """
        self.settings = settings or TapSettings()
        self.name = self.settings.name
        self.details: dict[str, str] = {}
        self.hardware_address = hardware_address_for(self.name)
        self.fd = _open_device(self.name)
        try:
            self.segmentation = self._offer_segmentation()
            self.index = self._configure_link()
            self._accept_any_source()
        except BaseException:
            os.close(self.fd)
            raise

    def __enter__(self) -> Self:
        """The device, closed at the end of the block; the interface stays."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the descriptor."""
        self.close()

    def close(self) -> None:
        """Close the descriptor; the interface stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def lower(self) -> None:
        """Take the carrier away and wait until the kernel's routes know, before anything that kept traffic away goes.

        Closing the descriptor does the same, but the kernel tells its routing tables up to a second later (linkwatch).
        """
        if self.fd < 0:
            return
        try:
            fcntl.ioctl(self.fd, _TUNSETCARRIER, struct.pack("i", 0))
        except OSError as error:  # Linux before 5.0
            _log.debug("carrier stays interface=%s: %s", self.name, error)
            return
        deadline = time.monotonic() + _LOWERED_SECONDS
        while _is_running(self.name) and time.monotonic() < deadline:
            time.sleep(0.01)

    def remove(self) -> None:
        """Close the descriptor and remove the interface."""
        if self.fd >= 0:
            fcntl.ioctl(self.fd, _TUNSETPERSIST, 0)
        self.close()

    def _offer_segmentation(self) -> bool:
        basic = _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6
        if not self.settings.segmentation:
            self.details["segmentation"] = "off by configuration, one packet a write"
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, 0)
            return False
        try:
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, basic | _TUN_F_USO4 | _TUN_F_USO6)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise TapError(f"{self.name}: offloads refused: {error.strerror}") from error
            self.details["segmentation"] = "not offered by this kernel (needs Linux 6.2), one packet a write"
            return False
        self.details["segmentation"] = "UDP segmentation by the kernel, many packets a write"
        return True

    def _configure_link(self) -> int:
        try:
            return with_rtnetlink(self._apply_settings)
        except NetlinkError as error:
            raise TapError(f"{self.name}: cannot configure: {error}") from error

    def _apply_settings(self, route: IPRoute) -> int:
        index = int(route.link_lookup(ifname=self.name)[0])
        link = route.link("get", index=index)[0]
        if link.get_attr("IFLA_ADDRESS") != self.hardware_address:
            route.link("set", index=index, address=self.hardware_address)
        mtu = min(self.settings.mtu, int(link.get_attr("IFLA_MAX_MTU") or _LARGEST_MTU))
        route.link("set", index=index, mtu=mtu, txqlen=self.settings.queue, state="up")
        self.details["mtu"] = str(mtu)
        for address in self.settings.addresses:
            _add_address(route, index, address)
        return index

    def _accept_any_source(self) -> None:
        """Keep reverse path filtering from dropping what came through a tunnel.

        The kernel applies the larger of conf.all and the interface's own value. Filtering off suits us best; where
        conf.all demands some, loose mode (2) on the tap wins over strict (1) and needs an IPv4 address on the tap.
        conf.all itself belongs to the operator and is not touched.
        """
        everywhere = int(read_sysctl("net", "ipv4", "conf", "all", "rp_filter") or "0")
        wanted = "0" if everywhere == 0 else "2"
        own = ("net", "ipv4", "conf", self.name, "rp_filter")
        if read_sysctl(*own) != wanted:
            write_sysctl(*own, value=wanted)
        effective = max(everywhere, int(read_sysctl(*own) or "0"))
        if effective == 0:
            self.details["rp_filter"] = "off"
        elif effective == 2:
            with_rtnetlink(self._have_an_address)
            self.details["rp_filter"] = "loose: sources need a route, a default route will do"
        else:
            self.details["rp_filter"] = (
                f"strict and not ours to change: IPv4 is dropped unless routed to {self.name}; "
                f"set net.ipv4.conf.{self.name}.rp_filter=2"
            )

    def _have_an_address(self, route: IPRoute) -> None:
        if not route.get_addr(index=self.index, family=socket.AF_INET):
            _add_address(route, self.index, _DUMMY_ADDRESS)


def _is_running(name: str) -> bool:
    """Whether routes out of an interface count: its operational state, not what the driver says this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
        except OSError:
            return False
    return bool(struct.unpack_from("H", answer, 16)[0] & _IFF_RUNNING)


def hardware_address_for(name: str) -> str:
    """The locally administered unicast MAC address that belongs to an interface name."""
    digest = hashlib.sha256(b"isthmus tap " + name.encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))


def _open_device(name: str) -> int:
    if not 0 < len(name.encode()) < _NAME_SIZE:
        raise TapError(f"{name!r} is not an interface name")
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise TapError(f"/dev/net/tun cannot be opened: {error.strerror} (module tun, CAP_NET_ADMIN)") from error
    request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, request)
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except OSError as error:
        os.close(fd)
        reason = {
            errno.EBUSY: "another process has it open",
            errno.EPERM: "CAP_NET_ADMIN is needed",
            errno.EINVAL: "an interface of that name exists and is no tap with virtio-net header",
        }.get(error.errno or 0, error.strerror)
        raise TapError(f"{name}: {reason}") from error
    return fd


def _add_address(route: IPRoute, index: int, address: IPv4Interface | IPv6Interface) -> None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        route.addr("add", index=index, family=family, address=str(address.ip), prefixlen=address.network.prefixlen)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise

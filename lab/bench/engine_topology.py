"""Three namespaces around a gateway's data plane: a relay, the gateway, and one host on every downstream interface."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from lab.bench.relay_topology import inside, ip_lines, run

RELAY_IPV4: Final = "10.81.0.1"
GATEWAY_IPV4: Final = "10.81.0.2"
RELAY_IPV6: Final = "fd81::1"
GATEWAY_IPV6: Final = "fd81::2"
UPLINK_AT_RELAY: Final = "uplink0"
UPLINK_AT_GATEWAY: Final = "uplink1"

_SIOCETHTOOL: Final = 0x8946
_SET_TX_CHECKSUM: Final = 0x17
_SET_GRO: Final = 0x2C
_SET_TSO: Final = 0x1F


def downstream(index: int) -> str:
    """The gateway's downstream interface."""
    return f"down{index}"


def host_interface(index: int) -> str:
    """The host's interface on the LAN behind it."""
    return f"host{index}"


@dataclass(frozen=True)
class EngineTopology:
    """The namespaces, named after `prefix`; a context manager that deletes them on the way out.

    Attributes:
        prefix: start of the namespaces' names.
        downstreams: downstream interfaces of the gateway.
        uplink_mtu: octets; smaller than an outer packet makes outer fragments.
        downstream_mtu: octets.
        offloads: False makes the wire downstream show every packet as it would leave a plain network card: segmented,
            with every checksum filled.
        merging: let the gateway's uplink merge datagrams (GRO), as network cards do and veth does not by itself.
        redirectable: let downstream links take frames that XDP redirects to them: veth does when its far end has GRO.
    """

    prefix: str
    downstreams: int = 1
    uplink_mtu: int = 1500
    downstream_mtu: int = 1500
    offloads: bool = False
    merging: bool = True
    redirectable: bool = False

    @property
    def relay(self) -> str:
        """Where tunnels come from."""
        return f"{self.prefix}-relay"

    @property
    def gateway(self) -> str:
        """Where the engine runs."""
        return f"{self.prefix}-gateway"

    @property
    def host(self) -> str:
        """Where packets are received."""
        return f"{self.prefix}-host"

    def __enter__(self) -> Self:
        """Make it."""
        self.delete()
        try:
            for name in (self.relay, self.gateway, self.host):
                run("ip", "netns", "add", name)
                ip_lines(name, "link set lo up")
                with inside(name):
                    set_sysctl("net/ipv4/conf/all/rp_filter", "0")
                    for scope in ("all", "default"):
                        set_sysctl(f"net/ipv6/conf/{scope}/accept_dad", "0")
            self._connect_uplink()
            for index in range(self.downstreams):
                self.connect_downstream(index)
        except BaseException:
            self.delete()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Delete it."""
        self.delete()

    def delete(self) -> None:
        """Delete the namespaces."""
        for name in (self.relay, self.gateway, self.host):
            if Path("/run/netns", name).exists():
                run("ip", "netns", "delete", name)

    def connect_downstream(self, index: int) -> None:
        """Make a downstream link; after `disconnect_downstream`, one of the same names and another interface index."""
        near, far = downstream(index), host_interface(index)
        self._connect((self.gateway, near), (self.host, far), self.downstream_mtu)
        ip_lines(self.gateway, *_configure(near, f"10.82.{index}.1/24", f"fd82:{index:x}::1/64"))
        if not self.offloads:
            with inside(self.gateway):
                set_offload(near, _SET_TX_CHECKSUM, enabled=False)
        ip_lines(self.host, *_configure(far, f"10.82.{index}.2/24", f"fd82:{index:x}::2/64"))
        if self.redirectable:
            with inside(self.host):
                set_offload(far, _SET_GRO, enabled=True)

    def disconnect_downstream(self, index: int) -> None:
        """Delete a downstream link."""
        with inside(self.gateway):
            run("ip", "link", "delete", downstream(index))

    def _connect_uplink(self) -> None:
        self._connect((self.relay, UPLINK_AT_RELAY), (self.gateway, UPLINK_AT_GATEWAY), self.uplink_mtu)
        lines = _configure(UPLINK_AT_RELAY, f"{RELAY_IPV4}/24", f"{RELAY_IPV6}/64")
        ip_lines(self.relay, *lines, f"route add 224.0.0.0/4 dev {UPLINK_AT_RELAY}")
        with inside(self.relay):
            # With segmentation offload on, veth hands datagrams over in a way that merging never sees.
            set_offload(UPLINK_AT_RELAY, _SET_TSO, enabled=False)
        lines = _configure(UPLINK_AT_GATEWAY, f"{GATEWAY_IPV4}/24", f"{GATEWAY_IPV6}/64")
        ip_lines(self.gateway, *lines, f"route add default via {RELAY_IPV4}")
        with inside(self.gateway):
            set_offload(UPLINK_AT_GATEWAY, _SET_GRO, enabled=self.merging)

    def _connect(self, one: tuple[str, str], other: tuple[str, str], mtu: int) -> None:
        run(
            *("ip", "link", "add", one[1], "mtu", str(mtu), "netns", one[0], "type", "veth"),
            *("peer", "name", other[1], "mtu", str(mtu), "netns", other[0]),
        )


def _configure(interface: str, ipv4: str, ipv6: str) -> list[str]:
    return [
        f"address add {ipv4} dev {interface}",
        f"address add {ipv6} dev {interface} nodad",
        f"link set {interface} up",
    ]


def set_sysctl(path: str, value: str) -> None:
    """Set a kernel setting of this namespace; settings this kernel has not are passed over."""
    with suppress(FileNotFoundError):
        Path("/proc/sys", path).write_text(value, encoding="ascii")


def set_offload(interface: str, command: int, *, enabled: bool) -> None:
    """Switch an offload of an interface of this namespace, as ethtool -K does."""
    value = bytearray(struct.pack("=II", command, enabled))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        holder = (ctypes.c_char * len(value)).from_buffer(value)
        request = struct.pack("16sP", interface.encode(), ctypes.addressof(holder))
        fcntl.ioctl(control, _SIOCETHTOOL, request.ljust(40, b"\0"))

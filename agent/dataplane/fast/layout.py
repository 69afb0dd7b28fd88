"""Keys and values of the gateway's maps, as `agent/dataplane/bpf/layout.h` lays them out."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from agent.dataplane.engine import Refusal
from agent.protocol.channels import Address, Channel, Endpoint

MOST_CHANNELS: Final = 65_536
"""Channels of each family."""

MOST_TUNNELS: Final = 1024
MOST_SETS: Final = 1024
"""Different combinations of outgoing interfaces."""

MOST_INTERFACES: Final = 32
"""Outgoing interfaces of one channel."""

MOST_PORTS: Final = 256

TRAFFIC: Final = struct.Struct("=QQ")
"""struct traffic: packets, octets."""

EVENT: Final = struct.Struct("=IIII")
"""struct event: kind, channel slot, tunnel slot, reserved."""

FIRST_PACKET: Final = 1
"""Kind of the event a channel's first packet makes."""

REFUSALS: Final = (
    Refusal.NOT_SUBSCRIBED,
    Refusal.WRONG_RELAY,
    Refusal.BAD_AMT_HEADER,
    Refusal.BAD_INNER_HEADER,
    Refusal.LINK_LOCAL_GROUP,
    Refusal.SPOOFED_LOCAL_SOURCE,
    Refusal.TTL_EXPIRED,
    Refusal.CONGESTION_LOST,
    Refusal.OUTPUT_ERROR,
)
"""Reasons of refusal by their index in the map `refused`."""

EXCEPTIONS: Final = (
    "outer_fragment",
    "outer_options",
    "inner_options",
    "too_big",
    "aggregate",
    "userspace_channel",
    "new_source",
    "no_room",
)
"""Why data of a tunnel was left to the socket, by index in the map `exceptions`."""

ANY_STATION: Final = bytes(6)
"""In place of the MAC address of an uplink."""

_tunnel_value = struct.Struct("=16s2sBxII6s2x")
_channel_value = struct.Struct("=IIIIHBBB3x")
_port_value = struct.Struct("=6s2x")
_settings_value = struct.Struct("=II6s6s6s6s")


class Plane(IntEnum):
    """Who forwards a channel."""

    USERSPACE = 0
    XDP = 1
    XDP_MFC = 2
    TC = 3


@dataclass(frozen=True, slots=True)
class ChannelEntry:
    """What the programs know of one (S,G).

    Attributes:
        slot: its counters.
        tunnel: slot of the only tunnel it comes through.
        set: its combination of outgoing interfaces.
        single: index of the only outgoing interface, 0 when there are more.
        limit: longest inner packet in octets; longer ones go to the socket.
        plane: who forwards it.
        announce: whether the next packet is told.
        refuse: why every packet is refused, None when it is not.
    """

    slot: int
    tunnel: int
    set: int = 0
    single: int = 0
    limit: int = 0
    plane: Plane = Plane.USERSPACE
    announce: bool = False
    refuse: Refusal | None = None

    def pack(self) -> bytes:
        """The value of struct channel."""
        refuse = 0 if self.refuse is None else 1 + REFUSALS.index(self.refuse)
        return _channel_value.pack(
            self.slot, self.tunnel, self.set, self.single, self.limit, self.plane, self.announce, refuse
        )


def channel_key(channel: Channel) -> bytes:
    """Source and group: struct channel4_key or channel6_key."""
    assert channel.source is not None
    return channel.source.packed + channel.group.packed


def tunnel_key(local: Endpoint) -> bytes:
    """Our own address and port: struct tunnel4_key or tunnel6_key."""
    return local.address.packed + local.port.to_bytes(2, "big") + bytes(2)


def tunnel_value(
    relay: Endpoint, slot: int, *, strict_port: bool, vlans: tuple[int, ...] = (), station: bytes = ANY_STATION
) -> bytes:
    """What `struct tunnel` holds.

    Args:
        relay: address and port data must come from.
        slot: its counters.
        strict_port: refuse data from another port of the relay.
        vlans: identifiers of the tags its frames carry on the interface the programs are attached to, the outermost
            first, two at most: the uplink may be a VLAN of that interface.
        station: MAC address its frames are for; those for other stations are none of ours.
    """
    outermost, inner = (*vlans, 0, 0)[:2]
    tags = outermost << 16 | inner
    return _tunnel_value.pack(relay.address.packed, relay.port.to_bytes(2, "big"), strict_port, tags, slot, station)


def group_key(group: Address) -> bytes:
    """Key of groups4 and groups6."""
    return group.packed


def index_key(index: int) -> bytes:
    """Key of everything numbered."""
    return index.to_bytes(4, _HOST)


def devmap_value(interface: int, program: int) -> bytes:
    """What `struct bpf_devmap_val` holds: an interface, and the descriptor of the program run on the way out."""
    return struct.pack("=Ii", interface, program)


def interface_list(indexes: tuple[int, ...]) -> bytes:
    """What `struct interface_list` holds."""
    return struct.pack(f"=I{MOST_INTERFACES}I", len(indexes), *indexes, *(0,) * (MOST_INTERFACES - len(indexes)))


def port_value(address: bytes) -> bytes:
    """What `struct port` holds: the interface's own MAC address."""
    return _port_value.pack(address)


def settings_value(
    tunnel_interface: int, receive_cores: int, plain: bytes, keep_whole: bytes, secret: bytes, secret_keep_whole: bytes
) -> bytes:
    """What `struct settings` holds."""
    return _settings_value.pack(tunnel_interface, receive_cores, plain, keep_whole, secret, secret_keep_whole)


_HOST: Final = "little" if struct.pack("=H", 1) == b"\x01\x00" else "big"

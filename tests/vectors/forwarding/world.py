"""The gateway that the vectors of forwarding are sent to: its addresses, tunnels, channels and interfaces.

Every vector of one outer family and one kind of link meets the same gateway, so that an engine is set up four times for
hundreds of vectors. All addresses are for documentation, private, or from the tests' own networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RELAY: Final = {4: "10.81.0.1", 6: "fd81::1"}
GATEWAY: Final = {4: "10.81.0.2", 6: "fd81::2"}
STRANGER: Final = {4: "10.81.0.3", 6: "fd81::3"}
"""A host beside the relay, which is no relay of ours."""

RELAY_PORT: Final = 2268
OTHER_PORT: Final = 2270

RELAY_MAC: Final = bytes.fromhex("020000810001")
UPLINK_MAC: Final = bytes.fromhex("020000810002")

TUNNELS: Final = {"relay": 52268, "lax": 52269}
"""Our ports. Data must come from the relay's port, but through `lax` it may come from any port of the relay."""

INTERFACES: Final = ("down0", "down1", "down2", "down3")
UPLINK_MTU: Final = {"ordinary": 1500, "jumbo": 9100}
MTU: Final = {
    "ordinary": {"down0": 1500, "down1": 1500, "down2": 1500, "down3": 1280},
    "jumbo": dict.fromkeys(INTERFACES, 9100),
}
"""Of the outgoing interfaces, by kind of link."""

LOCAL_NETWORKS: Final = ("10.82.0.0/16", "fd82::/16")

SOURCE: Final = {4: "198.51.100.10", 6: "2001:db8:51::10"}
LOCAL_SOURCE: Final = {4: "10.82.0.9", 6: "fd82::9"}


@dataclass(frozen=True, slots=True)
class Subscription:
    """A channel the gateway forwards."""

    source: str
    group: str
    interfaces: tuple[str, ...] = ("down0",)
    tunnel: str = "relay"


CHANNELS: Final = {
    "one": {4: Subscription(SOURCE[4], "232.1.1.1"), 6: Subscription(SOURCE[6], "ff3e::8000:1")},
    "two": {
        4: Subscription(SOURCE[4], "232.1.1.2", ("down0", "down1")),
        6: Subscription(SOURCE[6], "ff3e::8000:2", ("down0", "down1")),
    },
    "three": {
        4: Subscription(SOURCE[4], "232.1.1.3", ("down0", "down1", "down2")),
        6: Subscription(SOURCE[6], "ff3e::8000:3", ("down0", "down1", "down2")),
    },
    "narrow": {
        4: Subscription(SOURCE[4], "232.1.1.4", ("down0", "down3")),
        6: Subscription(SOURCE[6], "ff3e::8000:4", ("down0", "down3")),
    },
    "lax": {
        4: Subscription(SOURCE[4], "232.1.1.5", tunnel="lax"),
        6: Subscription(SOURCE[6], "ff3e::8000:5", tunnel="lax"),
    },
    "local": {4: Subscription(LOCAL_SOURCE[4], "232.1.1.1"), 6: Subscription(LOCAL_SOURCE[6], "ff3e::8000:1")},
    "mapped": {4: Subscription(SOURCE[4], "239.129.2.3"), 6: Subscription(SOURCE[6], "ff3e:30:2001:db8::89ab:cdef")},
    "highest": {4: Subscription(SOURCE[4], "239.255.255.255"), 6: Subscription(SOURCE[6], "ff0f::ffff:ffff")},
    "lowest": {4: Subscription(SOURCE[4], "224.0.1.0"), 6: Subscription(SOURCE[6], "ff03::1")},
    "site": {4: Subscription(SOURCE[4], "239.192.0.1"), 6: Subscription(SOURCE[6], "ff05::1:3")},
    "sentinel": {
        4: Subscription(SOURCE[4], "232.9.9.9", INTERFACES),
        6: Subscription(SOURCE[6], "ff3e::8000:9", INTERFACES),
    },
}
"""By name and inner family; `sentinel` is the harness's own, with one more like it for the tunnel `lax`."""

LAX_SENTINEL: Final = {
    4: Subscription(SOURCE[4], "232.9.9.8", INTERFACES, "lax"),
    6: Subscription(SOURCE[6], "ff3e::8000:8", INTERFACES, "lax"),
}

ACCEPTED_GROUP: Final = {4: "239.1.1.1", 6: "ff1e::1:1"}
"""Any-source interest; the gateway sets a new source's channel to down0 at once."""

PENDING_GROUP: Final = {4: "239.1.1.2", 6: "ff1e::1:2"}
"""Any-source interest; the gateway takes its time."""


def port_mac(interface: str) -> bytes:
    """MAC address of an outgoing interface."""
    return bytes((2, 0, 0, 0x82, 0, int(interface[-1])))


def settings() -> list[str]:
    """The same as text, for the head of a file of vectors."""
    lines = [
        f"uplink {UPLINK_MAC.hex(':')} {GATEWAY[4]} {GATEWAY[6]} mtu ordinary 1500, jumbo 9100",
        f"relay {RELAY_MAC.hex(':')} {RELAY[4]} {RELAY[6]} port {RELAY_PORT}",
        *(f"tunnel {name} our port {port}" for name, port in TUNNELS.items()),
        "tunnel lax takes data from any port of the relay",
        *(f"interface {name} {port_mac(name).hex(':')} mtu {MTU['ordinary'][name]}, jumbo 9100" for name in INTERFACES),
        f"local networks {' '.join(LOCAL_NETWORKS)}",
    ]
    for name, families in CHANNELS.items():
        for each in families.values():
            there = " ".join(each.interfaces)
            lines.append(f"channel {name} ({each.source},{each.group}) from {each.tunnel} to {there}")
    for family in (4, 6):
        lines.append(f"any source of {ACCEPTED_GROUP[family]} from relay is set to down0 when it is told")
        lines.append(f"any source of {PENDING_GROUP[family]} from relay is told, and not set in time")
    return lines

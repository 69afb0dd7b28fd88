"""What the operational RPCs show: the population as the committed configuration lets it be.

Rendered replies are kept until the population ticks or something is committed, since many pollers ask for the same.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

from lxml import etree

from lab.sim.mx80.device import VERSION, Mx80
from lab.sim.mx80.selection import active, all_active
from lab.sim.population import SimTunnel, Snapshot

SPACE: Final = f'xmlns="http://xml.juniper.net/junos/{VERSION[:6]}/junos-routing"'
_NOT_RUNNING: Final = b"<output>instance is not running</output>"
_FIRST_UNIT: Final = 1120256
Pair = tuple[ipaddress.IPv4Address | None, ipaddress.IPv4Address]
"""Source (None: any) and group."""


class View:
    """Population and configuration brought together.

    Attributes:
        instance: `configuration`, or a routing instance in it, whose protocols count.
        configuration: the committed one as a whole.
        snapshot: the population; without tunnels and channels while the relay is not configured to run.
        relay: `protocols amt relay`, or None.
    """

    def __init__(self, device: Mx80, instance: etree._Element) -> None:
        self.instance = instance
        self.configuration = device.committed
        self.relay = active(instance, "protocols/amt/relay")
        everything = device.population.snapshot()
        self.devices = tunnel_devices(device.committed, instance)
        runs = self.relay is not None and bool(self.devices)
        self.snapshot = everything if runs else Snapshot(everything.generation, neighbors=everything.neighbors)
        self.pim_interfaces = {one.findtext("name", "") for one in all_active(instance, "protocols/pim/interface")}
        self.igmp_interfaces = [one.findtext("name", "") for one in all_active(instance, "protocols/igmp/interface")]

    def interface(self, index: int) -> str:
        """Logical interface of a tunnel by its place in the population."""
        return f"{self.devices[index % len(self.devices)]}.{_FIRST_UNIT + index}"

    @property
    def upstream(self) -> str:
        """Where multicast comes from."""
        real = sorted(name for name in self.pim_interfaces if name not in {"all", "lo0.0", "fxp0.0"})
        return real[0] if real else "xe-0/0/0.0"

    def runs_pim_on(self, interface: str) -> bool:
        """Whether PIM is configured there."""
        return bool(self.pim_interfaces & {interface, "all"})


def tunnel_devices(tree: etree._Element, instance: etree._Element) -> list[str]:
    """`ud-` interfaces that AMT may use: those it is told, as far as tunnel services make them, or all there are."""
    there = [
        f"ud-{fpc.findtext('name')}/{pic.findtext('name')}/0"
        for fpc in all_active(tree, "chassis/fpc")
        for pic in all_active(fpc, "pic")
        if active(pic, "tunnel-services") is not None
    ]
    told = [str(one.text) for one in all_active(instance, "protocols/amt/relay/tunnel-devices")]
    return [name for name in told if name.rpartition("/")[0] in {one.rpartition("/")[0] for one in there}] or (
        [] if told else there
    )


def routing_instance(tree: etree._Element, name: str) -> etree._Element | None:
    """The configuration that holds the protocols of an instance; `master` is the default one."""
    if name == "master":
        return tree
    found = (one for one in all_active(tree, "routing-instances/instance") if one.findtext("name") == name)
    return next(found, None)


def anycast_address(tree: etree._Element, prefix: str | None) -> str | None:
    """The address of a loopback in the prefix, else the prefix's own."""
    if prefix is None:
        return None
    given = ipaddress.IPv4Interface(prefix)
    for address in all_active(tree, "interfaces/interface/unit/family/inet/address/name"):
        host = ipaddress.IPv4Interface(address.text or "0.0.0.0").ip
        if host in given.network:
            return str(host)
    return str(given.ip)


def membership(pair: Pair, tunnel: SimTunnel) -> str:
    """One group of a tunnel, as AMT and IGMP show it."""
    source, group = pair
    mode = "Include" if source is not None else "Exclude"
    timeout = tunnel.expires_seconds if source is not None else 0
    return (
        f"<mgm-group>\n<multicast-group-address>{group}</multicast-group-address>\n"
        f"<mgm-group-mode-type>{mode}</mgm-group-mode-type>\n"
        f"<multicast-source-address>{source or '0.0.0.0'}</multicast-source-address>\n"
        f"<last-address>{tunnel.joined_by}</last-address>\n<mgm-timeout>{0 if source else tunnel.expires_seconds}"
        f"</mgm-timeout>\n<mgm-type>Dynamic</mgm-type>\n<mgm-source-timeout>{timeout}</mgm-source-timeout>\n"
        "</mgm-group>\n"
    )


def clock(seconds: int) -> str:
    """As Junos prints an age: `3d 04:05:06`, `04:05:06`."""
    days, rest = divmod(seconds, 86400)
    time = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}d {time}" if days else time


def kept(device: Mx80, request: etree._Element, key: str, render: Callable[[View], str]) -> bytes:
    """The reply to `request`, made by `render` unless one of the same `key` is still true."""
    name = request.findtext("instance", "master").strip()
    instance = routing_instance(device.committed, name)
    if instance is None:
        return _NOT_RUNNING
    key = f"{name} {key}"
    state = (device.population.snapshot().generation, device.history.revision)
    before = device.reply_cache.get(key)
    if before is not None and before[0] == state:
        return before[1]
    made = render(View(device, instance)).encode()
    device.reply_cache[key] = (state, made)
    return made

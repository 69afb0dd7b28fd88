"""What the configured interfaces make of the population: which tunnel interface is the relay, what is up."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface

from lab.sim.iosxe.configuration import Line
from lab.sim.iosxe.device import IosDevice
from lab.sim.population import SimChannel, SimNeighbor, SimTunnel, Snapshot


@dataclass(frozen=True, slots=True)
class Interface:
    """One configured interface."""

    name: str
    address: IPv4Interface | None
    enabled: bool
    pim_mode: str | None
    """`sparse-mode`, `passive` …; None: no PIM."""
    lines: tuple[str, ...]

    @property
    def short_name(self) -> str:
        """Two letters and the number, as narrow columns show it."""
        digits = self.name.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-")
        return self.name[:2] + digits

    def value(self, beginning: str) -> str | None:
        """What follows `beginning` on its line."""
        found = [line[len(beginning) + 1 :] for line in self.lines if line.startswith(beginning + " ")]
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class RelayTunnel:
    """The multipoint tunnel interface of the relay."""

    interface: Interface
    source_name: str
    source: str
    up: bool


def interface(line: Line) -> Interface:
    """The interface a section configures."""
    lines = tuple(child.text for child in line.children)
    address = next((text.split() for text in lines if text.startswith("ip address ") and len(text.split()) == 4), None)
    return Interface(
        name=line.text.split()[1],
        address=IPv4Interface(f"{address[2]}/{address[3]}") if address else None,
        enabled="shutdown" not in lines,
        pim_mode=next((text.split()[2] for text in lines if text in _PIM_MODES), None),
        lines=lines,
    )


_PIM_MODES = frozenset(f"ip pim {mode}" for mode in ("sparse-mode", "dense-mode", "sparse-dense-mode", "passive"))


def interfaces(device: IosDevice) -> list[Interface]:
    """All of them, as configured."""
    return [interface(line) for line in device.running.interfaces()]


def relay_tunnel(device: IosDevice) -> RelayTunnel | None:
    """The first interface that is an AMT relay; None when there is none."""
    every = {one.name: one for one in interfaces(device)}
    for candidate in every.values():
        if "amt relay traffic ip" in candidate.lines and "tunnel mode udp multipoint" in candidate.lines:
            named = candidate.value("tunnel source") or ""
            below = every.get(named)
            source = str(below.address.ip) if below and below.address else ("" if below else named)
            up = candidate.enabled and bool(source) and "Loop" not in source and (below is None or below.enabled)
            return RelayTunnel(candidate, named, source, up)
    return None


@dataclass(frozen=True, slots=True)
class View:
    """What show commands and NETCONF tell at one moment."""

    snapshot: Snapshot
    relay: RelayTunnel | None
    core: Interface | None
    """The interface towards the PIM neighbours, when it runs PIM."""
    members: Interface | None
    """Where the population's reports come in: the relay's tunnel, or without AMT an access interface; None: nowhere."""

    @property
    def tunnels(self) -> tuple[SimTunnel, ...]:
        """Who reports; none while the interface for it is not configured or down."""
        return self.snapshot.tunnels if self.members is not None else ()

    @property
    def channels(self) -> tuple[SimChannel, ...]:
        """(S,G) in the routing table."""
        return self.snapshot.channels if self.members is not None else ()

    @property
    def neighbors(self) -> tuple[SimNeighbor, ...]:
        """PIM neighbours on interfaces that run PIM."""
        return self.snapshot.neighbors if self.core is not None else ()

    def gateways(self) -> dict[tuple[str, str], list[SimTunnel]]:
        """(source or `*`, group) -> who gets it."""
        found: dict[tuple[str, str], list[SimTunnel]] = {}
        for tunnel in self.tunnels:
            for source, group in tunnel.channels:
                found.setdefault((str(source or "*"), str(group)), []).append(tunnel)
        return found


def view(device: IosDevice) -> View:
    """What `device` has to tell now."""
    every = {one.name: one for one in interfaces(device)}
    relay = relay_tunnel(device)
    access = every.get(device.profile.access_interface or "")
    if device.profile.access_interface is None:
        members = relay.interface if relay is not None and relay.up else None
    else:
        members = _with_pim(access)
    return View(device.population.snapshot(), relay, _with_pim(every.get(device.profile.core_interface)), members)


def _with_pim(one: Interface | None) -> Interface | None:
    return one if one is not None and one.enabled and one.pim_mode else None


def duration(seconds: int) -> str:
    """A time span as IOS prints it: `00:10:05`, `1d02h`, `3w4d`."""
    if seconds < 86_400:
        return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    days, hours = seconds // 86_400, seconds // 3600 % 24
    if days < 7:
        return f"{days}d{hours:02}h"
    return f"{days // 7}w{days % 7}d"

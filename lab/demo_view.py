"""What the demonstration shows: tunnels and channels as the agents tell them over REST, loss as receivers count it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from lab.demo_domain import RouterChannel


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at everything.

    Attributes:
        at: seconds of CLOCK_MONOTONIC.
        relay_tunnels: the relay's tunnels.
        border_tunnels: the border agent's tunnels.
        channels: the border agent's channels.
        counted: label of a measuring receiver to its figures.
        before: the look before this one, for rates.
        neighbors: multicast routers the border agent sees.
        domain: what the domain's routers say of each channel.
    """

    at: float
    relay_tunnels: list[dict[str, Any]]
    border_tunnels: list[dict[str, Any]]
    channels: list[dict[str, Any]]
    counted: dict[str, dict[str, Any]]
    before: Snapshot | None = None
    neighbors: list[dict[str, Any]] = field(default_factory=list)
    domain: list[RouterChannel] = field(default_factory=list)

    def packets_per_second(self, channel: dict[str, Any]) -> float:
        """Rate of a channel since the look before."""
        return self._rate(channel, "packets")

    def megabits_per_second(self, channel: dict[str, Any]) -> float:
        """Rate of a channel's IP packets since the look before."""
        return self._rate(channel, "bytes") * 8 / 1e6

    def _rate(self, channel: dict[str, Any], counter: str) -> float:
        if self.before is None or self.at <= self.before.at:
            return 0.0
        name = (channel["source"], channel["group"])
        for earlier in self.before.channels:
            if (earlier["source"], earlier["group"]) == name:
                return float(channel[counter] - earlier[counter]) / (self.at - self.before.at)
        return float(channel[counter]) / (self.at - self.before.at)  # it began since


def render(snapshot: Snapshot) -> RenderableType:
    """The live table."""
    tables = [_tunnels(snapshot), _channels(snapshot)]
    if snapshot.domain or snapshot.neighbors:
        tables += [_neighbors(snapshot), _domain(snapshot)]
    return Group(*tables, _receivers(snapshot), "Ctrl-C ends the demonstration")


def _tunnels(snapshot: Snapshot) -> Table:
    table = Table(title="Tunnels", title_justify="left")
    for heading in ("seen by", "state", "gateway", "relay", "channels", "packets"):
        table.add_column(heading, justify="right" if heading in {"channels", "packets"} else "left")
    for side, tunnels in (("border", snapshot.border_tunnels), ("relay", snapshot.relay_tunnels)):
        for tunnel in tunnels:
            gateway = _endpoint(tunnel["gateway_address"], tunnel["gateway_port"])
            if gateway == "-":
                gateway = _endpoint(tunnel["local_address"], tunnel["local_port"])
            relay = _endpoint(tunnel["relay_address"], tunnel["relay_port"])
            table.add_row(side, tunnel["state"], gateway, relay, str(tunnel["channels"]), str(tunnel["packets"]))
    return table


def _channels(snapshot: Snapshot) -> Table:
    table = Table(title="Channels carried by the border agent", title_justify="left")
    for heading in ("source", "group", "packets/s", "Mbit/s", "to", "by", "first packet after"):
        table.add_column(heading, justify="right" if heading.endswith(("/s", "after")) else "left")
    for channel in snapshot.channels:
        latency = channel["join_latency"]
        table.add_row(
            channel["source"] or "*",
            channel["group"],
            f"{snapshot.packets_per_second(channel):.0f}",
            f"{snapshot.megabits_per_second(channel):.2f}",
            " ".join(channel["outgoing_interfaces"]),
            channel.get("plane") or "-",
            "-" if latency is None else f"{latency * 1000:.1f} ms",
        )
    return table


def _neighbors(snapshot: Snapshot) -> Table:
    table = Table(title="Multicast routers the border sees", title_justify="left")
    for heading in ("interface", "address", "as", "expires in"):
        table.add_column(heading, justify="right" if heading == "expires in" else "left")
    for neighbor in snapshot.neighbors:
        expires = neighbor["expires_in"]
        table.add_row(
            neighbor["interface"], neighbor["address"], neighbor["kind"], "-" if expires is None else f"{expires:.0f} s"
        )
    return table


def _domain(snapshot: Snapshot) -> Table:
    table = Table(title="What the domain's routers (FRR) say", title_justify="left")
    for heading in ("router", "source", "group", "PIM Join", "in", "out"):
        table.add_column(heading)
    for channel in snapshot.domain:
        out = " ".join(channel.outgoing)
        table.add_row(channel.router, channel.source, channel.group, channel.state, channel.incoming, out)
    return table


def _receivers(snapshot: Snapshot) -> Table:
    table = Table(title="Counted by the receivers", title_justify="left")
    for heading in ("stream", "received", "lost", "reordered", "continuity errors", "first packet after"):
        table.add_column(heading, justify="left" if heading == "stream" else "right")
    for label, figures in snapshot.counted.items():
        if not figures.get("received"):
            table.add_row(label, "0")
            continue
        counts = [str(figures[name]) for name in ("received", "lost", "reordered", "continuity_errors")]
        table.add_row(label, *counts, f"{figures['join_seconds'] * 1000:.1f} ms")
    return table


def _endpoint(address: str | None, port: int | None) -> str:
    if address is None:
        return "-"
    host = f"[{address}]" if ":" in address else address
    return host if port is None else f"{host}:{port}"


def summary(snapshot: Snapshot) -> list[str]:
    """The same in a line a channel, for a log."""
    tunnels = sum(1 for tunnel in snapshot.border_tunnels if tunnel["state"] == "established")
    lines = [f"tunnels {tunnels}, channels {len(snapshot.channels)}"]
    for channel in snapshot.channels:
        rate = (
            f"{snapshot.packets_per_second(channel):.0f} packets/s, {snapshot.megabits_per_second(channel):.2f} Mbit/s"
        )
        by = f" by {plane}" if (plane := channel.get("plane")) else ""
        lines.append(f"  ({channel['source'] or '*'},{channel['group']}): {rate}{by}")
    pim = [neighbor["address"] for neighbor in snapshot.neighbors if neighbor["kind"] == "pim"]
    if pim:
        lines.append(f"  PIM neighbours of the border: {' '.join(pim)}")
    lines += [
        f"  {channel.router}: ({channel.source},{channel.group}) {channel.state}, {channel.incoming} to "
        + " ".join(channel.outgoing)
        for channel in snapshot.domain
    ]
    for label, figures in snapshot.counted.items():
        if figures.get("received"):
            lines.append(f"  {label}: received {figures['received']}, lost {figures['lost']}")
    return lines

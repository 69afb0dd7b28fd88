"""Observed objects as rows of their tables, and the rates two polls give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from relaymgr.domain.ad_matching import AdMatcher
from relaymgr.domain.observed import Channel, PimNeighbor, Tunnel
from relaymgr.store.reconciling import Key, Kind, Values
from relaymgr.store.tables import ChannelRow, PimNeighborRow, TunnelRow

_LARGEST = 2**63 - 1


def tunnel_rows(tunnels: Sequence[Tunnel], ads: AdMatcher) -> dict[Key, Values]:
    """Rows by gateway address and port; of a gateway told twice the last."""
    return {
        (str(tunnel.gateway_address), tunnel.gateway_port): (
            ads.match(tunnel.gateway_address),
            tunnel.state.value,
            _text(tunnel.vendor_state),
            _text(tunnel.interface),
            _address(tunnel.local_address),
            _whole(tunnel.inactivity_timeout_seconds),
            _whole(tunnel.uptime_seconds),
            _whole(tunnel.channels),
            _whole(tunnel.packets),
            _whole(tunnel.bytes),
            _whole(tunnel.requests),
            _whole(tunnel.updates),
            None,
        )
        for tunnel in tunnels
    }


def channel_rows(channels: Sequence[Channel]) -> dict[Key, Values]:
    """Rows by group and source; of a channel told twice the last."""
    return {
        (str(channel.group), _address(channel.source)): (
            _text(channel.upstream_interface),
            [_text(name) for name in channel.downstream_interfaces],
            None if channel.gateways is None else len(channel.gateways),
            _whole(channel.packets),
            _whole(channel.bytes),
            _measure(channel.packets_per_second),
            _measure(channel.kilobits_per_second),
            _text(channel.state),
            _whole(channel.uptime_seconds),
        )
        for channel in channels
    }


def neighbor_rows(neighbors: Sequence[PimNeighbor]) -> dict[Key, Values]:
    """Rows by address and interface."""
    return {
        (str(neighbor.address), _text(neighbor.interface)): (
            _whole(neighbor.uptime_seconds),
            _whole(neighbor.hold_time_seconds),
            _whole(neighbor.priority),
            _whole(neighbor.version),
        )
        for neighbor in neighbors
    }


_TUNNEL = (
    "ad_id",
    "state",
    "vendor_state",
    "interface",
    "local_address",
    "inactivity_timeout_seconds",
    "uptime_seconds",
    "channels",
    "packets",
    "bytes",
    "requests",
    "updates",
    "packets_per_second",
)
_UPTIME, _PACKETS = _TUNNEL.index("uptime_seconds"), _TUNNEL.index("packets")
_CHANNEL = (
    "upstream_interface",
    "downstream_interfaces",
    "gateways",
    "packets",
    "bytes",
    "packets_per_second",
    "kilobits_per_second",
    "state",
    "uptime_seconds",
)
_CHANNEL_PACKETS, _CHANNEL_BYTES, _CHANNEL_RATE, _CHANNEL_KILOBITS, _CHANNEL_UPTIME = (
    _CHANNEL.index(name) for name in ("packets", "bytes", "packets_per_second", "kilobits_per_second", "uptime_seconds")
)


def rate(before: int | None, after: int | None, seconds: float) -> float | None:
    """Per second; None when one is unknown, no time passed, or the counter went back (it was cleared, or wrapped)."""
    if before is None or after is None or seconds <= 0 or after < before:
        return None
    return round((after - before) / seconds, 3)


def _complete_tunnel(old: Values | None, new: Values, seconds: float) -> Values:
    if old is None or _restarted(old[_UPTIME], new[_UPTIME]):
        return new
    return (*new[:-1], rate(old[_PACKETS], new[_PACKETS], seconds))


def _complete_channel(old: Values | None, new: Values, seconds: float) -> Values:
    if old is None or _restarted(old[_CHANNEL_UPTIME], new[_CHANNEL_UPTIME]):
        return new
    values = list(new)
    if values[_CHANNEL_RATE] is None:
        values[_CHANNEL_RATE] = rate(old[_CHANNEL_PACKETS], new[_CHANNEL_PACKETS], seconds)
    if values[_CHANNEL_KILOBITS] is None:
        per_second = rate(old[_CHANNEL_BYTES], new[_CHANNEL_BYTES], seconds)
        values[_CHANNEL_KILOBITS] = None if per_second is None else round(per_second * 8 / 1000, 3)
    return tuple(values)


def _as_seen(_old: Values | None, new: Values, _seconds: float) -> Values:
    return new


TUNNELS = Kind(TunnelRow, ("gateway_address", "gateway_port"), _TUNNEL, _complete_tunnel, first_seen=True)
CHANNELS = Kind(ChannelRow, ("group_address", "source_address"), _CHANNEL, _complete_channel)
NEIGHBORS = Kind(
    PimNeighborRow,
    ("address", "interface"),
    ("uptime_seconds", "hold_time_seconds", "priority", "pim_version"),
    _as_seen,
)


def _restarted(before: int | None, after: int | None) -> bool:
    """Whether it is another tunnel or channel of the same name."""
    return before is not None and after is not None and after < before


def _address(address: IPv4Address | IPv6Address | None) -> str | None:
    return None if address is None else str(address)


def _text(text: str | None) -> str | None:
    """PostgreSQL takes no NUL, and devices send anything."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if text is not None and "\0" in text else text


def _whole(number: int | None) -> int | None:
    """A number the column can hold; one it cannot is unknown rather than wrong."""
    return number if number is None or -_LARGEST <= number <= _LARGEST else None


def _measure(number: float | None) -> float | None:
    """Not a number is unknown."""
    return number if number is None or math.isfinite(number) else None

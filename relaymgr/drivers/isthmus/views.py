"""What the agent's API answers, as the neutral model. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final

from relaymgr.domain.observed import Address, Channel, Facts, Statistics, Tunnel, TunnelState

Json = dict[str, Any]

_STATES: Final = {
    "established": TunnelState.ACTIVE,
    "discovering": TunnelState.PENDING,
    "requesting": TunnelState.PENDING,
    "idle": TunnelState.PENDING,
    "held_down": TunnelState.DOWN,
    "closed": TunnelState.DOWN,
}
_COUNTERS: Final = {
    "received_relay_discovery": "discoveries_received",
    "sent_relay_advertisement": "advertisements_sent",
    "received_request": "requests_received",
    "sent_membership_query": "queries_sent",
    "received_membership_update": "updates_received",
}
_ERRORS: Final = {
    "refused_bad_mac": "invalid_mac",
    "refused_bad_source": "invalid_address",
    "refused_not_for_a_relay": "unexpected_type",
    "refused_unknown_type": "unexpected_type",
    "refused_truncated": "incomplete_packets",
    "refused_malformed": "incomplete_messages",
    "refused_inner_truncated": "incomplete_messages",
    "refused_inner_malformed": "incomplete_messages",
    "refused_inner_bad_checksum": "invalid_checksum",
    "refused_unknown_tunnel": "no_gateway",
}


def facts(status: Json) -> Facts:
    """From GET /v1/status."""
    return Facts(
        hostname=str(status["name"]),
        model="amt-agent",
        version=str(status["version"]),
        uptime_seconds=int(status["uptime"]),
    )


def tunnel(row: Json, now: datetime) -> Tunnel | None:
    """From one row of GET /v1/tunnels; None for a row without a gateway. `now` is the agent's clock."""
    if row.get("gateway_address") is None or row.get("gateway_port") is None:
        return None
    local = row.get("local_address")
    expires = row.get("expires_in")
    return Tunnel(
        gateway_address=ip_address(row["gateway_address"]),
        gateway_port=int(row["gateway_port"]),
        state=_STATES.get(str(row["state"]), TunnelState.UNKNOWN),
        vendor_state=str(row["state"]),
        local_address=ip_address(local) if local else None,
        inactivity_timeout_seconds=None if expires is None else int(expires),
        uptime_seconds=_since(row.get("established_at"), now),
        channels=_number(row.get("channels")),
        packets=_number(row.get("packets")),
        bytes=_number(row.get("bytes")),
    )


def channel(row: Json, now: datetime) -> Channel:
    """From one row of GET /v1/channels; gateways only where the agent lists all of them."""
    listed = [str(name) for name in row.get("tunnels") or []]
    is_whole = int(row.get("tunnel_count") or 0) <= len(listed)
    incoming = row.get("incoming_interface")
    return Channel(
        group=ip_address(row["group"]),
        source=ip_address(row["source"]) if row.get("source") else None,
        upstream_interface=str(incoming) if incoming else None,
        downstream_interfaces=tuple(str(name) for name in row.get("outgoing_interfaces") or []),
        gateways=tuple(_endpoint(name) for name in listed) if is_whole else None,
        packets=_number(row.get("packets")),
        bytes=_number(row.get("bytes")),
        uptime_seconds=_since(row.get("since"), now),
    )


def statistics(status: Json, report: Json, channels: Iterable[Json] | None) -> Statistics:
    """From GET /v1/status and GET /v1/statistics; active streams from the rows of GET /v1/channels."""
    control = (report.get("control") or {}).get("relay") or {}
    counters: dict[str, int] = {}
    errors: dict[str, int] = {}
    for name, count in control.items():
        if name in _COUNTERS:
            counters[_COUNTERS[name]] = int(count)
        elif name.startswith("refused_"):
            neutral = _ERRORS.get(name, name.removeprefix("refused_"))
            errors[neutral] = errors.get(neutral, 0) + int(count)
        else:
            counters[name] = int(count)
    if status.get("draining") is not None:
        counters["draining"] = int(bool(status["draining"]))  # by hand, on the host: no configuration says it
    for name, count in (report.get("refused") or {}).items():
        errors[f"data_{name}"] = int(count)
    return Statistics(
        active_tunnels=_number((status.get("counts") or {}).get("tunnels")),
        active_streams=None if channels is None else sum(int(row.get("tunnel_count") or 0) for row in channels),
        counters=counters,
        errors=errors,
    )


def moment(text: str) -> datetime:
    """A time of the agent; RFC 3339 with a zone."""
    return datetime.fromisoformat(text)


def _since(text: str | None, now: datetime) -> int | None:
    return None if text is None else max(0, int((now - moment(text)).total_seconds()))


def _number(value: Any) -> int | None:  # noqa: ANN401 JSON
    return None if value is None else int(value)


def _endpoint(text: str) -> tuple[Address, int]:
    host, _, port = text.rpartition(":")
    return ip_address(host.strip("[]")), int(port)

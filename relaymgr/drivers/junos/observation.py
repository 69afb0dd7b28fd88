"""Operational replies of Junos to the neutral model; elements are found by local name, what is missing is None.

Names of elements are Juniper's YANG (junos-rpc of 23.1); the words of states are not in it and stand in `_STATES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from lxml import etree

from relaymgr.domain.observed import Channel, PimNeighbor, Statistics, Tunnel, TunnelState
from relaymgr.drivers.junos.durations import seconds
from relaymgr.drivers.netconf.documents import child_text, children, descendants, find, texts

Address = IPv4Address | IPv6Address
Memberships = dict[tuple[str, str | None], list[tuple[Address, int]]]
"""(group, source) as the device writes them -> gateways that joined; source None for any."""

TUNNELS = "<get-amt-tunnel-information><detail/></get-amt-tunnel-information>"
SUMMARY = "<get-amt-summary/>"
STATISTICS = "<get-amt-statistics/>"
CHANNELS = "<get-multicast-route-information><extensive/></get-multicast-route-information>"
NEIGHBORS = "<get-pim-neighbors-information><detail/></get-pim-neighbors-information>"

_STATES = {
    "active": TunnelState.ACTIVE,
    "up": TunnelState.ACTIVE,
    "pending": TunnelState.PENDING,
    "init": TunnelState.PENDING,
    "down": TunnelState.DOWN,
    "inactive": TunnelState.DOWN,
}
_COUNTERS = {
    "amt-relay-discovery-messages": "discoveries_received",
    "amt-relay-advertisement-messages": "advertisements_sent",
    "amt-membership-request-messages": "requests_received",
    "amt-membership-query-messages": "queries_sent",
    "amt-membership-update-messages": "updates_received",
}
_ERRORS = {
    "amt-incomplete-packet": "incomplete_packets",
    "amt-invalid-mac": "invalid_mac",
    "amt-unexpected-type": "unexpected_type",
    "amt-relay-discovery-invalid-address": "invalid_address",
    "amt-membership-request-invalid-address": "invalid_address",
    "amt-membership-update-invalid-address": "invalid_address",
    "amt-incomplete-relay-discovery": "incomplete_messages",
    "amt-incomplete-membership-request": "incomplete_messages",
    "amt-incomplete-membership-update": "incomplete_messages",
    "amt-no-active-gateway": "no_gateway",
    "amt-invalid-inner-packet-checksum": "invalid_checksum",
    "amt-gateways-timed-out": "gateways_timed_out",
}


_ASKED = ("{*}multicast-group-address", "{*}multicast-source-address")
_DIGITS = 20
"""Of the largest 64-bit counter; what is longer is no counter."""


_LARGE = 500
"""Entries; some 10 ms."""


class NotRunning(Exception):
    """The device answers that what was asked for does not run; `str()` is the device's word."""


class Unreadable(ValueError):
    """A reply has not the shape it must have."""


def _root(reply: etree._Element, name: str) -> etree._Element:
    found = next(descendants(reply, name), None)
    if found is not None:
        return found
    said = next((" ".join((output.text or "").split()) for output in descendants(reply, "output")), "")
    if "not running" in said.lower() or "not configured" in said.lower():
        raise NotRunning(said[:200])
    raise Unreadable(f"the reply has no {name}")


def is_large(reply: etree._Element) -> bool:
    """Whether reading the reply takes so long that a thread shall do it."""
    return any(len(inner) > _LARGE or any(len(part) > _LARGE for part in inner) for inner in reply)


def tunnels(reply: etree._Element) -> tuple[Tunnel, ...]:
    """From a reply to TUNNELS. Raises NotRunning, Unreadable."""
    return tunnels_and_memberships(reply)[0]


def tunnel_channels(reply: etree._Element) -> Memberships:
    """(group, source) -> gateways, from a reply to TUNNELS with detail. Raises NotRunning, Unreadable."""
    return tunnels_and_memberships(reply)[1]


def tunnels_and_memberships(reply: etree._Element) -> tuple[tuple[Tunnel, ...], Memberships]:
    """Both things a reply to TUNNELS tells, in one pass. Raises NotRunning, Unreadable."""
    joined: Memberships = {}
    entries = children(_root(reply, "amt-tunnel-information"), "amt-tunnel")
    return tuple([_tunnel(entry, joined) for entry in entries]), joined


def _tunnel(entry: etree._Element, joined: Memberships) -> Tunnel:
    told = texts(entry)
    address, port = _address(told, "amt-tunnel-gateway-address"), _number(told, "amt-tunnel-gateway-port")
    if address is None or port is None:
        raise Unreadable("a tunnel has no gateway address and port")
    listed = [texts(membership, *_ASKED) for membership in children(entry, "mgm-group")]
    for asked in listed:
        group = asked.get("multicast-group-address")
        if group is not None:
            joined.setdefault((group, _source_text(asked)), []).append((address, port))
    word = told.get("amt-tunnel-state")
    channels = _number(told, "amt-tunnel-multicast-groups")
    counted = find(entry, "amt-tunnel-message-count")
    messages = texts(counted) if counted is not None else {}
    return Tunnel(
        gateway_address=address,
        gateway_port=port,
        state=_STATES.get(word.lower(), TunnelState.UNKNOWN) if word else TunnelState.UNKNOWN,
        vendor_state=word,
        interface=told.get("amt-tunnel-interface"),
        inactivity_timeout_seconds=seconds(told.get("amt-inactivity-timeout")),
        channels=channels if channels is not None else len(listed) or None,
        requests=_number(messages, "amt-request-message"),
        updates=_number(messages, "amt-membership-update-message"),
    )


def channels(reply: etree._Element, joined: Memberships | None) -> tuple[Channel, ...]:
    """From a reply to CHANNELS; `joined` as of `tunnel_channels`, None where unknown. Raises NotRunning, Unreadable."""
    root = _root(reply, "multicast-route-information")
    return tuple(_channel(entry, joined) for entry in _routes(root))


def _routes(root: etree._Element) -> Iterator[etree._Element]:
    for family in children(root, "route-family"):
        yield from children(family, "multicast-route")


def _channel(entry: etree._Element, joined: Memberships | None) -> Channel:
    told = texts(entry)
    group, source = _address(told, "multicast-group-address"), _source_text(told)
    if group is None:
        raise Unreadable("a multicast route has no group address")
    listed = children(entry, "downstream-interface-names")
    names = [
        text for item in listed for name in children(item, "interface-name") if (text := (name.text or "").strip())
    ]
    # After a while without traffic the device says that its counters are not of now.
    counted = find(entry, "multicast-statistics-timed-out") is None
    gateways = None
    if joined is not None:
        word = told["multicast-group-address"]
        gateways = tuple(joined.get((word, source), ()) or joined.get((word, None), ()))
    return Channel(
        group=group,
        source=_address(told, "multicast-source-address") if source is not None else None,
        upstream_interface=told.get("upstream-interface-name"),
        downstream_interfaces=tuple(names),
        gateways=gateways,
        packets=_number(told, "forwarded-packet-count") if counted else None,
        packets_per_second=_decimal(told, "forwarding-rate-packets") if counted else None,
        kilobits_per_second=_kilobits(told) if counted else None,
        state=told.get("multicast-route-state"),
        uptime_seconds=seconds(told.get("multicast-route-uptime")),
    )


def _kilobits(told: Mapping[str, str]) -> float | None:
    """The device counts kilobytes (its CLI prints kBps); the model wants kilobits."""
    found = _decimal(told, "forwarding-rate-kilobytes")
    return None if found is None else found * 8


def neighbors(reply: etree._Element) -> tuple[PimNeighbor, ...]:
    """From a reply to NEIGHBORS. Raises NotRunning, Unreadable."""
    found = []
    for interface in children(_root(reply, "pim-neighbors-information"), "pim-interface"):
        name = child_text(interface, "pim-interface-name")
        for entry in children(interface, "pim-neighbor"):
            told = texts(entry)
            address = _address(told, "pim-neighbor-address")
            on = told.get("pim-interface-name") or name
            if address is None or on is None:
                raise Unreadable("a PIM neighbour has no address or interface")
            found.append(
                PimNeighbor(
                    address=address,
                    interface=on,
                    uptime_seconds=seconds(told.get("pim-neighbor-uptime")),
                    hold_time_seconds=_number(told, "hello-holdtime"),
                    priority=_number(told, "hello-dr-priority"),
                    version=_number(told, "protocol-version"),
                )
            )
    return tuple(found)


def summary(reply: etree._Element) -> dict[str, str]:
    """Gauges and limits as the device tells them, from a reply to SUMMARY. Raises NotRunning, Unreadable."""
    return texts(_root(reply, "amt-summary"))


def statistics(gauges: Mapping[str, str], counted: etree._Element) -> Statistics:
    """From `summary` and a reply to STATISTICS. Raises NotRunning, Unreadable."""
    counters, errors = _counted(_root(counted, "amt-instance-statistics"))
    return Statistics(
        active_tunnels=_number(gauges, "amt-active-tunnels"),
        tunnel_limit=_number(gauges, "amt-tunnel-limit"),
        active_streams=_number(gauges, "amt-active-unicast-streams"),
        stream_limit=_number(gauges, "amt-unicast-stream-limit"),
        counters=counters,
        errors=errors,
    )


def _counted(root: etree._Element) -> tuple[dict[str, int], dict[str, int]]:
    counters: dict[str, int] = {}
    errors: dict[str, int] = {}
    for element in children(root):
        name = etree.QName(element).localname
        text = (element.text or "").strip()
        if not text.isdigit() or len(text) > _DIGITS:
            continue
        if name in _COUNTERS:
            counters[_COUNTERS[name]] = int(text)
        elif name in _ERRORS:
            errors[_ERRORS[name]] = errors.get(_ERRORS[name], 0) + int(text)
        else:
            counters[name.replace("-", "_").lower()] = int(text)
    return counters, errors


def _address(told: Mapping[str, str], name: str) -> Address | None:
    text = told.get(name)
    if text is None:
        return None
    try:
        return _parsed(text)
    except ValueError as error:
        raise Unreadable(f"{name} is no address") from error


@lru_cache(maxsize=65_536)
def _parsed(text: str) -> Address:
    """The same few addresses come in every poll, and come by the hundred thousand."""
    return ip_address(text.partition("/")[0])


def _source_text(told: Mapping[str, str]) -> str | None:
    """The source; None for (*,G), which devices write as `*`, 0.0.0.0 or not at all."""
    text = told.get("multicast-source-address")
    return None if text is None or text.startswith(("*", "0.0.0.0")) or text == "::" else text


def _number(told: Mapping[str, str], name: str) -> int | None:
    text = told.get(name)
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


def _decimal(told: Mapping[str, str], name: str) -> float | None:
    text = told.get(name)
    found = None
    with suppress(ValueError):
        found = float(text) if text is not None else None
    return found if found is not None and 0 <= found < float("inf") else None

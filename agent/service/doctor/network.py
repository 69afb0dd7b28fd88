"""Interfaces, paths, filters and offloads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from agent.protocol.channels import Address
from agent.service.config import Configuration, Role
from agent.service.doctor.finding import Finding, fail, ok, unknown, warn
from agent.service.doctor.host import Host

_AMT_PORT = 2268
_WITHOUT_WIRE = {"veth", "virtio_net"}  # the other end gets what we give as it is, not as packets on a wire
_OVERHEAD = {4: 30, 6: 50}  # outer IP, UDP and two bytes of AMT (RFC 7450 §5.1.6)


def check_network(host: Host, configuration: Configuration | None) -> Iterator[Finding]:
    """Everything about the network that can be seen without sending."""
    if configuration is not None:
        for name in _interfaces(configuration):
            yield _interface(host, name)
        yield from _paths(host, configuration)
    tunnel = "amt0" if configuration is None else configuration.gateway.tunnel_interface
    if configuration is None or configuration.role is Role.GATEWAY:
        yield _reverse_path(host, tunnel)
    yield _firewall(host, configuration)
    for name in _carriers(host, configuration):
        yield from _offloads(host, name)
    if configuration is not None and configuration.role is Role.GATEWAY:
        for name in configuration.gateway.downstream:
            yield from _trains(host, name)


def _interfaces(configuration: Configuration) -> list[str]:
    if configuration.role is Role.GATEWAY:
        return [*configuration.gateway.uplink, *configuration.gateway.downstream]
    return list(configuration.relay.interfaces)


def _carriers(host: Host, configuration: Configuration | None) -> list[str]:
    """Interfaces whose offloads matter."""
    if configuration is None:
        return []
    return [name for name in _interfaces(configuration) if host.names(f"/sys/class/net/{name}")]


def _interface(host: Host, name: str) -> Finding:
    where = f"/sys/class/net/{name}"
    check = f"interface-{name}"
    if not host.names(where):
        known = ", ".join(other for other in host.names("/sys/class/net") if other != "lo")
        return fail(check, f"there is no {name}", f"This host has: {known or 'no interface but lo'}.")
    flags = int((host.text(f"{where}/flags") or "0").strip(), 16)
    mtu = host.number(f"{where}/mtu") or 0
    if not flags & 0x1:  # IFF_UP
        return fail(check, f"{name} is down", f"ip link set {name} up")
    if not flags & 0x1000:  # IFF_MULTICAST
        return fail(check, f"{name} does not do multicast", f"ip link set {name} multicast on")
    if (host.text(f"{where}/operstate") or "").strip() in {"down", "lowerlayerdown"}:
        return warn(check, f"{name} has no carrier", "Check the cable or the other end.")
    if mtu < 1500:
        return warn(
            check,
            f"{name} is up, MTU {mtu}: tunnelled packets above {mtu - _OVERHEAD[4]} bytes (IPv6: "
            f"{mtu - _OVERHEAD[6]}) are fragmented",
            "Raise the MTU, or let the sources send smaller packets.",
        )
    return ok(check, f"{name} is up, MTU {mtu}")


def _paths(host: Host, configuration: Configuration) -> Iterator[Finding]:
    """A route to every relay, or our own addresses on a relay."""
    if configuration.role is Role.RELAY:
        for address in configuration.relay.address:
            yield _own_address(host, address)
        return
    for relay in configuration.gateway.relay:
        for address in relay.address:
            local = host.route(address)
            check = f"route-{address}"
            if local is None:
                yield fail(check, f"no route to relay {address}", f"ip route get {address} shows why.")
            else:
                yield ok(check, f"relay {address} is reached from {local}")


def _own_address(host: Host, address: Address) -> Finding:
    check = f"address-{address}"
    local = host.route(address)
    if local == address:
        return ok(check, f"{address} is ours")
    return fail(check, f"{address} is on no interface of this host", "Configure it, or correct [relay] address.")


def _reverse_path(host: Host, tunnel: str) -> Finding:
    """The kernel applies the larger of conf.all and the interface's value (ip-sysctl.rst)."""
    everywhere = host.number("/proc/sys/net/ipv4/conf/all/rp_filter")
    if everywhere is None:
        return unknown("rp-filter", "net.ipv4.conf.all.rp_filter cannot be read")
    own = host.number(f"/proc/sys/net/ipv4/conf/{tunnel}/rp_filter")
    if own is None:
        return ok(
            "rp-filter", f"net.ipv4.conf.all.rp_filter is {everywhere}; the agent sets {tunnel}'s when it makes it"
        )
    effective = max(everywhere, own)
    seen = f"net.ipv4.conf: all.rp_filter {everywhere}, {tunnel}.rp_filter {own}, so {effective}"
    if effective == 1:
        return fail(
            "rp-filter",
            f"{seen}: strict, everything from {tunnel} is dropped",
            f"sysctl -w net.ipv4.conf.{tunnel}.rp_filter=2",
        )
    if effective == 2:
        addresses = host.run("ip", "-4", "-o", "address", "show", "dev", tunnel)
        if addresses is not None and not addresses.strip():
            return fail(
                "rp-filter",
                f"{seen}: loose, and {tunnel} has no IPv4 address",
                f"ip address add 192.0.0.8/32 dev {tunnel}",
            )
    return ok("rp-filter", seen)


def _firewall(host: Host, configuration: Configuration | None) -> Finding:
    """Best effort: chains at the input hook that drop by default and name neither our port nor established flows."""
    if (host.text("/proc/net/ip_tables_names") or "").strip():
        advice = f"See that UDP port {_AMT_PORT} passes: iptables -S INPUT"
        return unknown("firewall", "legacy iptables rules are loaded", advice)
    text = host.run("nft", "-j", "list", "ruleset")
    if text is None:
        advice = f"See that UDP port {_AMT_PORT} passes the firewall."
        return unknown("firewall", "nft is missing or not allowed", advice)
    is_relay = configuration is not None and configuration.role is Role.RELAY
    try:
        blocking = _blocking_chains(json.loads(text)["nftables"], is_relay=is_relay)
    except (ValueError, KeyError, TypeError):
        return unknown("firewall", "nft answers what cannot be read")
    if not blocking:
        return ok("firewall", f"nftables do not visibly drop UDP port {_AMT_PORT}")
    needed = f"UDP port {_AMT_PORT}" if is_relay else "answers to our own packets (ct state established), IGMP and MLD"
    seen = f"input is dropped by default and no rule names port {_AMT_PORT}: {', '.join(blocking)}"
    return warn("firewall", seen, f"Let in {needed}.")


def _blocking_chains(items: list[dict[str, Any]], *, is_relay: bool) -> list[str]:
    """Input chains with policy drop whose table has no rule that could let our packets in."""
    blocking = []
    for chain in (item["chain"] for item in items if "chain" in item):
        if chain.get("hook") != "input" or chain.get("policy") != "drop" or chain["family"] == "arp":
            continue
        where = (chain["family"], chain["table"])
        rules = [item["rule"].get("expr") for item in items if "rule" in item and _place(item["rule"]) == where]
        text = json.dumps(rules)
        if not re.search(rf"\b{_AMT_PORT}\b", text) and (is_relay or "established" not in text):
            blocking.append(f"{chain['family']} {chain['table']} {chain['name']}")
    return blocking


def _place(rule: dict[str, Any]) -> tuple[str, str]:
    return rule["family"], rule["table"]


def _offloads(host: Host, name: str) -> Iterator[Finding]:
    text = host.run("ethtool", "-k", name)
    check = f"offloads-{name}"
    if text is None:
        yield unknown(check, "ethtool is missing or does not know the interface")
        return
    features = dict(re.findall(r"^\s*([a-z0-9-]+): (on|off)", text, re.MULTILINE))
    off = [key for key in ("generic-receive-offload", "tx-checksumming") if features.get(key) == "off"]
    if off:
        commands = {"generic-receive-offload": "gro", "tx-checksumming": "tx"}
        advice = f"ethtool -K {name} {' '.join(f'{commands[key]} on' for key in off)}"
        yield warn(check, f"{name}: {', '.join(off)} off; each packet costs more", advice)
    else:
        segmentation = features.get("tx-udp-segmentation", "off")
        yield ok(check, f"{name}: receive offload on, UDP segmentation in hardware {segmentation}")


def _trains(host: Host, name: str) -> Iterator[Finding]:
    """Whether packets the engine joined leave joined.

    A wire carries them one by one. Where there is none, the multicast routing of a Linux router behind the interface
    takes a train of packets with "don't fragment" for one that is too long, and drops it: FragFails of its
    /proc/net/snmp grow.
    """
    driver = re.search(r"^driver: (\S+)", host.run("ethtool", "-i", name) or "", re.MULTILINE)
    if driver is None or driver.group(1) not in _WITHOUT_WIRE:
        return
    check = f"trains-{name}"
    features = host.run("ethtool", "-k", name) or ""
    if re.search(r"^\s*tx-udp-segmentation: on\b", features, re.MULTILINE) is None:
        yield ok(check, f"{name} ({driver.group(1)}) hands packets over one by one")
        return
    yield warn(
        check,
        f"{name} ({driver.group(1)}) hands trains of UDP packets over whole: a Linux multicast router behind it drops "
        'those with "don\'t fragment"',
        f"ethtool -K {name} tx-udp-segmentation off, unless only hosts or routers of other makes are behind it.",
    )

"""What the kernel must be able to do, and who else uses it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agent.service.config import Configuration, GatewayMode, Role
from agent.service.doctor.finding import Finding, fail, ok, unknown, warn
from agent.service.doctor.host import Host

_ROUTING_DAEMONS = {
    "pimd",
    "pim6d",
    "smcrouted",
    "mrouted",
    "igmpproxy",
    "mcproxy-bin",
    "pimsd",
    "xorp_fea",
    "omcproxy",
}
_ONE_OWNER = (
    "One program can own the multicast routing socket: stop it, set gateway.mroute_table to another one, or beside FRR "
    'gateway.mode = "frr".'
)
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_BPF": 39, "CAP_PERFMON": 38}
_OF_FAST_ENGINES = {"CAP_BPF", "CAP_PERFMON"}
_NO_PERFMON = (6, 13)
"""Since when the verifier takes the programs without CAP_PERFMON."""


def check_kernel(host: Host, configuration: Configuration | None) -> Iterator[Finding]:
    """Capabilities, tap, receive offload, multicast routing, limits of membership."""
    yield _capabilities(host)
    role = None if configuration is None else configuration.role
    if role is not Role.RELAY:
        yield _tap(host)
        is_beside_frr = configuration is not None and configuration.gateway.mode is GatewayMode.FRR
        wanted = (True, True) if configuration is None else (configuration.gateway.ipv4, configuration.gateway.ipv6)
        yield from (
            (_routing_of_frr if is_beside_frr else _multicast_routing)(host, version)
            for version, is_wanted in zip((4, 6), wanted, strict=True)
            if is_wanted
        )
    if role is not Role.GATEWAY:
        yield _memberships(host)
    yield _receive_offload(host)


def _capabilities(host: Host) -> Finding:
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", host.text("/proc/self/status") or "", re.MULTILINE)
    if found is None:
        return unknown("capabilities", "/proc/self/status cannot be read")
    mask = int(found.group(1), 16)
    missing = [name for name, bit in _CAPABILITIES.items() if not mask >> bit & 1]
    if "CAP_PERFMON" in missing and _release(host) >= _NO_PERFMON:
        missing.remove("CAP_PERFMON")
    if not missing:
        return ok("capabilities", "all that the agent uses")
    if not host.is_root():
        return unknown("capabilities", f"this user has not {', '.join(missing)}", "Run the doctor as root.")
    if _OF_FAST_ENGINES.issuperset(missing):
        advice = "Give what is missing to the container or the unit; only fast engines need it."
        return warn("capabilities", f"{', '.join(missing)} missing", advice)
    return fail("capabilities", f"{', '.join(missing)} missing", "Give them to the container or the unit.")


def _release(host: Host) -> tuple[int, int]:
    """The kernel's two leading numbers; zeros when it has a name of its own."""
    found = re.match(r"(\d+)\.(\d+)", host.kernel())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _tap(host: Host) -> Finding:
    reason = host.tap()
    if reason is not None:
        advice = "modprobe tun; in a container pass /dev/net/tun. As another user than root this is no surprise."
        return (fail if host.is_root() else unknown)("tap", reason, advice)
    if (0, 0) < _release(host) < (6, 2):
        return warn(
            "tap",
            f"Linux {host.kernel()} takes one packet a write: UDP segmentation on a tap needs 6.2",
            "Fine up to some hundred Mbit/s; a newer kernel costs less processor time.",
        )
    return ok("tap", f"/dev/net/tun with virtio-net header, UDP segmentation (Linux {host.kernel()})")


def _multicast_routing(host: Host, version: int) -> Finding:
    name = f"multicast-routing-ipv{version}"
    interfaces = _routed_interfaces(host, version)
    if interfaces is None:
        option = "CONFIG_IP_MROUTE" if version == 4 else "CONFIG_IPV6_MROUTE"
        return fail(name, f"this kernel has no IPv{version} multicast routing", f"Use a kernel with {option}.")
    daemons = {f"{command} (pid {pid})" for pid, command in host.commands().items() if command in _ROUTING_DAEMONS}
    agents = {pid for pid, command in host.commands().items() if command == "amt-agent"}
    if not interfaces:
        if daemons:
            return warn(
                name,
                f"free, but {', '.join(sorted(daemons))} runs and may take it",
                _ONE_OWNER,
            )
        return ok(name, "free")
    if daemons:
        return fail(
            name,
            f"in use by {', '.join(sorted(daemons))} on {', '.join(interfaces)}",
            _ONE_OWNER,
        )
    if agents:
        return ok(name, f"in use on {', '.join(interfaces)}, an amt-agent runs")
    return warn(
        name,
        f"in use on {', '.join(interfaces)} by a program that cannot be told",
        "Find it (ss -w -p shows raw sockets, also in other containers of this network) and stop it.",
    )


def _routing_of_frr(host: Host, version: int) -> Finding:
    """In mode `frr` the routing socket is to be FRR's."""
    name, wanted = f"multicast-routing-ipv{version}", "pimd" if version == 4 else "pim6d"
    if wanted not in host.commands().values():
        return warn(name, f"FRR's {wanted} does not run", f"Set {wanted}=yes in /etc/frr/daemons and restart FRR.")
    interfaces = _routed_interfaces(host, version)
    if not interfaces:
        return warn(
            name, f"{wanted} runs and has no interface", "Configure PIM on its interfaces: amt-agent frr-config."
        )
    return ok(name, f"{wanted} has it, on {', '.join(interfaces)}")


def _routed_interfaces(host: Host, version: int) -> list[str] | None:
    """Interfaces of the multicast routing socket; None where the kernel has no multicast routing."""
    table = host.text("/proc/net/ip_mr_vif" if version == 4 else "/proc/net/ip6_mr_vif")
    if table is None:
        return None
    return [line.split()[1] for line in table.splitlines()[1:] if len(line.split()) > 1]


def _memberships(host: Host) -> Finding:
    groups = host.number("/proc/sys/net/ipv4/igmp_max_memberships")
    sources = host.number("/proc/sys/net/ipv4/igmp_max_msf")
    if groups is None or sources is None:
        return unknown("memberships", "net.ipv4.igmp_max_memberships cannot be read")
    seen = f"{groups} groups a socket, {sources} sources a group; the relay spreads channels over sockets"
    if groups < 20 or sources < 10:
        advice = "sysctl -w net.ipv4.igmp_max_memberships=20 net.ipv4.igmp_max_msf=10 (the defaults) or more."
        return warn("memberships", seen, advice)
    return ok("memberships", seen)


def _receive_offload(host: Host) -> Finding:
    if host.udp_gro():
        return ok("udp-gro", "the kernel joins datagrams on receipt")
    return warn("udp-gro", "no UDP GRO", "Linux 5.0 and later have it; without it each packet costs more.")

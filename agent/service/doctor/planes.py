"""Which fast plane each interface of the configuration could carry, and what would help where one is missing.

Nothing is attached and nothing sent: whether redirected frames arrive is only tried by the running agent, whose
`status` has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from agent.net.link_query import XdpFeatures
from agent.service.config import Configuration, EngineChoice, Role
from agent.service.doctor.finding import Finding, fail, ok, warn
from agent.service.doctor.host import Host

_LARGEST_MTU: Final = 3498
"""Octets most drivers take with XDP on pages of 4096; veth takes six more."""

_STACKED: Final = {"vlan", "bridge", "bond", "macvlan", "dummy"}
"""Kinds of links without a native XDP of their own, or none to send to."""

_XDP_PLANES: Final = {EngineChoice.AUTO, EngineChoice.XDP, EngineChoice.XDP_MFC}


@dataclass(frozen=True, slots=True)
class _Link:
    """What can be seen of an interface without touching it."""

    name: str
    kind: str
    driver: str
    mtu: int
    program: int
    features: XdpFeatures | None


def check_planes(host: Host, configuration: Configuration | None) -> Iterator[Finding]:
    """A finding for each uplink and each downstream interface of a gateway; none where userspace is configured."""
    if configuration is None or configuration.role is not Role.GATEWAY:
        return
    engine = configuration.dataplane.engine
    if engine is EngineChoice.USERSPACE:
        return
    gateway = configuration.gateway
    for name in gateway.uplink:
        if host.names(f"/sys/class/net/{name}"):
            yield from _uplink(host, _look(host, name), engine)
    for name in gateway.downstream:
        if host.names(f"/sys/class/net/{name}"):
            yield from _downstream(host, _look(host, name), engine)
    yield from _cores(host, configuration.dataplane.receive_cores)


def _look(host: Host, name: str) -> _Link:
    shown: dict[str, Any] = host.link(name)
    return _Link(
        name,
        str(shown.get("linkinfo", {}).get("info_kind", "")),
        host.driver(name),
        host.number(f"/sys/class/net/{name}/mtu") or 0,
        int(shown.get("xdp", {}).get("prog", {}).get("id", 0)),
        host.xdp_features(name),
    )


def _uplink(host: Host, link: _Link, engine: EngineChoice) -> Iterator[Finding]:
    """Programs are attached there: xdp and xdp-mfc in the driver, tc behind it."""
    check = f"planes-{link.name}"
    if engine is EngineChoice.TC:
        yield ok(check, f"{link.name} (uplink): tc, as configured")
        return
    reason, advice = _why_not_attached(host, link)
    if not reason:
        yield ok(check, f"{link.name} (uplink): xdp")
    else:
        yield _without(check, f"{link.name} (uplink)", engine, reason, advice)


def _downstream(host: Host, link: _Link, engine: EngineChoice) -> Iterator[Finding]:
    """Frames are sent there: by xdp only where the driver takes them from programs of others."""
    check = f"planes-{link.name}"
    if engine not in {EngineChoice.AUTO, EngineChoice.XDP}:
        yield ok(check, f"{link.name} (downstream): {engine.value}, as configured")
        return
    reason, advice = _why_not_sent(link)
    if reason:
        yield _without(check, f"{link.name} (downstream)", engine, reason, advice)
        return
    yield _queues(host, link, check)


def _without(check: str, subject: str, engine: EngineChoice, reason: str, advice: str) -> Finding:
    """In `auto` a plane that no setting could bring is no fault: tc takes its place."""
    seen = f"{subject}: no native xdp: {reason}"
    if engine is EngineChoice.AUTO:
        told = f"{seen}; its channels take tc"
        return warn(check, told, advice) if advice else ok(check, told)
    told = f"{seen}; its channels go through userspace with engine {engine.value}"
    return fail(check, told, advice or 'Set dataplane.engine = "auto" or "tc".')


def _why_not_attached(host: Host, link: _Link) -> tuple[str, str]:
    """The reason, and what to do if anything can be done; ("", "") when nothing is in the way."""
    if link.program and "amt-agent" not in host.commands().values():
        return (
            f"another XDP program (id {link.program}) is attached",
            f"bpftool prog show id {link.program} tells whose; ip link set {link.name} xdp off removes it.",
        )
    if link.kind in _STACKED - {"bond"}:
        return f"a {link.kind} device has none", ""
    if link.features is not None and XdpFeatures.BASIC not in link.features:
        return f"its driver ({link.driver or 'unknown'}) has none", ""
    if link.mtu > _LARGEST_MTU:
        return (
            f"MTU {link.mtu} is more than drivers take with it",
            f"ip link set {link.name} mtu {_LARGEST_MTU} or less.",
        )
    return "", ""


def _why_not_sent(link: _Link) -> tuple[str, str]:
    if link.kind in _STACKED:
        return f"a {link.kind} device is no target of it", ""
    if link.features is None or XdpFeatures.TRANSMIT in link.features:
        return "", ""
    if link.driver == "veth":
        return (
            "its far end has neither GRO nor an XDP program, so that redirected frames are lost",
            f"ethtool -K PEER gro on, PEER being the other end of {link.name}.",
        )
    return f"its driver ({link.driver or 'unknown'}) takes no redirected frames", ""


def _queues(host: Host, link: _Link, check: str) -> Finding:
    """A virtio card without a queue for each processor beside those in use sends redirected frames under a lock."""
    told = "xdp, once redirected frames were seen to leave"
    if link.driver != "virtio_net":
        return ok(check, f"{link.name} (downstream): {told}")
    counts = [
        int(number)
        for number in re.findall(r"^Combined:\s*(\d+)", host.run("ethtool", "-l", link.name) or "", re.MULTILINE)
    ]
    cores = host.processors()
    if len(counts) == 2 and counts[0] < counts[1] + cores:
        return warn(
            check,
            f"{link.name} (downstream): {told}; {counts[0]} virtio queues, {counts[1]} in use and {cores} processors: "
            "redirected frames share queues under a lock",
            f"Give the machine {2 * cores} queues (queues={2 * cores} of its network device), or: "
            f"ethtool -L {link.name} combined {max(counts[0] - cores, 1)}",
        )
    return ok(check, f"{link.name} (downstream): {told}")


def _cores(host: Host, wanted: int) -> Iterator[Finding]:
    present = host.processors()
    if wanted > present:
        advice = f"Set dataplane.receive_cores to {present} or less."
        yield warn("receive-cores", f"receive_cores is {wanted}, and there are {present} processors", advice)

"""The forwarding engine of the gateway role as the API shows it: which plane each interface can carry, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from agent.dataplane.engine import Engine
from agent.dataplane.fast.layout import Plane
from agent.dataplane.fast.planning import PLANE_NAMES
from agent.dataplane.fast.port import Port
from agent.protocol.channels import Channel
from agent.service.config import Configuration, EngineChoice
from agent.service.engine_model import (
    ChannelPlane,
    EngineStatus,
    FastPlane,
    InterfacePlanes,
    InterfaceRole,
    PlaneStatus,
    ProbeState,
)

_FAST: Final = (Plane.XDP, Plane.XDP_MFC, Plane.TC)
_PENDING: Final = "not tried out yet"
"""What `agent.dataplane.fast.interfaces` says of an interface before the result of its probe."""

_NOT_SET: Final = "is not set"
"""What an engine says of a channel it does not have."""


class PlaneChoice(Protocol):
    """What these views read; `agent.service.fast_engine.FastEngine` is one."""

    reason: str

    @property
    def engine(self) -> Engine:
        """What forwards."""

    @property
    def choice(self) -> EngineChoice:
        """What is configured."""

    @property
    def planes(self) -> tuple[Plane, ...]:
        """Planes in use, the best first; none where userspace works alone."""

    def uplinks(self) -> Mapping[str, tuple[frozenset[Plane], Mapping[Plane, str]]]:
        """Per interface that tunnels come in on: what works there, and why the rest does not."""

    def ports(self) -> Mapping[str, Port | None]:
        """Per interface that channels leave by: what is known of it, None while it is down or absent."""

    def explain(self, channel: Channel) -> tuple[Plane, str]:
        """Who forwards a channel, and why no better plane does."""

    def channels(self) -> Mapping[Plane, int]:
        """How many channels each plane forwards."""

    def exceptions(self) -> Mapping[str, int]:
        """Packets of tunnels that the programs left to userspace, by reason."""


def engine_status(fast: PlaneChoice, configuration: Configuration) -> EngineStatus:
    """The engine in use, with the planes of every interface of the configuration."""
    return EngineStatus(
        name=fast.engine.name,
        configured=fast.choice.value,
        reason=fast.reason,
        interfaces=list(_interfaces(fast, configuration)) if fast.planes else [],
        channels={PLANE_NAMES[plane]: count for plane, count in fast.channels().items()},
        exceptions=dict(fast.exceptions()),
        details=fast.engine.details,
    )


def channel_plane(fast: PlaneChoice, channel: Channel, *, is_native: bool) -> tuple[ChannelPlane, str | None]:
    """Who forwards a channel that is set, and why nobody faster does."""
    if is_native:
        return ChannelPlane.KERNEL, None
    plane, reason = fast.explain(channel)
    return ChannelPlane(PLANE_NAMES[plane]), None if reason == _NOT_SET else reason or None


def _interfaces(fast: PlaneChoice, configuration: Configuration) -> Iterable[InterfacePlanes]:
    uplinks, ports = fast.uplinks(), fast.ports()
    gateway = configuration.gateway
    for name in dict.fromkeys((*gateway.uplink, *uplinks)):
        usable, reasons = uplinks.get(name, (frozenset(), {}))
        planes = _planes(fast, usable, reasons) if name in uplinks else []
        yield InterfacePlanes(name=name, role=InterfaceRole.UPLINK, plane=_best(fast, planes), planes=planes)
    for name in dict.fromkeys((*gateway.downstream, *ports)):
        port = ports.get(name)
        planes = [] if port is None else _planes(fast, port.planes, port.reasons)
        yield InterfacePlanes(
            name=name,
            role=InterfaceRole.DOWNSTREAM,
            plane=_best(fast, planes),
            planes=planes,
            probe=None if port is None else _probe(port),
        )


def _planes(fast: PlaneChoice, usable: frozenset[Plane], reasons: Mapping[Plane, str]) -> list[PlaneStatus]:
    """Each fast plane; those the configuration does not name are not usable."""
    found = []
    for plane in _FAST:
        kind = FastPlane(PLANE_NAMES[plane])
        if plane not in fast.planes:
            reason: str | None = f"engine {fast.choice.value} does not use it"
        else:
            reason = None if plane in usable else reasons.get(plane) or "not known"
        found.append(PlaneStatus(plane=kind, usable=reason is None, reason=reason))
    return found


def _best(fast: PlaneChoice, planes: list[PlaneStatus]) -> ChannelPlane | None:
    if not planes:
        return None
    usable = {status.plane.value for status in planes if status.usable}
    names = (PLANE_NAMES[plane] for plane in fast.planes)
    return ChannelPlane(next((name for name in names if name in usable), ChannelPlane.USERSPACE.value))


def _probe(port: Port) -> ProbeState:
    if Plane.XDP in port.planes:
        return ProbeState.PASSED
    return ProbeState.PENDING if port.reasons.get(Plane.XDP) == _PENDING else ProbeState.FAILED

"""Which plane forwards in the gateway role, as configured and as this host allows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Final

from agent.dataplane.accelerated import AcceleratedEngine
from agent.dataplane.engine import Engine
from agent.dataplane.fast.attachments import KernelUplinks
from agent.dataplane.fast.interfaces import KernelPorts
from agent.dataplane.fast.layout import Plane
from agent.dataplane.fast.loaded import LoadedPrograms
from agent.dataplane.fast.mirror import MulticastMirror
from agent.dataplane.fast.planning import PLANE_NAMES
from agent.dataplane.fast.watchdog import Watchdog
from agent.dataplane.userspace import UserspaceEngine
from agent.dataplane.userspace_flow import DONT_FRAGMENT_SOURCE
from agent.net.bpf import BpfUnavailableError
from agent.net.dont_fragment import DontFragmentError, DontFragmentRule
from agent.net.tap import Tap
from agent.service.config import Configuration, EngineChoice, GatewayMode
from agent.service.gateway_settings import families
from agent.service.model import Problem, Severity

_log = logging.getLogger(__name__)

PLANES: Final = {
    EngineChoice.AUTO: (Plane.XDP, Plane.TC),
    EngineChoice.XDP: (Plane.XDP,),
    EngineChoice.XDP_MFC: (Plane.XDP_MFC,),
    EngineChoice.TC: (Plane.TC,),
    EngineChoice.USERSPACE: (),
}
"""Planes a choice allows, the best first; the userspace engine takes the rest."""


class FastEngine:
    """The engine of the gateway role and what chooses its planes.

    Attributes:
        engine: the accelerated engine, or the userspace engine alone where the kernel cannot run programs.
        reason: why it works as it does.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, configuration: Configuration, tap: Tap, slow: UserspaceEngine
    ) -> None:
        """Load the programs; where that cannot be done the userspace engine works alone.

        Raises:
            OSError: no netlink socket could be had.
        """
        self.engine: Engine = slow
        self.reason = ""
        self._tap = tap
        self._choice = configuration.dataplane.engine
        self._unavailable = ""
        self._refused = ""
        self._rule: DontFragmentRule | None = None
        self._ports: KernelPorts | None = None
        self._uplinks: KernelUplinks | None = None
        self._watchdog: Watchdog | None = None
        try:
            programs = LoadedPrograms(tap.index, configuration.dataplane.receive_cores)
        except (BpfUnavailableError, OSError) as error:
            self._unavailable = str(error)
            self._explain()
            return
        try:
            ports = self._ports = KernelPorts(loop, programs.send)
            uplinks = self._uplinks = KernelUplinks(loop, programs.gateway, configuration.gateway.uplink)
        except BaseException:
            if self._ports is not None:
                self._ports.close()
            programs.close()
            raise
        self._watchdog = Watchdog(loop, ports)
        outgoing = None
        if configuration.gateway.mode is GatewayMode.FRR:
            outgoing = MulticastMirror(loop, tap.index, families(configuration))
        planes = self._planes(self._choice)
        self.engine = AcceleratedEngine(loop, slow, programs, ports, uplinks, planes, outgoing=outgoing)
        self._explain()

    def choose(self, configuration: Configuration) -> None:
        """Forward as another configuration says; no channel is interrupted."""
        if configuration.dataplane.engine is self._choice:
            return
        self._choice = configuration.dataplane.engine
        planes = self._planes(self._choice)
        if isinstance(self.engine, AcceleratedEngine):
            self.engine.choose(planes)
        self._explain()
        _log.info("engine chosen engine=%s reason=%s", self._choice.value, self.reason)

    def details(self) -> dict[str, str]:
        """Plane of every interface and uplink with the reason where it is not the best, for `status`."""
        details = {"chosen": self.reason, **self.engine.details}
        if self._ports is None or self._uplinks is None:
            return details
        planes = PLANES[self._choice]
        for name, (usable, reasons) in self._uplinks.attached().items():
            details[f"uplink {name}"] = _say(planes, usable, reasons)
        for name in self._ports.names():
            port = self._ports.get(name)
            details[f"interface {name}"] = (
                "down or absent" if port is None else _say(planes, port.planes, dict(port.reasons))
            )
        return details

    def problems(self) -> Iterator[Problem]:
        """What keeps a plane that was asked for by name from being used."""
        if self._choice in {EngineChoice.AUTO, EngineChoice.USERSPACE}:
            return
        if self._unavailable or self._refused:
            yield _problem(self._choice, self._unavailable or self._refused)
            return
        if self._ports is None or self._uplinks is None:
            return
        (plane,) = PLANES[self._choice]
        for name, (usable, reasons) in self._uplinks.attached().items():
            if plane not in usable:
                yield _problem(self._choice, f"uplink {name}: {reasons.get(plane, '')}", name)
        for name in self._ports.names():
            port = self._ports.get(name)
            if port is not None and plane not in port.planes:
                yield _problem(self._choice, f"{name}: {port.reasons.get(plane, '')}", name)

    def close(self) -> None:
        """Look after nothing more; to be called after the engine's own `close`, and safe to call twice."""
        if self._watchdog is not None:
            self._watchdog.close()
        if self._rule is not None:
            self._rule.close()
            self._rule = None

    def _planes(self, choice: EngineChoice) -> tuple[Plane, ...]:
        """The planes of a choice; xdp-mfc needs the rule that gives packets their Don't Fragment flag back."""
        self._refused = ""
        if choice is EngineChoice.XDP_MFC and self._rule is None:
            try:
                table = f"isthmus-mfc-{self._tap.name}"
                self._rule = DontFragmentRule(self._tap.index, DONT_FRAGMENT_SOURCE, table)
            except DontFragmentError as error:
                self._refused = f"Don't Fragment would be lost: {error}"
                return ()
        return PLANES[choice]

    def _explain(self) -> None:
        named = "configured" if self._choice is not EngineChoice.AUTO else "automatically"
        if self._choice is EngineChoice.USERSPACE:
            self.reason = named
        elif self._unavailable or self._refused:
            self.reason = f"{named} {self._choice.value}, but userspace: {self._unavailable or self._refused}"
        elif self._choice is EngineChoice.AUTO:
            self.reason = "automatically: each channel by the fastest plane that its interfaces allow"
        else:
            self.reason = f"{named}; userspace where an interface does not allow it"


def _say(planes: tuple[Plane, ...], usable: frozenset[Plane], reasons: dict[Plane, str]) -> str:
    """The plane that is used, and why no better one."""
    not_used: list[str] = []
    for plane in planes:
        if plane in usable:
            return "; ".join([PLANE_NAMES[plane], *not_used])
        not_used.append(f"not {PLANE_NAMES[plane]}: {reasons.get(plane, 'not known')}")
    return "; ".join(["userspace", *not_used])


def _problem(choice: EngineChoice, reason: str, subject: str | None = None) -> Problem:
    return Problem(
        code="engine_not_usable",
        severity=Severity.WARNING,
        message=f"engine {choice.value} is configured and channels go through userspace there: {reason}.",
        subject=subject,
    )

"""Which plane forwards in the gateway role, as configured and as this host allows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from agent.dataplane.accelerated import AcceleratedEngine
from agent.dataplane.engine import Engine
from agent.dataplane.fast.attachments import KernelUplinks
from agent.dataplane.fast.borrowed import BorrowedSettings
from agent.dataplane.fast.interfaces import KernelPorts
from agent.dataplane.fast.kept_routes import KeptRoutes
from agent.dataplane.fast.layout import Plane
from agent.dataplane.fast.loaded import LoadedPrograms
from agent.dataplane.fast.mirror import MulticastMirror
from agent.dataplane.fast.port import Port
from agent.dataplane.fast.watchdog import Watchdog
from agent.dataplane.userspace import UserspaceEngine
from agent.dataplane.userspace_flow import DONT_FRAGMENT_SOURCE
from agent.net.bpf import BpfError, BpfUnavailableError
from agent.net.dont_fragment import DontFragmentError, DontFragmentRule
from agent.net.tap import Tap
from agent.protocol.channels import Channel
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
        choice: what is configured.
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
        self.choice = configuration.dataplane.engine
        self._tap = tap
        self._unavailable = ""
        self._refused = ""
        self._rule: DontFragmentRule | None = None
        self._ports: KernelPorts | None = None
        self._uplinks: KernelUplinks | None = None
        self._watchdog: Watchdog | None = None
        self._kept: KeptRoutes | None = None
        try:
            programs = LoadedPrograms(tap.index, configuration.dataplane.receive_cores)
        except (BpfUnavailableError, OSError) as error:
            self._unavailable = str(error)
        else:
            try:
                self._build(loop, configuration, slow, programs)
            except (BpfUnavailableError, BpfError) as error:
                self._unavailable = str(error)
        self._explain()

    def _build(
        self,
        loop: asyncio.AbstractEventLoop,
        configuration: Configuration,
        slow: UserspaceEngine,
        programs: LoadedPrograms,
    ) -> None:
        """Put the fast engine together; nothing of it stays open when a part cannot be had."""
        with ExitStack() as opened:
            opened.callback(programs.close)
            ports = KernelPorts(loop, programs.send)
            opened.callback(ports.close)
            borrowed = BorrowedSettings(configuration.gateway.state_dir / "uplinks.json")
            uplinks = KernelUplinks(loop, programs.gateway, configuration.gateway.uplink, borrowed)
            opened.callback(uplinks.close)
            outgoing = None
            if configuration.gateway.mode is GatewayMode.FRR:
                outgoing = MulticastMirror(loop, self._tap.index, families(configuration))
                opened.callback(outgoing.close)
            opened.callback(self.close)
            planes = self._planes(self.choice)
            engine = AcceleratedEngine(loop, slow, programs, ports, uplinks, planes, outgoing=outgoing)
            opened.pop_all()  # the engine closes them from here on
            opened.callback(self.close)
            opened.callback(engine.close)
            self._watchdog = Watchdog(loop, ports, engine.redirected)
            if outgoing is not None:
                self._kept = KeptRoutes(loop, self._tap.fd, engine.by_programs)
            self.engine = engine
            self._ports, self._uplinks = ports, uplinks
            opened.pop_all()

    @property
    def planes(self) -> tuple[Plane, ...]:
        """Planes in use, the best first; none where userspace works alone."""
        return () if self._ports is None or self._refused else PLANES[self.choice]

    def uplinks(self) -> dict[str, tuple[frozenset[Plane], dict[Plane, str]]]:
        """Per interface that tunnels come in on: what works there, and why the rest does not."""
        return {} if self._uplinks is None else self._uplinks.attached()

    def ports(self) -> dict[str, Port | None]:
        """Per interface that channels leave by: what is known of it, None while it is down or absent."""
        return {} if self._ports is None else {name: self._ports.get(name) for name in self._ports.names()}

    def explain(self, channel: Channel) -> tuple[Plane, str]:
        """Who forwards a channel, and why no better plane does; the reason is empty for the best, and without BPF."""
        if isinstance(self.engine, AcceleratedEngine):
            return self.engine.explain(channel)
        return Plane.USERSPACE, ""

    def channels(self) -> dict[Plane, int]:
        """How many channels each plane forwards; nothing where userspace works alone."""
        return self.engine.channels() if isinstance(self.engine, AcceleratedEngine) else {}

    def exceptions(self) -> dict[str, int]:
        """Packets of tunnels that the programs left to userspace, by reason."""
        return self.engine.exceptions() if isinstance(self.engine, AcceleratedEngine) else {}

    def choose(self, configuration: Configuration) -> None:
        """Forward as another configuration says; no channel is interrupted."""
        if configuration.dataplane.engine is self.choice:
            return
        self.choice = configuration.dataplane.engine
        planes = self._planes(self.choice)
        if isinstance(self.engine, AcceleratedEngine):
            self.engine.choose(planes)
        self._explain()
        _log.info("engine chosen engine=%s reason=%s", self.choice.value, self.reason)

    def problems(self) -> Iterator[Problem]:
        """What keeps a plane that was asked for by name from being used."""
        if self.choice in {EngineChoice.AUTO, EngineChoice.USERSPACE}:
            return
        if self._unavailable or self._refused:
            yield _problem(self.choice, self._unavailable or self._refused)
            return
        if self._ports is None or self._uplinks is None:
            return
        (plane,) = PLANES[self.choice]
        for name, (usable, reasons) in self._uplinks.attached().items():
            if plane not in usable:
                yield _problem(self.choice, f"uplink {name}: {reasons.get(plane, '')}", name)
        for name in self._ports.names():
            port = self._ports.get(name)
            if port is not None and plane not in port.planes:
                yield _problem(self.choice, f"{name}: {port.reasons.get(plane, '')}", name)

    def close(self) -> None:
        """Look after nothing more; to be called after the engine's own `close`, and safe to call twice."""
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None
        if self._kept is not None:
            self._kept.close()
            self._kept = None
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
        named = "configured" if self.choice is not EngineChoice.AUTO else "automatically"
        if self.choice is EngineChoice.USERSPACE:
            self.reason = named
        elif self._unavailable or self._refused:
            self.reason = f"{named} {self.choice.value}, but userspace: {self._unavailable or self._refused}"
        elif self.choice is EngineChoice.AUTO:
            self.reason = "automatically: each channel by the fastest plane that its interfaces allow"
        else:
            self.reason = f"{named}; userspace where an interface does not allow it"


def _problem(choice: EngineChoice, reason: str, subject: str | None = None) -> Problem:
    return Problem(
        code="engine_not_usable",
        severity=Severity.WARNING,
        message=f"engine {choice.value} is configured and channels go through userspace there: {reason}.",
        subject=subject,
    )

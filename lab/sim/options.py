"""What a simulator is started with, and what one that runs offers to a test or a program in the same process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from lab.sim.faults import FaultSwitch
from lab.sim.population import Population
from lab.sim.wire_log import WireLog


@dataclass(frozen=True, slots=True)
class SimOptions:
    """How a simulated router is to be; the same for every kind of router, which ignores what it has not."""

    listen_host: str = "127.0.0.1"
    listen_port: int = 0
    """SSH port (MX80: NETCONF); 0 lets the kernel choose."""
    netconf_port: int | None = 0
    """IOS-XE: port of NETCONF, 0 chosen by the kernel, None: NETCONF is off."""
    username: str = "isthmus"
    password: str | None = field(default="synthetic-password", repr=False)
    """None: only `authorized_keys` are let in."""
    authorized_keys: tuple[str, ...] = ()
    """Public keys of `username`, as in OpenSSH's file of that name."""
    read_only_user: str | None = None
    """A second user with the same password and keys who may look but not change."""
    host_key: asyncssh.SSHKey | None = field(default=None, repr=False)
    """None: a new one (ed25519; RSA with `old_ssh`)."""
    old_ssh: bool = False
    """Offer only diffie-hellman-group14-sha1 and an ssh-rsa host key, as aged releases do."""
    hostname: str | None = None
    """None: the simulator's own."""
    configuration: str | None = None
    """First committed configuration in the router's own text; None: a small built-in one."""
    configured: bool = False
    """MX80, IOS-XE: start with an AMT relay already configured, as a bench wants it."""
    tunnels: int = 0
    channels: int = 4
    """(S,G) that each tunnel of the population asks for."""
    churn: float = 0.0
    """Share of the tunnels replaced at each tick of the population, 0..1."""
    seed: int = 1
    """Populations of equal seed and settings are equal."""
    tick_seconds: float = 5.0
    """How often counters move."""
    live: str | None = None
    """URL of a running agent in relay role whose tunnels are shown instead: `http://…` or `unix:///path`."""
    fault: tuple[str, ...] = ()
    """`NAME` or `NAME:ARGUMENT` of `lab.sim.faults.FAULTS`."""
    minute_seconds: float = 60.0
    """Seconds that a minute of a confirmed commit lasts here."""
    log: list[dict[str, Any]] | Path | None = None
    """Where wire messages go besides `RunningSim.log`: a list, or a file of JSON lines, flushed after each."""
    state: Path | None = None
    """File that keeps committed configuration, history and open confirm window over a restart."""


@dataclass(slots=True)
class RunningSim:
    """A simulated router that listens."""

    host: str
    port: int
    netconf_port: int | None
    device: Any
    """State object of the kind of router (MX80: `lab.sim.mx80.device.Mx80`)."""
    population: Population
    faults: FaultSwitch
    wire_log: WireLog
    host_key: Callable[[], asyncssh.SSHKey]
    """The key served now (the fault change-host-key changes it)."""

    @property
    def host_key_line(self) -> str:
        """Algorithm and key as in known_hosts: `ssh-ed25519 AAAA…`."""
        words = self.host_key().export_public_key("openssh").decode().split()
        return " ".join(words[:2])

    @property
    def fingerprint(self) -> str:
        """SHA256 fingerprint of the host key, as ssh-keygen prints it."""
        return self.host_key().get_fingerprint("sha256")

    @property
    def log(self) -> list[dict[str, Any]]:
        """Wire messages so far: dict(direction "in"|"out", session, kind, summary), the latest last."""
        return self.wire_log.entries

    def set_fault(self, fault: str | None) -> None:
        """Switch `NAME[:ARGUMENT]` on besides those that are on; None switches all off."""
        self.faults.set(fault)

"""Checks a host before the agent is blamed, and changes nothing."""

from __future__ import annotations

from pathlib import Path

from agent.service.doctor.bpf import check_bpf
from agent.service.doctor.finding import Finding, Verdict
from agent.service.doctor.frr import check_frr
from agent.service.doctor.host import Host
from agent.service.doctor.kernel import check_kernel
from agent.service.doctor.network import check_network
from agent.service.doctor.planes import check_planes
from agent.service.doctor.surroundings import check_configuration, check_surroundings

__all__ = ["Finding", "Verdict", "examine"]

DEFAULT_CONFIG = Path("/etc/isthmus/agent.toml")


def examine(path: Path | None = None, host: Host | None = None) -> list[Finding]:
    """Every check of this host, for the configuration at `path`, or the default one if it is there."""
    host = host or Host()
    findings, configuration = check_configuration(path, DEFAULT_CONFIG)
    findings.extend(check_kernel(host, configuration))
    findings.extend(check_bpf(host))
    findings.extend(check_planes(host, configuration))
    findings.extend(check_network(host, configuration))
    findings.extend(check_frr(host, configuration))
    findings.extend(check_surroundings(host, configuration))
    return findings

"""Configuration file, state directory, clock and names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from agent.service.config import Configuration, ConfigurationError, load
from agent.service.doctor.finding import Finding, fail, ok, unknown, warn
from agent.service.doctor.host import Host


def check_configuration(path: Path | None, default: Path) -> tuple[list[Finding], Configuration | None]:
    """Findings about the file, and what it says when it is valid."""
    if path is None and not default.exists():
        missing = f"there is no {default}; the host is checked for either role"
        advice = f"amt-agent config show-defaults > {default}"
        return [warn("configuration", missing, advice)], None
    chosen = path or default
    try:
        configuration = load(chosen)
    except ConfigurationError as error:
        advice = f"amt-agent config check {chosen} tells the same; correct the file."
        return [fail("configuration", line, advice) for line in error.lines()], None
    return [ok("configuration", f"{chosen} is valid, role {configuration.role.value}")], configuration


def check_surroundings(host: Host, configuration: Configuration | None) -> Iterator[Finding]:
    """State directory, clock, names."""
    if configuration is not None:
        yield _state_directory(host, configuration.state_dir)
    yield _clock(host)
    yield _names(host)


def _state_directory(host: Host, path: Path) -> Finding:
    writable = host.writable(path)
    if writable is None:
        return warn("state-directory", f"{path} is not there yet", "The agent makes it at start, if it may.")
    if writable:
        return ok("state-directory", f"{path} can be written")
    if not host.is_root():
        return unknown("state-directory", f"{path} cannot be written by this user", "Run the doctor as root.")
    return fail("state-directory", f"{path} cannot be written", "Is its file system mounted read-only?")


def _clock(host: Host) -> Finding:
    synchronised = host.clock_synchronised()
    if synchronised is None:
        return unknown("clock", "the kernel does not say whether its clock is synchronised")
    if not synchronised:
        return warn(
            "clock",
            "not synchronised",
            "Run chrony or systemd-timesyncd: confirm timers across restarts and logs go by this clock.",
        )
    return ok("clock", "synchronised")


def _names(host: Host) -> Finding:
    servers = re.findall(r"^\s*nameserver\s+(\S+)", host.text("/etc/resolv.conf") or "", re.MULTILINE)
    if not servers:
        return warn(
            "names",
            "no name server in /etc/resolv.conf",
            "Relays given by address work; discovery in the DNS will not.",
        )
    for server in servers:
        if host.name_server_answers(server.partition("%")[0]):
            return ok("names", f"name server {server} answers")
    return warn("names", f"no answer from {', '.join(servers)}", "Relays given by address work all the same.")

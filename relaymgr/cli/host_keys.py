"""Deciding whether to trust a device's host key. Nothing is pinned that nobody compared, unless told so in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import click

from relaymgr.cli import terminal
from relaymgr.cli.client import Document, Manager
from relaymgr.cli.failure import EXIT_FAILED, EXIT_USAGE, Failure
from relaymgr.cli.options import Command
from relaymgr.cli.resources import given

_PORTS: Final = {"junos": 830}
_SSH_PORT: Final = 22


@dataclass(frozen=True, slots=True)
class Trust:
    """How a presented key is judged: by a fingerprint known beforehand, blindly, or by asking."""

    fingerprint: str | None = None
    """`SHA256:…` the device must present."""
    any_key: bool = False
    """Take whatever is presented now."""


def trust_options(command: Command) -> Command:
    """--accept-host-key FINGERPRINT and --accept-new-host-key."""
    blind = click.option(
        "--accept-new-host-key",
        "any_key",
        is_flag=True,
        help="Pin whatever key the device shows now, uncompared: whoever sits in between then stays there.",
    )
    known = click.option(
        "--accept-host-key",
        "fingerprint",
        metavar="FINGERPRINT",
        help="Pin the key if it has this fingerprint (SHA256:…), as read on the device's console.",
    )
    return known(blind(command))


def ssh_port(platform: str, port: int | None) -> int:
    """The port whose key is pinned."""
    return port if port is not None else _PORTS.get(platform, _SSH_PORT)


def has_host_key(host: str) -> bool:
    """Whether a device is reached by SSH at all; Isthmus's own relay has an URL."""
    return "://" not in host


def scan(manager: Manager, host: str, port: int, *, legacy_ssh: bool, timeout_seconds: float | None = None) -> Document:
    """The key a device presents to the manager: `host_key` and `fingerprint`. Nobody logs in."""
    document = given(host=host, port=port, legacy_ssh=legacy_ssh or None, timeout_seconds=timeout_seconds)
    found: Document = manager.send("POST", "/relays/scan-host-key", document).document
    return found


def decide(presented: Document, where: str, trust: Trust) -> str:
    """The key to pin; raises Failure when it is not to be trusted, or when nobody can be asked."""
    line, fingerprint = str(presented["host_key"]), str(presented["fingerprint"])
    kind = line.partition(" ")[0]
    if trust.fingerprint is not None:
        if trust.fingerprint.strip().rstrip("=") != fingerprint.rstrip("="):
            raise Failure(
                f"{where} presents {kind} {fingerprint}, not the accepted {trust.fingerprint}: nothing was done",
                EXIT_FAILED,
            )
        return line
    click.echo(f"{where} presents {kind} {fingerprint}", err=True)
    if trust.any_key:
        click.echo("pinned without being compared", err=True)
        return line
    if not terminal.somebody_there():
        raise Failure(
            f"nobody to ask: compare it on the device's console, then say --accept-host-key {fingerprint}", EXIT_USAGE
        )
    if not click.confirm("Is this what the device's console shows? Pin it?", default=False, err=True):
        raise Failure("nothing was done")
    return line

"""The command `prepare`: what needs more privileges than the agent itself has."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.client import fail
from agent.cli.options import config_option
from agent.service.config import ConfigurationError, GatewayMode, Role, load

_EXIT_CONFIGURATION = 2
_EXIT_ENVIRONMENT = 3


@click.command()
@config_option
def prepare(path: Path) -> None:
    """Make the tunnel interface and its kernel settings, as root, for an agent that runs without.

    Run by the systemd unit before the agent. In the gateway role it makes the tap device, which stays, and sets its
    reverse-path filter (net.ipv4.conf.<interface>.rp_filter), which a sandboxed agent may not. A relay needs nothing.
    """
    from agent.net.tap import Tap, TapError  # noqa: PLC0415 Linux only, unlike the other commands
    from agent.net.unicast_rules import ignore_dead_routes  # noqa: PLC0415
    from agent.service.frr_mode import tap_settings  # noqa: PLC0415

    try:
        configuration = load(path)
    except ConfigurationError as error:
        fail(str(error), _EXIT_CONFIGURATION)
    if configuration.role is not Role.GATEWAY:
        return
    try:
        with Tap(tap_settings(configuration)) as tap:
            if configuration.gateway.mode is GatewayMode.FRR:
                ignore_dead_routes(tap.name)
            for name, value in sorted(tap.details.items()):
                click.echo(f"{tap.name} {name}: {value}", err=True)
    except (TapError, OSError) as error:
        fail(str(error), _EXIT_ENVIRONMENT)

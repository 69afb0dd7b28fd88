"""The command `frr-config`."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.client import fail
from agent.cli.options import config_option
from agent.service.config import ConfigurationError, GatewayMode, Role, load
from agent.service.frr_lines import frr_configuration

_EXIT_CONFIGURATION = 2


@click.command("frr-config")
@config_option
@click.option("--ipv6", "with_ipv6", is_flag=True, help="IPv6 too, for FRR 10 and later.")
def frr_config(path: Path, with_ipv6: bool) -> None:
    """Print what FRR has to be told beside this agent, in mode `frr`.

    The lines are for /etc/frr/frr.conf or vtysh, and change nothing when they are there already; `amt-agent doctor`
    compares them with what FRR runs on.

    \b
        amt-agent frr-config > /tmp/isthmus.conf
        vtysh -f /tmp/isthmus.conf && vtysh -w
    """
    try:
        configuration = load(path)
    except ConfigurationError as error:
        fail(str(error), _EXIT_CONFIGURATION)
    if configuration.role is not Role.GATEWAY or configuration.gateway.mode is not GatewayMode.FRR:
        fail(f'{path} is not of mode "frr": FRR needs nothing for it', _EXIT_CONFIGURATION)
    click.echo(frr_configuration(configuration, with_ipv6=with_ipv6), nl=False)

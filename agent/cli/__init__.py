"""Command line of the agent; `main` is the program `amt-agent`."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import click

from agent.cli.configuration import config
from agent.cli.diagnose import doctor
from agent.cli.discover import discover
from agent.cli.frr import frr_config
from agent.cli.observe import channels, interfaces, neighbors, statistics, status, tunnels
from agent.cli.options import config_option
from agent.cli.prepare import prepare
from agent.cli.steer import drain, join, joins, leave
from agent.cli_receive import receive_command

_HELP = """Joins multicast islands over the unicast Internet with AMT (RFC 7450).

On a border router, as gateway (receivers behind it) or relay (sources behind it):

\b
    amt-agent config show-defaults > /etc/isthmus/agent.toml
    amt-agent config check
    amt-agent doctor
    amt-agent run
    amt-agent status

On any host, without root, to see whether a channel can be received:

\b
    amt-agent receive 198.51.100.7 232.1.1.1 --out udp://127.0.0.1:5004

\b
Exit status: 0 done; 1 refused or failed; 2 wrong usage; 3 no agent answers.
`amt-agent run` and `amt-agent receive` have their own, see their help.
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("isthmus"), prog_name="amt-agent")
def main() -> None:
    """Group of all commands; the text above is its help."""


@main.command()
@config_option
def run(path: Path) -> None:
    """Run the agent in the foreground.

    Needs CAP_NET_ADMIN and CAP_NET_RAW, which root has and the systemd unit gives. Logs go to standard error.

    \b
    Signals:
      SIGHUP   take the configuration file as it is now; a bad one changes nothing
      SIGTERM  leave every channel, close every tunnel, end
    \b
    Exit status: 0 ended by a signal; 2 the configuration is refused; 3 the host refuses what it asks for.
    """
    from agent.service.daemon import run as run_daemon  # noqa: PLC0415 the server's imports cost other commands time

    sys.exit(run_daemon(path))


for _command in (
    status,
    tunnels,
    channels,
    interfaces,
    neighbors,
    statistics,
    joins,
    join,
    leave,
    drain,
    config,
    doctor,
    discover,
    prepare,
    frr_config,
    receive_command,
):
    main.add_command(_command)

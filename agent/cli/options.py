"""Options several commands have."""

from __future__ import annotations

from pathlib import Path

import click

config_option = click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/etc/isthmus/agent.toml"),
    show_default=True,
    envvar="AMT_AGENT_CONFIG",
    help="Configuration file.",
)
"""The configuration file a command cannot do without, as parameter `path`."""

"""The command `relaymgr`."""

from __future__ import annotations

from importlib.metadata import version

import click

from relaymgr.cli.options import HELP


@click.group(context_settings=HELP)
@click.version_option(version("isthmus"), prog_name="relaymgr")
def main() -> None:
    """Configures and monitors AMT relays."""

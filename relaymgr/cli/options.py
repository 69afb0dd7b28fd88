"""Options that many commands share, and the manager as their first argument."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

import click

from relaymgr.cli.client import Manager
from relaymgr.cli.target import Connection, Target, find_target

Parameters = ParamSpec("Parameters")
Command = TypeVar("Command", bound=Callable[..., object])

HELP: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
as_json: Final = click.option("--json", "as_json", is_flag=True, help="For programs: the document of the REST API.")
yes: Final = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
_EXISTING: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


def manager_options(command: Callable[Concatenate[Manager, Parameters], None]) -> Callable[..., None]:
    """Give a command the options that say which manager to speak to, and a client as first argument."""

    @wraps(command)
    def with_manager(
        url: str | None,
        profile: str | None,
        token_file: Path | None,
        ca_file: Path | None,
        *arguments: Parameters.args,
        **options: Parameters.kwargs,
    ) -> None:
        with open_manager(Connection(url, profile, token_file, ca_file)) as manager:
            command(manager, *arguments, **options)

    return connection_options(with_manager)


def connection_options(command: Command) -> Command:
    """The options that fill a `Connection`: --url, --profile, --token-file, --ca-file."""
    for option in (
        click.option("--ca-file", type=_EXISTING, help="Authority of the manager's certificate (ISTHMUS_CA_FILE)."),
        click.option(
            "--token-file",
            type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
            help="File with the token, - for standard input (else ISTHMUS_TOKEN, else the profile's).",
        ),
        click.option("--profile", metavar="NAME", help="Profile to use (ISTHMUS_PROFILE), see `relaymgr profile`."),
        click.option("--url", metavar="URL", help="Manager to speak to (ISTHMUS_URL)."),
    ):
        command = option(command)
    return command


def open_manager(connection: Connection) -> Manager:
    """A client for the manager meant; says so when the token would travel readably."""
    return open_target(find_target(connection))


def open_target(target: Target) -> Manager:
    """A client for a known manager."""
    if target.in_clear:
        click.echo(f"relaymgr: warning: the token crosses the network in clear to {target.url}", err=True)
    return Manager(target)


def limit_options(command: Command) -> Command:
    """--limit ROWS and --all."""
    everything = click.option("--all", "everything", is_flag=True, help="Every row, whatever --limit says.")
    at_most = click.option(
        "--limit", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="Rows at most."
    )
    return at_most(everything(command))


def change_options(command: Command) -> Command:
    """--comment and --ticket, as written into audit and commit log."""
    ticket = click.option("--ticket", metavar="ID", help="Ticket, kept with the audit entry.")
    comment = click.option("--comment", metavar="TEXT", help="Why; kept with the audit entry.")
    return comment(ticket(command))

"""The configuration from the command line: check and learn offline; candidate, commit and rollback on an agent."""

from __future__ import annotations

import difflib
from pathlib import Path

import click

from agent.cli.client import EXIT_REFUSED, AgentClient, agent_options, fail, print_json
from agent.cli.observe import as_json
from agent.cli.tables import age, until
from agent.service.config import ConfigurationError, Role, load, read, show_defaults

_file = click.Path(dir_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def config() -> None:
    """Check, show and change the configuration, with a way back.

    \b
    A change that cannot lock you out, on a running agent:
      amt-agent config show > new.toml && $EDITOR new.toml
      amt-agent config diff new.toml
      amt-agent config commit new.toml --confirm 120
      amt-agent status
      amt-agent config confirm

    Without the last step the agent returns to the previous configuration after 120 seconds, also when it was restarted
    meanwhile.
    """


@config.command()
@click.argument("path", type=_file, default=Path("/etc/isthmus/agent.toml"))
@click.option("--config", "option_path", type=_file, help="The same as PATH.")
def check(path: Path, option_path: Path | None) -> None:
    """Check a configuration file without touching anything; tells every fault with its line.

    \b
    Exit status: 0 it is valid; 1 it is not.
    """
    path = option_path or path
    try:
        configuration = load(path)
    except ConfigurationError as error:
        for line in error.lines():
            click.echo(line, err=True)
        raise SystemExit(EXIT_REFUSED) from None
    click.echo(f"{path}: valid, role {configuration.role.value}")


@config.command("show-defaults")
@click.option("--role", type=click.Choice([role.value for role in Role]), default="gateway", show_default=True)
def show_defaults_command(role: str) -> None:
    """Print a commented configuration file with every key and its default.

    \b
    Example:
      amt-agent config show-defaults --role relay > /etc/isthmus/agent.toml
    """
    click.echo(show_defaults(Role(role)), nl=False)


@config.command()
@as_json
@agent_options
def show(client: AgentClient, as_json: bool) -> None:
    """Print the running configuration; with --json also candidate, ETag and previous versions."""
    found = client.get("config")
    if as_json:
        print_json(found)
    else:
        click.echo(found["text"], nl=False)


@config.command()
@click.argument("path", type=_file, required=False)
@agent_options
def diff(client: AgentClient, path: Path | None) -> None:
    """Print what PATH, or else the candidate, would change."""
    found = client.get("config")
    if path is None:
        if found["candidate"] is None:
            fail("there is no candidate")
        click.echo(found["candidate_diff"], nl=False)
        return
    try:
        text = read(path)
    except ConfigurationError as error:
        fail(str(error))
    lines = difflib.unified_diff(found["text"].splitlines(), text.splitlines(), "running", str(path), lineterm="")
    click.echo("".join(f"{line}\n" for line in lines), nl=False)


@config.command()
@click.argument("path", type=_file)
@agent_options
def candidate(client: AgentClient, path: Path) -> None:
    """Let the agent check PATH and keep it as candidate; prints what it would change."""
    click.echo(_upload(client, path), nl=False)


@config.command()
@click.argument("path", type=_file, required=False)
@click.option(
    "--confirm",
    "seconds",
    type=click.FloatRange(1, 86_400),
    help="Return to the previous configuration after this many seconds unless confirmed.",
)
@as_json
@agent_options
def commit(client: AgentClient, path: Path | None, seconds: float | None, as_json: bool) -> None:
    """Run with PATH, or else with the candidate, and write it to the agent's configuration file.

    \b
    Examples:
      amt-agent config commit new.toml --confirm 120
      amt-agent config commit
    """
    if path is not None:
        _upload(client, path)
    etag = client.get("config")["etag"]
    _print_change(client.send("POST", "config/commit", {"confirm_seconds": seconds}, etag=etag), as_json)


@config.command()
@agent_options
def confirm(client: AgentClient) -> None:
    """Keep what was committed with --confirm."""
    client.send("POST", "config/confirm")
    click.echo("confirmed")


@config.command()
@click.argument("number", type=click.IntRange(0, 1000), required=False)
@click.option("--confirm", "seconds", type=click.FloatRange(1, 86_400), help="As for commit.")
@as_json
@agent_options
def rollback(client: AgentClient, number: int | None, seconds: float | None, as_json: bool) -> None:
    """Return to a previous configuration.

    Without NUMBER: to what ran before an unconfirmed commit, else to the previous one, 1. NUMBER 0 forgets the
    candidate. `amt-agent config show --json` lists what there is.
    """
    document = {"number": number, "confirm_seconds": seconds}
    _print_change(client.send("POST", "config/rollback", document), as_json)


def _upload(client: AgentClient, path: Path) -> str:
    try:
        text = read(path)
    except ConfigurationError as error:
        fail(str(error))
    etag = client.get("config")["etag"]
    found: str = client.send("POST", "config/candidate", text=text, etag=etag)["diff"]
    return found


def _print_change(found: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    click.echo(found["diff"] if found["changed"] else "nothing changed\n", nl=False)
    if found["confirm_deadline"]:
        left = until(str(found["confirm_deadline"])) or age(0)
        click.echo(f"rolled back in {left} unless: amt-agent config confirm", err=True)

"""`relaymgr token`: API tokens. A token's text is shown once, when it is made."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from relaymgr.cli.client import Document, Manager, segment
from relaymgr.cli.failure import EXIT_USAGE, Failure
from relaymgr.cli.names import identifier, names
from relaymgr.cli.options import HELP, as_json, connection_options, limit_options, manager_options, open_target, yes
from relaymgr.cli.output import at, print_json, print_listing, since, until, words
from relaymgr.cli.resources import ask, given, listing
from relaymgr.cli.server import run_locally
from relaymgr.cli.settings_options import make_settings, settings_options
from relaymgr.cli.target import Connection, Target, known_target
from relaymgr.cli.users import ROLES


@click.group(context_settings=HELP)
def token() -> None:
    """API tokens, with a role and, where wanted, held to some ADs.

    \b
    Example, the first token on the manager's own machine, then others through the API:
      relaymgr token create --role admin --name me --database-url sqlite:////var/lib/relaymgr/relaymgr.db
      relaymgr token create --role operator --name ansible --expires 90d
    """


@token.command()
@click.option("--role", type=ROLES, required=True, help="viewer reads, operator changes relays, admin does everything.")
@click.option("--name", required=True, help="What people call it; stands in the audit.")
@click.option("--ad", "ads", multiple=True, metavar="AD", help="AD the token is held to; repeat it. None: all.")
@click.option("--expires", metavar="WHEN", help="90d, 12h, or a date such as 2027-01-31. Never unless given.")
@click.option("--quiet", "-q", is_flag=True, help="Print the token alone.")
@settings_options("database_url")
@as_json
@connection_options
def create(
    role: str,
    name: str,
    ads: tuple[str, ...],
    expires: str | None,
    quiet: bool,
    as_json: bool,
    database_url: str | None,
    **connection: Any,  # noqa: ANN401 the options of a connection
) -> None:
    """Make a token and print it; it cannot be shown again.

    Through the API where a manager is known (--url, ISTHMUS_URL, a profile); else, or with --database-url, in the
    database itself, which is how the first token is made on the manager's own machine.

    \b
    Examples:
      relaymgr token create --role admin --name me --database-url sqlite:///relaymgr.db
      export ISTHMUS_TOKEN=$(relaymgr token create --role operator --name ansible --quiet)
      relaymgr token create --role viewer --name dashboard-of-example --ad example --expires 90d
    """
    expires_at = None if expires is None else moment(expires)
    target = None if database_url is not None else known_target(Connection(**connection))
    if target is None:
        if database_url is None and os.environ.get("ISTHMUS_TOKEN"):
            raise Failure("ISTHMUS_TOKEN is set, but nothing says of which manager: set ISTHMUS_URL too", EXIT_USAGE)
        settings = make_settings(database_url=database_url)
        from relaymgr.cli import local  # noqa: PLC0415 the database's imports cost other commands time

        made: Document = run_locally(local.create_token(settings, name=name, role=role, ads=ads, expires_at=expires_at))
    else:
        made = _through_api(target, name, role, ads, expires_at)
    if as_json:
        print_json(made)
    elif quiet:
        click.echo(made["token"])
    else:
        click.echo(f"token {made['name']} ({made['id']}), {made['role']}; it is not shown again:", err=True)
        click.echo(made["token"])


@token.command()
@click.argument("token")
@yes
@manager_options
def revoke(manager: Manager, token: str, yes: bool) -> None:
    """Make a token worthless, given by identifier, name, or first characters.

    \b
    Example:
      relaymgr token revoke ansible
    """
    found = _find(manager, token)
    ask(f"Revoke token {found['name']} ({found['prefix']}…, {found['role']})?", yes)
    manager.send("DELETE", f"/tokens/{segment(found['id'])}")
    click.echo(f"revoked {found['name']} ({found['id']})")


@token.command("list")
@click.option("--revoked", is_flag=True, help="Those that were revoked, instead.")
@limit_options
@as_json
@manager_options
def list_tokens(manager: Manager, revoked: bool, limit: int, everything: bool, as_json: bool) -> None:
    """List tokens, never their texts.

    \b
    Example:
      relaymgr token list
    """
    found = listing(manager, "tokens", limit, everything, revoked=str(revoked).lower())
    if as_json:
        print_json(found)
        return
    ads = names(manager, "ads", (ad for row in found["items"] for ad in row["ad_ids"]))
    rows = [
        (
            row["name"],
            f"{row['prefix']}…",
            row["role"],
            words([ads[ad] for ad in row["ad_ids"]]) or "all",
            row["created_by"],
            since(row["last_used_at"]),
            f"revoked {at(row['revoked_at'])}" if row["revoked_at"] else until(row["expires_at"]) or "never",
            row["id"],
        )
        for row in found["items"]
    ]
    headers = ["NAME", "TOKEN", "ROLE", "ADS", "MADE BY", ">LAST USED", "ENDS", "ID"]
    print_listing(found, headers, rows, "no tokens")


def moment(text: str) -> datetime:
    """A time to come: 90d, 12h, 30m, or an ISO date or time (of the local zone unless it says)."""
    span = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if span is not None:
        unit = {"m": "minutes", "h": "hours", "d": "days"}[span[2]]
        return datetime.now(UTC) + timedelta(**{unit: int(span[1])})
    try:
        found = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Failure(
            f"{text} is neither a span such as 90d or 12h nor a date such as 2027-01-31", EXIT_USAGE
        ) from None
    if found <= datetime.now(UTC):
        raise Failure(f"{text} is over", EXIT_USAGE)
    return found


def _through_api(target: Target, name: str, role: str, ads: tuple[str, ...], expires_at: datetime | None) -> Document:
    with open_target(target) as manager:
        document = given(
            name=name,
            role=role,
            ad_ids=[identifier(manager, "ads", ad) for ad in ads],
            expires_at=None if expires_at is None else expires_at.isoformat(),
        )
        made: Document = manager.send("POST", "/tokens", document).document
        return made


def _find(manager: Manager, word: str) -> Document:
    """A token that is not revoked, by identifier, name or first characters."""
    rows = manager.rows("/tokens", limit=None, revoked="false").items
    found = [row for row in rows if word in {row["id"], row["name"]}] or [
        row for row in rows if len(word) >= len(row["prefix"]) and word.startswith(row["prefix"])
    ]
    if not found:
        raise Failure("no such token; see `relaymgr token list`")
    if len(found) > 1:
        raise Failure(f"{len(found)} tokens are called so: give the identifier, see `relaymgr token list`")
    return found[0]

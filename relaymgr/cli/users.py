"""`relaymgr user`: people who log in to the dashboard."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

from pathlib import Path

import click

from relaymgr.cli.client import Manager
from relaymgr.cli.credentials import read_secret
from relaymgr.cli.names import identifier, names
from relaymgr.cli.options import HELP, as_json, limit_options, manager_options, yes
from relaymgr.cli.output import flag, print_json, print_listing, since, words
from relaymgr.cli.resources import add, change, delete, given, listing

ROLES = click.Choice(["viewer", "operator", "admin"])
_password_file = click.option(
    "--password-file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="File with the password, - for standard input; else it is asked for.",
)
_ads = click.option("--ad", "ads", multiple=True, metavar="AD", help="AD the user is held to; repeat it. None: all.")


@click.group(context_settings=HELP)
def user() -> None:
    """People who log in to the dashboard.

    \b
    Example:
      relaymgr user add alice --role operator
    """


@user.command("add")
@click.argument("name")
@click.option("--role", type=ROLES, required=True, help="viewer reads, operator changes relays, admin does everything.")
@_ads
@_password_file
@click.option("--no-password", is_flag=True, help="Set none; the user cannot log in with one until it is set.")
@as_json
@manager_options
def add_user(
    manager: Manager,
    name: str,
    role: str,
    ads: tuple[str, ...],
    password_file: Path | None,
    no_password: bool,
    as_json: bool,
) -> None:
    """Add a local user; the password (12 characters or more) is asked for and not shown.

    \b
    Examples:
      relaymgr user add alice --role operator
      relaymgr user add bob --role viewer --ad example --password-file - < password
    """
    password = None if no_password else read_secret(password_file, "password", twice=True)
    scope = [identifier(manager, "ads", ad) for ad in ads]
    add(manager, "users", given(name=name, role=role, ad_ids=scope, password=password), as_json)


@user.command("set")
@click.argument("user")
@click.option("--role", type=ROLES, help="Another role.")
@_ads
@click.option("--all-ads", is_flag=True, help="Held to no AD any more.")
@click.option("--enable/--disable", "enabled", default=None, help="Whether the user may log in.")
@click.option("--password", "new_password", is_flag=True, help="Ask for another password.")
@_password_file
@as_json
@manager_options
def set_user(
    manager: Manager,
    user: str,
    role: str | None,
    ads: tuple[str, ...],
    all_ads: bool,
    enabled: bool | None,
    new_password: bool,
    password_file: Path | None,
    as_json: bool,
) -> None:
    """Change a user; what is not given stays.

    \b
    Examples:
      relaymgr user set alice --disable
      relaymgr user set bob --role operator --password
    """
    asked = new_password or password_file is not None
    password = read_secret(password_file, "password", twice=True) if asked else None
    scope = [identifier(manager, "ads", ad) for ad in ads]
    changes = given(role=role, ad_ids=[] if all_ads else scope or None, enabled=enabled, password=password)
    change(manager, "users", user, changes, as_json)


@user.command("list")
@limit_options
@as_json
@manager_options
def list_users(manager: Manager, limit: int, everything: bool, as_json: bool) -> None:
    """List users.

    \b
    Example:
      relaymgr user list
    """
    found = listing(manager, "users", limit, everything)
    if as_json:
        print_json(found)
        return
    ads = names(manager, "ads", (ad for row in found["items"] for ad in row["ad_ids"]))
    rows = [
        (
            row["name"],
            row["role"],
            words([ads[ad] for ad in row["ad_ids"]]) or "all",
            flag(row["enabled"]),
            row["subject"] or "local",
            since(row["last_login_at"]),
            row["id"],
        )
        for row in found["items"]
    ]
    print_listing(found, ["NAME", "ROLE", "ADS", "ENABLED", "IDENTITY", ">LAST LOGIN", "ID"], rows, "no users")


@user.command("delete")
@click.argument("user")
@yes
@manager_options
def delete_user(manager: Manager, user: str, yes: bool) -> None:
    """Delete a user and end the sessions.

    \b
    Example:
      relaymgr user delete alice
    """
    delete(manager, "users", user, yes)

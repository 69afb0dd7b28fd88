"""`relaymgr credential`: how to log in to devices. Secrets go in and never come out."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

import sys
from pathlib import Path

import click

from relaymgr.cli import terminal
from relaymgr.cli.client import Manager
from relaymgr.cli.failure import EXIT_USAGE, Failure
from relaymgr.cli.names import names, optional
from relaymgr.cli.options import HELP, as_json, limit_options, manager_options, yes
from relaymgr.cli.output import print_json, print_listing, since
from relaymgr.cli.resources import add, delete, given, listing


@click.group(context_settings=HELP)
def credential() -> None:
    """How to log in to devices: a sealed secret, or a reference to one.

    \b
    Example:
      relaymgr credential add mx80 --username isthmus
      relaymgr credential list
    """


@credential.command("add")
@click.argument("name")
@click.option("--username", required=True, help="Login on the device.")
@click.option(
    "--kind",
    type=click.Choice(["password", "private_key", "token"]),
    default="password",
    show_default=True,
    help="What the secret is; a token is for Isthmus's own relay.",
)
@click.option(
    "--secret-file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="File here that holds the secret, - for standard input; sealed in the manager's database.",
)
@click.option("--from-env", metavar="VARIABLE", help="The secret is in this environment variable of the service.")
@click.option("--from-file", metavar="PATH", help="The secret is in this file on the service's machine.")
@click.option("--from-vault", metavar="PATH#FIELD", help="The secret is in Vault.")
@click.option("--ad", metavar="AD", help="AD that owns it, by name or identifier; else everybody's.")
@as_json
@manager_options
def add_credential(
    manager: Manager,
    name: str,
    username: str,
    kind: str,
    secret_file: Path | None,
    from_env: str | None,
    from_file: str | None,
    from_vault: str | None,
    ad: str | None,
    as_json: bool,
) -> None:
    """Add a credential. Without a file or a reference the secret is asked for and not shown.

    \b
    Examples:
      relaymgr credential add mx80 --username isthmus
      relaymgr credential add xe --username isthmus --secret-file - < password
      relaymgr credential add mx80-key --username isthmus --kind private_key --secret-file ~/.ssh/isthmus
      relaymgr credential add core --username isthmus --from-vault secret/network/core#password
    """
    references = {"env": from_env, "file": from_file, "vault": from_vault}
    named = [(source, reference) for source, reference in references.items() if reference is not None]
    if len(named) + (secret_file is not None) > 1:
        raise Failure("one of --secret-file, --from-env, --from-file and --from-vault at most", EXIT_USAGE)
    source, reference = named[0] if named else ("sealed", None)
    secret = None if named else read_secret(secret_file, kind.replace("_", " "), keep_lines=kind == "private_key")
    document = given(
        name=name,
        username=username,
        kind=kind,
        source=source,
        reference=reference,
        secret=secret,
        ad_id=optional(manager, "ads", ad),
    )
    add(manager, "credentials", document, as_json)


@credential.command("list")
@limit_options
@as_json
@manager_options
def list_credentials(manager: Manager, limit: int, everything: bool, as_json: bool) -> None:
    """List credentials, without their secrets.

    \b
    Example:
      relaymgr credential list
    """
    found = listing(manager, "credentials", limit, everything)
    if as_json:
        print_json(found)
        return
    ads = names(manager, "ads", (row["ad_id"] for row in found["items"]))
    rows = [
        (
            row["name"],
            row["username"],
            row["kind"],
            row["source"],
            row["reference"],
            ads.get(row["ad_id"]),
            since(row["updated_at"]),
            row["id"],
        )
        for row in found["items"]
    ]
    headers = ["NAME", "USERNAME", "KIND", "SOURCE", "REFERENCE", "AD", ">AGE", "ID"]
    print_listing(found, headers, rows, "no credentials: relaymgr credential add")


@credential.command("delete")
@click.argument("credential")
@yes
@manager_options
def delete_credential(manager: Manager, credential: str, yes: bool) -> None:
    """Delete a credential that no relay uses.

    \b
    Example:
      relaymgr credential delete mx80
    """
    delete(manager, "credentials", credential, yes)


def read_secret(path: Path | None, what: str, *, keep_lines: bool = False, twice: bool = False) -> str:
    """A secret from a file, standard input (`-`), or asked for without showing it; its last line end is taken off."""
    if path is None:
        if not terminal.somebody_there():
            raise Failure(f"no terminal to ask for the {what} on: give a file", EXIT_USAGE)
        asked: str = click.prompt(what.capitalize(), hide_input=True, confirmation_prompt=twice, err=True)
        return asked
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Failure(f"cannot read {path}: {reason}", EXIT_USAGE) from None
    secret = text if keep_lines else text.rstrip("\r\n")
    if not secret or (not keep_lines and "\n" in secret):
        raise Failure(f"{path} does not hold one {what} alone", EXIT_USAGE)
    return secret

"""`relaymgr backup`: configurations of relays as they were."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

from pathlib import Path

import click

from relaymgr.cli.changes import submit
from relaymgr.cli.client import Manager, segment
from relaymgr.cli.differences import print_diff, print_text
from relaymgr.cli.failure import EXIT_USAGE, Failure
from relaymgr.cli.follow import end_of_job, watch_job
from relaymgr.cli.names import identifier, is_identifier, names, optional
from relaymgr.cli.options import HELP, as_json, limit_options, manager_options
from relaymgr.cli.output import at, print_json, print_listing, size
from relaymgr.cli.resources import listing


@click.group(context_settings=HELP)
def backup() -> None:
    """Whole configurations of relays, kept whenever they changed.

    \b
    Example:
      relaymgr backup list --relay mx1
      relaymgr backup diff mx1
    """


@backup.command("list")
@click.option("--relay", metavar="RELAY", help="Only of this relay, by name or identifier.")
@limit_options
@as_json
@manager_options
def list_backups(manager: Manager, relay: str | None, limit: int, everything: bool, as_json: bool) -> None:
    """List backups, newest first.

    \b
    Example:
      relaymgr backup list --relay mx1 --limit 5
    """
    relay_id = optional(manager, "relays", relay)
    found = listing(manager, "backups", limit, everything, relay_id=relay_id)
    if as_json:
        print_json(found)
        return
    relays = names(manager, "relays", (row["relay_id"] for row in found["items"]))
    rows = [
        (
            row["id"],
            relays[row["relay_id"]],
            at(row["taken_at"]),
            row["reason"],
            size(row["size_bytes"]),
            row["sha256"][:12],
            row["job_id"],
        )
        for row in found["items"]
    ]
    print_listing(found, ["ID", "RELAY", "TAKEN", "REASON", ">SIZE", "SHA-256", "JOB"], rows, "no backups")


@backup.command("show")
@click.argument("backup")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write it there, mode 0600.")
@as_json
@manager_options
def show_backup(manager: Manager, backup: str, output: Path | None, as_json: bool) -> None:
    """Print the configuration of a backup. Only an admin's token sees its secrets; reading is audited.

    \b
    Examples:
      relaymgr backup show 019a3f0c77e2a1b2c3d4e5f60718293a
      relaymgr backup show 019a3f0c77e2a1b2c3d4e5f60718293a -o mx1.conf
    """
    path = f"/backups/{segment(backup)}"
    if as_json:
        print_json(manager.get(path))
        return
    text = manager.text(f"{path}/content", "text/plain")
    if output is None:
        print_text(text)
        return
    try:
        output.touch(mode=0o600)
        output.chmod(0o600)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"cannot write {output}: {error.strerror}", EXIT_USAGE) from None


@backup.command("diff")
@click.argument("before")
@click.argument("after", required=False)
@as_json
@manager_options
def diff_backups(manager: Manager, before: str, after: str | None, as_json: bool) -> None:
    """Show what changed between two backups, or between the last two of a relay. Secrets are masked.

    \b
    Examples:
      relaymgr backup diff mx1
      relaymgr backup diff 019a3f0c77e2a1b2c3d4e5f60718293a 019a3f0d00e2a1b2c3d4e5f60718293b
    """
    if after is None:
        before, after = _last_two(manager, before)
    found = manager.get("/backups/diff", from_id=before, to_id=after)
    if as_json:
        print_json(found)
    else:
        print_diff(found["diff"])


@backup.command("take")
@click.argument("relay")
@click.option("--no-wait", is_flag=True, help="Do not follow the job; print its identifier.")
@as_json
@manager_options
def take_backup(manager: Manager, relay: str, no_wait: bool, as_json: bool) -> None:
    """Read a relay's configuration now, and keep it if it changed.

    \b
    Example:
      relaymgr backup take mx1
    """
    job = submit(manager, f"/relays/{segment(identifier(manager, 'relays', relay))}/backup", None)
    if not no_wait:
        end_of_job(watch_job(manager, job["id"], quiet=as_json), as_json=as_json)
    elif as_json:
        print_json(job)
    else:
        click.echo(job["id"])


def _last_two(manager: Manager, word: str) -> tuple[str, str]:
    relay_id = identifier(manager, "relays", word)
    rows = manager.rows("/backups", limit=2, relay_id=relay_id).items
    if len(rows) < 2:
        what = "say two backups" if is_identifier(word) and not rows else f"{word} has {len(rows)} backups"
        raise Failure(f"{what}; see `relaymgr backup list`")
    return rows[1]["id"], rows[0]["id"]

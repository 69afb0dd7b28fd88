"""`relaymgr job`: work on devices, to look at, follow and cancel."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

import click

from relaymgr.cli.client import Manager, segment
from relaymgr.cli.follow import ENDED, end_of_job, watch_job
from relaymgr.cli.names import names, optional
from relaymgr.cli.options import HELP, as_json, limit_options, manager_options
from relaymgr.cli.output import at, flag, print_json, print_listing, print_pairs, print_table, since, until
from relaymgr.cli.resources import listing

STATES = ["queued", "running", "succeeded", "failed", "rolled_back", "cancelled", "uncertain"]


@click.group(context_settings=HELP)
def job() -> None:
    """Jobs: work on devices that goes on without you.

    \b
    Example:
      relaymgr job list --state running
      relaymgr job watch 019a3f0c77e2a1b2c3d4e5f60718293a
    """


@job.command("list")
@click.option("--relay", metavar="RELAY", help="Only of this relay, by name or identifier.")
@click.option("--state", type=click.Choice(STATES), help="Only in this state.")
@click.option("--kind", metavar="KIND", help="Only of this kind: apply, drain, drift, backup, …")
@limit_options
@as_json
@manager_options
def list_jobs(
    manager: Manager,
    relay: str | None,
    state: str | None,
    kind: str | None,
    limit: int,
    everything: bool,
    as_json: bool,
) -> None:
    """List jobs, newest first.

    \b
    Examples:
      relaymgr job list --state uncertain
      relaymgr job list --relay mx1 --limit 10
    """
    relay_id = optional(manager, "relays", relay)
    found = listing(manager, "jobs", limit, everything, relay_id=relay_id, state=state, kind=kind, sort="-id")
    if as_json:
        print_json(found)
        return
    relays = names(manager, "relays", (row["relay_id"] for row in found["items"]))
    rows = [
        (
            row["id"],
            row["kind"],
            relays.get(row["relay_id"]),
            row["state"],
            f"{row['progress']}%",
            row["phase"],
            row["actor"],
            since(row["created_at"]),
            row["error_code"] or row["comment"],
        )
        for row in found["items"]
    ]
    headers = ["ID", "KIND", "RELAY", "STATE", ">DONE", "PHASE", "ACTOR", ">AGE", "NOTE"]
    print_listing(found, headers, rows, "no jobs")


@job.command("show")
@click.argument("job_id", metavar="JOB")
@as_json
@manager_options
def show_job(manager: Manager, job_id: str, as_json: bool) -> None:
    """Show a job and its log.

    \b
    Example:
      relaymgr job show 019a3f0c77e2a1b2c3d4e5f60718293a
    """
    path = f"/jobs/{segment(job_id)}"
    found = manager.get(path)
    if as_json:
        print_json(found)
        return
    relays = names(manager, "relays", [found["relay_id"]])
    print_pairs(
        [
            ("id", found["id"]),
            ("kind", found["kind"]),
            ("relay", relays.get(found["relay_id"])),
            ("rollout", found["rollout_id"]),
            ("state", found["state"]),
            ("phase", f"{found['phase']}, {found['progress']}%"),
            ("error", found["error_code"] and f"{found['error_detail']} ({found['error_code']})"),
            ("asked for", f"{at(found['created_at'])} by {found['actor']}"),
            ("comment", found["comment"]),
            ("ticket", found["ticket"]),
            ("started", at(found["started_at"])),
            ("finished", at(found["finished_at"])),
            ("attempts", found["attempt"]),
            ("confirm deadline", at(found["confirm_deadline"])),
            ("cancel asked for", flag(found["cancel_requested"])),
        ]
    )
    if found["state"] not in ENDED and found["confirm_deadline"]:
        click.echo(f"The device goes back by itself in {until(found['confirm_deadline'])} unless confirmed.")
    log = manager.rows(f"{path}/log", limit=None).items
    rows = [(at(row["at"]), f"{row['progress']}%", row["phase"], row["level"], row["message"]) for row in log]
    print_table(["AT", ">DONE", "PHASE", "LEVEL", "MESSAGE"], rows, "no log")


@job.command("watch")
@click.argument("job_id", metavar="JOB")
@as_json
@manager_options
def watch(manager: Manager, job_id: str, as_json: bool) -> None:
    """Follow a job until it ends; goes on where it was when the manager restarts meanwhile.

    \b
    Exit status: 0 it succeeded; 4 it failed, was cancelled or rolled back; 5 uncertain.

    \b
    Example:
      relaymgr job watch 019a3f0c77e2a1b2c3d4e5f60718293a
    """
    end_of_job(watch_job(manager, job_id, quiet=as_json), as_json=as_json)


@job.command("cancel")
@click.argument("job_id", metavar="JOB")
@as_json
@manager_options
def cancel(manager: Manager, job_id: str, as_json: bool) -> None:
    """Ask a job to end as soon as that leaves nothing half done.

    \b
    Example:
      relaymgr job cancel 019a3f0c77e2a1b2c3d4e5f60718293a
    """
    found = manager.send("POST", f"/jobs/{segment(job_id)}/cancel").document
    if as_json:
        print_json(found)
    else:
        click.echo(f"asked {found['kind']} {found['id']} to end; it is {found['state']}")

"""`relaymgr relay drift` and `relay accept`: what somebody else changed in what is ours."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

import click
from rich.text import Text

from relaymgr.cli.changes import submit
from relaymgr.cli.client import Document, Manager, segment
from relaymgr.cli.differences import print_diff
from relaymgr.cli.failure import EXIT_FAILED, EXIT_JOB_FAILED, EXIT_UNCERTAIN, Failure
from relaymgr.cli.follow import ENDED, end_of_job, watch_job
from relaymgr.cli.names import identifier
from relaymgr.cli.options import as_json, change_options, limit_options, manager_options, yes
from relaymgr.cli.output import age, at, print_json, print_listing, print_pairs, since
from relaymgr.cli.resources import ask, given, listing


@click.command("drift")
@click.argument("relay", required=False)
@click.option("--check", is_flag=True, help="Look now instead of showing what was found last.")
@click.option("--state", type=click.Choice(["none", "drifted", "unknown"]), help="Without RELAY: only in this state.")
@limit_options
@as_json
@manager_options
def drift(
    manager: Manager,
    relay: str | None,
    check: bool,
    state: str | None,
    limit: int,
    everything: bool,
    as_json: bool,
) -> None:
    """Show how a relay differs from what our last change left, and who changed it; without RELAY, all of them.

    Accept it with `relay accept`, undo it with `relay restore`.

    \b
    Exit status with RELAY: 0 no drift; 1 there is; 5 unknown.

    \b
    Examples:
      relaymgr relay drift --state drifted
      relaymgr relay drift mx1
      relaymgr relay drift mx1 --check
    """
    if relay is None:
        if check:
            raise click.UsageError("--check looks at one relay: say which")
        _print_all(listing(manager, "drift", limit, everything, state=state), as_json=as_json)
        return
    relay_id = identifier(manager, "relays", relay)
    if check:
        _check(manager, relay_id, quiet=as_json)
    found = last_found(manager, relay_id)
    if as_json:
        print_json(found)
    else:
        print_drift(relay, found)
    status = {"none": 0, "drifted": EXIT_FAILED}.get("unknown" if found is None else found["state"], EXIT_UNCERTAIN)
    raise SystemExit(status)


@click.command("accept")
@click.argument("relay")
@change_options
@yes
@as_json
@manager_options
def accept(manager: Manager, relay: str, comment: str | None, ticket: str | None, yes: bool, as_json: bool) -> None:
    """Take what the device has now as what is expected from now on. Nothing is sent to it; the intent stays.

    \b
    Example:
      relaymgr relay accept mx1 --comment "agreed with the peering team" --ticket NOC-4711
    """
    relay_id = identifier(manager, "relays", relay)
    if not as_json:
        print_drift(relay, last_found(manager, relay_id))
    ask(f"Expect this of {relay} from now on?", yes)
    found = manager.send("POST", f"/relays/{segment(relay_id)}/accept", given(comment=comment, ticket=ticket)).document
    if as_json:
        print_json(found)
    else:
        click.echo(f"accepted; {relay} has no drift")


def last_found(manager: Manager, relay_id: str) -> Document | None:
    """What the last check of a relay found; None when there was none."""
    rows = manager.rows("/drift", limit=1, relay_id=relay_id).items
    if not rows:
        manager.get(f"/relays/{segment(relay_id)}")  # says so where there is no such relay
    return rows[0] if rows else None


def print_drift(relay: str, found: Document | None) -> None:
    """State, diff, who and when."""
    if found is None:
        click.echo(f"{relay} was never looked at for drift: relaymgr relay drift {relay} --check")
        return
    pairs: list[tuple[str, object]] = [
        ("drift", found["state"]),
        ("looked for", f"{age(found['age_seconds'])} ago ({at(found['checked_at'])})"),
    ]
    if found["reason"]:
        pairs.append(("reason", Text(found["reason"], style="yellow")))
    if found["state"] == "drifted":
        by = found["changed_by"] or "-"
        pairs += [("first seen", at(found["since"])), ("last commit", f"{by}, {at(found['changed_at']) or '-'}")]
    print_pairs(pairs)
    if found["diff"]:
        print_diff(found["diff"])


def _print_all(found: Document, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [
        (
            row["relay_name"],
            row["state"],
            age(row["age_seconds"]),
            since(row["since"]) if row["state"] == "drifted" else None,
            row["changed_by"],
            at(row["changed_at"]),
            row["reason"],
        )
        for row in found["items"]
    ]
    headers = ["RELAY", "DRIFT", ">CHECKED", ">FOR", "LAST COMMIT BY", "AT", "REASON"]
    print_listing(found, headers, rows, "no relay was looked at yet")


def _check(manager: Manager, relay_id: str, *, quiet: bool) -> None:
    job = watch_job(manager, submit(manager, f"/relays/{segment(relay_id)}/check-drift", None)["id"], quiet=quiet)
    assert job["state"] in ENDED
    if job["state"] != "succeeded":
        if quiet:
            raise Failure(f"{job['error_detail'] or job['state']} ({job['error_code']})", EXIT_JOB_FAILED)
        end_of_job(job, as_json=False)

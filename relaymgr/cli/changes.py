"""`relaymgr relay plan|apply|drain|undrain|rollback|restore`: see a change, agree to it, follow it to its end."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

import secrets
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, Final

import click

from relaymgr.cli.client import Document, Manager, segment
from relaymgr.cli.differences import print_diff
from relaymgr.cli.failure import EXIT_USAGE, Failure, Unreachable
from relaymgr.cli.follow import end_of_job, pause, watch_job
from relaymgr.cli.names import identifier
from relaymgr.cli.options import Command, as_json, change_options, manager_options, yes
from relaymgr.cli.output import print_json, until
from relaymgr.cli.resources import ask, given

KINDS: Final = ["apply", "drain", "undrain", "restore", "rollback"]
_QUESTIONS: Final = {
    "apply": "Apply this to {}?",
    "drain": "Drain {} (no new gateways come to it; tunnels stay)?",
    "undrain": "Bring {} back into service?",
    "rollback": "Take {} back to what was before its last change?",
    "restore": "Undo the drift of {}?",
}
_TRIES: Final = 3
_EXITS: Final = """\
Exit status: 0 done, or nothing to do; 1 refused; 3 no manager answers; 4 the change failed or was rolled back, the
device is as it was; 5 uncertain, somebody has to look at the device."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a change shall be carried out."""

    plan: str | None
    confirm_minutes: int
    probe: bool
    comment: str | None
    ticket: str | None
    wait: bool
    yes: bool
    as_json: bool


def job_options(command: Command) -> Command:
    """Everything a command that changes a device can be told."""
    for option in (
        as_json,
        yes,
        click.option("--no-wait", is_flag=True, help="Do not follow the job; print its identifier."),
        click.option("--probe", is_flag=True, help="Verify with a real AMT handshake from the manager's host too."),
        click.option(
            "--confirm-minutes",
            type=click.IntRange(1, 60),
            default=5,
            show_default=True,
            help="Minutes after which the device goes back by itself unless the change proved good.",
        ),
        click.option("--plan", metavar="PLAN", help="Carry out this plan, made before, instead of a new one."),
    ):
        command = option(command)
    return change_options(command)


@click.command("plan")
@click.argument("relay")
@click.option("--kind", type=click.Choice(KINDS), default="apply", show_default=True, help="Which change to plan.")
@click.option("--commands", is_flag=True, help="Print what would be sent, too.")
@as_json
@manager_options
def plan(manager: Manager, relay: str, kind: str, commands: bool, as_json: bool) -> None:
    """Show what a change would do to a relay, as the device itself tells. Leaves no trace on it.

    \b
    Examples:
      relaymgr relay plan mx1
      relaymgr relay plan mx1 --kind drain --commands
      relaymgr relay plan mx1 --json | jq -r .diff
    """
    found = make_plan(manager, identifier(manager, "relays", relay), kind)
    if as_json:
        print_json(found)
        return
    print_plan(found, relay)
    if commands and found["commands"].strip():
        click.echo("\nsent would be:")
        print_diff(found["commands"])
    if not found["unchanged"]:
        verb = f"relay {kind}"
        click.echo(f"carry it out within {until(found['expires_at'])}: relaymgr {verb} {relay} --plan {found['id']}")


@click.command("apply")
@click.argument("relay")
@job_options
@manager_options
def apply(manager: Manager, /, relay: str, no_wait: bool, **wishes: Any) -> None:  # noqa: ANN401 Wishes types them
    """Bring a relay to its intent: shows the diff, asks, applies with a confirm window, verifies, confirms.

    If the device cannot be reached, AMT does not answer or PIM neighbours stay away, the change is not confirmed and
    the device goes back by itself after --confirm-minutes, whatever happens to the manager.

    \b
    Examples:
      relaymgr relay apply mx1
      relaymgr relay apply mx1 --yes --confirm-minutes 10 --probe --comment "raise the limit" --ticket NOC-4711
      relaymgr relay apply mx1 --plan 019a3f0c77e2a1b2c3d4e5f60718293a --yes --json
    """
    carry_out(manager, "apply", relay, Wishes(wait=not no_wait, **wishes))


@click.command("drain")
@click.argument("relay")
@job_options
@manager_options
def drain(manager: Manager, /, relay: str, no_wait: bool, **wishes: Any) -> None:  # noqa: ANN401 Wishes types them
    """Take a relay out of service: its anycast address goes away, its tunnels stay.

    \b
    Example:
      relaymgr relay drain mx1 --comment "maintenance of the upstream"
    """
    carry_out(manager, "drain", relay, Wishes(wait=not no_wait, **wishes))


@click.command("undrain")
@click.argument("relay")
@job_options
@manager_options
def undrain(manager: Manager, /, relay: str, no_wait: bool, **wishes: Any) -> None:  # noqa: ANN401 Wishes types them
    """Bring a drained relay back into service.

    \b
    Example:
      relaymgr relay undrain mx1
    """
    carry_out(manager, "undrain", relay, Wishes(wait=not no_wait, **wishes))


@click.command("rollback")
@click.argument("relay")
@job_options
@manager_options
def rollback(manager: Manager, /, relay: str, no_wait: bool, **wishes: Any) -> None:  # noqa: ANN401 Wishes types them
    """Bring back what a relay was before the last confirmed change of ours; shown, asked and verified as any change.

    \b
    Example:
      relaymgr relay rollback mx1 --comment "limit was too high"
    """
    carry_out(manager, "rollback", relay, Wishes(wait=not no_wait, **wishes))


@click.command("restore")
@click.argument("relay")
@job_options
@manager_options
def restore(manager: Manager, /, relay: str, no_wait: bool, **wishes: Any) -> None:  # noqa: ANN401 Wishes types them
    """Undo drift: bring back what our last confirmed change left. See it first with `relay drift`.

    \b
    Example:
      relaymgr relay restore mx1
    """
    carry_out(manager, "restore", relay, Wishes(wait=not no_wait, **wishes))


def carry_out(manager: Manager, kind: str, relay: str, wishes: Wishes) -> None:
    """Plan, show, ask, submit, follow; exits by the job's outcome."""
    if wishes.as_json and not wishes.yes:
        raise Failure("--json changes without asking: say --yes too", EXIT_USAGE)
    relay_id = identifier(manager, "relays", relay)
    if wishes.plan is None:
        agreed = make_plan(manager, relay_id, kind)
    else:
        agreed = manager.get(f"/plans/{segment(wishes.plan)}")
    if not wishes.as_json:
        print_plan(agreed, relay)
    if not agreed["unchanged"]:
        ask(_QUESTIONS[kind].format(relay), wishes.yes)
    document = given(
        plan=agreed["id"],
        confirm_minutes=wishes.confirm_minutes,
        probe=wishes.probe,
        comment=wishes.comment,
        ticket=wishes.ticket,
    )
    finish(manager, submit(manager, f"/relays/{segment(relay_id)}/{kind}", document), wishes)


def finish(manager: Manager, job: Document, wishes: Wishes) -> None:
    """Follow a job that was submitted, unless it is not to be waited for."""
    if wishes.wait:
        end_of_job(watch_job(manager, job["id"], quiet=wishes.as_json), as_json=wishes.as_json)
    elif wishes.as_json:
        print_json(job)
    else:
        click.echo(job["id"])


def submit(manager: Manager, path: str, document: Document | None) -> Document:
    """Ask for a job, once: where the answer is lost it is asked for again under the same Idempotency-Key."""
    headers = {"Idempotency-Key": secrets.token_hex(16)}
    for attempt in range(1, _TRIES + 1):
        try:
            found: Document = manager.send("POST", path, document, headers=headers).document
        except Unreachable:
            if attempt == _TRIES:
                raise
            pause(attempt)
        else:
            return found
    raise AssertionError("the last try returned or raised")


def make_plan(manager: Manager, relay_id: str, kind: str) -> Document:
    """A new plan, made from what the device says now."""
    found: Document = manager.send("POST", f"/relays/{segment(relay_id)}/plan", {"kind": kind}).document
    return found


def print_plan(plan: Document, relay: str) -> None:
    """The diff, and who computed it."""
    if plan["unchanged"]:
        click.echo(f"{relay} is so already: nothing would change")
        return
    print_diff(plan["diff"])
    source = "the device" if plan["diff_source"] == "device" else "the manager; the device computes none"
    click.echo(f"(diff by {source})")


for _command in (apply, drain, undrain, rollback, restore):
    _command.help = f"{cleandoc(_command.help or '')}\n\n{_EXITS}"

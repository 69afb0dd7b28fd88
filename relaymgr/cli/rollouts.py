"""`relaymgr rollout`: one change of many relays in waves, with an error budget."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

import time
from typing import Final

import click
from rich.text import Text

from relaymgr.cli.client import Document, Manager, segment
from relaymgr.cli.failure import EXIT_FAILED, EXIT_JOB_FAILED, EXIT_UNCERTAIN, EXIT_USAGE, Failure, Unreachable
from relaymgr.cli.names import identifier, is_identifier, names
from relaymgr.cli.options import HELP, as_json, change_options, limit_options, manager_options, yes
from relaymgr.cli.output import at, cell, console, print_json, print_listing, print_pairs, print_table, since, words
from relaymgr.cli.resources import ask, given, listing
from relaymgr.cli.streams import PATIENCE_SECONDS

_ENDED: Final = frozenset({"succeeded", "failed", "aborted"})
_LOOK_SECONDS: Final = 2.0
_DONE: Final = frozenset({"succeeded", "unchanged", "failed", "rolled_back", "uncertain", "skipped"})


@click.group(context_settings=HELP)
def rollout() -> None:
    """One change of many relays, in waves: a canary first, then more, stopped by an error budget.

    \b
    Example:
      relaymgr rollout create "limit 5000" --relay mx1 --relay mx2 --relay mx3 --sizes 1,50%,100%
      relaymgr rollout watch 019a3f0c77e2a1b2c3d4e5f60718293a
    """


@rollout.command("create")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["apply", "drain", "undrain", "restore"]),
    default="apply",
    show_default=True,
    help="The change each relay gets.",
)
@click.option("--relay", "relays", multiple=True, metavar="RELAY", help="A relay, first ones first; repeat it.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Every relay with these labels.")
@click.option("--all-relays", is_flag=True, help="Every enabled relay the token sees.")
@click.option("--sizes", metavar="LIST", help="Sizes of waves: numbers, or percentages done, as in 1,10%,50%,100%.")
@click.option(
    "--error-budget", type=click.IntRange(0, 10000), default=0, show_default=True, help="May fail before it stops."
)
@click.option("--confirm-minutes", type=click.IntRange(1, 60), default=5, show_default=True, help="Window of each.")
@click.option("--probe", is_flag=True, help="Verify each with a real AMT handshake too.")
@change_options
@click.option("--no-wait", is_flag=True, help="Do not follow it; print its identifier.")
@yes
@as_json
@manager_options
def create(
    manager: Manager,
    name: str,
    kind: str,
    relays: tuple[str, ...],
    labels: tuple[str, ...],
    all_relays: bool,
    sizes: str | None,
    error_budget: int,
    confirm_minutes: int,
    probe: bool,
    comment: str | None,
    ticket: str | None,
    no_wait: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Start a rollout, after showing its relays and asking.

    Each relay is planned, changed in a confirm window and verified as by `relay apply`. Unless --sizes says otherwise
    one relay goes first, then up to 10 %, 50 % and all.

    \b
    Examples:
      relaymgr rollout create "limit 5000" --relay mx1 --relay mx2 --relay mx3
      relaymgr rollout create "drain Europe" --kind drain --label region=eu --sizes 1,100% --ticket NOC-4711
      relaymgr rollout create nightly --all-relays --error-budget 2 --yes --json --no-wait
    """
    if as_json and not yes:
        raise Failure("--json starts without asking: say --yes too", EXIT_USAGE)
    chosen = _chosen(manager, relays, labels, all_relays)
    if not as_json:
        click.echo(f"{kind} of {len(chosen)} relays: {words([row['name'] for row in chosen])}", err=True)
    ask(f"Start rollout {name}?", yes)
    document = given(
        name=name,
        kind=kind,
        relay_ids=[row["id"] for row in chosen],
        sizes=None if sizes is None else _sizes(sizes),
        error_budget=error_budget,
        confirm_minutes=confirm_minutes,
        probe=probe,
        comment=comment,
        ticket=ticket,
    )
    made = manager.send("POST", "/rollouts", document).document
    if not no_wait:
        _end(manager, _watch(manager, made["id"], quiet=as_json), as_json=as_json)
    elif as_json:
        print_json(made)
    else:
        click.echo(made["id"])


@rollout.command("list")
@click.option("--state", type=click.Choice(["running", "paused", "aborted", "succeeded", "failed"]), help="Only so.")
@limit_options
@as_json
@manager_options
def list_rollouts(manager: Manager, state: str | None, limit: int, everything: bool, as_json: bool) -> None:
    """List rollouts, newest first.

    \b
    Example:
      relaymgr rollout list --state running
    """
    found = listing(manager, "rollouts", limit, everything, state=state, sort="-id")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            row["name"],
            row["kind"],
            row["state"],
            _wave(row),
            _counts(row),
            row["actor"],
            since(row["created_at"]),
            row["id"],
        )
        for row in found["items"]
    ]
    print_listing(found, ["NAME", "KIND", "STATE", ">WAVE", "RELAYS", "ACTOR", ">AGE", "ID"], rows, "no rollouts")


@rollout.command("show")
@click.argument("rollout")
@as_json
@manager_options
def show(manager: Manager, rollout: str, as_json: bool) -> None:
    """Show a rollout and what became of each relay. --json has both: rollout and relays.

    \b
    Example:
      relaymgr rollout show 019a3f0c77e2a1b2c3d4e5f60718293a
    """
    path = f"/rollouts/{segment(_identifier(manager, rollout))}"
    found = manager.get(path)
    relays = manager.rows(f"{path}/relays", limit=None).items
    if as_json:
        print_json({"rollout": found, "relays": relays})
        return
    print_pairs(
        [
            ("name", found["name"]),
            ("id", found["id"]),
            ("kind", found["kind"]),
            ("state", found["state"]),
            ("paused because", found["pause_reason"]),
            ("wave", f"{_wave(found)}, sizes {words(found['wave_sizes'])}"),
            ("relays", _counts(found)),
            ("error budget", found["error_budget"]),
            ("confirm minutes", found["confirm_minutes"]),
            ("started", f"{at(found['created_at'])} by {found['actor']}"),
            ("finished", at(found["finished_at"])),
            ("comment", found["comment"]),
            ("ticket", found["ticket"]),
        ]
    )
    _print_relays(manager, relays)


@rollout.command("pause")
@click.argument("rollout")
@change_options
@as_json
@manager_options
def pause_rollout(manager: Manager, rollout: str, comment: str | None, ticket: str | None, as_json: bool) -> None:
    """Start no more relays; those under way finish.

    \b
    Example:
      relaymgr rollout pause 019a3f0c77e2a1b2c3d4e5f60718293a --comment "waiting for the AD's NOC"
    """
    _steer(manager, rollout, "pause", given(comment=comment, ticket=ticket), as_json)


@rollout.command("resume")
@click.argument("rollout")
@change_options
@as_json
@manager_options
def resume(manager: Manager, rollout: str, comment: str | None, ticket: str | None, as_json: bool) -> None:
    """Go on with a paused rollout.

    \b
    Example:
      relaymgr rollout resume 019a3f0c77e2a1b2c3d4e5f60718293a
    """
    _steer(manager, rollout, "resume", given(comment=comment, ticket=ticket), as_json)


@rollout.command("abort")
@click.argument("rollout")
@change_options
@yes
@as_json
@manager_options
def abort(manager: Manager, rollout: str, comment: str | None, ticket: str | None, yes: bool, as_json: bool) -> None:
    """End a rollout: no more relays start, those under way finish, those done stay as they are.

    \b
    Example:
      relaymgr rollout abort 019a3f0c77e2a1b2c3d4e5f60718293a
    """
    ask(f"Abort rollout {rollout}? It cannot be resumed.", yes)
    _steer(manager, rollout, "abort", given(comment=comment, ticket=ticket), as_json)


@rollout.command("watch")
@click.argument("rollout")
@as_json
@manager_options
def watch(manager: Manager, rollout: str, as_json: bool) -> None:
    """Follow a rollout until it ends or pauses.

    \b
    Exit status: 0 every relay succeeded; 1 it paused; 4 it failed or was aborted; 5 a relay is uncertain.

    \b
    Example:
      relaymgr rollout watch 019a3f0c77e2a1b2c3d4e5f60718293a
    """
    _end(manager, _watch(manager, _identifier(manager, rollout), quiet=as_json), as_json=as_json)


def _identifier(manager: Manager, word: str) -> str:
    """The identifier of a rollout; names need not differ, then the newest is meant."""
    if is_identifier(word):
        return word
    for row in manager.rows("/rollouts", limit=None, sort="-id").items:
        if row["name"] == word:
            return str(row["id"])
    raise Failure(f"no rollout is named {word}; see `relaymgr rollout list`")


def _chosen(manager: Manager, relays: tuple[str, ...], labels: tuple[str, ...], all_relays: bool) -> list[Document]:
    """The relays meant, in the order they were given or by name."""
    if (bool(relays) + bool(labels) + all_relays) != 1:
        raise Failure("say which relays: --relay (repeated), --label, or --all-relays", EXIT_USAGE)
    if relays:
        return [{"id": identifier(manager, "relays", relay), "name": relay} for relay in relays]
    wanted = dict(label.partition("=")[::2] for label in labels)
    found = [
        row
        for row in manager.rows("/relays", limit=None, sort="name", enabled="true").items
        if wanted.items() <= row["labels"].items()
    ]
    if not found:
        raise Failure("no enabled relay is meant")
    return found


def _sizes(text: str) -> list[int | str]:
    return [int(part) if part.strip().isdecimal() else part.strip() for part in text.split(",")]


def _steer(manager: Manager, rollout: str, verb: str, document: Document, as_json: bool) -> None:
    path = f"/rollouts/{segment(_identifier(manager, rollout))}/{verb}"
    found = manager.send("POST", path, document).document
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found['name']} ({found['id']}) is {found['state']}")


def _watch(manager: Manager, rollout_id: str, *, quiet: bool) -> Document:
    """Follow a rollout by asking for it; the rollout as it ended or paused."""
    path = f"/rollouts/{segment(rollout_id)}"
    told, alive = "", time.monotonic()
    output = console(error=True)
    try:
        while True:
            try:
                found: Document = manager.get(path)
            except Unreachable:
                if time.monotonic() - alive > PATIENCE_SECONDS:
                    raise
            else:
                alive = time.monotonic()
                line = f"{found['state']}, wave {_wave(found)}: {_counts(found)}"
                if line != told and not quiet:
                    output.print(Text(line), soft_wrap=True)
                told = line
                if found["state"] in _ENDED or found["state"] == "paused":
                    return found
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        raise Failure(f"no longer watching; it goes on: relaymgr rollout watch {rollout_id}", 130) from None


def _end(manager: Manager, found: Document, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        line = Text(f"{found['name']} ").append_text(cell(found["state"]))
        if found["pause_reason"]:
            line.append(f": {found['pause_reason']}")
        console().print(line, soft_wrap=True)
        if found["state"] != "succeeded":
            _print_relays(manager, manager.rows(f"/rollouts/{segment(found['id'])}/relays", limit=None).items)
    if found["counts"].get("uncertain"):
        raise SystemExit(EXIT_UNCERTAIN)
    if found["state"] == "paused":
        raise SystemExit(EXIT_FAILED)
    if found["state"] != "succeeded":
        raise SystemExit(EXIT_JOB_FAILED)


def _print_relays(manager: Manager, relays: list[Document]) -> None:
    known = names(manager, "relays", (row["relay_id"] for row in relays))
    rows = [(row["wave"] + 1, known[row["relay_id"]], row["state"], row["job_id"], row["detail"]) for row in relays]
    print_table([">WAVE", "RELAY", "STATE", "JOB", "DETAIL"], rows, "no relays")


def _wave(rollout: Document) -> str:
    waves = len(rollout["wave_sizes"])
    return f"{min(rollout['current_wave'] + 1, waves)} of {waves}"


def _counts(rollout: Document) -> str:
    counts = rollout["counts"]
    done = sum(number for state, number in counts.items() if state in _DONE)
    each = words([f"{number} {state}" for state, number in sorted(counts.items()) if number])
    return f"{done} of {sum(counts.values())} done ({each or '-'})"

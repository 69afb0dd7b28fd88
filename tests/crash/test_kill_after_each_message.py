"""`relaymgr serve` is killed (-9) after each wire message of an apply; the next one and the device agree.

One router shows how many messages an apply has. Then there is one router for each message: all applies run at once in
one manager, each router stands still after its own message, and one kill strikes them all there. Every message of the
sessions that change something is struck, of the sessions that only read every fourth.
"""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from crash import world
from crash.fleet import Fleet, running
from crash.world import (
    Enrolled,
    apply,
    backed_up,
    backups,
    change_again,
    checked,
    enrol,
    finished,
    managed,
    plan,
    side_by_side,
)

from lab.manager import FINISHED, Manager
from lab.namespaces import LabError, wait_until

pytestmark = pytest.mark.slow

Message = dict[str, Any]
CHANGING = {
    "lock-configuration", "load-configuration", "commit-configuration", "unlock-configuration", "config-ios-cli-rpc",
    "configure confirm", "write memory", f"configure terminal revert timer {world.CONFIRM_MINUTES}",
}  # fmt: skip
SAMPLED = 4
LEASE = ("--job-lease-seconds", "20")
"""Long enough for a busy machine: a job taken over before the kill would not be where it should."""
MINUTE_SECONDS = "15"
"""What a minute of a confirm window lasts on the routers: those without a confirmation go back soon."""


def counted(messages: list[Message]) -> list[Message]:
    """Without the ends of sessions, which come before or after the beginning of the next."""
    return [one for one in messages if one["kind"] != "session-end"]


def shape(messages: list[Message]) -> list[tuple[str, str]]:
    """What is the same in every run."""
    return [(one["direction"], one["kind"]) for one in messages]


def rehearsal(manager: Manager, fleet: Fleet) -> list[Message]:
    """The messages of a whole apply, the backup after it included."""
    (relay,) = relays = enrol(manager, fleet)
    backed_up(manager, relays)
    checked(manager, relay)
    planned = plan(manager, relay)
    before = len(fleet.messages())
    job = apply(manager, relay, planned["id"])
    assert finished(manager, [job], 60.0)[job]["state"] == "succeeded"
    wait_until(lambda: backups(manager, relay, "after_change"), 60.0, "the backup after the change")
    return counted(fleet.messages()[before:])


def points(messages: list[Message]) -> list[int]:
    """Numbers of the messages to strike after, from 1."""
    changing = {one["session"] for one in messages if one["kind"] in CHANGING}
    return [
        number
        for number, one in enumerate(messages, start=1)
        if one["session"] in changing or number % SAMPLED == 0 or number == len(messages)
    ]


class Strike:
    """One router, held after `point` messages of its apply."""

    def __init__(self, relay: Enrolled, point: int) -> None:
        self.relay, self.point = relay, point
        self.plan = self.job = ""
        self.messages_before = 0

    def prepare(self, manager: Manager) -> None:
        self.plan = plan(manager, self.relay)["id"]
        self.messages_before = len(self.messages())

    def launch(self, manager: Manager) -> None:
        self.relay.fleet.order(self.relay.index, hold_after=self.point)
        self.job = apply(manager, self.relay, self.plan)

    def messages(self) -> list[Message]:
        return self.relay.fleet.messages(self.relay.index)

    def of_apply(self) -> list[Message]:
        return counted(self.messages()[self.messages_before :])


@pytest.mark.parametrize("kind", ["mx80", "iosxe"])
def test_device_and_database_agree_after_a_kill_at_every_message(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "rehearsal"
    folder.mkdir()
    with managed(tmp_path, *LEASE) as manager, running(Fleet(kind, folder, name="rehearsal")) as one:
        messages = rehearsal(manager, one)
        after = one.configuration()
        chosen = points(messages)
        with running(Fleet(kind, tmp_path, len(chosen), ("--minute-seconds", MINUTE_SECONDS), name="routers")) as fleet:
            relays = enrol(manager, fleet)
            backed_up(manager, relays)
            strikes = list(map(Strike, relays, chosen))
            strike(manager, fleet, strikes, messages)
            told = "\n".join(complaints(manager, strikes, after))
            assert not told, told
            side_by_side(lambda one: change_again(manager, one.relay), strikes[::SAMPLED])


def strike(manager: Manager, fleet: Fleet, strikes: list[Strike], expected: list[Message]) -> None:
    """Let every apply run up to its message, kill, and wait until the next manager ended them all."""
    side_by_side(lambda one: one.prepare(manager), strikes)
    side_by_side(lambda one: one.launch(manager), strikes)
    try:
        wait_until(lambda: len(fleet.held()) == len(strikes), 120.0, "every router stands still", 0.2)
    except LabError as error:
        running_on = [one for one in strikes if one.relay.index not in fleet.held()]
        jobs = [(one.point, len(one.of_apply()), manager.call("GET", f"/jobs/{one.job}")) for one in running_on]
        raise LabError(f"{error}\n" + "\n".join(map(str, jobs))) from None
    manager.kill()
    covered(strikes, expected)
    fleet.order(release=True)
    manager.start()
    finished(manager, [one.job for one in strikes], 150.0)


def covered(strikes: list[Strike], expected: list[Message]) -> None:
    """Every apply stood still at its own message, behind the same ones as in the rehearsal."""
    rehearsed, astray = shape(expected), []
    for one in strikes:
        sent = shape(one.of_apply())
        if sent != rehearsed[: one.point]:
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(sent, rehearsed, strict=False)))
            astray.append(f"{one.point}: {len(sent)} messages; behind {same} as rehearsed came {sent[same : same + 3]}")
    assert not astray, "\n".join(astray)
    changing = {number for number, one in enumerate(expected, start=1) if one["kind"] in CHANGING}
    assert changing <= {one.point for one in strikes}


def complaints(manager: Manager, strikes: list[Strike], after: str | None) -> list[str]:
    """Where a device and the database disagree."""
    relays = {one["id"]: one for one in manager.call("GET", "/relays?limit=1000")["items"]}
    found = []
    for one in strikes:
        job = manager.call("GET", f"/jobs/{one.job}")
        wrong = judged(one, job, relays[one.relay.id], after)
        if wrong:
            last = one.of_apply()[one.point - 1]
            where = f"after {one.point} {last['direction']} {last['kind']}"
            found.append(f"{where}: {job['state']} {job['error_code']}: {'; '.join(wrong)}")
    return found


def judged(one: Strike, job: dict[str, Any], relay: dict[str, Any], after: str | None) -> list[str]:
    """What is wrong about one router."""
    fleet, index = one.relay.fleet, one.relay.index
    configuration = fleet.configuration(index)
    is_done = job["state"] == "succeeded"
    applied = relay["applied_intent_version"]
    checks = {
        f"it is {job['state']}": job["state"] in FINISHED - {"uncertain", "cancelled"},
        "a window is open on the device": not fleet.window_open(index),
        "a window is open in the database": relay["window_job_id"] is None,
        "the device is not as desired": not is_done or configuration == after,
        "the database does not have it applied": not is_done or applied == relay["intent_version"],
        "the device changed": is_done or configuration == fleet.first_configuration(index),
        "the device would start with another configuration": not is_done or fleet.saved(index),
        "the database has it applied": is_done or applied is None,
        **once(one, job),
    }
    return [what for what, right in checks.items() if not right]


def once(one: Strike, job: dict[str, Any]) -> dict[str, bool]:
    """Nothing was done twice."""
    fleet, index = one.relay.fleet, one.relay.index
    if fleet.kind == "mx80":
        commits = fleet.commits(index, one.job)
        confirmed = [log for log in commits if log.endswith(" confirmed")]
        return {
            f"committed {commits}": len(commits) - len(confirmed) <= 1 and len(confirmed) <= 1,
            "succeeded without a commit": job["state"] != "succeeded" or len(commits) == 2,
        }
    sent = [message["kind"] for message in one.of_apply() if message["direction"] == "in"]
    return {
        "lines sent twice": sent.count("config-ios-cli-rpc") <= 1,
        "timer started twice": sum(kind.startswith("configure terminal revert") for kind in sent) <= 1,
        "confirmed twice": sum(kind == "configure confirm" for kind in sent) <= 1,
    }

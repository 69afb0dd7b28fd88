"""Kills whose point is time: a window that elapses unseen, a router away at the restart, a rollout half way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.fleet import Fleet, running
from crash.world import Enrolled, apply, change_again, enrol, finished, managed, plan, side_by_side

from lab.manager import Manager
from lab.namespaces import wait_until

pytestmark = pytest.mark.slow

CHANGED = {"mx80": "in get-system-uptime-information", "iosxe": "out config-ios-cli-rpc"}
"""First message of its kind behind the one that changed the router, before anything confirms."""


def killed_in_windows(manager: Manager, relays: list[Enrolled]) -> list[str]:
    """Kill the manager where every router has its change and nobody confirmed it; the jobs."""
    plans = [plan(manager, relay)["id"] for relay in relays]
    for relay in relays:
        relay.fleet.order(hold_at=CHANGED[relay.fleet.kind])
    jobs = [apply(manager, relay, made, minutes=1) for relay, made in zip(relays, plans, strict=True)]
    for relay in relays:
        wait_until(relay.fleet.held, 60.0, "the router has its change")
    manager.kill()
    assert all(relay.fleet.window_open() for relay in relays)
    return jobs


def agrees(manager: Manager, relay: Enrolled, job: str) -> str:
    """The job's state once it ended, if the router and the database agree."""
    fleet, index = relay.fleet, relay.index
    ended = finished(manager, [job], 120.0)[job]
    stored = manager.call("GET", f"/relays/{relay.id}")
    assert stored["window_job_id"] is None
    assert not fleet.window_open(index)
    if ended["state"] == "succeeded":
        assert stored["applied_intent_version"] == stored["intent_version"]
        assert fleet.configuration(index) != before(relay)
        assert fleet.saved(index)
    else:
        assert ended["state"] in {"rolled_back", "failed"}, ended
        assert stored["applied_intent_version"] is None
        assert fleet.configuration(index) == before(relay)
    return str(ended["state"])


def before(relay: Enrolled) -> str | None:
    return relay.fleet.first_configuration(relay.index)


@contextlib.contextmanager
def one_of_each(directory: Path, minute_seconds: int) -> Iterator[tuple[Manager, list[Enrolled]]]:
    """A manager with an MX80 and an IOS-XE."""
    options = ("--minute-seconds", str(minute_seconds))
    with (
        running(Fleet("mx80", directory, options=options)) as mx80,
        running(Fleet("iosxe", directory, options=options)) as iosxe,
        managed(directory) as manager,
    ):
        times = {"connect_timeout_seconds": 5, "commit_timeout_seconds": 8}
        yield manager, [*enrol(manager, mx80, **times), *enrol(manager, iosxe, **times)]


def test_window_that_elapses_while_no_manager_runs(tmp_path: Path) -> None:
    with one_of_each(tmp_path, minute_seconds=6) as (manager, relays):
        jobs = killed_in_windows(manager, relays)
        for relay in relays:
            relay.fleet.order(release=True)
            wait_until(lambda: not relay.fleet.window_open(), 30.0, "the router goes back")  # noqa: B023
        manager.start()
        for relay, job in zip(relays, jobs, strict=True):
            assert agrees(manager, relay, job) != "succeeded"
        side_by_side(lambda relay: change_again(manager, relay), relays)


def test_router_away_when_the_manager_comes_back(tmp_path: Path) -> None:
    with one_of_each(tmp_path, minute_seconds=20) as (manager, relays):
        jobs = killed_in_windows(manager, relays)
        for relay in relays:
            relay.fleet.stop()
        manager.start()
        for relay, job in zip(relays, jobs, strict=True):
            assert manager.wait_for_job(job, 60.0, lambda job: job["phase"] == "waiting")["state"] == "running"
            answer = manager.request("POST", f"/relays/{relay.id}/plan", json={"kind": "apply"})
            assert (answer.status_code, answer.json()["code"]) == (409, "confirm_window_open"), answer.text
            relay.fleet.start()
        for relay, job in zip(relays, jobs, strict=True):
            agrees(manager, relay, job)
        side_by_side(lambda relay: change_again(manager, relay), relays)


def test_rollout_goes_on_after_a_kill(tmp_path: Path) -> None:
    """Four relays in two waves; the manager dies inside the first wave and again inside the second."""
    with running(Fleet("mx80", tmp_path, 4, ("--minute-seconds", "15"))) as fleet, managed(tmp_path) as manager:
        relays = enrol(manager, fleet)
        for index in (0, 2):
            fleet.order(index, hold_at=CHANGED["mx80"])
        rollout = start_rollout(manager, relays)
        for index in (0, 2):
            wait_until(lambda: index in fleet.held(), 90.0, "a relay of the wave has its change")  # noqa: B023
            manager.kill()
            assert ("in", "commit-configuration") in [(m["direction"], m["kind"]) for m in fleet.messages(index)]
            assert not (index == 0 and (began(fleet, 2) or began(fleet, 3))), "the second wave began"
            fleet.order(index, release=True)
            manager.start()
        wait_until(lambda: manager.call("GET", f"/rollouts/{rollout}")["finished_at"], 120.0, "the rollout ends", 0.5)
        ended = manager.call("GET", f"/rollouts/{rollout}")
        parts = manager.items(f"/rollouts/{rollout}/relays")
        assert {part["state"] for part in parts} == {"succeeded"}, parts
        assert ended["state"] == "succeeded"
        for relay in relays:
            jobs = [job for job in manager.items(f"/jobs?relay_id={relay.id}") if job["kind"] == "apply"]
            assert [job["state"] for job in jobs] == ["succeeded"]
            marks = fleet.commits(relay.index, jobs[0]["id"])
            assert len(marks) == 2, marks
            assert marks[0].endswith(" confirmed")
            assert not fleet.window_open(relay.index)
        change_again(manager, relays[0])


def began(fleet: Fleet, index: int) -> bool:
    """Whether somebody started to change a relay; it may be read at any time, for its first backup above all."""
    changing = {"lock-configuration", "load-configuration", "commit-configuration"}
    return any(message["kind"] in changing for message in fleet.messages(index))


def start_rollout(manager: Manager, relays: list[Enrolled]) -> str:
    """Two waves of two."""
    identifiers = [one.id for one in relays]
    body = {"name": "crash", "kind": "apply", "waves": [identifiers[:2], identifiers[2:]], "confirm_minutes": 5}
    return str(manager.call("POST", "/rollouts", json=body)["id"])

"""Changes that prove bad go back: by the manager, by the router's timer, and the job tells which and why."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest
from acceptance.stage import INTENTS, MINUTE_SECONDS, Noc, Router, eventually, statements

pytestmark = pytest.mark.slow

COMMITS = ("commit", "config-ios")


@dataclass
class Bad:
    """A change under way on a router that is about to misbehave."""

    noc: Noc
    router: Router
    relay: str
    before: list[str]
    job: str

    def ended(self) -> dict[str, Any]:
        return self.noc.manager.wait_for_job(self.job, 150.0)

    def told(self) -> str:
        """What is said of why."""
        return f"{self.ended()['error_detail']}".lower()


MISBEHAVIOUR = {
    "drop": ("mx80", 2, {}),  # cuts the connection instead of answering the commit
    "amt": ("mx80", 1, {"fault": "no-reply-rpc:get-amt-summary"}),
    "mx80": ("mx80", 2, {"fault": "refuse-login"}),
    "iosxe": ("iosxe", 2, {"fault": "refuse-login"}),
    "neighbour": ("iosxe", 5, {"edit": "interface GigabitEthernet1\n no ip pim sparse-mode"}),
}
"""Kind of router, minutes of the window, and what becomes of the router when it took the change."""


def _enrolled(noc: Noc, name: str) -> Bad:
    kind = MISBEHAVIOUR[name][0]
    router = noc.router(kind)
    relay = noc.enrol(router, f"bad-{name}", rpc_timeout_seconds=3)
    noc.manager.put_intent(relay, INTENTS[kind] | {"pim_interfaces": []})
    return Bad(noc, router, relay, statements(router.configuration()), "")


def _start(bad: Bad, name: str, plan: str) -> None:
    bad.router.order(fault="drop-after-commit" if name == "drop" else "slow:0.3")  # slow: time to strike in
    body = {"plan": plan, "confirm_minutes": MISBEHAVIOUR[name][1]}
    bad.job = bad.noc.manager.call("POST", f"/relays/{bad.relay}/apply", json=body)["id"]


@pytest.fixture(scope="module")
def bad(noc: Noc) -> dict[str, Bad]:
    """All at once, since each has to wait for its router's timer or the manager's patience."""
    found = {name: _enrolled(noc, name) for name in MISBEHAVIOUR}
    plans = {name: noc.plan(one.relay)["id"] for name, one in found.items()}
    for name, one in found.items():
        _start(one, name, plans[name])
    waiting = dict(found)

    def struck() -> bool:
        for name, one in list(waiting.items()):
            if any(word.startswith(COMMITS) for word in one.router.changes_sent()):
                if order := MISBEHAVIOUR[name][2]:
                    one.router.order(**order)
                del waiting[name]
        return not waiting

    eventually(struck, 60.0)
    time.sleep(2 * MINUTE_SECONDS + 1)  # the routers' timers, known to the second
    for one in found.values():
        one.router.order(fault=None)
    return found


def test_a_change_after_which_a_neighbour_is_missing_is_taken_back(bad: dict[str, Bad]):
    assert bad["neighbour"].ended()["state"] == "rolled_back", bad["neighbour"].ended()
    assert "pim-neighbors: not back" in bad["neighbour"].noc.log_of(bad["neighbour"].job)
    assert statements(bad["neighbour"].router.configuration()) == bad["neighbour"].before


def test_a_change_after_which_amt_is_silent_is_taken_back_and_the_job_says_so(bad: dict[str, Bad]):
    assert bad["amt"].ended()["state"] == "rolled_back", bad["amt"].ended()
    assert "get-amt-summary" in bad["amt"].noc.log_of(bad["amt"].job)
    assert statements(bad["amt"].router.configuration()) == bad["amt"].before


@pytest.mark.parametrize("kind", ["mx80", "iosxe"])
def test_a_change_that_locks_the_manager_out_goes_back_by_the_routers_timer(bad: dict[str, Bad], kind: str):
    ended = bad[kind].ended()
    assert ended["state"] == "rolled_back", ended
    assert ended["error_code"] == "confirm_window_elapsed"
    assert "timer" in bad[kind].told()
    assert statements(bad[kind].router.configuration()) == bad[kind].before
    assert bad[kind].noc.relay(bad[kind].relay)["window_job_id"] is None


def test_a_router_that_answers_nothing_after_the_commit_is_read_again(bad: dict[str, Bad]):
    ended = bad["drop"].ended()
    has_it = "tunnel-limit 5000" in bad["drop"].router.configuration()
    assert ended["state"] == ("succeeded" if has_it else "rolled_back"), ended
    if not has_it:
        assert statements(bad["drop"].router.configuration()) == bad["drop"].before


def test_the_relay_can_be_changed_again_afterwards(bad: dict[str, Bad]):
    one = bad["amt"]
    one.ended()
    assert one.noc.apply(one.relay)["state"] == "succeeded"

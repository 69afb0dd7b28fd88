"""What a device cannot do is refused by the name of what it lacks, and the device never hears of it."""

from __future__ import annotations

from typing import Any

import pytest
from acceptance.stage import FAMILY, INTENTS, Noc

SIX = {"anycast_prefix": "2001:db8:a::/64", "local_address": "2001:db8:b::7"}


def refused(noc: Noc, relay: str, intent: dict[str, Any]) -> dict[str, Any]:
    """The problem of the first request that is refused: giving the intent, or planning it."""
    etag = noc.manager.request("GET", f"/relays/{relay}/intent").headers["ETag"]
    put = noc.manager.request("PUT", f"/relays/{relay}/intent", json=intent, headers={"If-Match": etag})
    answer = put if put.is_error else noc.manager.request("POST", f"/relays/{relay}/plan", json={"kind": "apply"})
    assert answer.status_code == 422, answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == "capability_missing", problem
    return problem


@pytest.mark.parametrize("kind", ["mx80", "iosxe", "ios"])
def test_it_is_named_and_nothing_is_touched(noc: Noc, kind: str):
    router = noc.router(kind)
    relay = noc.enrol(router, f"unable-{kind}", intent=False)
    if kind == "mx80":
        problem = refused(noc, relay, INTENTS["mx80"] | {"inet6": SIX})
        assert "ipv6" in problem["capability"].lower() or "inet6" in problem["capability"].lower()
    elif kind == "iosxe":
        router.order(edit="no archive")
        problem = refused(noc, relay, INTENTS["iosxe"])
        assert "archive" in str(problem)
    else:
        problem = refused(noc, relay, {"inet": FAMILY})
        assert "amt" in problem["capability"].lower()
    assert problem["capability"]
    assert router.changes_sent() == []

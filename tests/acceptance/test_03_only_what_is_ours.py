"""Whatever is done to a relay, the rest of the router's configuration stays byte for byte what it was."""

from __future__ import annotations

import pytest
from acceptance.stage import INTENTS, Noc, statements

pytestmark = pytest.mark.slow

THEIRS = {
    "mx80": [
        "set protocols bgp group core neighbor 10.9.9.9 peer-as 64511",
        "set interfaces lo0 unit 0 family inet address 10.1.1.1/32",
    ],
    "iosxe": ["interface Loopback77\n description theirs\n ip address 10.7.7.7 255.255.255.255"],
}
OWNED = {
    "mx80": {
        "pim_interfaces": [{"name": "xe-0/0/0.0"}],
        "igmp": {"version": 3},
        "protection_filter": {"name": "amt-in"},
    },
    "iosxe": {"group_policy": {"name": "amt-groups", "permit": ["232.0.0.0/8"]}},
}


def without_owned(before: str, after: str) -> str:
    """`after` without the lines that are only in it; equal to `before` when nothing else moved."""
    remaining, kept = before.splitlines(), []
    lines = iter(remaining)
    wanted = next(lines, None)
    for line in after.splitlines():
        if line == wanted:
            kept.append(line)
            wanted = next(lines, None)
    return "\n".join(kept)


@pytest.mark.parametrize("kind", ["mx80", "iosxe"])
def test_the_rest_stays(noc: Noc, kind: str):
    router = noc.router(kind)
    for line in THEIRS[kind]:
        router.order(edit=line)
    plain = router.configuration()
    relay = noc.enrol(router, f"rest-{kind}")
    noc.manager.put_intent(relay, INTENTS[kind] | OWNED[kind])
    job = noc.apply(relay)
    assert job["state"] == "succeeded", noc.log_of(job["id"])
    applied = router.configuration()
    assert applied != plain
    assert without_owned(plain, applied) == "\n".join(plain.splitlines())
    for change in ("drain", "undrain"):
        job = noc.change(relay, change)
        assert job["state"] == "succeeded", noc.log_of(job["id"])
        assert without_owned(plain, router.configuration()) == "\n".join(plain.splitlines())
    assert statements(router.configuration()) == statements(applied)
    noc.manager.put_intent(relay, INTENTS[kind])
    assert noc.apply(relay)["state"] == "succeeded"
    assert router.configuration() != applied
    assert noc.change(relay, "rollback")["state"] == "succeeded"
    assert statements(router.configuration()) == statements(applied)

"""A router with another key than the pinned one hears nothing until the operator pinned the new one."""

from __future__ import annotations

from acceptance.stage import Noc, eventually


def test_nothing_is_sent_until_it_is_pinned(noc: Noc):
    router = noc.router("mx80")
    relay = noc.enrol(router, "other-key")
    old = noc.relay(relay)["host_key_fingerprint"]
    router.order(fault="change-host-key")
    noc.manager.request("GET", f"/relays/{relay}")
    eventually(lambda: noc.relay(relay)["reachability"] == "unreachable", 60.0)
    heard = len(router.messages())
    status, problem = noc.problem("POST", f"/relays/{relay}/plan", json={"kind": "apply"})
    assert (status, problem["code"]) in {(502, "device_host_key_mismatch"), (503, "device_circuit_open")}, problem
    assert len(router.messages()) == heard
    events = noc.manager.items(f"/events?relay_id={relay}")
    assert any("key" in f"{row['kind']} {row['message']}" and row["severity"] == "critical" for row in events), events

    found = noc.cli("relay", "scan", "other-key", status=1)
    presented = noc.manager.call(
        "POST", "/relays/scan-host-key", json={"host": "127.0.0.1", "port": router.port, "legacy_ssh": False}
    )["fingerprint"]
    assert presented != old
    assert presented in str(found)
    noc.cli("relay", "scan", "other-key", "--pin", "--accept-host-key", presented)
    assert noc.relay(relay)["host_key_fingerprint"] == presented
    assert noc.apply(relay)["state"] == "succeeded"
    eventually(lambda: noc.relay(relay)["reachability"] == "reachable", 60.0)

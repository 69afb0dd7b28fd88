"""A NOC engineer's first day: two routers enrolled, changed, drained, taken back and looked after, by command line."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from acceptance.stage import INTENTS, PASSWORD, PLATFORM, Noc, Router, eventually, statements

from lab.manager import PROGRAM, USERNAME

pytestmark = pytest.mark.slow

EDIT = {"mx80": "set protocols amt relay tunnel-limit 77", "iosxe": "interface Tunnel2268\n ip igmp version 2"}
TICKET = ("--ticket", "NOC-4711", "--comment", "first relay")


@dataclass
class Enrolled:
    """A relay the engineer just added."""

    noc: Noc
    router: Router
    name: str
    fingerprint: str
    plain: str
    """The configuration before anything of ours."""

    def relay(self, command: str, *options: str, status: int = 0):
        return self.noc.cli("relay", command, self.name, *options, status=status)

    def change(self, command: str, *options: str):
        return self.relay(command, "--yes", "--confirm-minutes", "5", *options)


@pytest.fixture(scope="module", params=["mx80", "iosxe"])
def enrolled(request: pytest.FixtureRequest, noc: Noc, tmp_path_factory: pytest.TempPathFactory) -> Enrolled:
    router, name = noc.router(request.param), f"first-{request.param}"
    router.order(tunnels=5)
    noc.cli("credential", "add", name, "--username", USERNAME, "--secret-file", "-", given=PASSWORD)
    key = tmp_path_factory.mktemp("key") / "console.pub"
    key.write_text(router.host_key)
    console = subprocess.run(["ssh-keygen", "-l", "-f", key], capture_output=True, text=True, check=True).stdout.split()
    where = ["--platform", PLATFORM[router.kind], "--host", "127.0.0.1", "--port", str(router.port)]
    if router.netconf_port:
        where += ["--netconf-port", str(router.netconf_port)]
    made = noc.cli(
        "relay", "add", name, *where, "--credential", name, "--poll-interval", "5", "--accept-host-key", console[1]
    )
    relay = Enrolled(noc, router, name, console[1], router.configuration())
    assert made["host_key_fingerprint"] == relay.fingerprint
    intent = tmp_path_factory.mktemp("intent") / "intent.json"
    intent.write_text(json.dumps(INTENTS[router.kind]))
    noc.cli("relay", "intent", "put", name, str(intent))
    return relay


def test_another_fingerprint_than_the_consoles_is_not_pinned(enrolled: Enrolled):
    where = ("--platform", PLATFORM[enrolled.router.kind], "--host", "127.0.0.1", "--port", str(enrolled.router.port))
    wrong = ("--accept-host-key", "SHA256:" + "A" * 43)
    enrolled.noc.cli("relay", "add", f"{enrolled.name}-wrong", *where, *wrong, status=1)
    names = [row["name"] for row in enrolled.noc.cli("relay", "list")["items"]]
    assert enrolled.name in names
    assert f"{enrolled.name}-wrong" not in names


def test_the_exact_change_is_seen_before_it_is_made(enrolled: Enrolled):
    plan = enrolled.relay("plan")
    assert plan["diff_source"] == ("device" if enrolled.router.kind == "mx80" else "manager")
    local = "198.51.100.7"
    assert any(line.startswith("+") and local in line for line in plan["diff"].splitlines())
    assert enrolled.router.configuration() == enrolled.plain
    job = enrolled.change("apply", "--plan", plan["id"], *TICKET)
    assert job["state"] == "succeeded"
    assert local in enrolled.router.configuration()
    watched = enrolled.noc.cli("job", "show", job["id"])
    assert watched["state"] == "succeeded"
    assert enrolled.relay("plan")["unchanged"]


def test_a_drain_takes_the_anycast_address_away_and_an_undrain_brings_it_back(enrolled: Enrolled):
    in_service = enrolled.router.configuration()
    enrolled.change("drain", "--comment", "maintenance")
    drained = enrolled.router.configuration()
    gone = set(in_service.splitlines()) - set(drained.splitlines())
    assert any("192.0.2.1" in line for line in gone)
    assert not any("198.51.100.7" in line for line in gone)
    assert enrolled.relay("show")["drained"] is True
    enrolled.change("undrain")
    assert enrolled.relay("show")["drained"] is False
    assert statements(enrolled.router.configuration()) == statements(in_service)


def test_what_somebody_else_changed_is_found_and_restored_or_accepted(enrolled: Enrolled):
    ours = enrolled.router.configuration()
    assert enrolled.relay("drift", "--check")["state"] == "none"
    enrolled.router.order(edit=EDIT[enrolled.router.kind])
    theirs = enrolled.router.configuration()
    assert theirs != ours
    drift = enrolled.relay("drift", "--check", status=1)
    assert drift["state"] == "drifted"
    assert drift["diff"]
    if enrolled.router.kind == "mx80":
        assert drift["changed_by"]
    assert enrolled.change("restore", "--ticket", "NOC-4712")["state"] == "succeeded"
    assert statements(enrolled.router.configuration()) == statements(ours)
    enrolled.router.order(edit=EDIT[enrolled.router.kind])
    enrolled.relay("drift", "--check", status=1)
    enrolled.relay("accept", "--yes", "--comment", "agreed")
    assert enrolled.relay("drift", "--check")["state"] == "none"
    assert enrolled.router.configuration() == theirs


def test_a_rollback_brings_back_what_was_before_the_last_change(enrolled: Enrolled, tmp_path: Path):
    before = enrolled.router.configuration()
    changed = tmp_path / "changed.json"
    more = {"pim_interfaces": [{"name": "xe-0/0/0.0"}]} if enrolled.router.kind == "mx80" else {"pim_interfaces": []}
    changed.write_text(json.dumps(INTENTS[enrolled.router.kind] | more | {"tunnel_limit": None}))
    enrolled.noc.cli("relay", "intent", "put", enrolled.name, str(changed))
    enrolled.change("apply")
    assert enrolled.router.configuration() != before
    assert enrolled.change("rollback", "--comment", "not good")["state"] == "succeeded"
    assert statements(enrolled.router.configuration()) == statements(before)


def test_tunnels_channels_neighbours_and_statistics_are_read(enrolled: Enrolled):
    def rows(collection: str):
        return enrolled.noc.cli(collection, "list", "--relay", enrolled.name)["items"]

    def fresh():
        found = rows("tunnel")
        return found if found and all(row["stale"] is None for row in found) else None

    tunnels = eventually(fresh)  # a poll that had to wait for a job leaves them stale, and says so
    assert len(tunnels) == 5
    assert {row["state"] for row in tunnels} == {"active"}
    assert all(row["gateway_port"] for row in tunnels)
    assert rows("channel")
    assert rows("neighbor")
    sample = rows("statistics")[0]
    assert sample["active_tunnels"] in {0, 5, None}  # a sample a minute; this one may be of before the change
    shown = enrolled.relay("show")
    assert shown["reachability"] == "reachable"
    assert shown["active_tunnels"] == 5


def test_backups_are_there_and_their_difference_is_shown(enrolled: Enrolled):
    enrolled.router.order(edit=EDIT[enrolled.router.kind].replace("77", "78").replace("version 2", "version 1"))
    enrolled.noc.cli("backup", "take", enrolled.name)
    kept = enrolled.noc.cli("backup", "list", "--relay", enrolled.name)["items"]
    assert len(kept) >= 2
    diff = enrolled.noc.cli("backup", "diff", enrolled.name)["diff"]
    assert any(line[0] == "+" and ("78" in line or "version 1" in line) for line in diff.splitlines() if line)


def test_the_audit_says_who_did_what_before_after_and_why(enrolled: Enrolled):
    shown = enrolled.relay("show")
    rows = enrolled.noc.cli("audit", "list", "--resource", shown["id"])["items"]
    applied = [row for row in rows if row["ticket"] == "NOC-4711"]
    assert applied
    assert all(row["actor"] == "token:lab" and row["comment"] == "first relay" for row in applied)
    (first, *_) = [row for row in reversed(rows) if "intent" in row["action"] and row["before"]]
    assert first["before"] != first["after"]
    assert PASSWORD not in json.dumps(rows)


def test_the_job_is_watched_to_its_end_with_readable_progress(enrolled: Enrolled):
    jobs = enrolled.noc.cli("job", "list", "--relay", enrolled.name)["items"]
    done = next(job for job in jobs if job["kind"] == "apply")
    watched = subprocess.run(
        [PROGRAM, "job", "watch", done["id"]],
        env=enrolled.noc.manager.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert watched.returncode == 0, watched.stderr
    assert "confirm" in watched.stdout + watched.stderr

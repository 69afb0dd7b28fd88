"""ADs, sites, credentials, users, tokens, relays: added, listed, shown, changed, deleted, through the real API."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from manager_cli.running_manager import RunningManager, now

from relaymgr.store.tables import ChannelRow, PimNeighborRow, StatisticsSample, TunnelRow


def row_of(table: str, name: str) -> str:
    """The one row of a table that begins with a name."""
    (row,) = [line for line in table.splitlines() if line.split()[:1] == [name]]
    return row


def test_ad_from_add_to_delete(manager: RunningManager, relaymgr: Any) -> None:
    relaymgr("ad", "add", "north", "--asn", "64500", "--prefix", "203.0.113.0/24", "--contact", "noc@example.net")
    shown = relaymgr.json("ad", "show", "north")
    assert (shown["asn"], shown["prefixes"]) == (64500, ["203.0.113.0/24"])
    relaymgr("ad", "set", "north", "--asn", "64501")
    assert relaymgr.json("ad", "show", shown["id"])["asn"] == 64501
    table = relaymgr("ad", "list").stdout
    assert "NAME" in table
    assert "64501" in table
    relaymgr("ad", "delete", "north", status=2)
    relaymgr("ad", "delete", "north", "--yes")
    assert "no AD is named north" in relaymgr("ad", "show", "north", status=1).stderr


def test_delete_asks(manager: RunningManager, relaymgr: Any, somebody: None) -> None:
    relaymgr("ad", "add", "asked")
    assert "nothing was done" in relaymgr("ad", "delete", "asked", status=1, input="n\n").stderr
    assert relaymgr("ad", "delete", "asked", input="y\n").stdout.endswith("deleted asked\n")


def test_unknown_values_are_dashes(manager: RunningManager, relaymgr: Any) -> None:
    relaymgr("ad", "add", "bare")
    row = row_of(relaymgr("ad", "list").stdout, "bare")
    assert row.split()[1:4] == ["-", "-", "-"]
    relaymgr("ad", "delete", "bare", "--yes")


def test_site(manager: RunningManager, relaymgr: Any) -> None:
    relaymgr("ad", "add", "south")
    relaymgr("site", "add", "fra1", "--location", "Frankfurt", "--ad", "south")
    assert relaymgr.json("site", "show", "fra1")["ad_id"] == relaymgr.json("ad", "show", "south")["id"]
    assert "Frankfurt" in relaymgr("site", "list").stdout
    relaymgr("site", "set", "fra1", "--location", "Frankfurt am Main")
    assert "Frankfurt am Main" in relaymgr("site", "show", "fra1").stdout
    relaymgr("site", "delete", "fra1", "--yes")
    assert relaymgr.json("site", "list")["items"] == []


def test_credential_never_comes_back(manager: RunningManager, relaymgr: Any) -> None:
    made = relaymgr(
        "credential", "add", "mx80", "--username", "isthmus", "--secret-file", "-", "--json", input="hunter2\n"
    )
    assert "hunter2" not in made.output
    listed = relaymgr("credential", "list")
    assert "isthmus" in listed.stdout
    assert "hunter2" not in listed.output + relaymgr("credential", "list", "--json").output
    relaymgr("credential", "delete", "mx80", "--yes")


def test_credential_asks_for_the_secret(manager: RunningManager, relaymgr: Any, somebody: None) -> None:
    result = relaymgr("credential", "add", "asked-secret", "--username", "isthmus", input="hunter2\n")
    assert "hunter2" not in result.output
    assert relaymgr.json("credential", "list")["items"][-1]["source"] == "sealed"


def test_credential_with_two_sources_is_wrong_usage(manager: RunningManager, relaymgr: Any) -> None:
    words = ("credential", "add", "two", "--username", "u", "--from-env", "A", "--from-vault", "b#c")
    assert "one of --secret-file" in relaymgr(*words, status=2).stderr


def test_user(manager: RunningManager, relaymgr: Any) -> None:
    password = "correct horse battery"
    added = relaymgr("user", "add", "alice", "--role", "operator", "--password-file", "-", input=f"{password}\n")
    assert password not in added.output
    relaymgr("user", "set", "alice", "--disable")
    row = row_of(relaymgr("user", "list").stdout, "alice")
    assert row.split()[1:4] == ["operator", "all", "no"]
    relaymgr("user", "delete", "alice", "--yes")


def test_token_is_printed_alone_when_quiet_and_works_until_revoked(
    manager: RunningManager, relaymgr: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = relaymgr("token", "create", "--role", "viewer", "--name", "reader", "--expires", "1d", "--quiet").stdout
    assert token == token.strip() + "\n"
    assert "reader" in relaymgr("token", "list").stdout
    assert token.strip() not in relaymgr("token", "list").output
    with monkeypatch.context() as as_reader:
        as_reader.setenv("ISTHMUS_TOKEN", token.strip())
        relaymgr("ad", "list")
        refused = relaymgr("ad", "add", "nope", status=1).stderr
        assert "forbidden, request " in refused
        assert "role needed: admin" in refused
    relaymgr("token", "revoke", "reader", "--yes")
    assert "reader" not in relaymgr("token", "list").stdout
    assert "reader" in relaymgr("token", "list", "--revoked").stdout
    monkeypatch.setenv("ISTHMUS_TOKEN", token.strip())
    assert "unauthorized" in relaymgr("ad", "list", status=1).stderr


def test_first_token_is_made_in_the_database(
    manager: RunningManager, relaymgr: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("token", "create", "--role", "admin", "--name", "first", "--quiet")
    token = relaymgr(*words, "--database-url", manager.database_url).stdout.strip()
    monkeypatch.setenv("ISTHMUS_TOKEN", token)
    entry = next(row for row in relaymgr.json("audit", "list")["items"] if row["action"] == "token.create")
    assert entry["actor"].startswith("local:")
    assert token not in json.dumps(entry)


def test_token_needs_a_database_that_is_there(relaymgr: Any) -> None:
    result = relaymgr("token", "create", "--role", "admin", "--name", "first", "--quiet", status=2)
    assert "relaymgr db upgrade" in result.stderr
    assert result.stdout == ""


def test_token_of_no_manager_makes_nothing_locally(relaymgr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_TOKEN", "ist_x")
    told = relaymgr("token", "create", "--role", "admin", "--name", "first", status=2).stderr
    assert "set ISTHMUS_URL too" in told


def test_database_is_upgraded_and_checked(relaymgr: Any, tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    assert "there is no database" in relaymgr("db", "check", "--database-url", url, status=2).stderr
    relaymgr("db", "upgrade", "--database-url", url)
    state = relaymgr.json("db", "check", "--database-url", url)
    assert state["up_to_date"] is True
    assert state["current"] == state["head"]
    bad = relaymgr("db", "check", "--database-url", "postgresql://u:hunter2@127.0.0.1:1/x", status=3)
    assert "hunter2" not in bad.output


def test_relay_add_shows_the_fingerprint_and_asks(manager: RunningManager, relaymgr: Any, somebody: None) -> None:
    words = ("relay", "add", "asked", "--platform", "junos", "--host", "mx.example.net")
    refused = relaymgr(*words, status=1, input="n\n")
    assert manager.script.presented.fingerprint in refused.stderr
    assert relaymgr.json("relay", "list")["items"] == []
    relaymgr(*words, input="y\n")
    assert manager.script.planned[-1] == "scan mx.example.net 830"
    shown = relaymgr.json("relay", "show", "asked")
    assert shown["host_key"] == manager.script.presented.line
    relaymgr("relay", "delete", "asked", "--yes")


def test_relay_add_is_never_blind_without_a_word(manager: RunningManager, relaymgr: Any) -> None:
    words = ("relay", "add", "script", "--platform", "iosxe", "--host", "192.0.2.9")
    nobody = relaymgr(*words, status=2).stderr
    assert f"--accept-host-key {manager.script.presented.fingerprint}" in nobody
    wrong = relaymgr(*words, "--accept-host-key", "SHA256:other", status=1).stderr
    assert "nothing was done" in wrong
    assert relaymgr.json("relay", "list")["items"] == []
    told = relaymgr(*words, "--accept-new-host-key")
    assert "without being compared" in told.stderr
    relaymgr("relay", "delete", "script", "--yes")


def test_isthmus_relay_has_no_host_key(manager: RunningManager, relaymgr: Any) -> None:
    relaymgr("relay", "add", "edge", "--platform", "isthmus", "--host", "https://edge.example.net:8443")
    assert manager.script.planned == []
    relaymgr("relay", "scan", "edge", status=2)
    relaymgr("relay", "delete", "edge", "--yes")


def test_relay_settings_and_listing(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    relaymgr("relay", "set", mx1, "--poll-interval", "60", "--label", "region=eu", "--disable")
    shown = relaymgr.json("relay", "show", mx1)
    assert (shown["poll_interval_seconds"], shown["labels"], shown["enabled"]) == (60, {"region": "eu"}, False)
    assert relaymgr.json("relay", "list", "--platform", "ios")["items"] == []
    table = relaymgr("relay", "list").stdout
    row = row_of(table, mx1)
    assert row.split()[3:6] == ["unknown", "-", "-"]
    assert "never" in row
    assert "disabled" in row
    page = relaymgr("relay", "show", mx1).stdout
    assert "v1 not applied" in page
    assert f"c-{mx1}" in page
    assert "nothing to change" in relaymgr("relay", "set", mx1, status=2).stderr


def test_scan_compares_with_the_pinned_key(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    assert "as pinned" in relaymgr("relay", "scan", mx1).stdout
    old = manager.script.presented
    manager.script.presented = type(old)(old.line.replace("IH9m", "IH9n"), "SHA256:another")
    differs = relaymgr.json("relay", "scan", mx1, status=1)
    assert differs["matches"] is False
    relaymgr("relay", "scan", mx1, "--pin", status=2)
    relaymgr("relay", "scan", mx1, "--pin", "--accept-host-key", "SHA256:another")
    assert relaymgr.json("relay", "show", mx1)["host_key"] == manager.script.presented.line


def test_intent_round_trip_is_guarded_by_its_etag(
    manager: RunningManager, relaymgr: Any, mx1: str, tmp_path: Any
) -> None:
    file = tmp_path / "mx1.yaml"
    file.write_text(relaymgr("relay", "intent", "get", mx1).stdout)
    assert "anycast_address" not in file.read_text()
    edited = file.read_text().replace("tunnel_limit: 100", "tunnel_limit: 5000")
    changed = relaymgr("relay", "intent", "put", mx1, "-", input=edited).stdout
    assert "-tunnel_limit: 100" in changed
    assert "+tunnel_limit: 5000" in changed
    stale = relaymgr("relay", "intent", "put", mx1, str(file), status=1).stderr
    assert "etag_mismatch" in stale
    document = relaymgr.json("relay", "intent", "get", mx1)
    assert document["intent"]["tunnel_limit"] == 5000
    assert "unchanged" in relaymgr("relay", "intent", "put", mx1, "-", input=json.dumps(document)).stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("inet: [", "neither YAML nor JSON"),
        ("just words", "does not hold an intent"),
        ("tunnel_limit: 1\ntunnel_limit: 2\n", "tunnel_limit is given twice"),
    ],
)
def test_intent_files_that_are_none(manager: RunningManager, relaymgr: Any, mx1: str, text: str, told: str) -> None:
    assert told in relaymgr("relay", "intent", "put", mx1, "-", input=text, status=2).stderr


def test_intent_faults_are_told_place_by_place(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    bad = "inet:\n  anycast_prefix: 192.0.2.0/24\n  local_address: 192.0.2.7\ntunnel_limt: 5\n"
    told = relaymgr("relay", "intent", "put", mx1, "-", input=bad, status=1).stderr
    assert "invalid_request" in told
    assert "tunnel_limt: " in told
    assert "lies inside 192.0.2.0/24" in told


def test_observed_rows_tell_unknown_and_stale(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    relay_id = relaymgr.json("relay", "show", mx1)["id"]
    seen = now() - timedelta(minutes=5)
    manager.add(
        TunnelRow(
            relay_id=relay_id, gateway_address="2001:db8::9", gateway_port=49152, state="active", packets=0,
            first_seen_at=seen, seen_at=seen,
        ),
        ChannelRow(relay_id=relay_id, group_address="232.1.1.1", downstream_interfaces=[], seen_at=seen),
        PimNeighborRow(relay_id=relay_id, address="192.0.2.1", interface="ge-1/0/0.0", seen_at=seen),
        StatisticsSample(relay_id=relay_id, at=seen, tunnel_limit=5000, counters={}, errors={"invalid_mac": 3}),
    )  # fmt: skip
    row = row_of(relaymgr("tunnel", "list", "--relay", mx1).stdout, mx1)
    assert "[2001:db8::9]:49152" in row
    assert row.split()[4:9] == ["-", "-", "0", "-", "-"], "up, channels, packets, bytes, rate: only packets are known"
    assert relaymgr.json("tunnel", "list", "--gateway", "2001:db8::9")["items"][0]["bytes"] is None
    csv = relaymgr("tunnel", "list", "--csv").stdout.splitlines()
    assert "gateway_address" in csv[0]
    assert "232.1.1.1" in relaymgr("channel", "list", "--group", "232.1.1.1").stdout
    assert "192.0.2.1" in relaymgr("neighbor", "list", "--relay", mx1).stdout
    sample = relaymgr("statistics", "list", "--relay", mx1).stdout
    assert "- of 5 000" in sample
    assert "invalid_mac 3" in sample


def test_listing_tells_when_there_is_more(manager: RunningManager, relaymgr: Any) -> None:
    for number in range(3):
        relaymgr("ad", "add", f"page-{number}")
    short = relaymgr("ad", "list", "--limit", "2")
    assert "more than these 2" in short.stderr
    document = relaymgr.json("ad", "list", "--limit", "2")
    assert len(document["items"]) == 2
    assert document["next_cursor"] is not None
    assert relaymgr.json("ad", "list", "--limit", "2", "--all")["next_cursor"] is None

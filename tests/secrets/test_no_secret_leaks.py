"""Secrets of every kind are planted, everything is done that may tell them, and everything told is searched for them.

Searched: the log at its most talkative, every answer of every GET an administrator, an operator and a viewer may ask
(streams and problems too), what writes answer, and the files of the database, also while the manager still runs.
"""

from __future__ import annotations

import base64
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import httpx
import pytest
from crash import world
from crash.fleet import PASSWORD, Fleet, running
from crash.world import apply, enrol, finished, managed, plan

from lab.manager import Manager

pytestmark = pytest.mark.slow

ON_DEVICES = {
    "SNMP community": "leak-community-5b1d",
    "new SNMP community": "leak-community-9f2e",
    "Junos secret": "$9$leakJunosSecret7Ukq",
    "Junos hash": "$6$leakJunosHash$0a9b8c7d",
    "IOS secret": "$9$leakIosSecret$9c8b7a",
    "IOS password 7": "04480E051D24584B",
    "BGP password": "0822455D0A165445",
    "key chain": "leak-key-string-77aa",
}
JUNOS = f"""\
set snmp community {ON_DEVICES["SNMP community"]} authorization read-only
set protocols bgp group upstream authentication-key "{ON_DEVICES["Junos secret"]}"
set system root-authentication encrypted-password "{ON_DEVICES["Junos hash"]}"
"""
IOS = f"""\
snmp-server community {ON_DEVICES["SNMP community"]} RO
enable secret 9 {ON_DEVICES["IOS secret"]}
username other privilege 1 password 7 {ON_DEVICES["IOS password 7"]}
router bgp 65000
 neighbor 10.255.0.2 password 7 {ON_DEVICES["BGP password"]}
"""
KEYS = f"key chain ours\n key 1\n key-string {ON_DEVICES['key chain']}"
LOGIN = "leak-user-password-31c4"
WRONG = "leak-wrong-password-80aa"
MANGLED = "leak-mangled-secret-55ee"
STREAM_SECONDS = 2.0


class Leaks:
    """What must not be told, and where it was."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = dict(ON_DEVICES)
        self.found: set[tuple[str, str]] = set()
        self.searched = 0
        self.allowed: set[str] = set()
        """Told where it may be: so it was there to be told."""
        self.masked: set[str] = set()
        """Where a mask stood in place of something."""

    def search(self, where: str, text: str | bytes, *, but: frozenset[str] = frozenset()) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.searched += 1
        for name, secret in self.secrets.items():
            forms = {secret, json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode()}
            if any(form.encode() in data for form in forms):
                self.allowed.add(name) if name in but else self.found.add((where, name))
        if b"<secret>" in data:
            self.masked.add(where)


@pytest.fixture(scope="module")
def leaks() -> Leaks:
    return Leaks()


def private_key() -> tuple[str, str, str]:
    """A private key, a line out of it, and its public half."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    text = key.export_private_key("openssh").decode()
    return text, text.splitlines()[2], key.export_public_key("openssh").decode()


def test_secrets_are_told_nowhere(tmp_path: Path, leaks: Leaks) -> None:
    key, line, public = private_key()
    authorized = tmp_path / "authorized"
    authorized.write_text(public)
    leaks.secrets |= {
        "device password": PASSWORD, "private key": line, "user's password": LOGIN, "wrong password": WRONG,
        "mangled": MANGLED,
    }  # fmt: skip
    options = ("--authorized-keys", str(authorized), "--minute-seconds", "2")
    with (
        running(Fleet("mx80", tmp_path, 2, options)) as mx80,
        running(Fleet("iosxe", tmp_path, 1, options)) as iosxe,
        managed(tmp_path, "--log-level", "debug") as manager,
    ):
        leaks.secrets["administrator's token"] = manager.token
        leaks.secrets["sealing key"] = sealing_key(tmp_path)
        mx80.order(edit=JUNOS)
        iosxe.order(edit=IOS)
        everything_happens(manager, mx80, iosxe, key, leaks)
        crawl(manager, leaks)
        database(tmp_path, leaks)
        manager.kill()
        database(tmp_path, leaks)
        manager.start()
    database(tmp_path, leaks)
    log_lines(manager, leaks)
    assert leaks.searched > 100
    assert not leaks.found, sorted(leaks.found)
    assert leaks.allowed == set(ON_DEVICES), "backups as the devices printed them hold what was planted"
    assert {"operator: GET /api/v1/backups/diff"} <= leaks.masked, leaks.masked


def sealing_key(folder: Path) -> str:
    """The base64 key next to the database, which nobody else may read."""
    path = folder / "relaymgr.db.key"
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    return path.read_text().splitlines()[-1].strip()


def everything_happens(manager: Manager, mx80: Fleet, iosxe: Fleet, key: str, leaks: Leaks) -> None:
    """Enrolment, plans, changes, failures, drift, backups and logins, well and badly."""
    soon = {"rpc_timeout_seconds": 5, "connect_timeout_seconds": 5, "commit_timeout_seconds": 5}
    relays = [*enrol(manager, mx80, **soon), *enrol(manager, iosxe, **soon)]
    first, second, cisco = relays
    with_key = credential(manager, "key", "private_key", key)
    manager.call("PATCH", f"/relays/{second.id}", json={"credential_id": with_key}, headers=tag(manager, second.id))
    told: list[httpx.Response] = []
    for relay in relays:
        done(manager, apply(manager, relay, plan(manager, relay)["id"]), "succeeded")
        backup(manager, relay.id)
    mx80.order(edit=f"set snmp community {ON_DEVICES['new SNMP community']} authorization read-only")
    mx80.order(0, edit="set protocols amt relay tunnel-limit 77")
    iosxe.order(edit=f"snmp-server community {ON_DEVICES['new SNMP community']} RO\n{KEYS}")
    for relay in relays:
        backup(manager, relay.id)
        told.append(manager.request("POST", f"/relays/{relay.id}/check-drift", json={}))
    done(manager, manager.call("POST", f"/relays/{first.id}/restore", json={"confirm_minutes": 1})["id"], "succeeded")

    for fleet, relay in ((mx80, first), (iosxe, cisco)):
        manager.put_intent(relay.id, world.CHANGED[fleet.kind])
        planned = plan(manager, relay)
        for fault in ("commit-refused", "drop-session", "garbage", "refuse-login", "vty-full"):
            fleet.order(relay.index, fault=fault)
            told.append(manager.request("POST", f"/relays/{relay.id}/plan", json={"kind": "apply"}))
            fleet.order(relay.index, fault=None)
            manager.call("PATCH", f"/relays/{relay.id}", json={"labels": {"f": fault}}, headers=tag(manager, relay.id))
        fleet.order(relay.index, fault="commit-refused")
        body = {"plan": planned["id"], "confirm_minutes": 1, "comment": "refused"}
        done(manager, manager.call("POST", f"/relays/{relay.id}/apply", json=body)["id"], None)
        fleet.order(relay.index, fault=None)

    wrong = credential(manager, "wrong", "password", WRONG)
    manager.call("PATCH", f"/relays/{second.id}", json={"credential_id": wrong}, headers=tag(manager, second.id))
    told.append(manager.request("POST", f"/relays/{second.id}/plan", json={"kind": "drain"}))
    told += bad_requests(manager)
    manager.call("POST", "/users", json={"name": "noc", "password": LOGIN, "role": "viewer"})
    told.append(manager.request("POST", "/login", json={"name": "noc", "password": WRONG}))
    told.append(manager.request("POST", "/login", json={"name": "nobody", "password": LOGIN}))
    session = manager.request("POST", "/login", json={"name": "noc", "password": LOGIN})
    assert session.status_code == httpx.codes.OK, session.text
    leaks.search("login", session.text)
    leaks.secrets["session"] = session.json()["token"]
    for answer in told:
        leaks.search(f"{answer.request.method} {answer.request.url.path}", answer.text)


def bad_requests(manager: Manager) -> Iterator[httpx.Response]:
    """Secrets in requests that are refused: an answer that quotes them would tell them."""
    good = {"name": "x", "username": "u", "kind": "password", "source": "sealed", "secret": MANGLED}
    for wrong in ({"kind": MANGLED}, {"secret": {"value": MANGLED}}, {"secret": [MANGLED]}, {"extra": MANGLED}):
        answer = manager.request("POST", "/credentials", json=good | wrong)
        assert answer.is_client_error
        yield answer
    yield manager.request("POST", "/credentials", json=good | {"kind": "private_key"})
    yield manager.request("POST", "/users", json={"name": "x", "password": [MANGLED], "role": "viewer"})
    yield manager.request("POST", "/login", json={"name": "x", "password": {"it": MANGLED}})
    yield manager.request("POST", "/login", content=f'{{"name": "x", "password": "{MANGLED}"')
    yield manager.request("GET", "/relays", headers={"Authorization": f"Bearer {MANGLED}"})


def credential(manager: Manager, name: str, kind: str, secret: str) -> str:
    body = {"name": name, "username": "isthmus", "kind": kind, "source": "sealed", "secret": secret}
    return str(manager.call("POST", "/credentials", json=body)["id"])


def tag(manager: Manager, relay_id: str) -> dict[str, str]:
    return {"If-Match": manager.request("GET", f"/relays/{relay_id}").headers["ETag"]}


def done(manager: Manager, job: str, state: str | None) -> None:
    ended = finished(manager, [job], 90.0)[job]
    assert state in {None, ended["state"]}, ended


def backup(manager: Manager, relay_id: str) -> None:
    done(manager, manager.call("POST", f"/relays/{relay_id}/backup", json={})["id"], "succeeded")


def crawl(manager: Manager, leaks: Leaks) -> None:
    """Every GET of the specification, with every id there is, for each role."""
    specification = httpx.get(f"{manager.url}/openapi.json").json()
    leaks.search("/openapi.json", json.dumps(specification))
    paths = [path for path, operations in specification["paths"].items() if "get" in operations]
    ids = identifiers(manager)
    assert ids["relay_id"]
    assert ids["backup_id"]
    for role in ("admin", "operator", "viewer"):
        token = manager.call("POST", "/tokens", json={"name": f"crawl-{role}", "role": role})["token"]
        leaks.secrets[f"token of {role}"] = token
        with httpx.Client(base_url=manager.url, headers={"Authorization": f"Bearer {token}"}, timeout=30.0) as client:
            answered = sum(ask(client, path, role, leaks) for template in paths for path in filled(template, ids))
        assert answered > (20 if role == "viewer" else 50), (role, answered)


def identifiers(manager: Manager) -> dict[str, list[str]]:
    names = ("ad", "site", "credential", "relay", "plan", "job", "rollout", "backup", "token", "user")
    return {f"{one}_id": [row["id"] for row in manager.items(f"/{one}s?limit=200")] for one in names}


def filled(template: str, ids: dict[str, list[str]]) -> Iterator[str]:
    names = re.findall(r"{(\w+)}", template)
    if template.endswith("/backups/diff"):
        for older in ids["backup_id"]:
            yield from (f"{template}?from_id={older}&to_id={newer}" for newer in ids["backup_id"] if newer != older)
    elif not names:
        yield template
    else:
        yield from (template.replace(f"{{{names[0]}}}", one) for one in ids[names[0]])


def ask(client: httpx.Client, path: str, role: str, leaks: Leaks) -> bool:
    """Whether something was told. An administrator may read a backup as the device printed it."""
    allowed = frozenset(ON_DEVICES) if role == "admin" and path.endswith("/content") else frozenset()
    body, status = b"", 0
    try:
        with client.stream("GET", path, timeout=STREAM_SECONDS) as answer:
            status = answer.status_code
            for data in answer.iter_bytes():
                body += data
    except httpx.ReadTimeout:
        assert path.endswith("/stream"), path
    assert status < 500, (path, body)
    leaks.search(f"{role}: GET {path.partition('?')[0]}", body, but=allowed)
    return status == httpx.codes.OK


def database(folder: Path, leaks: Leaks) -> None:
    files = [path for path in folder.glob("relaymgr.db*") if path.suffix != ".key"]
    assert files
    for path in files:
        leaks.search(path.name, path.read_bytes())


def log_lines(manager: Manager, leaks: Leaks) -> None:
    """The first start prints a token for people, outside the log."""
    lines = [line for line in manager.log.read_text().splitlines() if not re.fullmatch(r" {4}\S+", line)]
    assert any("level=info" in line for line in lines)
    for line in lines:
        leaks.search(f"log: {line[:300]}", line)


def test_the_search_finds_what_is_there(leaks: Leaks) -> None:
    probe = Leaks()
    probe.secrets = {"one": 'a"b', "other": "c"}
    probe.search("here", json.dumps({"x": 'a"b'}))
    probe.search("there", base64.b64encode(b'a"b'))
    assert probe.found == {("here", "one"), ("there", "one")}

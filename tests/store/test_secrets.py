"""Sealing, keys, and credentials from every source; and that none of it is found in a database or a log."""

from __future__ import annotations

import base64
import http.server
import json
import logging
import os
import secrets
import subprocess
import threading

import pytest
from databases import postgresql
from pydantic import SecretStr
from sqlalchemy import select
from store_seeds import NOW

from relaymgr.settings import Settings
from relaymgr.store import audit, credentials, sealing, tokens, users
from relaymgr.store.credentials import CredentialUnusable
from relaymgr.store.principals import Role
from relaymgr.store.sealing import KeyUnusable, SealBroken, Sealer
from relaymgr.store.tables import Backup, CredentialRecord, Relay, new_id

KEY, OTHER = b"k" * 32, b"o" * 32


def encoded(*keys):
    return "\n".join(base64.b64encode(key).decode() for key in keys) + "\n"


def test_what_is_sealed_opens_in_its_context_only():
    sealer = Sealer(KEY)
    sealed = sealer.seal(b"planted", "credential:1")
    assert sealer.open(sealed, "credential:1") == b"planted"
    assert b"planted" not in sealed
    assert sealer.seal(b"planted", "credential:1") != sealed
    assert sealer.open(sealer.seal(b"", "x"), "x") == b""
    for wrong, context in ((Sealer(OTHER), "credential:1"), (sealer, "credential:2")):
        with pytest.raises(SealBroken) as broken:
            wrong.open(sealed, context)
        assert "planted" not in str(broken.value)


def test_every_bit_of_a_sealed_record_counts():
    sealer = Sealer(KEY)
    sealed = sealer.seal(b"planted", "x")
    for place in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[place] ^= 1
        with pytest.raises(SealBroken):
            sealer.open(bytes(damaged), "x")
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            sealer.open(sealed[:length], "x")


def test_keys_are_not_shown_and_must_be_keys():
    assert "kkk" not in repr(Sealer(KEY)) + str(vars(Sealer(KEY)))
    for unusable in (b"", b"short", b"x" * 33, []):
        with pytest.raises(ValueError, match="32 bytes"):
            Sealer(unusable)


def test_a_key_is_made_next_to_an_sqlite_database(tmp_path):
    settings = Settings(database_url=f"sqlite:///{tmp_path}/relaymgr.db")
    keys = sealing.load_key(settings)
    path = tmp_path / "relaymgr.db.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert sealing.load_key(settings) == keys
    assert [len(key) for key in keys] == [32]
    assert list(tmp_path.iterdir()) == [path]
    sealing.make_key(path)
    assert sealing.load_key(settings) == keys, "a key that is there is never replaced"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o622])
def test_a_key_others_can_use_is_refused(tmp_path, mode):
    path = tmp_path / "key"
    path.write_text(encoded(KEY))
    path.chmod(mode)
    with pytest.raises(KeyUnusable, match="chmod 0600"):
        sealing.load_key(Settings(key_file=path))


@pytest.mark.parametrize("content", ["", "planted!", encoded(b"planted short"), "é" * 44])
def test_a_file_that_holds_no_key_is_refused(tmp_path, content):
    path = tmp_path / "key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(KeyUnusable) as refused:
        sealing.load_key(Settings(key_file=path))
    assert "planted" not in str(refused.value)


def test_keys_from_the_environment_and_none_at_all(tmp_path):
    assert sealing.load_key(Settings(key=SecretStr(encoded(KEY, OTHER)))) == [KEY, OTHER]
    with pytest.raises(KeyUnusable, match="ISTHMUS_KEY_FILE"):
        sealing.load_key(Settings(database_url="postgresql://u@h/n"))
    with pytest.raises(KeyUnusable, match="No such file"):
        sealing.load_key(Settings(key_file=tmp_path / "none"))


async def add_credential(database, sealer=None, **values):
    credential_id = new_id()
    if "secret" in values:
        values["sealed"] = credentials.seal_secret(sealer, credential_id, values.pop("secret"))
    async with database.begin() as session:
        session.add(
            CredentialRecord(
                **{"id": credential_id, "name": f"c{credential_id}", "username": "noc", "kind": "password"}
                | {"source": "sealed", "created_at": NOW, "updated_at": NOW}
                | values
            )
        )
    return credential_id


async def resolve(database, credential_id, settings=None, sealer=None):
    async with database.session() as session:
        return await credentials.resolve(session, credential_id, sealer or Sealer(KEY), settings or Settings())


async def test_rotation_brings_everything_under_the_new_key(database):
    old, both, new = Sealer(KEY), Sealer([OTHER, KEY]), Sealer(OTHER)
    ids = [await add_credential(database, old, secret=f"s{number}") for number in range(3)]
    async with database.begin() as session:
        relay = Relay(name="r", platform="junos", host="h", created_at=NOW, updated_at=NOW)
        session.add(relay)
        await session.flush()
        backup = Backup(id=new_id(), relay_id=relay.id, taken_at=NOW, sha256="", size_bytes=1, reason="periodic")
        backup.sealed = old.seal(b"config", sealing.backup_context(backup.id))
        session.add(backup)
    with pytest.raises(SealBroken, match=old.key_id):
        await sealing.rotate(database, new)
    assert await sealing.rotate(database, both) == 4
    assert await sealing.rotate(database, both) == 0
    assert [(await resolve(database, one, sealer=new)).password for one in ids] == ["s0", "s1", "s2"]
    async with database.session() as session:
        sealed = await session.scalar(select(Backup.sealed))
    assert new.open(sealed, sealing.backup_context(backup.id)) == b"config"


async def test_kinds(database):
    sealer = Sealer(KEY)
    for kind, expected in (("password", "s"), ("token", "s"), ("private_key", "s\n")):
        found = await resolve(database, await add_credential(database, sealer, kind=kind, secret="s"))
        assert (found.username, getattr(found, kind)) == ("noc", expected)
        assert [found.password, found.token, found.private_key].count(None) == 2
        assert "s\n" not in repr(found)
    for unusable in (await add_credential(database, sealer, kind="planet", secret="s"), None, "none"):
        with pytest.raises(CredentialUnusable):
            await resolve(database, unusable)


async def test_environment(database, monkeypatch):
    monkeypatch.setenv("ISTHMUS_CREDENTIAL_MX", "planted-secret\n")
    monkeypatch.setenv("HOME_SECRET", "planted")
    found = await resolve(database, await add_credential(database, source="env", reference="ISTHMUS_CREDENTIAL_MX"))
    assert found.password == "planted-secret"
    for reference, why in (
        ("HOME_SECRET", "must begin"),
        ("ISTHMUS_KEY", "must begin"),
        ("ISTHMUS_CREDENTIAL_A\0", "must begin"),
        (None, "must begin"),
        ("ISTHMUS_CREDENTIAL_NONE", "not set"),
    ):
        if reference is not None and "\0" in reference:
            with pytest.raises(CredentialUnusable, match=why):
                credentials.check_reference("env", reference, Settings())
            continue
        with pytest.raises(CredentialUnusable, match=why):
            await resolve(database, await add_credential(database, source="env", reference=reference))


async def test_files(database, tmp_path):
    folder = tmp_path / "credentials"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "mx").write_text("planted-secret\n")
    (folder / "open").write_text("x")
    (folder / "empty").write_text("\n")
    (folder / "binary").write_bytes(b"\xff")
    (tmp_path / "outside").write_text("planted")
    (folder / "link").symlink_to(tmp_path / "outside")
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o600)
    (folder / "open").chmod(0o644)
    settings = Settings(credential_directory=folder)
    for reference in ("sub/mx", str(folder / "sub" / "mx")):
        found = await resolve(database, await add_credential(database, source="file", reference=reference), settings)
        assert found.password == "planted-secret"
    for reference, why in (
        ("../outside", "outside"),
        ("/etc/passwd", "outside"),
        ("link", "outside"),
        (".", "outside"),
        ("", "no file"),
        ("none", "No such file"),
        ("sub", "Is a directory"),
        ("open", "chmod 0600"),
        ("empty", "empty"),
        ("binary", "not text"),
    ):
        credential = await add_credential(database, source="file", reference=reference)
        with pytest.raises(CredentialUnusable, match=why) as refused:
            await resolve(database, credential, settings)
        assert "planted" not in str(refused.value)
    with pytest.raises(CredentialUnusable, match="credential_directory is not set"):
        await resolve(database, await add_credential(database, source="file", reference="sub/mx"))


class SyntheticVault(http.server.BaseHTTPRequestHandler):
    """Answers as the KV version 2 engine is documented to; no real Vault made these."""

    def do_GET(self):
        body, status = {"errors": []}, 404
        if self.headers["X-Vault-Token"] != "planted-vault-token":
            body, status = {"errors": ["permission denied"]}, 403
        elif self.path == "/v1/secret/data/noc/mx":
            body, status = {"data": {"data": {"password": "planted-secret", "n": 5}, "metadata": {"version": 1}}}, 200
        elif self.path == "/v1/secret/data/moved":
            status = 302
        elif self.path == "/v1/secret/data/odd":
            body, status = ["planted"], 200
        answer = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Location", "/v1/secret/data/noc/mx")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_args):
        pass


@pytest.fixture
def vault():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), SyntheticVault) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_vault(database, vault, caplog):
    caplog.set_level(logging.DEBUG)
    settings = Settings(vault_address=vault + "/", vault_token=SecretStr("planted-vault-token"))
    credential = await add_credential(database, source="vault", reference="secret:noc/mx#password")
    assert (await resolve(database, credential, settings)).password == "planted-secret"
    for reference, why in (
        ("secret:noc/none#password", "404"),
        ("secret:noc/mx#none", "no field"),
        ("secret:noc/mx#n", "not text"),
        ("secret:moved#password", "302"),
        ("secret:odd#password", "no field"),
        ("secret:../../sys/x#y", "reads MOUNT:PATH#FIELD"),
        ("secret:a?b#y", "reads MOUNT:PATH#FIELD"),
        ("planted", "reads MOUNT:PATH#FIELD"),
        ("", "reads MOUNT:PATH#FIELD"),
    ):
        with pytest.raises(CredentialUnusable, match=why):
            await resolve(database, await add_credential(database, source="vault", reference=reference), settings)
    for broken, why in (
        (Settings(vault_address=vault, vault_token=SecretStr("wrong")), "403"),
        (Settings(vault_address="http://127.0.0.1:1", vault_token=SecretStr("x")), "does not answer"),
        (Settings(), "not set"),
    ):
        with pytest.raises(CredentialUnusable, match=why):
            await resolve(database, credential, broken)
    assert "planted-secret" not in caplog.text
    assert "planted-vault-token" not in caplog.text


PLANTED = {name: f"planted-{name}-{secrets.token_hex(8)}" for name in ("password", "key", "user", "backup", "audit")}


async def test_no_secret_is_in_the_database_or_a_log(database, database_url, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    sealer = Sealer(KEY)
    await add_credential(database, sealer, secret=PLANTED["password"])
    await add_credential(database, sealer, secret=PLANTED["key"], kind="private_key")
    hashed = await users.hash_password(PLANTED["user"])
    async with database.begin() as session:
        token = await tokens.create(session, name="t", role=Role.ADMIN, created_by="x", now=NOW)
        await users.create(session, name="u", role=Role.VIEWER, now=NOW, password_hash=hashed)
        relay = Relay(name="visible-marker", platform="junos", host="h", created_at=NOW, updated_at=NOW)
        session.add(relay)
        await session.flush()
        backup = Backup(id=new_id(), relay_id=relay.id, taken_at=NOW, sha256="", size_bytes=1, reason="periodic")
        backup.sealed = sealer.seal(PLANTED["backup"].encode(), sealing.backup_context(backup.id))
        session.add(backup)
        await audit.record(session, "x", "credential.create", "credential", "1", after={"secret": PLANTED["audit"]})
    assert await tokens.verify(database, token.text, NOW) is not None
    assert await users.authenticate(database, "u", PLANTED["user"], NOW) is not None
    everything = b"".join(dump(database, database_url, tmp_path))
    assert b"visible-marker" in everything, "the dump holds what is no secret"
    for planted in [*PLANTED.values(), token.text, KEY.decode()]:
        for form in (planted.encode(), base64.b64encode(planted.encode()), planted.encode().hex().encode()):
            assert form not in everything
        assert planted not in caplog.text


def dump(database, database_url, tmp_path):
    """Everything the database holds: SQLite's files, or what pg_dump writes."""
    if database.dialect == "sqlite":
        return [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    cluster = postgresql()
    program = cluster.programs / "pg_dump"
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run([program, "--inserts", database_url], capture_output=True, env=environment, check=True)
    return [done.stdout]

"""Tokens, users and what each may see."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select, update
from store_seeds import NOW, add_ad, add_relay, later, observed, tunnel

from relaymgr.store import observations, tokens, users
from relaymgr.store.principals import Principal, Role, visible_of_relays, visible_relays, visible_tunnels
from relaymgr.store.tables import Job, Relay, Token, TunnelRow, User

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    monkeypatch.setattr(users, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


async def make_token(database, **values):
    async with database.begin() as session:
        return await tokens.create(
            session, **{"name": "t", "role": Role.OPERATOR, "created_by": "test", "now": NOW} | values
        )


async def make_user(database, name="u", **values):
    hashed = await users.hash_password(PASSWORD)
    async with database.begin() as session:
        return await users.create(
            session, **{"name": name, "role": Role.OPERATOR, "now": NOW, "password_hash": hashed} | values
        )


def test_roles_include_each_other():
    assert [[role.includes(needed) for needed in Role] for role in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


async def test_a_token_is_known_by_its_text_only(database):
    ad = await add_ad(database, "a")
    made = await make_token(database, name="ansible", ad_ids=[ad])
    assert made.text.startswith("ist_")
    assert made.text not in repr(made)
    assert made.row.prefix == made.text[:12]
    principal = await tokens.verify(database, made.text, NOW)
    assert principal == Principal("token:ansible", Role.OPERATOR, frozenset({ad}), made.row.id)
    for wrong in ("", "ist_", made.text[:-1], made.text + "x", made.row.sha256, "ist_\udcff", "ist_" + "x" * 10**6):
        assert await tokens.verify(database, wrong, NOW) is None


async def test_tokens_end(database):
    expiring = await make_token(database, expires_at=later(60))
    assert await tokens.verify(database, expiring.text, later(59)) is not None
    assert await tokens.verify(database, expiring.text, later(60)) is None
    other = await make_token(database)
    async with database.begin() as session:
        assert await tokens.revoke(session, other.row.id, later(1))
        assert not await tokens.revoke(session, other.row.id, later(2))
        assert not await tokens.revoke(session, "none", later(2))
    assert await tokens.verify(database, other.text, later(3)) is None
    async with database.session() as session:
        assert [row.revoked_at for row in await tokens.list_tokens(session)] == [None, later(1)]


async def test_last_use_is_written_once_a_minute(database):
    made = await make_token(database)
    uses = []
    for seconds in (0, 1, 59, 60, 119, 121):
        await tokens.verify(database, made.text, later(seconds))
        async with database.session() as session:
            uses.append(await session.scalar(select(Token.last_used_at)))
    assert uses == [later(0)] * 3 + [later(60)] * 2 + [later(121)]


async def test_a_logins_token_follows_its_user(database):
    user = await make_user(database)
    made = await make_token(database, user_id=user.id, role=Role.ADMIN)
    assert await tokens.verify(database, made.text, NOW) == Principal(
        "user:u", Role.OPERATOR, frozenset(), made.row.id, user.id
    )
    async with database.begin() as session:
        await session.execute(update(User).values(role="viewer"))
    assert (await tokens.verify(database, made.text, NOW)).role is Role.VIEWER
    async with database.begin() as session:
        await session.execute(update(User).values(enabled=False))
    assert await tokens.verify(database, made.text, NOW) is None


async def test_the_first_administrators_token_is_made_once(database):
    async def start():
        async with database.begin() as session:
            return await tokens.bootstrap(session, NOW)

    made = [text for text in await asyncio.gather(*(start() for _ in range(4))) if text is not None]
    assert len(made) == 1
    assert (await tokens.verify(database, made[0], NOW)).role is Role.ADMIN
    async with database.begin() as session:
        assert await tokens.bootstrap(session, NOW + timedelta(hours=23)) is None
    async with database.begin() as session:
        assert await tokens.bootstrap(session, NOW + timedelta(hours=25)) is not None


async def test_no_bootstrap_where_an_administrator_is(database):
    await make_user(database, role=Role.ADMIN)
    async with database.begin() as session:
        assert await tokens.bootstrap(session, NOW) is None


async def test_passwords(database):
    await make_user(database)
    assert (await users.authenticate(database, "u", PASSWORD, later(5))).name == "u"
    for name, password in (
        ("u", "wrong horse battery"),
        ("nobody", PASSWORD),
        ("u\0", PASSWORD),
        ("u", "\ud800" * 2000),
    ):
        assert await users.authenticate(database, name, password, NOW) is None
    async with database.session() as session:
        assert await session.scalar(select(User.last_login_at)) == later(5)
        assert (await session.scalar(select(User.password_hash))).startswith("$argon2id$")
    for unusable in ("short", "x" * 1025):
        with pytest.raises(users.PasswordUnusable):
            await users.hash_password(unusable)


async def test_disabled_users_and_those_without_a_password_stay_out(database):
    await make_user(database, "oidc", password_hash=None, subject="issuer|1")
    await make_user(database, "off")
    async with database.begin() as session:
        await session.execute(update(User).where(User.name == "off").values(enabled=False))
    assert await users.authenticate(database, "oidc", PASSWORD, NOW) is None
    assert await users.authenticate(database, "off", PASSWORD, NOW) is None


async def test_old_hashes_are_renewed(database, monkeypatch):
    await make_user(database)
    monkeypatch.setattr(users, "_hasher", PasswordHasher(time_cost=2, memory_cost=64, parallelism=1))
    assert await users.authenticate(database, "u", PASSWORD, NOW) is not None
    async with database.session() as session:
        assert "t=2" in await session.scalar(select(User.password_hash))
    assert await users.authenticate(database, "u", PASSWORD, NOW) is not None


async def test_users_of_an_identity_provider(database):
    await make_user(database, "ann")

    async def login(role, ad_ids=()):
        async with database.begin() as session:
            return await users.from_identity_provider(
                session, subject="issuer|1", name="ann", role=role, ad_ids=ad_ids, now=NOW
            )

    first = await login(Role.VIEWER)
    assert first.name == "ann (issuer|1)"
    second = await login(Role.ADMIN, ["b", "a"])
    assert (second.id, second.role, second.ad_ids) == (first.id, "admin", ["a", "b"])
    async with database.begin() as session:
        await session.execute(update(User).where(User.id == first.id).values(enabled=False))
    assert await login(Role.ADMIN) is None


async def test_what_a_scoped_token_sees(database):
    mine, other = await add_ad(database, "mine", ["203.0.113.0/24"]), await add_ad(database, "other", ["2001:db8::/32"])
    relays = {
        name: await add_relay(database, name, ad_id=ad) for name, ad in (("m", mine), ("o", other), ("nobodys", None))
    }
    seen = observed(tunnel("203.0.113.1"), tunnel("2001:db8::1"), tunnel("198.51.100.1"))
    for relay in relays.values():
        async with database.begin() as session:
            await observations.replace(session, relay, seen, NOW)
            session.add(Job(kind="drift", relay_id=relay, actor="x", created_at=NOW))
    async with database.begin() as session:
        session.add(Job(kind="rollout", actor="x", created_at=NOW))

    async def sees(principal):
        async with database.session() as session:
            names = await session.scalars(select(Relay.name).where(visible_relays(principal)).order_by(Relay.name))
            tunnels = await session.execute(
                select(Relay.name, TunnelRow.gateway_address)
                .join(Relay, Relay.id == TunnelRow.relay_id)
                .where(visible_tunnels(principal))
            )
            jobs = await session.scalars(select(Job.kind).where(visible_of_relays(principal, Job.relay_id)))
            return names.all(), {tuple(row) for row in tunnels}, len(jobs.all())

    everything = {(relay, address) for relay in relays for address in ("203.0.113.1", "2001:db8::1", "198.51.100.1")}
    assert await sees(Principal("x", Role.ADMIN)) == (["m", "nobodys", "o"], everything, 4)
    assert await sees(Principal("x", Role.ADMIN, frozenset({mine}))) == (
        ["m"],
        {(relay, address) for relay, address in everything if relay == "m" or address == "203.0.113.1"},
        1,
    )
    assert await sees(Principal("x", Role.ADMIN, frozenset({mine, other}))) == (
        ["m", "o"],
        {(relay, address) for relay, address in everything if relay in "mo" or address != "198.51.100.1"},
        2,
    )
    assert await sees(Principal("x", Role.ADMIN, frozenset({"none"}))) == ([], set(), 0)


def test_a_login_of_nobody_takes_as_long_as_any():
    assert not PasswordHasher().check_needs_rehash(users._NOBODY), "as `users._hasher` is where no test replaced it"
    assert not users._verify(users._NOBODY, "any other password")

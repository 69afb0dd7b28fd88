"""Login by a synthetic identity provider in this process: the code flow, and everything that must not get in."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.jwk import RSAKey
from manager_api.manager import Manager, problem

from relaymgr.settings import Settings

ISSUER = "https://id.example"
KEY = RSAKey.generate_key(2048, {"kid": "synthetic"})


class Provider:
    """Issues codes and identities; `claims` and `key` can be made wrong."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.claims: dict[str, Any] = {"isthmus_role": "operator", "preferred_username": "alice"}
        self.key = KEY
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "synthetic"}
        self.begun: dict[str, str] = {}
        self.failing: int | None = None

    def begin(self, location: str) -> str:
        """What the browser is sent back to after the user agreed."""
        self.begun = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        assert self.begun["response_type"] == "code"
        assert self.begun["code_challenge_method"] == "S256"
        return f"{self.begun['redirect_uri']}?code=one&state={self.begun['state']}"

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.failing is not None:
            return httpx.Response(self.failing, json={})
        match request.url.path:
            case "/.well-known/openid-configuration":
                names = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "keys"}
                return httpx.Response(
                    200, json={"issuer": ISSUER} | {name: f"{ISSUER}/{path}" for name, path in names.items()}
                )
            case "/keys":
                return httpx.Response(200, json={"keys": [KEY.as_dict(private=False)]})
            case "/token":
                form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
                right = form["client_secret"] == "client-secret" and form["code"] == "one"
                if not right or create_s256_code_challenge(form["code_verifier"]) != self.begun["code_challenge"]:
                    return httpx.Response(400, json={"error": "invalid_grant"})
                return httpx.Response(200, json={"id_token": self.token()})
        raise AssertionError(request.url)

    def token(self) -> str:
        now = int(self.manager.world.now.timestamp())
        claims = {"iss": ISSUER, "aud": "relaymgr", "sub": "42", "iat": now, "exp": now + 300}
        return jwt.encode(self.header, claims | {"nonce": self.begun["nonce"]} | self.claims, self.key)


@pytest.fixture
async def provider(manager: Manager) -> Provider:
    made = Provider(manager)
    manager.services.settings = Settings(
        oidc_issuer=ISSUER, oidc_client_id="relaymgr", oidc_client_secret="client-secret"
    )
    manager.services.http_transport = httpx.MockTransport(made.answer)
    return made


async def log_in(manager: Manager, provider: Provider, browser: httpx.AsyncClient | None = None) -> httpx.Response:
    browser = browser or manager.client()
    begun = await browser.get("/api/v1/login/oidc")
    assert begun.status_code == 302, begun.text
    cookie = begun.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    return await browser.get(provider.begin(begun.headers["location"]))


async def test_a_user_of_the_provider_gets_a_session(manager: Manager, provider: Provider) -> None:
    answer = await log_in(manager, provider)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["actor"], answer.json()["role"]) == ("user:alice", "operator")
    client = manager.client(answer.json()["token"])
    assert (await client.get("/api/v1/whoami")).json()["role"] == "operator"
    provider.claims["isthmus_role"] = ["viewer", "unknown", "admin"]
    assert (await log_in(manager, provider)).json()["role"] == "admin"
    users = (await manager.client(answer.json()["token"]).get("/api/v1/users")).json()["items"]
    assert [user["subject"] for user in users] == [f"{ISSUER}|42"]


async def test_the_provider_may_bind_a_user_to_ads(manager: Manager, provider: Provider) -> None:
    admin = await manager.as_role("admin")
    ad = (await admin.post("/api/v1/ads", json={"name": "Example"})).json()["id"]
    provider.claims["isthmus_ads"] = ["Example"]
    assert (await log_in(manager, provider)).json()["ad_ids"] == [ad]
    for wrong in (["Nobody"], [], "Example"):
        provider.claims["isthmus_ads"] = wrong
        problem(await log_in(manager, provider), 401, "oidc_refused")


@pytest.mark.parametrize(
    "claims",
    [
        {"isthmus_role": None},
        {"isthmus_role": "root"},
        {"nonce": "another"},
        {"aud": "somebody-else"},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"sub": None},
    ],
)
async def test_an_identity_that_does_not_fit_is_refused(
    manager: Manager, provider: Provider, claims: dict[str, Any]
) -> None:
    provider.claims |= claims
    problem(await log_in(manager, provider), 401, "oidc_refused")


async def test_a_foreign_signature_is_refused(manager: Manager, provider: Provider) -> None:
    provider.key = RSAKey.generate_key(2048, {"kid": "synthetic"})
    problem(await log_in(manager, provider), 401, "oidc_refused")


async def test_an_answer_belongs_to_the_browser_that_asked(manager: Manager, provider: Provider) -> None:
    begun = await manager.client().get("/api/v1/login/oidc")
    back = provider.begin(begun.headers["location"])
    problem(await manager.client().get(back), 401, "oidc_refused")
    browser = manager.client()
    await browser.get("/api/v1/login/oidc")
    problem(await browser.get(back), 401, "oidc_refused")
    problem(await browser.get("/api/v1/login/oidc/callback"), 401, "oidc_refused")
    begun = await browser.get("/api/v1/login/oidc")
    manager.world.advance(3600)
    problem(await browser.get(provider.begin(begun.headers["location"])), 401, "oidc_refused")


async def test_a_provider_that_fails_is_told_apart(manager: Manager, provider: Provider) -> None:
    provider.failing = 503
    problem(await manager.client().get("/api/v1/login/oidc"), 502, "oidc_unavailable")
    manager.services.settings = Settings()
    problem(await manager.client().get("/api/v1/login/oidc"), 404, "oidc_not_configured")

"""Who may speak to the agent."""

import hashlib

import httpx
import pytest

from agent.service.api.app import create_app
from agent.service.api.security import TokenError, TokenFile

TOKEN = "correct-horse-battery"
PATHS = ["/v1/status", "/v1/channels", "/v1/config", "/v1/joins", "/metrics"]


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


async def get(app, path, authorization=None):
    headers = {} if authorization is None else {"Authorization": authorization}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://agent") as client:
        return await client.get(path, headers=headers)


@pytest.mark.parametrize("path", PATHS)
async def test_the_token_opens_and_nothing_else_does(agent, store, token_file, path):
    app = create_app(agent, store, TokenFile(token_file))
    assert (await get(app, path, f"Bearer {TOKEN}")).status_code == 200
    assert (await get(app, path, f"bearer {TOKEN}")).status_code == 200
    for wrong in (None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"):
        answer = await get(app, path, wrong)
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthorized"
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_refused_request_changes_nothing(agent, store, token_file):
    app = create_app(agent, store, TokenFile(token_file))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://agent") as client:
        assert (await client.put("/v1/drain", json={"enabled": True})).status_code == 401
        assert (await client.post("/v1/joins", json={"group": "239.1.1.1"})).status_code == 401
        answer = await client.post("/v1/config/rollback", json={})
        assert answer.status_code == 401
    assert agent.draining is False
    assert agent.api_joins == {}


def test_a_hashed_token_file_opens_to_the_token_and_not_to_the_hash(token_file):
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    token_file.write_text(f"sha256:{digest}\n")
    token = TokenFile(token_file)
    assert token.accepts(TOKEN)
    assert not token.accepts(f"sha256:{digest}")
    assert not token.accepts(digest)


def test_a_rotated_token_is_taken_without_a_restart(token_file):
    token = TokenFile(token_file)
    replacement = token_file.with_name("new")
    replacement.write_text("another-long-token-entirely")
    replacement.replace(token_file)
    assert token.accepts("another-long-token-entirely")
    assert not token.accepts(TOKEN)


def test_a_token_file_that_goes_away_opens_nothing(token_file):
    token = TokenFile(token_file)
    token_file.unlink()
    assert not token.accepts(TOKEN)


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"two words in the file here", b"\xff" * 32])
def test_an_unusable_token_file_is_refused(token_file, content):
    token_file.write_bytes(content)
    with pytest.raises(TokenError):
        TokenFile(token_file)

"""The listener: unix socket, loopback, TLS, and clients that behave badly."""

import asyncio
import random
import shutil
import socket
import ssl
import stat
import subprocess

import httpx
import pytest

from agent.service.api import server as server_module
from agent.service.api.listener import ListenError
from agent.service.api.server import ApiServer
from agent.service.config import ApiSection

TOKEN = "correct-horse-battery"


@pytest.fixture
def serving(agent, store):
    """Start servers that are stopped at the end."""
    started = []

    async def start(**section):
        opened = ApiServer(ApiSection.model_validate(section), agent, store)
        await opened.start()
        started.append(opened)
        return opened

    start.started = started
    return start


@pytest.fixture(autouse=True)
async def stopping(serving):
    yield
    for opened in serving.started:
        await opened.stop()


def over_unix(path):
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://agent")


async def test_a_unix_socket_serves_its_group_and_goes_away_at_the_end(serving, tmp_path):
    path = tmp_path / "run" / "api.sock"
    opened = await serving(listen=str(path))
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    async with over_unix(path) as client:
        assert (await client.get("/v1/status")).json()["name"] == "border"
        assert (await client.get("/healthz")).headers.get("server") is None
    await opened.stop()
    assert not path.exists()


async def test_signal_handlers_stay_the_daemons(serving, tmp_path):
    import signal

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    await serving(listen=str(tmp_path / "api.sock"))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_a_socket_nobody_answers_on_is_replaced(serving, tmp_path):
    path = tmp_path / "api.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.listen()
    left.close()
    assert path.exists()
    await serving(listen=str(path))
    async with over_unix(path) as client:
        assert (await client.get("/healthz")).status_code == 200


async def test_a_socket_another_agent_answers_on_is_left_alone(serving, tmp_path):
    path = tmp_path / "api.sock"
    await serving(listen=str(path))
    with pytest.raises(ListenError, match="another agent answers"):
        await serving(listen=str(path))
    async with over_unix(path) as client:
        assert (await client.get("/healthz")).status_code == 200


async def test_a_file_in_the_way_is_left_alone(serving, tmp_path):
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(ListenError, match="not a socket"):
        await serving(listen=str(path))
    assert path.read_text() == "precious"


async def test_a_stopped_server_leaves_the_socket_of_its_successor(serving, tmp_path):
    path = tmp_path / "api.sock"
    first = await serving(listen=str(path))
    path.unlink()
    await serving(listen=str(path))
    await first.stop()
    assert path.exists()


async def test_an_unknown_group_is_refused(serving, tmp_path):
    with pytest.raises(ListenError, match="no group"):
        await serving(listen=str(tmp_path / "api.sock"), socket_group="no-such-group-here")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_loopback_serves_in_clear_with_the_token_if_there_is_one(serving, tmp_path, host):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    opened = await serving(listen=f"{host}:0", token_file=str(token))
    async with httpx.AsyncClient(base_url=f"http://{host}:{opened.address[1]}", trust_env=False) as client:
        assert (await client.get("/v1/status")).status_code == 401
        answer = await client.get("/v1/status", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200


async def test_a_port_in_use_is_told(serving):
    opened = await serving(listen="127.0.0.1:0")
    with pytest.raises(ListenError, match="Address already in use"):
        await serving(listen=f"127.0.0.1:{opened.address[1]}")


async def test_an_unusable_token_file_is_told(serving, tmp_path):
    token = tmp_path / "token"
    token.write_text("short")
    with pytest.raises(ListenError, match="at least 16 characters"):
        await serving(listen="127.0.0.1:0", token_file=str(token))


def make_certificate(directory, name):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return certificate, key


@pytest.fixture
async def tls(serving, tmp_path):
    certificate, key = make_certificate(tmp_path, "agent")
    token = tmp_path / "token"
    token.write_text(TOKEN)
    section = {"tls_cert": str(certificate), "tls_key": str(key), "token_file": str(token)}
    return await serving(listen="127.0.0.1:0", **section), certificate, key


async def test_tls_serves_whoever_trusts_the_certificate(tls):
    opened, certificate, _ = tls
    url = f"https://127.0.0.1:{opened.address[1]}/v1/status"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with httpx.AsyncClient(verify=trusting, trust_env=False) as client:
        assert (await client.get(url, headers=headers)).status_code == 200
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get(url)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_tls_before_1_2_is_refused(tls):
    opened, certificate, _ = tls
    old = ssl.create_default_context(cafile=str(certificate))
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1_1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection(*opened.address, ssl=old)


async def test_a_renewed_certificate_is_served_without_a_restart(tls, tmp_path):
    opened, certificate, key = tls
    renewed, renewed_key = make_certificate(tmp_path, "renewed")
    renewed.replace(certificate)
    renewed_key.replace(key)
    opened.reload_certificate()
    trusting = ssl.create_default_context(cafile=str(certificate))
    _, writer = await asyncio.open_connection(*opened.address, ssl=trusting)
    assert writer.get_extra_info("peercert")["subject"] == ((("commonName", "renewed"),),)
    writer.close()
    await writer.wait_closed()


async def test_a_key_that_does_not_fit_is_told(serving, tmp_path):
    certificate, _ = make_certificate(tmp_path, "one")
    _, key = make_certificate(tmp_path, "two")
    with pytest.raises(ListenError, match="cannot use"):
        await serving(listen="127.0.0.1:0", tls_cert=str(certificate), tls_key=str(key))


@pytest.mark.parametrize(
    "sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET"]
)
async def test_a_client_that_never_finishes_its_headers_is_closed(serving, monkeypatch, sent):
    monkeypatch.setattr(server_module, "HEADER_SECONDS", 0.2)
    opened = await serving(listen="127.0.0.1:0")
    # Sent before the server knows of the client: no matter how slow we are, it is there in time.
    client = socket.create_connection(opened.address)
    client.sendall(sent)
    reader, writer = await asyncio.open_connection(sock=client)
    async with asyncio.timeout(30):
        rest = await reader.read()
    assert (b"200 OK" in rest) is sent.endswith(b"GET")
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_never_finishes_its_body_is_answered(serving, monkeypatch, agent):
    from agent.service.api import limits

    monkeypatch.setattr(limits.RequestLimits.__init__, "__defaults__", (limits.BODY_LIMIT, 0.2))
    opened = await serving(listen="127.0.0.1:0")
    reader, writer = await asyncio.open_connection(*opened.address)
    writer.write(b"PUT /v1/drain HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
    async with asyncio.timeout(30):
        answer = await reader.read()
    assert b"503 Service Unavailable" in answer
    assert b'"code":"timeout"' in answer
    assert agent.draining is False
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 9000, random.Random(1).randbytes(4096)]
)
async def test_what_is_not_http_is_refused_and_the_next_is_served(serving, sent):
    opened = await serving(listen="127.0.0.1:0")
    reader, writer = await asyncio.open_connection(*opened.address)
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(30):
        await reader.read()
    writer.close()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{opened.address[1]}", trust_env=False) as client:
        assert (await client.get("/healthz")).status_code == 200


async def test_stopping_does_not_wait_for_idle_clients(serving, monkeypatch):
    monkeypatch.setattr(server_module, "HEADER_SECONDS", 600)
    monkeypatch.setattr(server_module, "_STOP_SECONDS", 600)
    opened = await serving(listen="127.0.0.1:0")
    reader, writer = await asyncio.open_connection(*opened.address)
    async with asyncio.timeout(30):
        await opened.stop()
        assert await reader.read() == b""
    writer.close()

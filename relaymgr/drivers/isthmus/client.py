"""HTTP to the agent: TLS with a pinned authority and a bearer token, or a unix socket; every failure a DriverError.

Plain HTTP goes to a loopback address only. Proxies of the environment are never asked: they would see the token.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from relaymgr.domain.loopback import is_loopback
from relaymgr.drivers.errors import (
    ConfigurationChanged,
    ConfigurationRefused,
    DeadlineExceeded,
    DeviceBusy,
    DriverError,
    Garbage,
    HostKeyMismatch,
    LoginRefused,
    SessionLost,
    Unreachable,
)
from relaymgr.drivers.protocol import Credential, DeviceTarget

DEFAULT_PORT: Final = 8443
ANSWER_LIMIT: Final = 128 * 1024 * 1024  # octets; 100 000 tunnels take 70 MB

_CHANGED: Final = frozenset({"configuration_changed", "no_candidate", "nothing_to_confirm"})
_ASIDE: Final = 256 * 1024
"""Octets from which on an answer is read in a thread: the event loop goes on meanwhile."""
_KEEP_IDLE: Final = 5.0  # seconds; the agent closes idle connections after ten


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the agent listens."""

    base_url: str
    socket: str | None = None
    """Path of a unix socket."""


def endpoint(target: DeviceTarget) -> Endpoint:
    """Where `target.host` says: `https://…`, `http://…` on loopback, `unix:///path`, or a name for HTTPS.

    Raises:
        Unreachable: it says none of these.
    """
    host = target.host
    if host.startswith("unix://"):
        return Endpoint("http://agent", host.removeprefix("unix://"))
    if "://" not in host:
        named = f"[{host}]" if ":" in host else host
        return Endpoint(f"https://{named}:{target.port or DEFAULT_PORT}")
    url = urlsplit(host)
    if url.username or url.password or url.query or url.fragment:
        raise Unreachable(target.name, "its URL may only hold scheme, host, port and path")
    if url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname)):
        return Endpoint(host.rstrip("/"))
    raise Unreachable(target.name, "its URL must be https://, unix:// or http:// on a loopback address")


class AgentClient:
    """One agent's API. Opens its connection with the first request."""

    def __init__(self, target: DeviceTarget, credential: Credential) -> None:
        self._target = target
        self._token = credential.token
        self._client: httpx.AsyncClient | None = None

    async def get(self, path: str, **parameters: int) -> dict[str, Any]:
        """The JSON object GET `path` answers."""
        return await self._request("GET", path, self._target.deadlines.rpc, params=parameters or None)

    async def post(
        self, path: str, *, content: str | None = None, body: dict[str, Any] | None = None, etag: str | None = None
    ) -> dict[str, Any]:
        """POST TOML (`content`) or JSON (`body`); an empty answer is an empty object."""
        headers = {"If-Match": etag} if etag is not None else {}
        data = content.encode() if content is not None else json.dumps(body or {}).encode()
        headers["Content-Type"] = "application/toml" if content is not None else "application/json"
        return await self._request("POST", path, self._target.deadlines.commit, content=data, headers=headers)

    async def close(self) -> None:
        """End the connection. Never raises."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(httpx.HTTPError, OSError, RuntimeError):
                await client.aclose()

    async def _request(self, method: str, path: str, seconds: float, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 passed on to httpx
        name = self._target.name
        try:
            # The last resort only: httpcore leaves a socket behind when a TLS handshake is cancelled from outside.
            async with asyncio.timeout(self._target.deadlines.connect + seconds):
                client = await self._connected()
                limits = httpx.Timeout(seconds, connect=self._target.deadlines.connect)
                async with client.stream(method, path, timeout=limits, **arguments) as response:
                    content = await self._read(response)
        except (httpx.TimeoutException, TimeoutError) as error:
            await self.close()
            raise DeadlineExceeded(name, f"no answer in time to {method} {path}") from error
        except httpx.HTTPError as error:
            await self.close()
            raise _transport_error(name, error) from error
        if len(content) > _ASIDE:
            return await asyncio.to_thread(_answer, name, response, content)
        return _answer(name, response, content)

    async def _read(self, response: httpx.Response) -> bytes:
        parts, size = [], 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > ANSWER_LIMIT:
                raise Garbage(self._target.name, "its answer has no end")
            parts.append(part)
        return b"".join(parts)

    async def _connected(self) -> httpx.AsyncClient:
        if self._client is not None:
            return self._client
        where = endpoint(self._target)
        verify: ssl.SSLContext | bool = False
        if where.base_url.startswith("https:"):
            verify = await asyncio.to_thread(_trusting, self._target)
        transport = httpx.AsyncHTTPTransport(
            uds=where.socket,
            verify=verify,
            trust_env=False,
            limits=httpx.Limits(max_connections=1, keepalive_expiry=_KEEP_IDLE),
        )
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        self._client = httpx.AsyncClient(
            base_url=where.base_url,
            headers=headers,
            transport=transport,
            trust_env=False,
        )
        return self._client


def _trusting(target: DeviceTarget) -> ssl.SSLContext:
    """The context that trusts `options["ca"]`, or the system's authorities without one."""
    ca = target.options.get("ca")
    try:
        context = ssl.create_default_context(cafile=ca) if ca else ssl.create_default_context()
    except OSError as error:
        raise HostKeyMismatch(target.name, f"cannot read the authority {Path(ca or '').name}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _transport_error(name: str, error: httpx.HTTPError) -> DriverError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return HostKeyMismatch(name, f"its certificate cannot be trusted: {cause.verify_message}")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectError):
        return Unreachable(name, f"no connection: {error}")
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
        return Garbage(name, "it does not speak HTTP")
    if isinstance(error, httpx.DecodingError | httpx.LocalProtocolError):
        return Garbage(name, "its answer cannot be read")
    return SessionLost(name, "the connection broke in the middle")


def _answer(name: str, response: httpx.Response, content: bytes) -> dict[str, Any]:
    if response.is_success and not content:
        return {}
    try:
        document = json.loads(content)
    except ValueError as error:
        raise Garbage(name, f"its answer ({response.status_code}) is not JSON") from error
    if not isinstance(document, dict):
        raise Garbage(name, "its answer is no JSON object")
    if response.is_success:
        return document
    raise _problem(name, response.status_code, document)


def _problem(name: str, status: int, document: dict[str, Any]) -> DriverError:
    code, detail = str(document.get("code", "")), str(document.get("detail", ""))[:500]
    if status == httpx.codes.UNAUTHORIZED:
        return LoginRefused(name, "refused the token")
    if code in _CHANGED:
        return ConfigurationChanged(name, detail)
    if code == "timeout":
        return DeadlineExceeded(name, detail)
    if status == httpx.codes.SERVICE_UNAVAILABLE:
        return DeviceBusy(name, "takes no further connection")
    if status in {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED, httpx.codes.INTERNAL_SERVER_ERROR}:
        return Garbage(name, f"answered {status} {code}")
    faults = [fault for fault in document.get("faults") or [] if isinstance(fault, dict)]
    told = "; ".join(f"{fault.get('key')}: {fault.get('message')}" for fault in faults[:5])
    path = str(faults[0].get("key")) if faults else None
    return ConfigurationRefused(name, f"{code}: {told or detail}"[:500], path)

"""Serves the API inside the daemon's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.service.api.app import create_app
from agent.service.api.listener import ListenError, listen_tcp, listen_unix
from agent.service.api.security import TokenError, TokenFile
from agent.service.config import ApiSection, listen_address
from agent.service.configuration_store import ConfigurationStore
from agent.service.port import AgentService

HEADER_SECONDS: Final = 10.0
"""A connection that sends no whole request for this long is closed."""
CONNECTION_LIMIT: Final = 128
_STOP_SECONDS: Final = 3


class ApiServer:
    """The API on the listener of the configuration.

    Attributes:
        address: (host, port) once started on TCP, None on a unix socket.
    """

    def __init__(self, section: ApiSection, service: AgentService, store: ConfigurationStore) -> None:
        self.address: tuple[str, int] | None = None
        self._section = section
        self._service = service
        self._store = store
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._unix: tuple[Path, int] | None = None

    async def start(self) -> None:
        """Listen and serve until `stop`; returns once connections are accepted.

        Raises:
            ListenError: the listener, the token or the certificate cannot be used.
        """
        section = self._section
        endpoint = listen_address(section.listen)
        context = _tls_context(section)
        config = uvicorn.Config(
            create_app(self._service, self._store, _token(section)),
            http=_BoundedProtocol,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTION_LIMIT,
            timeout_keep_alive=int(HEADER_SECONDS),
            timeout_graceful_shutdown=_STOP_SECONDS,
            h11_max_incomplete_event_size=16_384,
        )
        config.load()
        await _warm_up(config.app)
        config.ssl = context
        if endpoint is None:
            path = Path(section.listen)
            listener = listen_unix(path, section.socket_group)
            self._unix = (path, os.stat(path).st_ino)  # noqa: PTH116 a file system in memory
        else:
            listener = listen_tcp(*endpoint)
            self.address = listener.getsockname()[:2]
        self._server = _Server(config)
        self._task = asyncio.get_running_loop().create_task(self._server.serve([listener]), name="api")
        listening = asyncio.ensure_future(self._server.listening.wait())
        await asyncio.wait({self._task, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """Stop accepting, finish what is being answered within seconds, remove the unix socket."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
            self._server = self._task = None
        if self._unix is not None:
            path, inode = self._unix
            self._unix = None
            with contextlib.suppress(OSError):
                if path.stat().st_ino == inode:
                    path.unlink()

    def reload_certificate(self) -> None:
        """Use the certificate files as they are now for new connections.

        Raises:
            ListenError: they do not fit; the old ones stay in use.
        """
        if self._server is not None and self._server.config.ssl is not None:
            self._server.config.ssl = _replace_chain(self._server.config.ssl, self._section)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals are the daemon's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _BoundedProtocol(H11Protocol):
    """HTTP/1.1 that does not wait forever for the headers of a request."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 passed through
        super().__init__(*arguments, **options)
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_between_requests():
            if self._header_timer is None:
                self._await_headers()
        else:
            self._stop_header_timer()

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._headers_overdue)

    def _headers_overdue(self) -> None:
        self._header_timer = None
        if self._is_between_requests():
            self.transport.close()

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


async def _warm_up(app: Any) -> None:  # noqa: ANN401 an ASGI application
    """Ask once for what is made at the first request, so that no request holds up forwarding for it."""

    async def send(_message: dict[str, Any]) -> None:
        return

    for path in ("/healthz", "/v1/status", "/v1/channels", "/metrics"):
        messages = asyncio.Queue[dict[str, Any]]()  # the body, and then a client that stays
        messages.put_nowait({"type": "http.request", "body": b""})
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": path}
        with contextlib.suppress(Exception):  # a request that fails here will fail, and tell, when it is asked for
            await app(scope | {"raw_path": path.encode(), "query_string": b"", "headers": []}, messages.get, send)


def _token(section: ApiSection) -> TokenFile | None:
    """The token, or None where file permissions of the unix socket decide or none is configured for loopback."""
    if section.token_file is None or listen_address(section.listen) is None:
        return None
    try:
        return TokenFile(section.token_file)
    except TokenError as error:
        raise ListenError(0, str(error)) from error


def _tls_context(section: ApiSection) -> ssl.SSLContext | None:
    if section.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return _replace_chain(context, section)


def _replace_chain(context: ssl.SSLContext, section: ApiSection) -> ssl.SSLContext:
    assert section.tls_cert is not None
    try:
        context.load_cert_chain(section.tls_cert, section.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ListenError(0, f"cannot use {section.tls_cert} with {section.tls_key}: {error}") from error
    return context

"""The SSH side of every simulated router: who may log in, with which host key and which algorithms."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncssh

from lab.sim.faults import FaultSwitch
from lab.sim.options import SimOptions

OLD_KEY_EXCHANGE = "diffie-hellman-group14-sha1"
OLD_HOST_KEY = "ssh-rsa"

Serve = Callable[["asyncssh.SSHServerProcess[Any]"], Awaitable[None]]


def new_host_key(*, old_ssh: bool) -> asyncssh.SSHKey:
    """A fresh key: RSA for old SSH, ed25519 otherwise."""
    if old_ssh:
        return asyncssh.generate_private_key(OLD_HOST_KEY, key_size=2048)
    return asyncssh.generate_private_key("ssh-ed25519")


class _Door(asyncssh.SSHServer):
    """Lets in who has the password or the key, and keeps its listener told of open connections."""

    def __init__(self, listener: SshListener) -> None:
        self._listener = listener
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._listener.connections.add(conn)
        if "vty-full" in self._listener.faults:
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._connection is not None:
            self._listener.connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return True

    def password_auth_supported(self) -> bool:
        return self._listener.options.password is not None

    def validate_password(self, username: str, password: str) -> bool:
        options = self._listener.options
        assert options.password is not None
        right = hmac.compare_digest(password.encode(), options.password.encode())
        return right and self._welcome(username)

    def public_key_auth_supported(self) -> bool:
        return bool(self._listener.options.authorized_keys)

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        offered = key.export_public_key("openssh").split()[:2]
        known = any(line.encode().split()[:2] == offered for line in self._listener.options.authorized_keys)
        return known and self._welcome(username)

    def _welcome(self, username: str) -> bool:
        options = self._listener.options
        return "refuse-login" not in self._listener.faults and username in {options.username, options.read_only_user}


class SshListener:
    """A listening SSH port whose host key the fault change-host-key replaces.

    Attributes:
        host, port: where it listens.
        key: the host key served now.
        connections: those open.
    """

    def __init__(
        self,
        options: SimOptions,
        faults: FaultSwitch,
        key: asyncssh.SSHKey,
        other_key: asyncssh.SSHKey | None = None,
    ) -> None:
        self.options = options
        self.faults = faults
        self.host = options.listen_host
        self.port = 0
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self.key = key
        self._first_key = key
        self._other_key = other_key
        self._acceptor: asyncssh.SSHAcceptor | None = None
        if "change-host-key" in faults:
            self._choose_key()
        faults.on_change(self._choose_key)

    async def open(self, port: int, serve: Serve, encoding: str | None) -> None:
        """Listen on `port`; 0 lets the kernel choose."""
        algorithms: dict[str, Any] = {}
        if self.options.old_ssh:
            algorithms["kex_algs"] = [OLD_KEY_EXCHANGE]
        self._acceptor = await asyncssh.listen(
            self.options.listen_host,
            port,
            server_factory=lambda: _Door(self),
            server_host_keys=self._pairs(),
            process_factory=serve,
            encoding=encoding,
            line_editor=False,
            allow_pty=True,
            agent_forwarding=False,
            gss_host=None,
            login_timeout=60,
            **algorithms,
        )
        self.port = self._acceptor.get_port()

    async def close(self) -> None:
        """Stop listening and cut what is connected."""
        if self._acceptor is not None:
            self._acceptor.close()
            for connection in list(self.connections):
                connection.abort()
            await self._acceptor.wait_closed()

    def _pairs(self) -> list[asyncssh.SSHKeyPair]:
        pairs = list(asyncssh.load_keypairs(self.key))
        if self.options.old_ssh:
            for pair in pairs:
                pair.host_key_algorithms = [OLD_HOST_KEY.encode()]
        return pairs

    def _choose_key(self) -> None:
        if "change-host-key" in self.faults:
            if self._other_key is None:
                self._other_key = new_host_key(old_ssh=self.options.old_ssh)
            self.key = self._other_key
        else:
            self.key = self._first_key
        if self._acceptor is not None:
            self._acceptor.update(server_host_keys=self._pairs())


@asynccontextmanager
async def listening(
    options: SimOptions,
    faults: FaultSwitch,
    key: asyncssh.SSHKey,
    serve: Serve,
    *,
    port: int | None = None,
    encoding: str | None = None,
    other_key: asyncssh.SSHKey | None = None,
) -> AsyncIterator[SshListener]:
    """Serve SSH sessions (shell, exec, subsystem alike) with `serve` until the context ends.

    Args:
        options: who may log in, and how.
        faults: vty-full, refuse-login and change-host-key are obeyed here.
        key: host key.
        serve: called with each session; `process.subsystem` and `process.command` tell what was asked for.
        port: None takes that of the options.
        encoding: None gives bytes.
        other_key: what change-host-key serves, for a router with several ports; None: made when needed.
    """
    listener = SshListener(options, faults, key, other_key)
    await listener.open(options.listen_port if port is None else port, serve, encoding)
    try:
        yield listener
    finally:
        await listener.close()

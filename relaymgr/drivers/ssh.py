"""SSH to devices with asyncssh: pinned host keys, deadlines, and every failure as a DriverError.

A host key is pinned when a relay is enrolled (`scan_host_key`, an operator sees the fingerprint) and no session is ever
made without one. The old algorithms of aged MX80 releases are offered only with `DeviceTarget.legacy_ssh`.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from relaymgr.drivers.errors import (
    DeadlineExceeded,
    DeviceBusy,
    DriverError,
    HostKeyMismatch,
    LoginRefused,
    SessionLost,
    Unreachable,
)
from relaymgr.drivers.protocol import Credential, DeviceTarget

DEFAULT_PORT = 22

KEY_EXCHANGES = (
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
)
HOST_KEYS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
ENCRYPTIONS = (
    # AES-GCM first: one call of the library a packet; chacha20-poly1305 takes four contexts and twice the time.
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
)
LEGACY_KEY_EXCHANGES = ("diffie-hellman-group14-sha1", "diffie-hellman-group-exchange-sha1")
LEGACY_HOST_KEYS = ("ssh-rsa",)
LEGACY_ENCRYPTIONS = ("aes256-cbc", "aes128-cbc", "3des-cbc")

# It tells of every login and channel at INFO, some thousand lines a minute with a thousand devices.
asyncssh.set_log_level("WARNING")

_RSA = "ssh-rsa"
_BUSY_REASONS = (asyncssh.DISC_TOO_MANY_CONNECTIONS, asyncssh.DISC_HOST_NOT_ALLOWED_TO_CONNECT)


@dataclass(frozen=True, slots=True)
class HostKey:
    """A host key as a device presented it."""

    line: str
    """As in known_hosts, without a host: `ssh-ed25519 AAAA…`; what `DeviceTarget.host_key` pins."""
    fingerprint: str
    """`SHA256:…`, as ssh-keygen prints it."""


def fingerprint(line: str) -> str:
    """`SHA256:…` of a key as in known_hosts. Raises ValueError for what is no public key."""
    try:
        return asyncssh.import_public_key(line).get_fingerprint()
    except asyncssh.KeyImportError as error:
        raise ValueError("not a public key as in known_hosts: ssh-ed25519 AAAA…") from error


class _PinnedClient(asyncssh.SSHClient):
    """Refuses every host key asyncssh did not find among the trusted, and remembers which it was."""

    def __init__(self) -> None:
        self.presented: asyncssh.SSHKey | None = None
        self.reached = False

    def connection_made(self, _conn: asyncssh.SSHClientConnection) -> None:
        self.reached = True

    def validate_host_public_key(self, _host: str, _addr: str, _port: int, key: asyncssh.SSHKey) -> bool:
        self.presented = key
        return False


@asynccontextmanager
async def mapped_errors(device: str, doing: str) -> AsyncIterator[None]:
    """Turn what asyncssh and the operating system raise in an open session into SessionLost or DeadlineExceeded."""
    try:
        yield
    except DriverError:
        raise
    except TimeoutError as error:
        raise DeadlineExceeded(device, f"no answer in time while {doing}") from error
    except (asyncssh.Error, OSError, EOFError, asyncio.IncompleteReadError) as error:
        raise SessionLost(device, f"the session broke while {doing}: {_reason(error)}") from error


async def connect(
    target: DeviceTarget, credential: Credential, *, port: int | None = None, deadline: float | None = None
) -> asyncssh.SSHClientConnection:
    """Log in to `target` and return the connection.

    Args:
        target: Where, with the pinned key.
        credential: User with a password, a private key, or both.
        port: Instead of `target.port` (default 22).
        deadline: Seconds for everything, instead of `target.deadlines.connect`.

    Raises:
        HostKeyMismatch: None is pinned, or another one was presented.
        LoginRefused: The credentials were refused, or the key of the credential cannot be read.
        DeviceBusy: The device has no free line.
        Unreachable, DeadlineExceeded: No SSH session could be had.
    """
    if not target.host_key:
        raise HostKeyMismatch(target.name, "no host key is pinned for this device; enrol it first")
    try:
        pinned = asyncssh.import_public_key(target.host_key)
    except asyncssh.KeyImportError as error:
        raise HostKeyMismatch(target.name, "the pinned host key cannot be read") from error
    client = _PinnedClient()
    options = _options(target, credential, pinned)
    seconds = deadline if deadline is not None else target.deadlines.connect
    try:
        async with asyncio.timeout(seconds):
            return await asyncssh.connect(
                target.host,
                port if port is not None else (target.port or DEFAULT_PORT),
                client_factory=lambda: client,
                known_hosts=([pinned], [], []),
                **options,
            )
    except (asyncssh.Error, OSError, TimeoutError, ValueError) as error:
        raise _connect_error(target, error, client) from error


def _options(target: DeviceTarget, credential: Credential, pinned: asyncssh.SSHKey) -> dict[str, Any]:
    keys: list[asyncssh.SSHKey] | None = None
    if credential.private_key:
        try:
            keys = [asyncssh.import_private_key(credential.private_key)]
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise LoginRefused(target.name, "the private key of the credential cannot be read") from error
    methods = [name for name, given in (("publickey", keys), ("password", credential.password)) if given]
    if target.options.get("keyboard_interactive") == "yes":
        # Only on request: after a refused password it would count as a second failed login and lock accounts sooner.
        methods.append("keyboard-interactive")
    return {
        **_algorithms(legacy=target.legacy_ssh, first=pinned.get_algorithm()),
        "username": credential.username,
        "password": credential.password,
        "client_keys": keys,
        "preferred_auth": methods,
        "agent_path": None,
        "config": None,
        "gss_host": None,
        "login_timeout": 0,
        "encoding": None,
    }


def _algorithms(*, legacy: bool, first: str | None = None) -> dict[str, list[str]]:
    """Algorithms to offer; those of the pinned key `first`, so that a device with several keys presents that one."""
    keys = [*HOST_KEYS, *(LEGACY_HOST_KEYS if legacy else ())]
    if first is not None:
        ours = [name for name in keys if name == first or (first == _RSA and "rsa" in name)]
        keys = [*ours, *(name for name in keys if name not in ours)]
    return {
        "kex_algs": [*KEY_EXCHANGES, *(LEGACY_KEY_EXCHANGES if legacy else ())],
        "server_host_key_algs": keys,
        "encryption_algs": [*ENCRYPTIONS, *(LEGACY_ENCRYPTIONS if legacy else ())],
    }


def _connect_error(target: DeviceTarget, error: BaseException, client: _PinnedClient) -> DriverError:
    name = target.name
    if client.presented is not None:
        presented = client.presented.get_fingerprint()
        return HostKeyMismatch(name, f"presented the host key {presented}, which is not the pinned one", presented)
    match error:
        case asyncssh.HostKeyNotVerifiable():
            found: DriverError = HostKeyMismatch(name, "presented a host key that cannot be verified")
        case asyncssh.PermissionDenied():
            found = LoginRefused(name, "refused the credentials")
        case TimeoutError():
            found = DeadlineExceeded(name, "no SSH session in time")
        case asyncssh.KeyExchangeFailed():
            hint = "" if target.legacy_ssh else " (an aged release may need legacy_ssh)"
            found = Unreachable(name, f"no common SSH algorithm{hint}: {_reason(error)}")
        case asyncssh.DisconnectError(code=code) if code in _BUSY_REASONS:
            found = DeviceBusy(name, f"took no further session: {_reason(error)}")
        case _:
            found = Unreachable(name, f"no SSH session: {_reason(error)}")
    return found


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncssh.DisconnectError):
        return error.reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


async def scan_host_key(host: str, port: int, legacy: bool = False, timeout: float = 30.0) -> HostKey:  # noqa: ASYNC109
    """Read the host key a device presents, without logging in; for an operator to compare and pin.

    Args:
        host: Name or address.
        port: TCP port of SSH or NETCONF.
        legacy: Offer the old algorithms too.
        timeout: Seconds for everything.

    Raises:
        Unreachable, DeadlineExceeded: No key could be had; `device` is `host:port`.
    """
    return await _scan(f"{host}:{port}", host, port, timeout, _algorithms(legacy=legacy))


async def presented_key(target: DeviceTarget, port: int) -> HostKey:
    """The key a device presents now when asked for the pinned kind first. Raises like `scan_host_key`."""
    kind = target.host_key.split()[0] if target.host_key else None
    offered = _algorithms(legacy=target.legacy_ssh, first=kind)
    return await _scan(target.name, target.host, port, target.deadlines.connect, offered)


async def _scan(device: str, host: str, port: int, seconds: float, offered: dict[str, list[str]]) -> HostKey:
    options: dict[str, Any] = {name: offered[name] for name in ("kex_algs", "server_host_key_algs")}
    try:
        async with asyncio.timeout(seconds):
            key = await asyncssh.get_server_host_key(host, port, config=None, **options)
    except TimeoutError as error:
        raise DeadlineExceeded(device, "no SSH host key in time") from error
    except (asyncssh.Error, OSError) as error:
        raise Unreachable(device, f"no SSH host key: {_reason(error)}") from error
    if key is None:
        raise Unreachable(device, "presented no SSH host key")
    return HostKey(" ".join(key.export_public_key("openssh").decode().split()[:2]), key.get_fingerprint())


async def close(connection: asyncssh.SSHClientConnection, seconds: float = 2.0) -> None:
    """End a connection; politely for `seconds`, then not. Never raises."""
    connection.close()
    with suppress(asyncssh.Error, OSError, TimeoutError):
        async with asyncio.timeout(seconds):
            await connection.wait_closed()
            return
    connection.abort()


@contextmanager
def known_hosts_file(target: DeviceTarget, port: int | None = None, host: str | None = None) -> Iterator[Path]:
    """A temporary known_hosts file (0600) with the pinned key alone, for PyEZ, netmiko and ncclient.

    Args:
        target: Whose key.
        port: Instead of `target.port`.
        host: Instead of `target.host`, where the library is told another name.

    Raises HostKeyMismatch where no key is pinned. The folder it stands in is private too and goes at the end.
    """
    if not target.host_key:
        raise HostKeyMismatch(target.name, "no host key is pinned for this device; enrol it first")
    number = port if port is not None else (target.port or DEFAULT_PORT)
    name = host if host is not None else target.host
    hosts = f"[{name}]:{number}" if number != DEFAULT_PORT else name
    kind, key = target.host_key.split()[:2]
    with tempfile.TemporaryDirectory(prefix="isthmus-") as folder:
        path = Path(folder, "known_hosts")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(f"{hosts} {kind} {key}\n")
        yield path

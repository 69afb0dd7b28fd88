"""Credentials of devices: from the environment, a file, Vault, or sealed in the database.

What a reference can name is bounded, because whoever may write credentials could otherwise send any file or variable of
the manager to a device of theirs: environment variables by prefix, files by folder, Vault by its token's policy.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.drivers.protocol import Credential
from relaymgr.settings import Settings
from relaymgr.store.envelope import SealBroken, Sealer, credential_context
from relaymgr.store.tables import CredentialRecord

VAULT_SECONDS = 10.0
_LARGEST = 65536
_VAULT_REFERENCE = re.compile(r"^(?P<mount>[\w.-]+(?:/[\w.-]+)*?):(?P<path>[\w.-]+(?:/[\w.-]+)*)#(?P<field>[\w.-]+)$")
_ENVIRONMENT_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


class CredentialUnusable(Exception):
    """A credential cannot be had; the message says why and never what is in it. `code` is stable."""

    code = "credential_unusable"


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """What the database holds of a credential: a reference, or a sealed secret."""

    id: str
    name: str
    username: str
    kind: str
    source: str
    reference: str | None
    sealed: bytes | None = field(repr=False)


async def resolve(session: AsyncSession, credential_id: str | None, sealer: Sealer, settings: Settings) -> Credential:
    """The credential itself, just before use. `load` then `fetch`, for callers that need no connection meanwhile.

    Raises:
        CredentialUnusable: there is none, or its secret cannot be had.
    """
    return await fetch(await load(session, credential_id), sealer, settings)


async def load(session: AsyncSession, credential_id: str | None) -> StoredCredential:
    """What the database holds.

    Raises:
        CredentialUnusable: there is no such credential.
    """
    row = await session.get(CredentialRecord, credential_id) if credential_id is not None else None
    if row is None:
        raise CredentialUnusable("the relay has no credential")
    return StoredCredential(row.id, row.name, row.username, row.kind, row.source, row.reference, row.sealed)


async def fetch(stored: StoredCredential, sealer: Sealer, settings: Settings) -> Credential:
    """Follow the reference, or open the seal.

    Raises:
        CredentialUnusable: that failed.
    """
    try:
        secret = await _secret(stored, sealer, settings)
    except CredentialUnusable as error:
        raise CredentialUnusable(f"credential {stored.name}: {error}") from None
    match stored.kind:
        case "password":
            return Credential(stored.username, password=secret)
        case "private_key":
            return Credential(stored.username, private_key=secret + "\n")
        case "token":
            return Credential(stored.username, token=secret)
    raise CredentialUnusable(f"credential {stored.name}: kind {stored.kind!r} is not known")


def seal_secret(sealer: Sealer, credential_id: str, secret: str) -> bytes:
    """What goes into `CredentialRecord.sealed`; the id must be the row's (`new_id()` before it is made)."""
    return sealer.seal(secret.encode(), credential_context(credential_id))


def check_reference(source: str, reference: str, settings: Settings) -> None:
    """Whether a reference is one that may be used, without following it.

    Raises:
        CredentialUnusable: it is malformed, or names what credentials may not name.
    """
    match source:
        case "env":
            _environment_name(reference, settings)
        case "file":
            _file_path(reference, settings)
        case "vault":
            _vault_parts(reference)
        case _:
            raise CredentialUnusable(f"source {source!r} is not known")


async def _secret(stored: StoredCredential, sealer: Sealer, settings: Settings) -> str:
    if stored.source == "sealed":
        return _opened(stored, sealer)
    reference = stored.reference or ""
    match stored.source:
        case "env":
            secret = os.environ.get(_environment_name(reference, settings))
            if not secret:
                raise CredentialUnusable(f"environment variable {reference} is not set")
        case "file":
            secret = await asyncio.to_thread(_read_file, _file_path(reference, settings), reference)
        case "vault":
            secret = await _read_vault(reference, settings)
        case _:
            raise CredentialUnusable(f"source {stored.source!r} is not known")
    secret = secret.rstrip("\r\n")
    if not secret:
        raise CredentialUnusable("its secret is empty")
    return secret


def _opened(stored: StoredCredential, sealer: Sealer) -> str:
    if stored.sealed is None:
        raise CredentialUnusable("nothing is sealed in it")
    try:
        return sealer.open(stored.sealed, credential_context(stored.id)).decode()
    except SealBroken as error:
        raise CredentialUnusable(str(error)) from None
    except UnicodeDecodeError:
        raise CredentialUnusable("its secret is not text") from None


def _environment_name(reference: str, settings: Settings) -> str:
    prefix = settings.credential_environment_prefix
    if not _ENVIRONMENT_NAME.match(reference) or not reference.startswith(prefix):
        raise CredentialUnusable(f"an environment variable of a credential must begin with {prefix}")
    return reference


def _file_path(reference: str, settings: Settings) -> Path:
    folder = settings.credential_directory
    if folder is None:
        raise CredentialUnusable("files are not allowed: credential_directory is not set")
    if not reference or "\0" in reference:
        raise CredentialUnusable("the reference names no file")
    root = folder.resolve()
    path = (root / reference).resolve()
    if not path.is_relative_to(root) or path == root:
        raise CredentialUnusable("the file lies outside credential_directory")
    return path


def _read_file(path: Path, reference: str) -> str:
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IROTH:
                raise CredentialUnusable(f"file {reference} may be read by everybody; chmod 0600 it")
            return file.read(_LARGEST).decode()
    except OSError as error:
        raise CredentialUnusable(f"cannot read file {reference}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CredentialUnusable(f"file {reference} is not text") from None


def _vault_parts(reference: str) -> tuple[str, str, str]:
    match = _VAULT_REFERENCE.match(reference)
    parts = match.groups() if match else ()
    if len(parts) != 3 or any(step in {".", ".."} for part in parts for step in part.split("/")):
        raise CredentialUnusable("a Vault reference reads MOUNT:PATH#FIELD")
    return parts[0], parts[1], parts[2]


async def _read_vault(reference: str, settings: Settings) -> str:
    """Read a field of a KV version 2 secret: GET /v1/MOUNT/data/PATH, {"data": {"data": {FIELD: …}}}."""
    mount, path, name = _vault_parts(reference)
    if settings.vault_address is None or settings.vault_token is None:
        raise CredentialUnusable("vault_address and vault_token are not set")
    url = f"{settings.vault_address.rstrip('/')}/v1/{mount}/data/{path}"
    try:
        async with httpx.AsyncClient(timeout=VAULT_SECONDS, follow_redirects=False) as client:
            answer = await client.get(url, headers={"X-Vault-Token": settings.vault_token.get_secret_value()})
    except httpx.HTTPError as error:
        raise CredentialUnusable(f"Vault does not answer ({type(error).__name__})") from None
    if answer.status_code != httpx.codes.OK:
        raise CredentialUnusable(f"Vault answered {answer.status_code} for {mount}:{path}")
    try:
        value: Any = answer.json()["data"]["data"][name]
    except (ValueError, KeyError, TypeError):
        raise CredentialUnusable(f"Vault holds no field {name} at {mount}:{path}") from None
    if not isinstance(value, str):
        raise CredentialUnusable(f"field {name} at {mount}:{path} in Vault is not text")
    return value

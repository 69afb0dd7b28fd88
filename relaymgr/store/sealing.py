"""Where the key that seals secrets comes from, and how it is changed.

A key file holds one base64 key a line; the first seals, the others open what they sealed before a rotation. Or the
environment holds the same, keys separated by spaces (ISTHMUS_KEY).
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import secrets
import stat
from pathlib import Path

from sqlalchemy import select, update

from relaymgr.settings import Settings
from relaymgr.store.database import Database
from relaymgr.store.envelope import KEY_BYTES, SealBroken, Sealer, backup_context, credential_context
from relaymgr.store.tables import Backup, CredentialRecord
from relaymgr.store.urls import normalise, sqlite_file

__all__ = [
    "KeyUnusable",
    "SealBroken",
    "Sealer",
    "backup_context",
    "credential_context",
    "load_key",
    "make_key",
    "read_key_file",
    "rotate",
]

log = logging.getLogger(__name__)


class KeyUnusable(Exception):
    """There is no usable key; the message says which file and why, never the key."""


def load_key(settings: Settings) -> list[bytes]:
    """The master keys, the one that seals first; for `Sealer`.

    Environment over file over the file next to an SQLite database, which is made, readable by its owner only, when it
    is absent.

    Raises:
        KeyUnusable: none is given for PostgreSQL, the file may be read by everybody, or it holds no key.
    """
    if settings.key is not None:
        return _decode(settings.key.get_secret_value(), "ISTHMUS_KEY")
    path = settings.key_file
    if path is None:
        database = sqlite_file(normalise(settings.database_url))
        if database is None:
            raise KeyUnusable("with PostgreSQL the sealing key must be given: key_file (ISTHMUS_KEY_FILE)")
        path = database.with_name(database.name + ".key")
        if not path.exists():
            make_key(path)
    return read_key_file(path)


def make_key(path: Path) -> None:
    """Write a new key to a new file that only its owner can read. Nothing happens when somebody else just made it."""
    line = base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n"
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)  # unlike rename it never replaces a key that is there
        except FileExistsError:
            return
        finally:
            partial.unlink()
    except OSError as error:
        raise KeyUnusable(f"cannot make the key file {path}: {error.strerror}") from error
    log.info("made a sealing key", extra={"path": str(path)})


def read_key_file(path: Path) -> list[bytes]:
    """The keys of a file, the one that seals first.

    Raises:
        KeyUnusable: it is missing, readable by others, or holds something else.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(65536)
    except OSError as error:
        raise KeyUnusable(f"cannot read the key file {path}: {error.strerror}") from error
    if mode & 0o037:
        raise KeyUnusable(f"the key file {path} may be used by others (mode {mode:04o}); chmod 0600 it")
    return _decode(content.decode("ascii", "replace"), str(path))


def _decode(content: str, where: str) -> list[bytes]:
    try:
        keys = [base64.b64decode(line, validate=True) for line in content.split()]
    except (binascii.Error, ValueError):
        raise KeyUnusable(f"{where} does not hold base64 keys") from None
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise KeyUnusable(f"{where} must hold keys of {KEY_BYTES} bytes, base64, one a line")
    return keys


async def rotate(database: Database, sealer: Sealer) -> int:
    """Bring every sealed record under the sealer's current key; returns how many were under another.

    Put the new key first into the key file, restart, rotate; then the old key can be removed. Safe to repeat.

    Raises:
        SealBroken: a record was sealed with a key that is not in the key file; what came before it is rotated.
    """
    done = 0
    async with database.session() as session:
        credentials = (
            await session.scalars(select(CredentialRecord.id).where(CredentialRecord.sealed.is_not(None)))
        ).all()
        backups = (await session.scalars(select(Backup.id))).all()
    for record in credentials:
        done += await _rotate_one(database, sealer, CredentialRecord, record, credential_context(record))
    for record in backups:
        done += await _rotate_one(database, sealer, Backup, record, backup_context(record))
    return done


async def _rotate_one(
    database: Database, sealer: Sealer, table: type[CredentialRecord | Backup], record_id: str, context: str
) -> bool:
    async with database.begin() as session:
        sealed = await session.scalar(select(table.sealed).where(table.id == record_id).with_for_update())
        if sealed is None or sealer.is_current(sealed):
            return False
        await session.execute(update(table).where(table.id == record_id).values(sealed=sealer.rewrap(sealed, context)))
    return True

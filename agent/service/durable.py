"""Files that are whole after a crash at any moment: the old content or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write `path` anew: temporary file beside it, fsync, rename, fsync of the directory.

    An existing file keeps its mode and, where we may set it, its owner.

    Args:
        path: file to write; its directory exists.
        content: all of it.
        mode: permissions of a new file.

    Raises:
        OSError: nothing was changed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 a descriptor, not a path
            _keep_owner(path, descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def remove_file(path: Path) -> None:
    """Remove `path` for good; nothing happens when it is not there.

    Raises:
        OSError: it cannot be removed.
    """
    path.unlink(missing_ok=True)
    _sync_directory(path.parent)


def sweep(directory: Path, name: str) -> None:
    """Remove the temporary files a killed process left beside `directory`/`name`."""
    for leftover in directory.glob(f".{name}.*.new"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def _keep_owner(path: Path, descriptor: int, mode: int) -> None:
    try:
        existing = path.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, mode)  # the umask does not decide
        return
    os.fchmod(descriptor, existing.st_mode & 0o7777)
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, existing.st_uid, existing.st_gid)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

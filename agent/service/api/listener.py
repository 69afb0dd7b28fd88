"""Listening sockets: a unix socket only its group can use, or an address."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
from pathlib import Path
from typing import Final

_BACKLOG: Final = 64
_SOCKET_MODE: Final = 0o660


class ListenError(OSError):
    """The API cannot listen where the configuration says."""


def listen_unix(path: Path, group: str | None = None) -> socket.socket:
    """Listen on a unix socket with mode 0660, in place of one nobody answers on any more.

    Args:
        path: where; its directory is made when only that is missing.
        group: group that may use it; None leaves the process's.

    Raises:
        ListenError: another process answers there, something else has that name, or the group is not there.
    """
    group_id = _group_id(group)
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(mode=0o755)
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    previous = os.umask(0o777 & ~0o600)
    try:
        listener.bind(str(path))
        if group_id is not None:
            os.chown(path, -1, group_id)
        path.chmod(_SOCKET_MODE)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ListenError(error.errno, f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(previous)
    return listener


def listen_tcp(host: str, port: int) -> socket.socket:
    """Listen on an IPv4 or IPv6 address.

    Raises:
        ListenError: the address is not ours or is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ListenError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def _clear(path: Path) -> None:
    """Remove a socket a killed process left; refuse to remove anything else."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ListenError(errno.EEXIST, f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ListenError(error.errno or errno.EADDRINUSE, f"cannot tell whether {path} is in use") from error
    raise ListenError(errno.EADDRINUSE, f"another agent answers on {path}")


def _group_id(name: str | None) -> int | None:
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ListenError(errno.ENOENT, f"there is no group {name}") from None

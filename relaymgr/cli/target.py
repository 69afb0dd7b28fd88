"""Which manager a command speaks to, from flags, environment and profile, in this order."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from relaymgr.cli.failure import EXIT_USAGE, Failure
from relaymgr.cli.profiles import Profile, Profiles, profile_path, read_profiles

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class Connection:
    """What a command line says about the manager; None is not said."""

    url: str | None = None
    profile: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A manager: base address, token and certificate authority."""

    url: str
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @property
    def in_clear(self) -> bool:
        """A token would cross a network readably."""
        parts = urlsplit(self.url)
        return self.token is not None and parts.scheme == "http" and (parts.hostname or "") not in _LOOPBACK


def find_target(connection: Connection) -> Target:
    """The manager meant; raises Failure when none is, or when a file with a secret cannot be used."""
    target = known_target(connection)
    if target is None:
        raise Failure(
            "which manager? Give --url, set ISTHMUS_URL and ISTHMUS_TOKEN, or store it with `relaymgr profile set`.",
            EXIT_USAGE,
        )
    return target


def known_target(connection: Connection) -> Target | None:
    """Like `find_target`, but None when nothing names a manager.

    A token is only sent to the address it stands beside: that of a profile to the profile's, ISTHMUS_TOKEN to
    ISTHMUS_URL where that is set too. `--token-file` is always used.
    """
    ca_file = connection.ca_file or _path_from("ISTHMUS_CA_FILE")
    url = connection.url
    if url is None and connection.profile is None:
        url = os.environ.get("ISTHMUS_URL") or None
    if url is not None and connection.profile is None:
        address = checked_url(url)
        token = _given_token(connection) or _environment_token(address) or _token_of_same_address(address)
        return Target(address, token, ca_file)
    profile = _chosen(read_profiles(profile_path()), connection.profile or os.environ.get("ISTHMUS_PROFILE") or None)
    if profile is None:
        return None
    token = _given_token(connection)
    address = checked_url(url or profile.url)
    if token is None and address == checked_url(profile.url):
        token = profile.token or _environment_token(address)
    return Target(address, token, ca_file or profile.ca_file)


def checked_url(url: str) -> str:
    """The base address without a slash at its end; raises Failure when it is none, or carries credentials."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Failure("the address of the manager is not of the form https://HOST[:PORT]", EXIT_USAGE)
    if parts.username is not None or parts.password is not None:
        raise Failure("the address of the manager holds a user or password; use a token", EXIT_USAGE)
    if parts.query or parts.fragment:
        raise Failure("the address of the manager ends in a query; give https://HOST[:PORT] alone", EXIT_USAGE)
    return url.rstrip("/")


def read_token(path: Path) -> str:
    """The token in a file, `-` for standard input; raises Failure when it holds none or others may read it."""
    try:
        if str(path) == "-":
            text = sys.stdin.read()
        else:
            status = path.stat()
            if status.st_mode & 0o007:
                raise Failure(f"everybody may use {path}, which holds a token: chmod 600 {path}", EXIT_USAGE)
            text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Failure(f"cannot read {path}: {reason}", EXIT_USAGE) from None
    token = text.strip()
    if not token or any(character.isspace() or not character.isascii() for character in token):
        raise Failure(f"{path} does not hold one token alone", EXIT_USAGE)
    return token


def _chosen(profiles: Profiles, name: str | None) -> Profile | None:
    wanted = name or profiles.current
    if wanted is None:
        return next(iter(profiles.by_name.values())) if len(profiles.by_name) == 1 else None
    if wanted not in profiles.by_name:
        known = ", ".join(sorted(profiles.by_name)) or "none"
        raise Failure(f"there is no profile {wanted}; known: {known}", EXIT_USAGE)
    return profiles.by_name[wanted]


def _given_token(connection: Connection) -> str | None:
    return None if connection.token_file is None else read_token(connection.token_file)


def _environment_token(address: str) -> str | None:
    url = os.environ.get("ISTHMUS_URL")
    if url and checked_url(url) != address:
        return None
    token = os.environ.get("ISTHMUS_TOKEN", "").strip()
    if any(character.isspace() or not character.isascii() for character in token):
        raise Failure("ISTHMUS_TOKEN does not hold one token alone", EXIT_USAGE)
    return token or None


def _token_of_same_address(address: str) -> str | None:
    profiles = read_profiles(profile_path()).by_name.values()
    return next((profile.token for profile in profiles if checked_url(profile.url) == address), None)


def _path_from(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None

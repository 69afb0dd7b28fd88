"""Profiles: a TOML file with addresses and tokens of managers, readable by its owner alone.

It holds `current = "NAME"` and a table `[profiles.NAME]` for each manager, with `url`, and where wanted `token` and
`ca_file`.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relaymgr.cli.failure import EXIT_USAGE, Failure

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_KEYS = ("url", "token", "ca_file")


@dataclass(frozen=True, slots=True)
class Profile:
    """One manager. The token is not in the repr, so that no traceback shows it."""

    url: str
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None


@dataclass(slots=True)
class Profiles:
    """All profiles of a file, and the one used when none is named."""

    current: str | None = None
    by_name: dict[str, Profile] = field(default_factory=dict)


def profile_path() -> Path:
    """ISTHMUS_PROFILE_FILE, else isthmus/profiles.toml in the user's configuration directory."""
    given = os.environ.get("ISTHMUS_PROFILE_FILE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "isthmus" / "profiles.toml"


def valid_name(name: str) -> bool:
    """Letters, digits, dashes and underscores: names that need no quoting in the file."""
    return _NAME.fullmatch(name) is not None


def read_profiles(path: Path) -> Profiles:
    """The profiles of `path`, none when there is no such file.

    Raises Failure when the file belongs to somebody else, when others may read it, or when it is not understood.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Profiles()
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}", EXIT_USAGE) from None
    with os.fdopen(descriptor, encoding="utf-8") as file:
        _only_ours(path, os.fstat(descriptor))
        try:
            return _parsed(path, tomllib.loads(file.read()))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Failure(f"{path} is not TOML: {error}", EXIT_USAGE) from None
        except OSError as error:
            raise Failure(f"cannot read {path}: {error.strerror}", EXIT_USAGE) from None


def write_profiles(path: Path, profiles: Profiles) -> None:
    """Replace the file in one step; nobody but its owner ever can read it."""
    lines = ["# Written by `relaymgr profile`. Holds tokens: keep its mode 0600."]
    if profiles.current is not None:
        lines.append(f"current = {_quoted(profiles.current)}")
    for name, profile in sorted(profiles.by_name.items()):
        lines += ["", f"[profiles.{name}]", f"url = {_quoted(profile.url)}"]
        if profile.token is not None:
            lines.append(f"token = {_quoted(profile.token)}")
        if profile.ca_file is not None:
            lines.append(f"ca_file = {_quoted(str(profile.ca_file))}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # mkstemp makes it 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror}", EXIT_USAGE) from None


def _only_ours(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Failure(f"{path} is not a file", EXIT_USAGE)
    if status.st_uid not in {os.geteuid(), 0}:
        raise Failure(f"{path} belongs to another user; its address and token are not trusted", EXIT_USAGE)
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise Failure(f"{path} holds tokens and others may use it (mode {mode:04o}): chmod 600 {path}", EXIT_USAGE)


def _parsed(path: Path, document: dict[str, Any]) -> Profiles:
    tables = document.get("profiles", {})
    current = document.get("current")
    if set(document) - {"current", "profiles"} or not isinstance(tables, dict):
        raise Failure(f"{path}: only `current` and tables [profiles.NAME] are known", EXIT_USAGE)
    if current is not None and not isinstance(current, str):
        raise Failure(f"{path}: current is not a name", EXIT_USAGE)
    found = Profiles(current)
    for name, table in tables.items():
        if not valid_name(name) or not isinstance(table, dict) or not isinstance(table.get("url"), str):
            raise Failure(f"{path}: [profiles.{name}] has no url, or not a usable name", EXIT_USAGE)
        if set(table) - set(_KEYS) or not all(isinstance(value, str) for value in table.values()):
            raise Failure(f"{path}: [profiles.{name}] holds something else than url, token, ca_file", EXIT_USAGE)
        ca_file = table.get("ca_file")
        found.by_name[name] = Profile(table["url"], table.get("token"), Path(ca_file) if ca_file else None)
    return found


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

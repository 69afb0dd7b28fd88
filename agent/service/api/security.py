"""The bearer token: kept in a file, in clear or hashed, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from typing import Final

from fastapi import Request

from agent.service.api.problems import RequestRefused

_HASHED: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")
_MINIMUM_LENGTH: Final = 16


class TokenError(Exception):
    """The token file cannot be used."""


class TokenFile:
    """The token that opens the API; the file is read again when it changes, so that it can be rotated at run time."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            TokenError: it cannot be read or holds no usable token.
        """
        self._path = path
        self._stamp: tuple[int, int, int] = (0, 0, 0)
        self._digest = b""
        self._refresh()

    def accepts(self, token: str) -> bool:
        """Whether `token` is the right one. A file that cannot be read any more opens nothing."""
        try:
            self._refresh()
        except TokenError:
            return False
        return hmac.compare_digest(hashlib.sha256(token.encode()).digest(), self._digest)

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return
            content = self._path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise TokenError(f"cannot read {self._path}: {error}") from error
        self._digest = _digest(content, self._path)
        self._stamp = stamp


def bearer_token(request: Request) -> str:
    """Token of the Authorization header, empty when there is none (RFC 6750 §2.1)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class RequireToken:
    """Dependency of every route that needs the token; open when no token is configured."""

    def __init__(self, token: TokenFile | None) -> None:
        self._token = token

    def __call__(self, request: Request) -> None:
        """Raise RequestRefused unless the request carries the token."""
        if self._token is not None and not self._token.accepts(bearer_token(request)):
            raise RequestRefused(
                "unauthorized", "a valid bearer token is required", {"WWW-Authenticate": 'Bearer realm="amt-agent"'}
            )


def _digest(content: str, path: Path) -> bytes:
    hashed = _HASHED.fullmatch(content)
    if hashed:
        return bytes.fromhex(hashed.group(1))
    if len(content) < _MINIMUM_LENGTH or any(character.isspace() for character in content):
        raise TokenError(f"{path} must hold one token of at least {_MINIMUM_LENGTH} characters")
    return hashlib.sha256(content.encode()).digest()

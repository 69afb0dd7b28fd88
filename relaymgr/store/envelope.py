"""Secrets at rest: envelope encryption, one data key a record, wrapped by the master key.

A sealed record is `version (1) | key id (8) | nonce (12) | wrapped data key (48) | nonce (12) | ciphertext and tag`,
AES-256-GCM both times. The context (`credential:ID`) is authenticated with it: a record copied onto another row does
not open. Rotation re-wraps data keys only, so it does not touch (or need to understand) what is sealed.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_VERSION = b"\x01"
_NONCE = 12
_KEY_ID = 8
_WRAPPED = KEY_BYTES + 16
_SHORTEST = 1 + _KEY_ID + _NONCE + _WRAPPED + _NONCE + 16


class SealBroken(Exception):
    """A sealed record does not open: another key, another context, or damage. Never says what is in it."""


def credential_context(credential_id: str) -> str:
    """Context of a credential's secret."""
    return f"credential:{credential_id}"


def backup_context(backup_id: str) -> str:
    """Context of a configuration backup."""
    return f"backup:{backup_id}"


class Sealer:
    """Seals with one master key; opens with it and with earlier ones. `repr` shows no key."""

    def __init__(self, key: bytes | Sequence[bytes]) -> None:
        keys = [key] if isinstance(key, bytes) else list(key)
        if not keys or any(len(one) != KEY_BYTES for one in keys):
            raise ValueError(f"a sealing key has {KEY_BYTES} bytes")
        self._keys = {_key_id(one): AESGCM(one) for one in keys}
        self._current = _key_id(keys[0])

    @property
    def key_id(self) -> str:
        """Identifier of the key that seals, hexadecimal; tells nothing of the key."""
        return self._current.hex()

    def seal(self, plain: bytes, context: str) -> bytes:
        """Encrypt and authenticate `plain` for `context`."""
        data_key, nonce = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(_NONCE)
        return self._wrap(data_key, context) + nonce + AESGCM(data_key).encrypt(nonce, plain, _bound(context))

    def open(self, sealed: bytes, context: str) -> bytes:
        """What was sealed.

        Raises:
            SealBroken: the key is unknown, the context another, or the record damaged.
        """
        data_key, body = self._unwrap(sealed, context)
        try:
            return AESGCM(data_key).decrypt(body[:_NONCE], body[_NONCE:], _bound(context))
        except InvalidTag:
            raise SealBroken(f"{context} is damaged") from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether the record is wrapped by the key that seals now."""
        return sealed[1 : 1 + _KEY_ID] == self._current

    def rewrap(self, sealed: bytes, context: str) -> bytes:
        """The same record under the current key.

        Raises:
            SealBroken: as `open`.
        """
        data_key, body = self._unwrap(sealed, context)
        return self._wrap(data_key, context) + body

    def _wrap(self, data_key: bytes, context: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        bound = _bound(context, self._current)
        return _VERSION + self._current + nonce + self._keys[self._current].encrypt(nonce, data_key, bound)

    def _unwrap(self, sealed: bytes, context: str) -> tuple[bytes, bytes]:
        if len(sealed) < _SHORTEST or sealed[:1] != _VERSION:
            raise SealBroken(f"{context} is no sealed record")
        key_id, rest = sealed[1 : 1 + _KEY_ID], sealed[1 + _KEY_ID :]
        master = self._keys.get(key_id)
        if master is None:
            raise SealBroken(f"{context} was sealed with key {key_id.hex()}, which is not in the key file")
        try:
            data_key = master.decrypt(rest[:_NONCE], rest[_NONCE : _NONCE + _WRAPPED], _bound(context, key_id))
        except InvalidTag:
            raise SealBroken(f"{context} is damaged or belongs to another record") from None
        return data_key, rest[_NONCE + _WRAPPED :]


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"isthmus key id\0" + key).digest()[:_KEY_ID]


def _bound(context: str, key_id: bytes = b"") -> bytes:
    return b"isthmus sealed 1\0" + key_id + b"\0" + context.encode()

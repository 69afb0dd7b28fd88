"""SSH of aged releases for paramiko, which dropped SHA-1: group14-sha1 key exchange and ssh-rsa host keys.

Used for targets with `legacy_ssh` only. The algorithms of today are offered first.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Any, ClassVar

import paramiko  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import hashes
from paramiko.kex_group14 import KexGroup14SHA256  # type: ignore[import-untyped]

_KEY_EXCHANGE = "diffie-hellman-group14-sha1"
_HOST_KEY = "ssh-rsa"


class _KexGroup14Sha1(KexGroup14SHA256):  # type: ignore[misc]
    name = _KEY_EXCHANGE
    hash_algo = sha1


class _RsaSha1Key(paramiko.RSAKey):  # type: ignore[misc]
    HASHES: ClassVar[dict[str, Any]] = {**paramiko.RSAKey.HASHES, _HOST_KEY: hashes.SHA1}


class _LegacyTransport(paramiko.Transport):  # type: ignore[misc]
    _preferred_kex = (*paramiko.Transport._preferred_kex, _KEY_EXCHANGE)  # noqa: SLF001 paramiko's own way to choose
    _preferred_keys = (*paramiko.Transport._preferred_keys, _HOST_KEY)  # noqa: SLF001
    _kex_info: ClassVar[dict[str, Any]] = {**paramiko.Transport._kex_info, _KEY_EXCHANGE: _KexGroup14Sha1}  # noqa: SLF001
    _key_info: ClassVar[dict[str, Any]] = {**paramiko.Transport._key_info, _HOST_KEY: _RsaSha1Key}  # noqa: SLF001


class LegacyClient(paramiko.SSHClient):  # type: ignore[misc]
    """An SSH client that also speaks what aged releases speak."""

    def connect(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 passed on to paramiko
        """As paramiko's, over a transport with the old algorithms."""
        super().connect(*arguments, transport_factory=_LegacyTransport, **options)

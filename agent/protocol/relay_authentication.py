"""Response MACs: what lets a relay answer Requests without keeping state (RFC 7450 §5.3.5)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from agent.protocol.channels import Address
from agent.protocol.wire.amt import MAC_LENGTH

SECRET_LENGTH: Final = 32


class ResponseMacs:
    """MACs over a gateway's address, port and nonce, keyed by a private secret that is replaced now and then.

    The secret is replaced the first time it is needed after `lifetime` seconds: nobody can tell the difference to a
    replacement on the hour. The one before stays valid for as long again. Neither the P flag nor the address of the
    relay enters: gateways use one MAC for both families.
    """

    def __init__(self, entropy: Callable[[int], bytes], lifetime: float) -> None:
        """Make the first secret.

        Args:
            entropy: gives that many random bytes fit for cryptography.
            lifetime: seconds of a secret.
        """
        self.lifetime = lifetime
        self._entropy = entropy
        self._secrets: tuple[bytes, ...] = (entropy(SECRET_LENGTH),)
        self._since: float | None = None

    def compute(self, address: Address, port: int, nonce: int, now: float) -> bytes:
        """MAC for a gateway, under the newest secret."""
        self._rotate_if_due(now)
        return _mac(self._secrets[0], address, port, nonce)

    def verify(self, mac: bytes, address: Address, port: int, nonce: int, now: float) -> bool:
        """Whether `mac` was computed for this gateway and nonce under a secret still valid; takes constant time."""
        self._rotate_if_due(now)
        matches = [hmac.compare_digest(_mac(secret, address, port, nonce), mac) for secret in self._secrets]
        return any(matches)

    def rotate(self, now: float) -> None:
        """Replace the secret now; the current one becomes the one before."""
        self._secrets = (self._entropy(SECRET_LENGTH), self._secrets[0])
        self._since = now

    def _rotate_if_due(self, now: float) -> None:
        if self._since is None:
            self._since = now
        periods = int((now - self._since) // self.lifetime)
        if periods < 1:
            return
        due = self._since + periods * self.lifetime
        self.rotate(due)
        if periods > 1:  # what was current at the last use is too old even for the one before
            self._secrets = self._secrets[:1]


def _mac(secret: bytes, address: Address, port: int, nonce: int) -> bytes:
    message = bytes((address.version,)) + address.packed + port.to_bytes(2, "big") + nonce.to_bytes(4, "big")
    return hmac.digest(secret, message, hashlib.sha256)[:MAC_LENGTH]

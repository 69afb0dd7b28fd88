"""Errors of the codecs.

    WireError
    +-- Truncated        fewer bytes than the layout needs
    +-- Malformed        a field holds a value the protocol does not allow
    +-- BadChecksum      a checksum does not verify
    +-- UnknownType      a well-formed envelope with a type we do not speak

Decoders raise nothing else, whatever the input.
"""

from __future__ import annotations


class WireError(ValueError):
    """A packet could not be decoded.

    Attributes:
        reason: short stable label for counters, in snake case.
        packet: the bytes that were refused.
    """

    reason = "malformed"

    def __init__(self, message: str, packet: bytes = b"") -> None:
        super().__init__(message)
        self.packet = bytes(packet)


class Truncated(WireError):
    """Fewer bytes than the layout needs."""

    reason = "truncated"


class Malformed(WireError):
    """A field holds a value the protocol does not allow."""


class BadChecksum(WireError):
    """A checksum does not verify."""

    reason = "bad_checksum"


class UnknownType(WireError):
    """A well-formed envelope with a type we do not speak."""

    reason = "unknown_type"

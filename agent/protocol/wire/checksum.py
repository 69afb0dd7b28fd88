"""The Internet checksum (RFC 1071) and the pseudo-headers of RFC 768 and RFC 8200 §8.1."""

from __future__ import annotations

from agent.protocol.channels import Address


def ones_complement_sum(data: bytes | bytearray | memoryview) -> int:
    """One's complement sum of big-endian 16-bit words, 0..0xffff; an odd last byte is padded with zero.

    2**16 is 1 modulo 65535, so the sum of the words is the whole number modulo 65535; a non-zero multiple of 65535 is
    the one's complement negative zero 0xffff.
    """
    number = int.from_bytes(data, "big")
    if len(data) % 2:
        number <<= 8
    return number % 0xFFFF or (0xFFFF if number else 0)


def internet_checksum(data: bytes | bytearray | memoryview) -> int:
    """Checksum to store over `data` whose checksum field is zero (RFC 1071 §1)."""
    return ones_complement_sum(data) ^ 0xFFFF


def verifies(data: bytes | bytearray | memoryview) -> bool:
    """Whether `data`, its checksum field included, sums to negative zero."""
    return ones_complement_sum(data) == 0xFFFF


def pseudo_header(source: Address, destination: Address, protocol: int, length: int) -> bytes:
    """Pseudo-header for a transport payload of `length` bytes (RFC 768; RFC 8200 §8.1)."""
    addresses = source.packed + destination.packed
    if source.version == 4:
        return addresses + bytes((0, protocol)) + length.to_bytes(2, "big")
    return addresses + length.to_bytes(4, "big") + bytes((0, 0, 0, protocol))

"""Giving trains of IPv4 datagrams their Don't Fragment flag back after the kernel's multicast routing.

Multicast routing drops a segmentable train that carries the flag, because the train as a whole exceeds every MTU.
Trains are therefore handed in without the flag and under a source MAC address of their own; one nftables rule in the
forward hook, which runs behind that check, sets the flag again before the train is cut into packets. The table belongs
to this process (NFT_TABLE_F_OWNER, Linux 5.12): nobody else can change it and it goes with the process, however that
ends.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

_NETLINK_NETFILTER: Final = 12
_NLM_REQUEST_ACK: Final = 0x5
_NLM_CREATE: Final = 0x400
_NLM_APPEND: Final = 0x800
_NLMSG_ERROR: Final = 2
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFNL_SUBSYSTEM: Final = 10 << 8
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 3, 6
_NESTED: Final = 0x8000
_FAMILY_IPV4: Final = 2
_HOOK_FORWARD: Final = 2
_PRIORITY_MANGLE: Final = -150
_TABLE_OWNER: Final = 2
_REGISTER: Final = 1
_META_INPUT_INDEX: Final = 4
_LINK_HEADER, _NETWORK_HEADER = 0, 1
_CHECKSUM_INTERNET: Final = 1


class DontFragmentError(Exception):
    """This kernel cannot do it (nf_tables missing or older than Linux 5.12), or CAP_NET_ADMIN is missing."""


class DontFragmentRule:
    """The rule, for as long as the object is open.

    Args:
        interface: index of the incoming interface.
        source: the six octets of the source MAC address that stands for the flag.
        table: name of the nftables table.

    Raises:
        DontFragmentError: the rule cannot be had.
    """

    def __init__(self, interface: int, source: bytes, table: str) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        except OSError as error:
            raise DontFragmentError(f"no netfilter in this kernel: {error.strerror}") from error
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(2)
            self._install(_messages(interface, source, table.encode()))
        except OSError as error:
            self._socket.close()
            if error.errno == errno.EOPNOTSUPP:
                raise DontFragmentError(
                    "nf_tables of this kernel has no IPv4 tables (CONFIG_NF_TABLES_IPV4)"
                ) from error
            raise DontFragmentError(f"no rule in nf_tables: {error.strerror}") from error

    def close(self) -> None:
        """Remove the rule."""
        self._socket.close()

    def _install(self, messages: list[bytes]) -> None:
        self._socket.send(b"".join(messages))
        outstanding = len(messages) - 2  # the batch's own two frames are not acknowledged
        while outstanding:
            answer = self._socket.recv(65536)
            while len(answer) >= 20:
                length, kind = struct.unpack_from("=IH", answer)
                if kind == _NLMSG_ERROR:
                    (number,) = struct.unpack_from("=i", answer, 16)
                    if number:
                        raise OSError(-number, os.strerror(-number))
                    outstanding -= 1
                if length < 16:
                    raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
                answer = answer[(length + 3) & ~3 :]


def _messages(interface: int, source: bytes, table: bytes) -> list[bytes]:
    name = table + b"\0"
    chain = b"forward\0"
    hook = _attribute(4 | _NESTED, _number(1, _HOOK_FORWARD) + _attribute(2, struct.pack(">i", _PRIORITY_MANGLE)))
    rule = b"".join(
        _attribute(1 | _NESTED, part)
        for part in (
            _expression(b"meta", _number(1, _REGISTER) + _number(2, _META_INPUT_INDEX)),
            _equals(struct.pack("=I", interface)),
            _load(_LINK_HEADER, 6, 6),
            _equals(source),
            _expression(b"immediate", _number(1, _REGISTER) + _data(2, b"\x40\x00")),
            _store(_NETWORK_HEADER, 6, 2, checksum_at=10),
        )
    )
    return [
        _frame(_BATCH_BEGIN, b"", 0, family=0, resource=10),
        _frame(_NFNL_SUBSYSTEM | _NEW_TABLE, _attribute(1, name) + _number(2, _TABLE_OWNER), _NLM_CREATE),
        _frame(
            _NFNL_SUBSYSTEM | _NEW_CHAIN,
            _attribute(1, name) + _attribute(3, chain) + hook + _attribute(7, b"filter\0"),
            _NLM_CREATE,
        ),
        _frame(
            _NFNL_SUBSYSTEM | _NEW_RULE,
            _attribute(1, name) + _attribute(2, chain) + _attribute(4 | _NESTED, rule),
            _NLM_CREATE | _NLM_APPEND,
        ),
        _frame(_BATCH_END, b"", 0, family=0, resource=10),
    ]


def _frame(kind: int, body: bytes, flags: int, *, family: int = _FAMILY_IPV4, resource: int = 0) -> bytes:
    acknowledged = _NLM_REQUEST_ACK if body else 1
    header = struct.pack("=IHHII", 20 + len(body), kind, acknowledged | flags, kind, 0)
    return header + struct.pack(">BBH", family, 0, resource) + body


def _attribute(kind: int, body: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(body), kind) + body + bytes(-len(body) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">I", value))


def _data(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, _attribute(1, value))


def _expression(name: bytes, body: bytes) -> bytes:
    return _attribute(1, name + b"\0") + _attribute(2 | _NESTED, body)


def _equals(value: bytes) -> bytes:
    return _expression(b"cmp", _number(1, _REGISTER) + _number(2, 0) + _data(3, value))


def _load(base: int, offset: int, length: int) -> bytes:
    return _expression(b"payload", _number(1, _REGISTER) + _number(2, base) + _number(3, offset) + _number(4, length))


def _store(base: int, offset: int, length: int, *, checksum_at: int) -> bytes:
    place = _number(2, base) + _number(3, offset) + _number(4, length) + _number(5, _REGISTER)
    return _expression(b"payload", place + _number(6, _CHECKSUM_INTERNET) + _number(7, checksum_at))

"""What is said where a kernel lacks a module that the fast planes need."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from pyroute2 import NetlinkError

from agent.net import dont_fragment
from agent.net.bpf import BpfError, clsact


def test_filters_without_their_modules(monkeypatch) -> None:
    def refuse(_use) -> None:
        raise NetlinkError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(clsact, "with_rtnetlink", refuse)
    with pytest.raises(BpfError, match=r"the kernel has not sch_ingress or cls_bpf") as told:
        clsact.add_filter(7, 3)
    assert told.value.errno == errno.ENOENT


class Refusing:
    """Netfilter's socket, which answers every batch with an error."""

    def __init__(self, number: int) -> None:
        self._number = number

    def recv(self, _size: int) -> bytes:
        return struct.pack("=IHHIIi", 20, 2, 0, 0, 0, -self._number)

    def __getattr__(self, _name: str):
        return lambda *_: None


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EOPNOTSUPP, "nf_tables of this kernel has no IPv4 tables"),
        (errno.ENOENT, f"no rule in nf_tables: {os.strerror(errno.ENOENT)}"),
    ],
)
def test_tables_without_ipv4(monkeypatch, number: int, told: str) -> None:
    monkeypatch.setattr(dont_fragment.socket, "socket", lambda *_: Refusing(number))
    with pytest.raises(dont_fragment.DontFragmentError, match=told):
        dont_fragment.DontFragmentRule(7, bytes(6), "isthmus-test")

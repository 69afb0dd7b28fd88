from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymgr.domain.amt_probe import BadAnswer, advertised, discovery, queried, request

NONCE = 0x01020304
IGMP = bytes.fromhex("46c0002400000000010200000a000001e0000001940400001164ec1e00000000027d0000")


def test_what_is_sent():
    assert discovery(NONCE).hex() == "0100000001020304"
    assert request(NONCE).hex() == "0300000001020304"
    assert request(NONCE, mld=True).hex() == "0301000001020304"


def test_what_is_accepted():
    assert advertised(bytes.fromhex("0200000001020304c6336407"), NONCE) == ip_address("198.51.100.7")
    query = queried(bytes.fromhex("0402aabbccddeeff01020304") + IGMP, NONCE)
    assert (query.limit, query.gateway_seen, query.protocol) == (True, False, "igmp")


@pytest.mark.parametrize(
    "data", ["", "02", "0200000001020305c6336407", "0200000001020304e0000001", "0200000001020304c63364",
             "1200000001020304c6336407", "020000000102030400000000"],
)  # fmt: skip
def test_what_is_no_advertisement(data):
    with pytest.raises(BadAnswer):
        advertised(bytes.fromhex(data), NONCE)


@given(st.binary(max_size=64))
def test_anything_may_come(data):
    for parse in (advertised, queried):
        for head in (b"", data[:1]):
            with contextlib.suppress(BadAnswer):
                parse(head + data, NONCE)

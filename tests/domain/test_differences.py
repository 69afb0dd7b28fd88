from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymgr.domain.configuration import OwnedConfiguration
from relaymgr.domain.differences import unified
from relaymgr.domain.drift import DriftState, compare
from relaymgr.domain.masking import mask, mask_text

lines = st.lists(st.text("abc{};= ", max_size=8), max_size=12).map("\n".join)


@given(lines, lines)
def test_a_difference_is_empty_exactly_for_equal_lines(before, after):
    assert (unified(before, after) == "") is (before.splitlines() == after.splitlines())


@given(lines, lines)
def test_a_difference_applied_gives_the_other_text(before, after):
    body = unified(before, after, context=10_000).splitlines()[3:]
    if before.splitlines() == after.splitlines():
        return
    assert [line[1:] for line in body if line[0] in " -"] == before.splitlines()
    assert [line[1:] for line in body if line[0] in " +"] == after.splitlines()


@given(lines, lines)
def test_drift_has_a_difference_exactly_when_there_is_one(intended, actual):
    drift = compare(OwnedConfiguration(("a",), intended), OwnedConfiguration(("a",), actual))
    assert (drift.state is DriftState.NONE) is (intended == actual)
    assert bool(drift.diff) is (intended != actual)


@pytest.mark.parametrize(
    "line",
    [
        'encrypted-password "$6$SYNTHETIC"; ## SECRET-DATA',
        "enable secret 9 $9$SYNTHETIC",
        "username noc password 7 SYNTHETIC",
        'set protocols bgp group x authentication-key "$9$SYNTHETIC"',
        "<authentication-key>SYNTHETIC</authentication-key>",
        '<secret inactive="inactive">SYNTHETIC</secret>',
        "snmp-server community SYNTHETIC RO",
        "    community SYNTHETIC {",
        " key-string 7 SYNTHETIC",
        "tacacs server key SYNTHETIC",
        'token = "SYNTHETIC"',
        "neighbor 192.0.2.1 password SYNTHETIC",
        "+ ip ospf message-digest-key 1 md5 7 SYNTHETIC",
    ],
)
def test_secrets_are_masked(line):
    assert "SYNTHETIC" not in mask(line)
    assert "SYNTHETIC" not in unified("", line)


@pytest.mark.parametrize(
    "line",
    ["secret-key-timeout 60;", "secret_key_timeout = 60", "<secret-key-timeout>60</secret-key-timeout>",
     "tunnel-limit 100;", "community FOO members 65000:1;"],
)  # fmt: skip
def test_what_is_no_secret_stays(line):
    assert mask(line) == line


def test_private_keys_are_masked_as_a_whole():
    head, tail = "-----BEGIN EC PRIVATE KEY-----", "-----END EC PRIVATE KEY-----"
    assert "SYNTHETIC" not in mask_text(f"a\n{head}\nSYNTHETIC\n{tail}\nb")

"""The agent's file: owned keys change, every other byte stays."""

from __future__ import annotations

import tomllib

import pytest

from relaymgr.drivers.isthmus import document

TEXT = """# Head; stays.
role = "relay"

[relay]
interfaces = "eth1"  # native
address = [
    "192.0.2.1",  # first
    "2001:db8::1",
]
tunnel_limit = 1_000   # as agreed
query_interval = 60.0

# Announced by FRR.
[api]
listen = "/run/x.sock"
"""
SCOPE = ("drain", "relay.query_interval", "relay.tunnel_limit")


def test_keys_are_read_in_one_notation():
    assert document.read(TEXT, (*SCOPE, "relay.address")) == (
        'relay.address = ["192.0.2.1", "2001:db8::1"]\nrelay.query_interval = 60\nrelay.tunnel_limit = 1000\n'
    )


def test_what_is_as_wanted_stays_as_it_was_written():
    assert document.merge(TEXT, SCOPE, document.read(TEXT, SCOPE)) == TEXT


def test_only_the_line_that_differs_changes():
    merged = document.merge(TEXT, SCOPE, "relay.query_interval = 90\nrelay.tunnel_limit = 1000\n")
    assert merged == TEXT.replace("query_interval = 60.0", "query_interval = 90")


def test_a_key_that_is_not_wanted_any_more_goes():
    merged = document.merge(TEXT, SCOPE, "relay.tunnel_limit = 1000\n")
    assert merged == TEXT.replace("query_interval = 60.0\n", "")


def test_a_value_over_several_lines_is_one_value():
    wanted = 'relay.address = ["192.0.2.9"]\n'
    merged = document.merge(TEXT, ("relay.address",), wanted)
    assert tomllib.loads(merged)["relay"]["address"] == ["192.0.2.9"]
    assert "first" not in merged
    assert "# Head; stays." in merged


def test_a_new_key_stands_at_the_end_of_its_table():
    merged = document.merge(TEXT, ("relay.robustness_variable",), "relay.robustness_variable = 3\n")
    assert merged == TEXT.replace("query_interval = 60.0\n", "query_interval = 60.0\nrobustness_variable = 3\n")


@pytest.mark.parametrize("limit", ["tunnel_limit = 1_000   # as agreed\n", ""])
def test_a_drain_is_one_line_that_remembers_what_stood_there(limit):
    text = TEXT.replace("tunnel_limit = 1_000   # as agreed\n", limit)
    owned = document.read(text, SCOPE)
    drained = document.merge(text, SCOPE, f"drain = true\n{owned}")
    assert tomllib.loads(drained)["relay"]["tunnel_limit"] == 0
    assert document.read(drained, SCOPE) == f"drain = true\n{owned}"
    assert document.merge(drained, SCOPE, owned) == text


@pytest.mark.parametrize("text", ["[relay]\r\n  tunnel_limit = 5 # x \r\nrole = 'x'\r\n", "[relay]\ntunnel_limit=5"])
def test_the_end_of_a_drain_brings_back_the_very_line(text):
    drained = document.merge(text, ("drain",), "drain = true\n")
    assert document.read(drained, SCOPE) == "drain = true\nrelay.tunnel_limit = 5\n"
    assert document.merge(drained, ("drain",), "") == text


@pytest.mark.parametrize("said", ["", "ask bob", "tunnel_limit = 'x'", "query_interval = 5", "the default"])
def test_a_comment_of_a_drain_that_somebody_edited_brings_back_the_default(said):
    text = f"[relay]\ntunnel_limit = 0 # drained by relaymgr; before: {said}\n"
    assert document.read(text, SCOPE) == "drain = true\n"
    assert document.merge(text, ("drain",), "") == "[relay]\n"


def test_a_drain_without_the_limit_in_scope_keeps_the_operators_limit():
    drained = document.merge(TEXT, ("drain",), "drain = true\n")
    assert tomllib.loads(drained)["relay"]["tunnel_limit"] == 0
    assert tomllib.loads(document.merge(drained, ("drain",), "")) == tomllib.loads(TEXT)


def test_a_limit_changed_while_drained_comes_with_the_end_of_the_drain():
    drained = document.merge(TEXT, SCOPE, "drain = true\nrelay.query_interval = 60\nrelay.tunnel_limit = 7\n")
    assert tomllib.loads(drained)["relay"]["tunnel_limit"] == 0
    assert tomllib.loads(document.merge(drained, ("drain",), ""))["relay"]["tunnel_limit"] == 7


def test_a_limit_of_zero_set_by_hand_is_no_drain():
    text = TEXT.replace("1_000   # as agreed", "0")
    assert document.read(text, SCOPE) == "relay.query_interval = 60\nrelay.tunnel_limit = 0\n"


@pytest.mark.parametrize(
    "text",
    [
        'role = "relay"\nrelay = { tunnel_limit = 5 }\n',
        'role = "relay"\nrelay.tunnel_limit = 5\n',
        'role = "relay"\n',
        'role = "relay"\n[relay]\nx = """\ntunnel_limit = 4\n"""\ntunnel_limit = 5\n',
    ],
)
def test_a_notation_that_cannot_be_edited_line_by_line_is_refused(text):
    with pytest.raises(document.NotEditable):
        document.merge(text, ("relay.tunnel_limit",), "relay.tunnel_limit = 9\n")


def test_a_file_without_a_last_newline_gets_one_before_what_is_added():
    merged = document.merge("[relay]\naddress = 'a'", ("relay.tunnel_limit",), "relay.tunnel_limit = 9\n")
    assert merged == "[relay]\naddress = 'a'\ntunnel_limit = 9\n"

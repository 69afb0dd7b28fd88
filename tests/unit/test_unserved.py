"""What is said of channels that nothing brings."""

from __future__ import annotations

import pytest

from agent.protocol.channels import Channel
from agent.service.model import Severity
from agent.service.unserved import NO_RELAY, PENDING, UNUSABLE, unserved_problems

ONE = Channel.parse("10.0.0.1", "232.1.1.1")
TWO = Channel.parse("10.0.0.2", "232.1.1.1")
ANY = Channel.parse("*", "239.1.1.1")


def test_without_such_channels_there_is_no_problem():
    assert unserved_problems([], lambda _: NO_RELAY) == []


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (NO_RELAY, "[[gateway.relay]]"),
        (PENDING, "being looked for"),
        (UNUSABLE, "the log says why"),
        ("discovery: no relay", "no relay is to be used"),
        ("discovery: nothing found", "amt-agent discover"),
        ("discovery: failed", "check the DNS servers"),
        ("something new", "something new"),
    ],
)
def test_the_case_is_named(reason, words):
    (problem,) = unserved_problems([ONE], lambda _: reason)
    assert (problem.code, problem.subject) == ("channels_unserved", str(ONE))
    assert words in problem.message
    assert problem.message.startswith("1 channel is not carried: ")


def test_only_what_is_still_looked_for_is_no_error():
    found = unserved_problems([ONE, TWO], {ONE: PENDING, TWO: NO_RELAY}.__getitem__)
    assert [problem.severity for problem in found] == [Severity.WARNING, Severity.ERROR]


def test_channels_of_one_reason_are_counted():
    (problem,) = unserved_problems([ONE, TWO], lambda _: NO_RELAY)
    assert problem.message.startswith("2 channels are not carried: ")
    assert "cover them" in problem.message


def test_any_source_channels_cannot_be_discovered():
    (problem,) = unserved_problems([ANY], lambda _: NO_RELAY)
    assert "default prefix" in problem.message


def test_of_very_many_channels_some_are_looked_at():
    many = (Channel.parse(f"10.0.{number >> 8}.{number & 255}", "232.1.1.1") for number in range(5000))
    asked = []
    unserved_problems(many, lambda channel: asked.append(channel) or PENDING)
    assert len(asked) == 1000

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from relaymgr.domain.observed import Observation, PimNeighbor, Statistics
from relaymgr.domain.verification import Baseline, Tolerances, passed, verify

WELL = Observation(
    tunnels=(),
    pim_neighbors=(PimNeighbor(ip_address("192.0.2.2"), "ge-0/0/0.0"),),
    statistics=Statistics(counters={"requests_received": 1000}, errors={"invalid_mac": 5}),
)
DEFAULT = Tolerances()


def failing(after, tolerances=DEFAULT, before=WELL):
    checks = verify(Baseline.load(Baseline.of(before).dump()), after, tolerances)
    failed = [check.name for check in checks if check.passed is False]
    assert passed(checks) is not bool(failed)
    return failed


def test_a_relay_as_before_is_well():
    assert failing(WELL) == []


def test_no_session_is_not_well():
    assert failing(None) == ["management"]


def test_a_lost_neighbor_counts_unless_the_change_takes_its_interface_away():
    alone = replace(WELL, pim_neighbors=())
    assert failing(alone) == ["pim-neighbors"]
    assert failing(alone, Tolerances(removed_interfaces=frozenset({"ge-0/0/0.0"}))) == []
    assert failing(replace(WELL, pim_neighbors=None)) == ["pim-neighbors"]


def test_unknown_before_fails_nothing_after():
    assert failing(WELL, before=Observation()) == []
    assert failing(Observation(), before=Observation()) == []


def test_amt_that_does_not_answer_any_more():
    assert "amt" in failing(replace(WELL, tunnels=None, statistics=None))


def test_errors_are_weighed_against_messages():
    def counted(errors, messages):
        return replace(WELL, statistics=Statistics(counters={"requests_received": messages}, errors=errors))

    assert failing(counted({"invalid_mac": 205}, 1000)) == ["error-counters"]
    assert failing(counted({"invalid_mac": 205}, 100_000)) == []
    assert failing(counted({"invalid_mac": 90}, 1000)) == []
    assert failing(counted({"invalid_mac": 3}, 10)) == []  # cleared by a restart of the process
    assert failing(counted({"unexpected_type": 500}, 1000)) == ["error-counters"]

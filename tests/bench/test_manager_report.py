"""The manager's part of the benchmark's page: ratios, aims and what counts as on time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.bench import report
from lab.bench.manager import Size
from lab.bench.manager_api import CSV, JSON, Requests
from lab.bench.manager_changes import Plans, Waves
from lab.bench.manager_fleet import percentile, sizes
from lab.bench.manager_polling import Polling, parsed
from lab.bench.manager_report import ManagerResults, aims, section
from lab.bench.manager_transport import OWN, PYEZ, Transport

POLLING = Polling(
    load="all answer",
    relays=100,
    faulty=0,
    tunnels=10_000,
    interval=30,
    seconds=60.0,
    on_time=199,
    missed=1,
    processor_share=0.1,
    simulators_share=0.2,
    resident_bytes=200_000_000,
    threads=12,
    p50_seconds=0.1,
    p95_seconds=0.25,
    machine_load=1.5,
)
TRANSPORTS = [Transport(PYEZ, 8, 100, 0.040, 0.5, 28), Transport(OWN, 8, 100, 0.010, 0.05, 2)]
WAVES = Waves((1, 5, 44), 1, {"succeeded": 49, "failed": 1}, "succeeded", 30.0, 60, 8)


def results(**changes):
    pages = Requests(JSON, "while polling", 10_000, 1000, [0.1] * 94 + [0.2] * 6)
    whole = Requests(CSV, "while polling", 10_000, 1500, [1.0])
    return replace(
        ManagerResults([POLLING], TRANSPORTS, [Plans("Junos", [0.1, 0.3], 9)], [WAVES], [pages, whole]), **changes
    )


def reached(measured):
    return {aim: is_reached for aim, _, is_reached in aims(measured)}


def test_share_on_time_is_of_the_polls_that_came_due():
    assert POLLING.share_on_time == pytest.approx(199 / 200)
    assert replace(POLLING, on_time=100).share_on_time == pytest.approx(0.5)
    assert replace(POLLING, on_time=205).share_on_time == 1.0
    assert replace(POLLING, relays=0).share_on_time == 0.0
    assert POLLING.poll_milliseconds == pytest.approx(1000 * 0.1 * 60 / 200)


@pytest.mark.parametrize(("on_time", "is_reached"), [(199, True), (198, True), (197, False), (0, False)])
def test_a_beat_that_is_not_kept_is_told(on_time, is_reached):
    measured = results(polling=[replace(POLLING, on_time=on_time)])
    assert reached(measured)["100 relays of 100 tunnels at 30 s, all answer: 99 % of polls on time"] is is_reached


def test_tunnels_of_a_relay_count_the_faulty_relays_too():
    measured = results(polling=[replace(POLLING, relays=95, faulty=5, load="5 more hang")])
    assert "95 relays of 100 tunnels at 30 s, 5 more hang: 99 % of polls on time" in reached(measured)


def test_the_page_is_judged_by_its_p95_and_csv_is_not():
    aim = "page of 1,000 of 10,000 tunnels, while polling: p95 under 150 ms"
    assert reached(results())[aim] is False
    fast = Requests(JSON, "while polling", 10_000, 1000, [0.149] * 96 + [0.2] * 4)
    assert reached(results(requests=[fast]))[aim] is True
    assert not any("p95" in one for one in reached(results(requests=[Requests(CSV, "while polling", 1, 1, [9.0])])))
    assert not any("p95" in one for one in reached(results(requests=[Requests(JSON, "while polling")])))


def test_transports_are_compared_as_a_ratio():
    assert results().transport_ratio == pytest.approx(0.25)
    assert reached(results())["poll over our own transport: cheaper than over PyEZ"] is True
    dear = [TRANSPORTS[0], replace(TRANSPORTS[1], processor_seconds=0.05)]
    assert reached(results(transports=dear))["poll over our own transport: cheaper than over PyEZ"] is False
    assert results(transports=TRANSPORTS[:1]).transport_ratio is None
    assert "| 0.25 |" in section(results())


@pytest.mark.parametrize(("succeeded", "is_reached"), [(50, True), (49, True), (48, False)])
def test_waves_may_lose_what_the_budget_allows(succeeded, is_reached):
    waves = replace(WAVES, counts={"succeeded": succeeded, "failed": 50 - succeeded})
    found = reached(results(waves=[waves]))
    assert found["change of 50 relays in waves of 1, 5, 44: all but the 1 that refuses"] is is_reached


def test_nothing_measured_is_nothing_told():
    assert section(ManagerResults()) == ""
    assert aims(ManagerResults()) == []


def test_the_page_holds_the_section_and_its_aims():
    text = report.page(report.Results(manager=results(), left_out=["the manager with 2,000 relays: not in time"]))
    for words in ("## Relay manager", "### Polling", "### Transport", "### Changes", "### API", "not in time"):
        assert words in text
    assert "| 100 relays of 100 tunnels at 30 s, all answer: 99 % of polls on time | 99.5 % | yes |" in text


@pytest.mark.parametrize(
    ("count", "most", "parts"), [(0, 250, []), (1, 250, [1]), (251, 250, [126, 125]), (1000, 250, [250] * 4)]
)
def test_a_fleet_is_cut_into_equal_processes(count, most, parts):
    assert sizes(count, most) == parts


def test_metrics_are_read_with_their_labels():
    text = (
        '# HELP x y\n# TYPE x counter\nrelaymgr_relays{reachability="reachable"} 7.0\nrelaymgr_polls_missed_total 2.0\n'
    )
    assert parsed(text) == {'relaymgr_relays{reachability="reachable"}': 7.0, "relaymgr_polls_missed_total": 2.0}


def test_percentiles():
    assert percentile([], 0.95) == 0.0
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([float(value) for value in range(100)], 0.5) == 50.0
    assert percentile([float(value) for value in range(100)], 1.0) == 99.0


def test_some_of_the_smallest_fleet_are_faulty():
    assert Size(relays=20).faulty == 2
    assert Size().faulty == 50

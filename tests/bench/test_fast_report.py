"""The page of the fast data planes: from fixed figures, aims met and missed, what was left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.bench import fast, fast_report, report
from lab.bench.fast_generator import Sent
from lab.bench.fast_joins import Joins
from lab.bench.fast_latency import Latency
from lab.bench.fast_relay import BARE_COPIES, KERNEL, USERSPACE_RELAY, RelayFigures
from lab.bench.fast_report import DataplaneResults, aims, page
from lab.bench.fast_rig import Case, Run
from lab.bench.fast_search import Figures, is_kept
from lab.bench.fast_sink import Tally, nanoseconds, percentile
from lab.bench.fast_soak import SoakResult
from lab.bench.fast_subject import ENGINES, NATIVE

RATES = {"native": 0.3e6, "native-gro": 0.9e6, "xdp": 1.5e6, "xdp-mfc": 0.8e6, "tc": 0.6e6, "userspace": 0.2e6}
COSTS = {"native": 2400, "native-gro": 900, "xdp": 450, "xdp-mfc": 1000, "tc": 1200, "userspace": 4000}


def figures(engine, **changes):
    cost, rate = COSTS[engine], RATES[engine]
    row = Figures(Case(engine), rate, cost, cost * 1.1, rate * 0.9, 0.9, cost * 1.2)
    return replace(row, **changes)


def results(**changes):
    made = DataplaneResults(
        figures=[figures(engine) for engine in ENGINES],
        latencies=[Latency(Case(engine), (5e3, 20e3, 90e3), 0, 75_000) for engine in ENGINES],
        joins=[Joins("xdp", 10_000, tuple(n * 1e-6 for n in range(100)), {"xdp": 1000})],
        relay=[
            RelayFigures(KERNEL, 100, True, 1.3e6, 700, 0.98, 0.0),
            RelayFigures(KERNEL, 1000, False, 1.167e6, 300, 0.35, 0.0),
            RelayFigures(USERSPACE_RELAY, 1000, False, 1.167e6, 800, 0.93, 0.0),
            RelayFigures(BARE_COPIES, 1000, False, 1.167e6, 250, 0.29, 0.0),
        ],
        soak=[SoakResult("xdp", 600, 10**9, 60_000, 60_000_000, 61_000_000, ())],
    )
    return replace(made, **changes)


def verdicts(measured):
    return {aim: is_reached for aim, _, is_reached in aims(measured)}


def test_every_aim_of_good_figures_is_reached():
    found = verdicts(results())
    assert len(found) == 8
    assert all(found.values())


@pytest.mark.parametrize(
    ("engine", "changes", "words"),
    [
        ("xdp", {"most": 1.1e6}, "4 times"),
        ("xdp", {"nanoseconds": 950.0}, "1/4"),
        ("xdp", {"nanoseconds": 950.0}, "rx-udp-gro-forwarding"),
        ("tc", {"nanoseconds": 1800.0}, "0.65 times"),
    ],
)
def test_an_aim_is_judged_by_its_figure(engine, changes, words):
    rows = [figures(each, **(changes if each == engine else {})) for each in ENGINES]
    assert [ok for aim, ok in verdicts(results(figures=rows)).items() if words in aim] == [False]


def test_an_engine_that_loses_while_its_core_is_idle_is_named_with_the_reason():
    assert "at a stretch" not in page(results())
    rows = [figures("native", kept=1e5, busy=0.25), *(figures(each) for each in ENGINES[1:])]
    shown = page(results(figures=rows))
    assert "that befell native multicast routing: multicast" in shown
    assert "| 100,000 | 25% |" in shown


def test_what_is_kept_up_is_told_by_loss_and_by_what_was_put_off():
    def run(arrived, cpu):
        return Run(Sent(10_000, 1.0), Tally(2 * arrived), cpu, 2)

    assert is_kept(run(9990, 1.0))
    assert not is_kept(run(9980, 0.5))
    assert not is_kept(run(10_000, 1.2))
    assert run(9000, 1.2).rate == 7500
    assert run(9000, 0.5).busy == 0.5


def test_a_relay_and_a_join_that_miss_are_said_to():
    slow = results(
        relay=[RelayFigures(KERNEL, 100, True, 0.9e6, 900, 0.98, 0.0)],
        joins=[Joins("tc", 10_000, (0.0004,) * 100, {})],
    )
    assert list(verdicts(slow).values())[4:6] == [False, False]


def test_a_soak_with_a_problem_names_it():
    bad = results(soak=[SoakResult("xdp", 600, 1, 1, 1, 1, ("3 entries left in channels4",))])
    assert "3 entries left in channels4" in page(bad)
    assert not all(verdicts(bad).values())


def test_a_soak_stays_on_the_page_until_there_is_another(tmp_path):
    fast_report.write(results(soak=[], left_out=["network cards"]), tmp_path)
    path = fast_report.write_soak(results(), tmp_path)
    first = path.read_text()
    assert first.index("## Relay") < first.index("## Soak") < first.index("## Left out")
    fast_report.write(results(soak=[], left_out=["network cards"]), tmp_path)
    assert path.read_text() == first
    fast_report.write_soak(results(soak=[SoakResult("tc", 60, 1, 1, 1, 1, ())]), tmp_path)
    assert path.read_text().count("## Soak") == 1
    assert "| tc | 60 s" in path.read_text()


def test_the_page_has_a_table_for_every_question_and_is_written_with_its_plot(tmp_path):
    shown = page(results(machine_load=2.0))
    for heading in ("Aims", "Gateway", "Latency", "Joins", "Relay", "Soak"):
        assert f"\n## {heading}\n" in shown
    assert "load 2.0 when it began" in shown
    written = fast_report.write(results(), tmp_path)
    assert written.read_text() == page(results())
    assert (tmp_path / "bench-dataplane.png").stat().st_size > 10_000


def test_what_was_left_out_is_named_and_nothing_else_is_shown():
    shown = page(DataplaneResults(left_out=["the data planes: needs root"]))
    assert "- the data planes: needs root" in shown
    assert "|" not in shown


def test_the_aims_stand_with_those_of_the_whole_run():
    assert set(aims(results())) <= set(report.aims(report.Results(dataplane=results())))


def test_times_are_known_to_a_few_percent():
    for index in range(32, 1200):
        assert nanoseconds(index) < nanoseconds(index + 1) < nanoseconds(index) * 1.04
    times = [0] * 1280
    times[100], times[400] = 99, 1
    assert percentile(times, 0.5) == percentile(times, 0.99) == nanoseconds(100)
    assert percentile(times, 0.999) == nanoseconds(400)
    assert percentile([0] * 1280, 0.5) == 0


def test_the_usual_cases_change_one_thing_at_a_time_and_all_are_every_combination():
    assert len(fast.cases(full=True)) == 36
    assert set(fast.cases(full=False)) - {Case(NATIVE, version=6, interfaces=8)} <= {
        replace(Case(NATIVE), **{name: value})
        for name, values in {"channels": (1, 8, 64), "interfaces": (2, 8), "size": (200,), "version": (6,)}.items()
        for value in values
    }

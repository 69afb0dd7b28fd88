"""Every engine between generator and sink, for a moment: what is sent arrives, and a soak leaves nothing behind."""

from __future__ import annotations

import os

import pytest

from lab.bench.engine_needs import missing_for_engine
from lab.bench.fast_objects import load_lab, missing_for_objects
from lab.bench.fast_remains import objects, outlived
from lab.bench.fast_rig import Case, rig
from lab.bench.fast_soak import soak
from lab.bench.fast_subject import ENGINES

pytestmark = pytest.mark.root
TRIES = 5  # a busy machine loses packets where nothing waits for them


@pytest.fixture(autouse=True)
def needs():
    if missing := missing_for_engine() or ", ".join(missing_for_objects()):
        pytest.skip(missing)


@pytest.mark.parametrize(("engine", "version"), [*((engine, 4) for engine in ENGINES), ("native", 6), ("xdp", 6)])
def test_everything_sent_slowly_arrives_in_order_everywhere(engine, version):
    case = Case(engine, channels=3, interfaces=2, size=200, version=version)
    with rig(case, f"isxe{os.getpid()}", checks=True) as running:
        for _ in range(TRIES):
            run = running.run(2000.0, 0.2, burst=4)
            if run.is_lossless and run.cpu:  # by ticks of the clock, of which so little may take none
                break
        assert run.arrived.packets == run.sent.packets * 2 == 800
        assert run.arrived.backwards == 0
        assert run.cpu > 0


def test_a_short_soak_leaves_nothing_and_accounts_for_every_packet():
    found = soak("xdp", f"isxs{os.getpid()}", 4.0, lambda _text: None, rate=20_000.0)
    assert found.changes > 100
    assert found.problems == ()
    assert len(found.checked) >= 6


def test_what_outlives_its_owner_is_named_and_what_is_gone_is_not():
    before = objects()
    with load_lab("sink", "sink_tc") as loaded:
        assert loaded.program("sink_tc")
        mine = {kind: sorted(set(found) - set(before[kind])) for kind, found in objects().items()}
        assert len(mine["map"]) >= 4
        assert len(mine["prog"]) == 1
        assert len(outlived(mine, seconds=0)) == len(mine["map"]) + 1
    assert outlived(mine) == []

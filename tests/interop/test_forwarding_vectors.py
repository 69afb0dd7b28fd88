"""Every engine forwards, refuses and hands on what tests/vectors/forwarding says, octet by octet on the wire."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from forwarding.engines import ENGINES
from forwarding.wire import Gateway
from vectors.forwarding.case import Case, read
from vectors.forwarding_make import DIRECTORY, FILES

from agent.net.bpf import object_path
from lab.bench.engine_needs import missing_for_engine

pytestmark = pytest.mark.root

CASES = {name: read((DIRECTORY / f"{name}.txt").read_text(encoding="utf-8")) for name in FILES}
LINKS = sorted({(case.outer, case.link) for cases in CASES.values() for case in cases})


def of(name: str, outer: int, link: str) -> list[Case]:
    return [case for case in CASES[name] if (case.outer, case.link) == (outer, link)]


COMBINATIONS = [(name, *link) for name, kind in ENGINES.items() for link in LINKS if link[1] in kind.links]


@pytest.fixture(scope="module", params=COMBINATIONS, ids=lambda param: "-".join(map(str, param)))
def combination(request: pytest.FixtureRequest) -> tuple[str, int, str]:
    return request.param


@pytest.fixture(scope="module")
def gateway(combination: tuple[str, int, str]) -> Iterator[Gateway]:
    engine, outer, link = combination
    if missing := missing_for_engine():
        pytest.skip(missing)
    if engine != "userspace" and not object_path("gateway").exists():
        pytest.skip("gateway.bpf.o is missing: `make bpf`")
    with Gateway(f"isx-vec{os.getpid()}", outer, link, ENGINES[engine]) as made:
        yield made


def test_every_packet_has_its_outcome(gateway: Gateway, combination: tuple[str, int, str]) -> None:
    _, *kind = combination
    chosen = [case for name in FILES for case in of(name, *kind) if gateway.carries(case)]
    wrong = [complaint for case in chosen if (complaint := gateway.judge(case))]
    print(f"{len(chosen)} vectors")
    assert wrong == [], f"{len(wrong)} of {len(chosen)}\n" + "\n".join(wrong)
    assert gateway.unrouted or len(chosen) == sum(len(of(name, *kind)) for name in FILES)

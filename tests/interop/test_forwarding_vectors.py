"""Every engine forwards, refuses and hands on what tests/vectors/forwarding says, octet by octet on the wire."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from forwarding.engines import ENGINES
from forwarding.wire import Gateway
from vectors.forwarding.case import Case, read
from vectors.forwarding_make import DIRECTORY, FILES

from lab.bench.engine_needs import missing_for_engine

pytestmark = pytest.mark.root

CASES = {name: read((DIRECTORY / f"{name}.txt").read_text(encoding="utf-8")) for name in FILES}
LINKS = sorted({(case.outer, case.link) for cases in CASES.values() for case in cases})


def of(name: str, outer: int, link: str) -> list[Case]:
    return [case for case in CASES[name] if (case.outer, case.link) == (outer, link)]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=LINKS, ids=lambda param: f"{param[0]}-{param[1]}")
def kind(request: pytest.FixtureRequest) -> tuple[int, str]:
    return request.param


@pytest.fixture(scope="module")
def gateway(engine: str, kind: tuple[int, str]) -> Iterator[Gateway]:
    if missing := missing_for_engine():
        pytest.skip(missing)
    with Gateway(f"isx-vec{os.getpid()}", *kind, ENGINES[engine]) as made:
        yield made


def test_every_packet_has_its_outcome(gateway: Gateway, kind: tuple[int, str]) -> None:
    wrong = []
    count = 0
    for name in FILES:
        for case in of(name, *kind):
            count += 1
            if complaint := gateway.judge(case):
                wrong.append(complaint)
    assert wrong == [], f"{len(wrong)} of {count}\n" + "\n".join(wrong)

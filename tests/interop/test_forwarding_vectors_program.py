"""The programs of the fast data planes do what tests/vectors/forwarding says, or leave it to the socket.

No interface is needed: the kernel runs the programs on the frames. What they leave is as the vectors expect, because
the userspace engine is held to the same vectors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from forwarding.programs import TC, XDP, Program, Trial
from vectors.forwarding_make import load as load_vectors

from agent.net.bpf import object_path

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root"),
    pytest.mark.skipif(not object_path("gateway").exists(), reason="gateway.bpf.o is missing: `make bpf`"),
]

CASES = [case for case in load_vectors() if case.link == "ordinary"]


@pytest.fixture(params=[XDP, TC], ids=lambda program: program.name)
def program(request: pytest.FixtureRequest) -> Program:
    return request.param


@pytest.fixture(params=[4, 6])
def outer(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def trial(program: Program, outer: int) -> Iterator[Trial]:
    with Trial(program, outer, "ordinary") as made:
        yield made


def test_every_packet_is_decided_as_told_or_left_alone(trial: Trial, outer: int) -> None:
    wrong = [complaint for case in CASES if case.outer == outer and (complaint := trial.judge(case))]
    assert wrong == [], f"{len(wrong)}\n" + "\n".join(wrong)

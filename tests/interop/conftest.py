"""Labs for the interop tests: one a test, under a prefix of this process, gone afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from forwarding.planes import PLANES as ENGINE_PLANES

from agent.dataplane.fast.layout import Plane
from agent.net.bpf import BpfUnavailableError, load
from lab.namespaces import Lab, delete_abandoned
from lab.scenario import Scenario
from lab.topology import Topology

PREFIX = "islt"


@pytest.fixture(scope="session")
def _nothing_abandoned() -> None:
    delete_abandoned(PREFIX)


@pytest.fixture
def make_lab(_nothing_abandoned: None) -> Iterator[Callable[..., Lab]]:
    """Makes a lab of the sizes asked for."""
    with ExitStack() as stack:
        yield lambda **sizes: stack.enter_context(Lab(Topology(prefix=f"{PREFIX}{os.getpid()}", **sizes)))


QUICK_QUERIES = {"query_interval": 1.0, "query_response_interval": 0.5}
"""Keys of [relay] that make the waiting in tests short; recovery times scale with the query interval."""

QUICK_LISTENERS = """
[igmp]
query_interval = 4.0
query_response_interval = 1.0
startup_query_interval = 1.0

[mld]
query_interval = 4.0
query_response_interval = 1.0
startup_query_interval = 1.0
"""


@pytest.fixture
def make_scenario(make_lab: Callable[..., Lab], tmp_path: Path) -> Iterator[Callable[..., Scenario]]:
    """Makes a lab with a relay and a border agent running; `sizes` are the topology's, the rest the scenario's."""
    with ExitStack() as stack:

        def make(sizes: dict[str, int | bool] | None = None, **settings: Any) -> Scenario:
            relay = QUICK_QUERIES | settings.pop("relay", {})
            sections = QUICK_LISTENERS + settings.pop("sections", "")
            lab = make_lab(**(sizes or {}))
            return stack.enter_context(Scenario(lab, tmp_path, relay=relay, sections=sections, **settings))

        yield make


@pytest.fixture(scope="session")
def _no_programs() -> str:
    """Why the kernel does not run our programs; empty when it does."""
    try:
        load("gateway").close()
    except BpfUnavailableError as error:
        return str(error)
    return ""


@pytest.fixture(params=ENGINE_PLANES)
def plane(request: pytest.FixtureRequest, _no_programs: str) -> Plane | None:
    """The plane of the kernel under test, None for the userspace engine alone."""
    wanted = ENGINE_PLANES[request.param]
    if wanted is not None and _no_programs:
        pytest.skip(_no_programs)
    return wanted

"""Labs for the interop tests: one a test, under a prefix of this process, gone afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from lab.namespaces import Lab, delete_abandoned, missing_for_namespaces
from lab.topology import Topology

PREFIX = "islt"


@pytest.fixture(scope="session")
def _namespaces() -> None:
    if missing := missing_for_namespaces():
        pytest.skip("needs " + ", ".join(missing))
    delete_abandoned(PREFIX)


@pytest.fixture
def make_lab(_namespaces: None) -> Iterator[Callable[..., Lab]]:
    """Makes a lab of the sizes asked for."""
    with ExitStack() as stack:
        yield lambda **sizes: stack.enter_context(Lab(Topology(prefix=f"{PREFIX}{os.getpid()}", **sizes)))

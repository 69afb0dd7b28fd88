"""What a machine lacks is named and left out, and how slow it is does not matter.

Hypothesis has two profiles: `ci`, the same short run each time, and `long` (FUZZ_PROFILE=long), random and patient.

Two processes may share the tests (`-n 2`), most of which wait for something: each file, or folder of WHOLE, is for
one of them, in its order.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from lab.debian_kernel import machine
from lab.kernel_amt import guest
from lab.namespaces import missing_for_namespaces

COMMON = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}
settings.register_profile("ci", max_examples=100, stateful_step_count=40, derandomize=True, database=None, **COMMON)
settings.register_profile("long", max_examples=5000, stateful_step_count=100, **COMMON)
settings.load_profile(os.environ.get("FUZZ_PROFILE", "ci"))

LONG = ("interop", "crash", "acceptance", "docs", "secrets")
"""Folders that take long: processes that share the tests begin with them."""
WHOLE = frozenset({"acceptance"})
"""Folders for one process: one manager serves all stories."""


def _folder(node_id: str) -> str:
    return node_id.removeprefix("tests/").split("/", 1)[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Hand out whole files, and whole folders of WHOLE, in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = _folder(nodeid)
            return folder if folder in WHOLE else nodeid.split("::", 1)[0]

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what the machine has not what it needs for, and begin with what takes long where it is shared."""
    _skip_what_is_missing(items)
    if hasattr(config, "workerinput"):
        turns = {folder: turn for turn, folder in enumerate(LONG)}
        items.sort(key=lambda item: turns.get(_folder(item.nodeid), len(LONG)))


def _skip_what_is_missing(items: list[pytest.Item]) -> None:
    """Tests marked `root`, `uml` and `qemu`, where the machine has not what they need."""
    needs = {"root": missing_for_namespaces, "uml": guest.missing_to_boot, "qemu": machine.missing_to_boot}
    for marker, missing_here in needs.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and (missing := missing_here()):
            skip = pytest.mark.skip(reason="needs " + ", ".join(missing))
            for item in marked:
                item.add_marker(skip)

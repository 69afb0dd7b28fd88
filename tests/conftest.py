"""What a machine lacks is named and left out, and how slow it is does not matter.

Hypothesis has two profiles: `ci`, the same short run each time, and `long` (FUZZ_PROFILE=long), random and patient.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from lab.kernel_amt.guest import missing_to_boot
from lab.namespaces import missing_for_namespaces

COMMON = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}
settings.register_profile("ci", max_examples=100, stateful_step_count=40, derandomize=True, database=None, **COMMON)
settings.register_profile("long", max_examples=5000, stateful_step_count=100, **COMMON)
settings.load_profile(os.environ.get("FUZZ_PROFILE", "ci"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `root` and `uml` where the machine has not what they need."""
    for marker, missing_here in (("root", missing_for_namespaces), ("uml", missing_to_boot)):
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and (missing := missing_here()):
            skip = pytest.mark.skip(reason="needs " + ", ".join(missing))
            for item in marked:
                item.add_marker(skip)

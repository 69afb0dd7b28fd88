"""Two profiles: `ci`, the same short run each time, and `long` (FUZZ_PROFILE=long), random and patient."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

COMMON = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}
settings.register_profile("ci", max_examples=100, stateful_step_count=40, derandomize=True, database=None, **COMMON)
settings.register_profile("long", max_examples=5000, stateful_step_count=100, **COMMON)
settings.load_profile(os.environ.get("FUZZ_PROFILE", "ci"))

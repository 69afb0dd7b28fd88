"""What a machine lacks is named and left out, here for every test that says what it needs by a marker."""

from __future__ import annotations

import pytest

from lab.kernel_amt.guest import missing_to_boot
from lab.namespaces import missing_for_namespaces


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `root` and `uml` where the machine has not what they need."""
    for marker, missing_here in (("root", missing_for_namespaces), ("uml", missing_to_boot)):
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and (missing := missing_here()):
            skip = pytest.mark.skip(reason="needs " + ", ".join(missing))
            for item in marked:
                item.add_marker(skip)

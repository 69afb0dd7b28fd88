"""The engines that tests of the data plane run on: the userspace engine alone, or a plane of the kernel above it.

The fixture `plane` (tests/interop/conftest.py) goes through all of them; the marks here leave some out where they would
prove nothing.
"""

from __future__ import annotations

from typing import Final

import pytest

from agent.dataplane.fast.layout import Plane

PLANES: Final = {"userspace": None, "xdp": Plane.XDP, "xdp-mfc": Plane.XDP_MFC, "tc": Plane.TC}
"""By name; None for the userspace engine alone."""

FAST: Final = tuple(name for name, plane in PLANES.items() if plane is not None)

USERSPACE_ONLY: Final = pytest.mark.parametrize("plane", ["userspace"], indirect=True)
"""What is tested is done by the userspace engine in every plane, or has no other plane to it."""

EVERY_WAY: Final = pytest.mark.parametrize(
    ("plane", "segmentation"),
    [("userspace", True), ("userspace", False), *((name, True) for name in FAST)],
    indirect=["plane"],
    ids=["trains", "packet-by-packet", *FAST],
)
"""Each engine; how the tap device is written to matters to the userspace engine alone."""

_ONCE: Final = [("userspace", 4), ("userspace", 6), ("xdp", 4), ("xdp-mfc", 6), ("tc", 4)]

EACH_ONCE: Final = pytest.mark.parametrize(("plane", "version"), _ONCE, indirect=["plane"])
"""Each engine with one IP version, where both versions go the same way."""

EACH_OUTER_ONCE: Final = pytest.mark.parametrize(("plane", "outer"), _ONCE, indirect=["plane"])
"""The same for the IP version of the tunnel."""

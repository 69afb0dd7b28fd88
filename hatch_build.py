"""Hatchling's hook: a wheel brings the programs for the kernel compiled, an editable install compiles them in place."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent))
import bpf_build


class CompilePrograms(BuildHookInterface):  # type: ignore[type-arg]
    """Without clang the wheel is built all the same, and the agent forwards in userspace."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Compile before files are collected.

        Raises:
            CompileError: it does not succeed, and ISTHMUS_REQUIRE_BPF is 1.
        """
        root = Path(self.root)
        failures = bpf_build.compile_all(root)
        for source in failures:  # one of an older source would not fit the agent
            bpf_build.object_of(source).unlink(missing_ok=True)
        reasons = list(dict.fromkeys(failures.values()))
        if reasons and os.environ.get(bpf_build.REQUIRED) == "1":
            raise bpf_build.CompileError("\n".join(reasons))
        for reason in reasons:
            self.app.display_warning(f"built without fast engines, the agent will forward in userspace: {reason}")

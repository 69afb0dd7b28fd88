"""The bench's own BPF objects, lab/bpf, compiled when they are first needed."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

from agent.net.bpf import BpfObject, load

_SOURCES: Final = Path(__file__).resolve().parents[1] / "bpf"
_BUILT: Final = Path(__file__).resolve().parents[2] / ".cache" / "lab-bpf"


def missing_for_objects() -> list[str]:
    """What this machine lacks to compile them, in words."""
    return [] if shutil.which("clang") else ["the program clang"]


def lab_object(name: str) -> Path:
    """Path of an object of lab/bpf, compiled anew when a source is newer.

    Raises:
        RuntimeError: clang refused; the message is its own.
    """
    built = _BUILT / f"{name}.bpf.o"
    newest = max(path.stat().st_mtime for path in _SOURCES.glob("*.[ch]"))
    if built.exists() and built.stat().st_mtime >= newest:
        return built
    _BUILT.mkdir(parents=True, exist_ok=True)
    # Debian keeps asm/types.h in a directory of the architecture, which a BPF target does not search.
    headers = f"-I/usr/include/{platform.machine()}-linux-gnu"
    command = ["clang", "-target", "bpf", "-O2", "-g", "-Wall", "-Werror", headers]
    done = subprocess.run(
        [*command, "-c", str(_SOURCES / f"{name}.bpf.c"), "-o", str(built)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        raise RuntimeError(f"compiling {name}.bpf.c: {done.stderr.strip()}")
    return built


def load_lab(name: str, *programs: str) -> BpfObject:
    """Load an object of lab/bpf; all its programs, or those named.

    Raises:
        BpfUnavailableError: the kernel refuses it.
        RuntimeError: it cannot be compiled.
    """
    return load(lab_object(name), programs=programs or None)

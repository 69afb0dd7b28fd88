"""Compile the programs for the kernel: `python3 bpf_build.py [--optional]`, and for the build of the package.

Each `NAME.bpf.c` becomes `NAME.bpf.o` beside it unless that is newer than every source of its directory. It needs clang
and libbpf's headers, none of the kernel's own, and of Python the standard library.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DIRECTORIES = ("agent/dataplane/bpf", "lab/bpf")
REQUIRED = "ISTHMUS_REQUIRE_BPF"
"""Environment variable: "1" lets the package's build fail when the programs cannot be compiled."""

ADVICE = "apt install clang llvm libbpf-dev, then make bpf"
_FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter")
"""Parameters may be unused: what the kernel calls back (bpf_loop) has them whether wanted or not."""


class CompileError(Exception):
    """A program does not compile here; the message says why."""


def sources(root: Path = ROOT) -> list[Path]:
    """Every program's source."""
    return [source for directory in DIRECTORIES for source in sorted((root / directory).glob("*.bpf.c"))]


def object_of(source: Path) -> Path:
    """What a source is compiled into."""
    return source.with_suffix(".o")


def is_current(source: Path) -> bool:
    """Whether the object is newer than its source and all headers and sources that it may include."""
    target = object_of(source)
    if not target.exists():
        return False
    inputs = [Path(__file__), *(path for path in source.parent.iterdir() if path.suffix in {".c", ".h"})]
    return all(path.stat().st_mtime_ns < target.stat().st_mtime_ns for path in inputs)


def compile_source(source: Path, root: Path = ROOT) -> None:
    """Compile one source; the object is replaced at once, so that who loads it meanwhile gets one of the two.

    Raises:
        CompileError: there is no clang, or it refuses the source.
    """
    clang = shutil.which(os.environ.get("CLANG", "clang"))
    if clang is None:
        raise CompileError(f"there is no clang: {ADVICE}")
    target = object_of(source)
    with tempfile.TemporaryDirectory(prefix=".compile-", dir=target.parent) as directory:
        made = Path(directory) / target.name
        includes = [argument for path in _multiarch_headers() for argument in ("-isystem", str(path))]
        # Paths of this machine have no place in the object.
        command = [clang, *_FLAGS, f"-ffile-prefix-map={root}=.", *includes, "-c", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CompileError(f"{source.relative_to(root)}: {done.stderr.strip()}")
        strip = shutil.which("llvm-strip")
        if strip is not None:  # debugging information apart from BTF, three quarters of the size
            subprocess.run([strip, "-g", str(made)], check=True)
        made.replace(target)


def _multiarch_headers() -> Iterator[Path]:
    """Where Debian keeps <asm/types.h>, which clang looks for elsewhere when it compiles for the kernel."""
    machine = {"armv7l": "arm", "i686": "i386", "ppc64le": "powerpc64le"}.get(platform.machine(), platform.machine())
    names = (sysconfig.get_config_var("MULTIARCH"), f"{machine}-linux-gnu", f"{machine}-linux-gnueabihf")
    for name in dict.fromkeys(name for name in names if name):
        path = Path("/usr/include") / name
        if path.is_dir():
            yield path


def compile_all(root: Path = ROOT) -> dict[Path, str]:
    """Compile what is not current; why, by source, where that did not succeed."""
    failures = {}
    for source in sources(root):
        try:
            if not is_current(source):
                compile_source(source, root)
        except CompileError as error:
            failures[source] = str(error)
    return failures


def main() -> int:
    """Compile; with --optional tell what is left out and succeed."""
    parser = argparse.ArgumentParser(description="Compile the programs for the kernel.")
    parser.add_argument("--optional", action="store_true", help="succeed without what cannot be compiled")
    optional = parser.parse_args().optional
    failures = dict.fromkeys(compile_all().values())
    for reason in failures:
        print(f"not compiled, fast engines are left out: {reason}", file=sys.stderr)
    return 0 if optional or not failures else 1


if __name__ == "__main__":
    sys.exit(main())

"""Compiling the programs for the kernel: only what is not current, all or nothing, and without clang in clear words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

import bpf_build

SOURCE = '#include "value.h"\nint value = VALUE;\n'
needs_clang = pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")


@pytest.fixture
def tree(tmp_path):
    """A package with one program and its header."""
    directory = tmp_path / "agent" / "dataplane" / "bpf"
    directory.mkdir(parents=True)
    (directory / "value.h").write_text("#define VALUE 1\n")
    (directory / "one.bpf.c").write_text(SOURCE)
    return directory


@needs_clang
def test_a_program_is_compiled_beside_its_source(tree, tmp_path):
    assert bpf_build.compile_all(tmp_path) == {}
    assert (tree / "one.bpf.o").read_bytes().startswith(b"\x7fELF")
    assert sorted(path.name for path in tree.iterdir()) == ["one.bpf.c", "one.bpf.o", "value.h"]


@needs_clang
def test_a_changed_header_makes_an_object_stale(tree, tmp_path):
    source = tree / "one.bpf.c"
    bpf_build.compile_all(tmp_path)
    made = bpf_build.object_of(source)
    later = time.time() + 100
    os.utime(made, (later, later))
    assert bpf_build.is_current(source)
    os.utime(tree / "value.h", (later + 1, later + 1))
    assert not bpf_build.is_current(source)


@needs_clang
def test_what_does_not_compile_leaves_the_former_object_and_is_explained(tree, tmp_path):
    bpf_build.compile_all(tmp_path)
    made = bpf_build.object_of(tree / "one.bpf.c")
    former = made.read_bytes()
    os.utime(made, (1, 1))
    (tree / "value.h").write_text("#define VALUE nonsense\n")
    failures = bpf_build.compile_all(tmp_path)
    assert "nonsense" in failures[tree / "one.bpf.c"]
    assert made.read_bytes() == former
    assert sorted(path.name for path in tree.iterdir()) == ["one.bpf.c", "one.bpf.o", "value.h"]


@needs_clang
def test_no_object_names_a_path_of_the_machine_it_was_made_on(tree, tmp_path):
    bpf_build.compile_all(tmp_path)
    assert str(tmp_path).encode() not in (tree / "one.bpf.o").read_bytes()


def test_without_clang_it_says_what_to_install(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("CLANG", "no-such-compiler")
    failures = bpf_build.compile_all(tmp_path)
    assert failures == {tree / "one.bpf.c": f"there is no clang: {bpf_build.ADVICE}"}
    assert not (tree / "one.bpf.o").exists()


@pytest.mark.parametrize(("arguments", "status"), [([], 1), (["--optional"], 0)])
def test_the_command_fails_without_clang_unless_programs_are_optional(tree, tmp_path, arguments, status):
    shutil.copy(bpf_build.__file__, tmp_path)
    command = [sys.executable, str(tmp_path / "bpf_build.py"), *arguments]
    environment = os.environ | {"CLANG": "no-such-compiler"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == status
    assert done.stderr == f"not compiled, fast engines are left out: there is no clang: {bpf_build.ADVICE}\n"

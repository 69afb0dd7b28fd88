"""What the loader says where something is missing. Nothing here needs privileges."""

import subprocess
import sys

import pytest

from agent.net.bpf import BpfMap, BpfUnavailableError, MapKind, load, object_path
from agent.net.bpf.support import missing_library

needs_libbpf = pytest.mark.skipif(bool(missing := missing_library()), reason=f"{missing}")


def test_without_the_object_it_says_how_to_build_it():
    with pytest.raises(BpfUnavailableError, match=r"nothing\.bpf\.o cannot be read .*make bpf"):
        load("nothing")
    assert object_path("gateway").name == "gateway.bpf.o"


def test_without_libbpf_it_says_what_to_install(tmp_path):
    code = (
        "import agent.net.bpf.library as library; library.NAME = 'libbpf-not-there.so'\n"
        "from agent.net.bpf import BpfUnavailableError, load\n"
        "import pathlib, sys\n"
        "try: load(pathlib.Path(sys.argv[1]))\n"
        "except BpfUnavailableError as error: print(error)"
    )
    path = tmp_path / "any.bpf.o"
    path.write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=30, check=True)
    assert "apt install libbpf1" in done.stdout


@needs_libbpf
@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"no object", b"\x7fELF" + bytes(200)])
def test_a_broken_object_is_refused_with_its_path(tmp_path, content):
    path = tmp_path / "broken.bpf.o"
    path.write_bytes(content)
    with pytest.raises(BpfUnavailableError, match=r"broken\.bpf\.o is no object"):
        load(path)


@needs_libbpf
@pytest.mark.skipif(not object_path("gateway").exists(), reason="needs gateway.bpf.o, which `make bpf` builds")
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_object_is_refused(tmp_path, part):
    whole = object_path("gateway").read_bytes()
    path = tmp_path / "cut.bpf.o"
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(BpfUnavailableError, match=r"cut\.bpf\.o is no object"):
        load(path)


@needs_libbpf
@pytest.mark.skipif(not object_path("gateway").exists(), reason="needs gateway.bpf.o, which `make bpf` builds")
def test_unknown_maps_and_programs_are_mistakes_of_the_caller():
    with pytest.raises(ValueError, match="the object has no nowhere"):
        load("gateway", entries={"nowhere": 1})
    with pytest.raises(ValueError, match="the object has no nobody"):
        load("gateway", programs={"nobody"})


@needs_libbpf
def test_keys_and_values_of_another_size_never_reach_the_kernel():
    table = BpfMap(-1, MapKind.HASH, "table", 4, 8, 1)
    for key, value in ((b"123", bytes(8)), (b"1234", bytes(7)), (b"12345", bytes(8))):
        with pytest.raises(ValueError, match="map table"):
            table.update(key, value)
    with pytest.raises(ValueError, match="key of map table"):
        table.lookup(b"")

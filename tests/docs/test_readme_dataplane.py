"""The README's chapter on fast data planes: what it has one write is taken, and what it names is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.service.config import EngineChoice, parse

README = Path(__file__).parents[2] / "README.md"
CHAPTER = README.read_text().split("## Fast data planes\n", 1)[1].split("\n## ", 1)[0]
BLOCKS = [
    "".join(line[4:] for line in block.splitlines(keepends=True))
    for block in re.findall(r"(?:^    .*\n|^\n(?=    \[))+", CHAPTER, re.MULTILINE)
]
GATEWAY = 'role = "gateway"\n[gateway]\ndownstream = "eth1"\n'
RELAY = '[[gateway.relay]]\naddress = "192.0.2.1"\n'


def sections():
    return [block.strip() for block in BLOCKS if block.lstrip().startswith("[")]


def test_its_sections_are_configurations():
    written = [parse(GATEWAY + ("" if "gateway.relay" in text else RELAY) + text) for text in sections()]
    assert [each.dataplane.receive_cores for each in written] == [0, 4]
    assert [each.gateway.relay[0].tunnels for each in written] == [1, 4]


def test_every_engine_has_its_row():
    assert set(re.findall(r"^\| `([a-z-]+)` \|", CHAPTER, re.MULTILINE)) - {"engine"} == {
        choice.value for choice in EngineChoice
    }


@pytest.mark.parametrize("command", sorted(set(re.findall(r"amt-agent ([a-z]+)", CHAPTER))))
def test_every_command_of_ours_is_there(command):
    assert CliRunner().invoke(main, [*shlex.split(command), "--help"]).exit_code == 0

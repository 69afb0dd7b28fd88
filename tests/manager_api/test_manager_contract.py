"""The committed specification is the one the code makes, says everything, and the documentation names every code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from relaymgr.api.codes import CODES
from relaymgr.api.contract import contract, contract_text
from relaymgr.drivers import errors

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "openapi" / "relaymgr.yaml"


def test_the_committed_specification_is_current() -> None:
    assert COMMITTED.read_text() == contract_text(), "python -m relaymgr.api > openapi/relaymgr.yaml"
    assert yaml.safe_load(COMMITTED.read_text()) == contract()


def properties() -> Iterator[tuple[str, dict[str, Any]]]:
    document = contract()
    for name, schema in document["components"]["schemas"].items():
        for member, described in schema.get("properties", {}).items():
            yield f"{name}.{member}", described
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for parameter in operation.get("parameters", []):
                if "$ref" not in parameter:
                    yield f"{method} {path} {parameter['name']}", parameter


def test_every_member_and_parameter_is_described() -> None:
    missing = [name for name, described in properties() if not described.get("description")]
    assert missing == []


def test_every_member_has_an_example() -> None:
    def shown(described: dict[str, Any]) -> bool:
        if described.get("examples") or "example" in described or described.get("schema", {}).get("examples"):
            return True
        inner = [described, described.get("schema", {}), described.get("items", {})]
        parts = [part for one in inner for part in (one, *one.get("anyOf", []), *one.get("allOf", []))]
        return any("$ref" in part or part.get("examples") or "$ref" in part.get("items", {}) for part in parts)

    missing = [name for name, described in properties() if not shown(described)]
    assert missing == []


def test_every_operation_is_told_apart_and_answers_problems() -> None:
    document = contract()
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    identifiers = [operation["operationId"] for operation in operations]
    assert len(set(identifiers)) == len(identifiers)
    for operation in operations:
        assert operation["description"], operation["operationId"]
        assert "500" in operation["responses"]
        for status, answer in operation["responses"].items():
            assert answer["description"]
            if int(status) >= 400 and operation["operationId"] != "get_readiness":
                assert list(answer["content"]) == ["application/problem+json"], (operation["operationId"], status)


def test_every_code_is_documented() -> None:
    text = (ROOT / "docs" / "manager-api.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \| (.+) \|$", text, re.MULTILINE)
    assert {(code, int(status), meaning) for code, status, meaning in rows} == {
        (code, known.status, known.meaning) for code, known in CODES.items()
    }


def test_codes_of_other_layers_are_known() -> None:
    drivers = {error.code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "code")}
    assert drivers <= CODES.keys()
    raised: set[str] = set()
    for path in (ROOT / "relaymgr" / "jobs").glob("*.py"):
        raised |= set(re.findall(r"(?:Conflict|Invalid|NotFound)\(\s*\"([a-z_]+)\"", path.read_text()))
    for path in (ROOT / "relaymgr" / "store").glob("*.py"):
        raised |= set(re.findall(r"^    code = \"([a-z_]+)\"", path.read_text(), re.MULTILINE))
    assert raised
    assert raised <= CODES.keys()


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_is_raised_somewhere(code: str) -> None:
    sources = [*(ROOT / "relaymgr").rglob("*.py")]
    found = sum(f'"{code}"' in path.read_text() for path in sources)
    assert found > 1, "a code nobody raises misleads"

"""The OpenAPI document, as committed in openapi/relaymgr.yaml."""

from __future__ import annotations

import json
from typing import Any, Final, cast

from relaymgr.api.app import create_app
from relaymgr.api.services import Services
from relaymgr.settings import Settings

_HEADER: Final = "# Generated: python -m relaymgr.api > openapi/relaymgr.yaml\n"
_RESERVED: Final = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


def contract() -> dict[str, Any]:
    """The OpenAPI document; nothing runs for it, only the routes are looked at."""
    nothing = cast("Any", None)
    services = Services(
        database=nothing,
        settings=Settings(),
        sealer=nothing,
        planner=nothing,
        jobs=nothing,
        rollouts=nothing,
        drift=nothing,
        access=nothing,
        scan_host_key=nothing,
    )
    return create_app(services).openapi()


def contract_text() -> str:
    """The document as YAML."""
    return _HEADER + "".join(f"{line}\n" for line in _lines(contract(), 0))


def _lines(value: object, depth: int) -> list[str]:
    """Block YAML of a JSON document; strings are quoted as in JSON, which YAML 1.2 reads the same."""
    indent = "  " * depth
    lines: list[str] = []
    if isinstance(value, dict):
        for key, item in value.items():
            name = key if key.isidentifier() and key not in _RESERVED else json.dumps(key)
            lines += _entry(f"{indent}{name}:", item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict | list) and item:
                nested = _lines(item, depth + 1)
                lines += [f"{indent}- {nested[0].lstrip()}", *nested[1:]]
            else:
                lines.append(f"{indent}- {json.dumps(item, ensure_ascii=False)}")
    return lines


def _entry(start: str, item: object, depth: int) -> list[str]:
    if isinstance(item, dict | list) and item:
        return [start, *_lines(item, depth)]
    return [f"{start} {json.dumps(item, ensure_ascii=False)}"]

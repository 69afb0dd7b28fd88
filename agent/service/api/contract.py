"""The OpenAPI document, as committed in openapi/agent.yaml."""

from __future__ import annotations

import json
from typing import Any, cast

from agent.service.api.app import create_app
from agent.service.configuration_store import ConfigurationStore
from agent.service.port import AgentService

_HEADER = "# Generated: python -m agent.service.api > openapi/agent.yaml\n"


def contract() -> dict[str, Any]:
    """The OpenAPI document; no agent is needed, only the routes are looked at."""
    app = create_app(cast("AgentService", None), cast("ConfigurationStore", None))
    return app.openapi()


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
            if _is_block(item):
                nested = _lines(item, depth + 1)
                lines += [f"{indent}- {nested[0].lstrip()}", *nested[1:]]
            else:
                lines.append(f"{indent}- {_scalar(item)}")
    return lines


_RESERVED = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


def _entry(start: str, item: object, depth: int) -> list[str]:
    return [start, *_lines(item, depth)] if _is_block(item) else [f"{start} {_scalar(item)}"]


def _is_block(value: object) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _scalar(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)

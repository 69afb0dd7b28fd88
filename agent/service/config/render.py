"""Configuration to TOML: the whole of one for storing, and the commented defaults for learning."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from agent.service.config.sections import Configuration
from agent.service.model import Role

_WIDTH = 100
_UNUSED = {
    Role.GATEWAY: {"relay"},
    Role.RELAY: {"gateway", "igmp", "mld", "pim", "frr", "discovery", "failover", "policy"},
}


def render(configuration: Configuration) -> str:
    """TOML of everything in a configuration that was set, without comments; parsing it gives the same again."""
    return table_text(configuration.model_dump(mode="json", exclude_unset=True, exclude_none=True))


def table_text(values: Mapping[str, Any]) -> str:
    """TOML of nested mappings with string, number, boolean, array and array-of-tables values."""
    return "\n".join(_table(values, "")).strip() + "\n"


def show_defaults(role: Role = Role.GATEWAY) -> str:
    """A file for `role` with every key, its meaning and its default; it parses, and what it must name are examples."""
    lines = [
        "# Configuration of amt-agent. Every key is shown with its default.",
        "# Keys without a default are shown with an example, and those that may be left out are commented.",
        "",
        *_field_lines("role", Configuration.model_fields["role"], role.value),
    ]
    for name, field in Configuration.model_fields.items():
        model = field.annotation
        if name == "role" or name in _UNUSED[role]:
            continue
        assert isinstance(model, type)
        lines.extend(_section_lines(name, model, needed=name == role.value))
    return "\n".join(lines) + "\n"


def _section_lines(name: str, model: type[BaseModel], *, needed: bool) -> Iterator[str]:
    yield ""
    yield from _comment((model.__doc__ or "").split("\n\n")[0])
    yield f"[{name}]"
    tables: list[tuple[str, type[BaseModel]]] = []
    for key, field in model.model_fields.items():
        item = _item_model(field.annotation)
        if item is not None:
            tables.append((key, item))
        else:
            yield from _field_lines(key, field, needed=needed)
    for key, item in tables:
        yield ""
        yield from _comment((item.__doc__ or "").replace("\n\n", " "))
        optional = key in {"join", "rule"}
        for line in (f"[[{name}.{key}]]", *(x for k, f in item.model_fields.items() for x in _field_lines(k, f))):
            yield f"# {line}" if optional and not line.startswith("#") else line


def _field_lines(key: str, field: FieldInfo, value: object = None, *, needed: bool = True) -> Iterator[str]:
    yield from _comment(field.description or "")
    default = field.get_default(call_default_factory=True) if value is None else value
    example = field.examples[0] if field.examples else None
    if default is PydanticUndefined:
        yield f"{key} = {_value(example)}"
    elif default == () and example is not None and needed:
        prefix = "" if key in {"downstream", "interfaces", "address"} else "# "
        yield f"{prefix}{key} = {_value(example)}"
    elif default is None:
        yield f"# {key} = {_value(example)}"
    else:
        yield f"{key} = {_value(_plain(default))}"


def _item_model(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 any annotation of a field
    arguments = getattr(annotation, "__args__", ())
    first = arguments[0] if arguments else None
    return first if isinstance(first, type) and issubclass(first, BaseModel) else None


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), _WIDTH)]


def _plain(value: object) -> object:
    """A default as TOML knows it; a list of one is written as that one."""
    if hasattr(value, "value"):
        return value.value
    if isinstance(value, tuple):
        items = [_plain(item) for item in value]
        return items[0] if len(items) == 1 else items
    return value if isinstance(value, bool | int | float | str) else str(value)


def _table(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Scalars first, then tables, then arrays of tables, as TOML needs it."""
    for key, value in values.items():
        if not isinstance(value, Mapping) and not _is_table_array(value):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in values.items():
        path = f"{prefix}{_key(key)}"
        if isinstance(value, Mapping):
            yield f"\n[{path}]"
            yield from _table(value, f"{path}.")
        elif _is_table_array(value):
            for item in value:
                yield f"\n[[{path}]]"
                yield from _table(item, f"{path}.")


def _is_table_array(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else _string(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Sequence):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {_value(item)}" for key, item in value.items()) + " }"
    raise TypeError(f"TOML has no {type(value).__name__}")


def _string(value: str) -> str:
    """A basic string: JSON's escapes are TOML's, but TOML wants DEL escaped and has no lone surrogates."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

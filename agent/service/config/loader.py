"""TOML text to a checked Configuration, or all of its faults with their lines."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agent.service.config.checks import Finding, check_files, check_role, check_section
from agent.service.config.errors import ConfigurationError, Fault
from agent.service.config.lines import KeyPath, line_of, locate
from agent.service.config.sections import Configuration

SIZE_LIMIT: Final = 1_048_576  # bytes of a configuration; the largest sensible one is a tenth of it

_SYNTAX_POSITION: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_MESSAGES: Final = {
    "missing": "is required",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "finite_number": "must be finite",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "tuple_type": "must be an array of tables",
    "too_short": "must not be empty",
}


def load(path: Path) -> Configuration:
    """Read and check a configuration file, and that the files it names can be read.

    Raises:
        ConfigurationError: with every fault of the file.
    """
    return parse(read(path), str(path), with_files=True)


def read(path: Path) -> str:
    """Text of a configuration file.

    Raises:
        ConfigurationError: it cannot be read, is too large or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise ConfigurationError(str(path), [Fault(1, "", f"cannot be read: {error.strerror}")]) from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(str(path), [Fault(line, "", "is not UTF-8 text")]) from error


def parse(text: str, origin: str = "configuration", *, with_files: bool = False) -> Configuration:
    """Check the text of a configuration.

    Args:
        text: TOML.
        origin: what error messages call it.
        with_files: also check that token and TLS files can be read.

    Raises:
        ConfigurationError: with every fault found.
    """
    if len(text) > SIZE_LIMIT:
        raise ConfigurationError(origin, [Fault(1, "", f"is larger than {SIZE_LIMIT} bytes")])
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(origin, [_syntax_fault(str(error), text)]) from error
    except RecursionError as error:
        raise ConfigurationError(origin, [Fault(1, "", "is nested too deeply")]) from error
    findings, configuration = _validate(values)
    if configuration is not None and with_files:
        findings.extend(check_files(configuration))
    if findings or configuration is None:
        lines = locate(text)
        raise ConfigurationError(origin, [Fault(line_of(path, lines), dotted(path), why) for path, why in findings])
    return configuration


def dotted(path: KeyPath) -> str:
    """A key path as it is written: `gateway.relay[0].address`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def _validate(values: dict[str, Any]) -> tuple[list[Finding], Configuration | None]:
    """Types of everything, then meaning of every section whose types are right, then what the role needs."""
    findings: list[Finding] = []
    configuration: Configuration | None = None
    try:
        configuration = Configuration.model_validate(values)
    except ValidationError as error:
        findings.extend(_outermost(error))
    wrong = {path[0] for path, _ in findings}
    for name, field in Configuration.model_fields.items():
        section = field.annotation
        if name in wrong or name not in values or not (isinstance(section, type) and issubclass(section, BaseModel)):
            continue
        findings.extend(check_section(name, section.model_validate(values[name])))
    if configuration is not None:
        reported = {path[:2] for path, _ in findings}
        findings.extend(item for item in check_role(configuration) if item[0] not in reported)
    return findings, configuration


def _outermost(error: ValidationError) -> list[Finding]:
    """Findings of pydantic, without "too short" for a list whose elements were refused."""
    details = error.errors(include_url=False, include_context=False)
    parents = {item["loc"][:-1] for item in details}
    return [_finding(item) for item in details if item["type"] != "too_short" or item["loc"] not in parents]


def _finding(details: ErrorDetails) -> Finding:
    path = tuple(details["loc"])
    kind = details["type"]
    if kind == "extra_forbidden":
        return path, _unknown_key(path)
    if kind in _MESSAGES:
        return path, _MESSAGES[kind]
    message = details["msg"].removeprefix("Value error, ")
    value = details["input"]
    if not isinstance(value, str | int | float):
        return path, _sentence(message)
    shown = repr(value) if len(repr(value)) < 80 else repr(value)[:80] + "…"
    _, _, last = dotted(path).rpartition(".")
    return path, message if str(value) in message or last in message else f"{shown} {_predicate(message)}"


def _predicate(message: str) -> str:
    """Turn pydantic's `Input should be …` into a predicate that follows the value."""
    return re.sub(r"^Input (should|must) be", "must be", message)


def _sentence(message: str) -> str:
    return re.sub(r"^(Input|Tuple|List|Data|Value) (should|must)", "must", message)


def _unknown_key(path: KeyPath) -> str:
    names = valid_keys(path[:-1])
    nearest = difflib.get_close_matches(str(path[-1]).lower(), names, n=1, cutoff=0.0)
    return f"unknown key; the nearest valid one is {nearest[0]!r}" if nearest else "unknown key"


def valid_keys(table: KeyPath) -> list[str]:
    """Keys a table of the file may have."""
    model: type[BaseModel] = Configuration
    for key in table:
        if isinstance(key, int):
            continue
        model = _model_in(model.model_fields[key].annotation)
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel]:  # noqa: ANN401 any annotation of a field
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found: type[BaseModel] = annotation.__args__[0]  # tuple[Model, ...]
    return found


def _syntax_fault(message: str, text: str) -> Fault:
    found = _SYNTAX_POSITION.search(message)
    line = int(found.group(1)) if found and found.group(1) else text.count("\n") + 1
    return Fault(line, "", f"is not TOML: {_SYNTAX_POSITION.sub('', message)}")

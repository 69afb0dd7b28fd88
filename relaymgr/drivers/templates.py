"""Templates of device configuration: Jinja2, where a name that is not given is an error."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

_IN_A_WHEEL = Path(__file__).parent.parent / "templates"
_IN_A_CHECKOUT = Path(__file__).parent.parent.parent / "templates"


def directory() -> Path:
    """The folder of templates: `ISTHMUS_TEMPLATES`, else the one of this installation."""
    override = os.environ.get("ISTHMUS_TEMPLATES")
    if override:
        return Path(override)
    return _IN_A_WHEEL if _IN_A_WHEEL.is_dir() else _IN_A_CHECKOUT


@cache
def _environment(folder: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        autoescape=select_autoescape(enabled_extensions=("xml.j2",), default_for_string=False),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(name: str, /, **values: object) -> str:
    """The text of template `name` (`junos/amt.xml.j2`), XML-escaped for Junos, raw for command lines.

    Raises jinja2.UndefinedError where the template names a value that is not given.
    """
    return _environment(directory()).get_template(name).render(**values)

"""Logs on standard error, one line a record: logfmt for people, JSON for collectors.

Anything given in `extra` becomes a field. Libraries that talk to devices are kept silent: some of them write what they
send, configuration and all, and what went wrong comes up as an error of ours anyway.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

_STANDARD: Final = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_PLAIN: Final = re.compile(r"[^\s\"=\x00-\x1f\x7f]+")
_QUIET: Final = ("httpx", "httpcore", "uvicorn", "asyncio", "alembic", "sqlalchemy", "procrastinate", "psycopg")
_SILENT: Final = ("paramiko", "ncclient", "asyncssh", "jnpr", "netmiko")


def configure(level: str = "info", *, as_json: bool = False, stream: TextIO | None = None) -> None:
    """Send every record of the process to `stream` (standard error), in place of what was configured before."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if as_json else LogfmtFormatter())
    root = logging.getLogger()
    for existing in list(root.handlers):
        root.removeHandler(existing)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says, in order: time, level, logger, message, extra fields, exception."""
    found: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    found.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
    if record.exc_info:
        found["exception"] = logging.Formatter().formatException(record.exc_info)
    return found


class LogfmtFormatter(logging.Formatter):
    """`key=value`, values quoted as JSON strings where they hold blanks; always one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return " ".join(f"{key}={_value(value)}" for key, value in fields(record).items())


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return json.dumps(fields(record), default=str)


def _value(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)

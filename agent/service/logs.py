"""Logs on standard error: logfmt for people, JSON for collectors, and each reason once in a while.

Anything given in `extra` becomes a field. Records of the same logger, level and reason (the field `reason`, else the
message before its arguments are filled in) are written once per interval; the next one written carries `suppressed`,
the number left out. Errors and worse are never left out.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from agent.service.config import LogFormat, LogSection

_STANDARD: Final = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN: Final = re.compile(r"[^\s\"=\x00-\x1f\x7f]+")
_REASON_LIMIT: Final = 1000
"""Reasons remembered; beyond it the oldest are forgotten, and may be written again early."""
_BURST: Final = 50
"""Times a message without a reason is written per interval."""
_QUIET: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "pyroute2", "httpx", "httpcore")


def configure(section: LogSection, stream: TextIO | None = None) -> None:
    """Send every log record of the process to `stream` (standard error), in place of what was configured before."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if section.format is LogFormat.JSON else LogfmtFormatter())
    handler.addFilter(RateLimit(section.repeat_interval))
    root = logging.getLogger()
    for existing in list(root.handlers):
        root.removeHandler(existing)
    root.addHandler(handler)
    root.setLevel(section.level.value.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
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
    """`key=value` pairs, quoted where they must be; one line whatever the values hold."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        return " ".join(f"{key}={_quoted(value)}" for key, value in fields(record).items())


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        return json.dumps(fields(record), ensure_ascii=False, default=str)


@dataclass(slots=True)
class _Repetition:
    since: float
    written: int = 1
    suppressed: int = 0


class RateLimit(logging.Filter):
    """Lets a reason through once per interval, and a message without one a burst of times; counts the rest.

    A record with `reason` says the same thing again and again about different packets. One without is about an event,
    and many events at once are worth reading until they are a flood.
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`interval` in seconds of `clock`."""
        super().__init__()
        self._interval = interval
        self._clock = clock
        self._seen: dict[tuple[str, int, str], _Repetition] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the record; adds `suppressed` to it when others were left out before."""
        if record.levelno >= logging.ERROR:
            return True
        extra: Mapping[str, Any] = vars(record)
        key = (record.name, record.levelno, str(extra.get("reason", record.msg)))
        now = self._clock()
        seen = self._seen.get(key)
        if seen is not None and now - seen.since < self._interval:
            if seen.written >= (1 if "reason" in extra else _BURST):
                seen.suppressed += 1
                return False
            seen.written += 1
            return True
        if seen is not None and seen.suppressed:
            record.suppressed = seen.suppressed
        self._seen.pop(key, None)
        self._seen[key] = _Repetition(now)
        if len(self._seen) > _REASON_LIMIT:
            del self._seen[next(iter(self._seen))]
        return True


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)

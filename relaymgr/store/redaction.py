"""Takes secrets out of what is about to be written down, by name of the key and by look of the value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

REDACTED = "[redacted]"

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase|code)|^pass$|secret|token|private[-_ ]?key|api[-_ ]?key|authori[sz]ation|cookie|credential$"
    r"|^(sealed|community|psk|pre[-_ ]?shared[-_ ]?key|bearer|sha256)$",
    re.IGNORECASE,
)
_NOT_SECRET_KEY = re.compile(
    r"(_|-|^)(id|ids|name|kind|prefix|expires_at|source|reference|file|tokens?_count)$", re.IGNORECASE
)
_SECRET_TEXT = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"\bist_[A-Za-z0-9_-]{16,}"),
    re.compile(r"\$(?:1|5|6|8|9|argon2id?|2[aby])\$[^\s\";]+"),
    re.compile(r"(?<=://)([^\s/:@]*):[^\s/@]+(?=@)"),
    re.compile(r"(?i)\bbearer\s+[A-Za-z0-9._~+/=-]{8,}"),
)


def redact(value: Any) -> Any:  # noqa: ANN401, PLR0911 - any JSON in, the same shape out
    """A copy fit for JSON with secrets replaced by `[redacted]`; absent ones (None, empty) are seen to be absent."""
    if isinstance(value, Mapping):
        return {str(key): _redact_item(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [redact(item) for item in items]
    if isinstance(value, Enum):
        return redact(value.value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return REDACTED
    return redact_text(str(value))


def redact_text(text: str) -> str:
    """The text without private keys, tokens, password hashes and passwords in URLs."""
    for pattern in _SECRET_TEXT:
        text = pattern.sub(REDACTED, text)
    return text


def _redact_item(key: str, value: Any) -> Any:  # noqa: ANN401
    if value is None or value in ("", [], {}) or isinstance(value, bool):
        return redact(value)
    if _SECRET_KEY.search(key) and not _NOT_SECRET_KEY.search(key):
        return REDACTED
    return redact(value)

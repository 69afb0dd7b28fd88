"""Words in which Junos refuses, to errors."""

from __future__ import annotations

import re

from relaymgr.drivers.errors import ConfigurationRefused, DeviceBusy, DriverError

_LOCKED = re.compile(r"database locked by:?\s*(?P<holder>\S+)?", re.IGNORECASE)
_MODIFIED = re.compile(r"configuration database (?:is )?modified|uncommitted changes", re.IGNORECASE)
_SECRET = re.compile(r"\$(?:1|5|6|8|9|14)\$\S+|(?<=secret )\S+|(?<=key )\"[^\"]*\"", re.IGNORECASE)


def masked(text: str) -> str:
    """`text` without what looks like a secret."""
    return _SECRET.sub("(secret)", text)


def refusal(
    device: str, message: str, *, path: str | None = None, tag: str | None = None, element: str | None = None
) -> DriverError:
    """DeviceBusy when somebody else holds the configuration, ConfigurationRefused otherwise.

    Args:
        device: Its name.
        message: error-message as the device wrote it.
        path: error-path.
        tag: error-tag.
        element: bad-element.
    """
    words = " ".join(message.split()) or "refused without a word"
    if element and element.strip() and element.strip() not in words:
        words = f"{words}: {element.strip()}"
    words = masked(words)
    locked = _LOCKED.search(words)
    if locked is not None or tag in {"lock-denied", "in-use"}:
        holder = locked["holder"] if locked is not None else None
        return DeviceBusy(device, f"the configuration is locked: {words}", holder)
    if _MODIFIED.search(words):
        return DeviceBusy(device, "somebody has uncommitted changes in the shared candidate configuration")
    return ConfigurationRefused(device, words, masked(" ".join(path.split())) if path else None)

"""Takes secrets out of configuration lines before anybody sees them.

Rather a word too many than one too few: whatever follows one of the vendors' words for a secret is masked.
"""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "<secret>"

_XML = (
    r"(?P<head><(?P<tag>[\w-]*(?:password|secret|authentication-key|auth-key|private-key|community-name|ascii-text|"
    r"hexadecimal))(?:\s[^>]*)?>)(?P<body>[^<]+)"
)
_JUNOS = (
    r"(?P<head>\b(?:encrypted-password|plain-text-password-value|authentication-key|secret|ascii-text|hexadecimal|"
    r"auth-key|pre-shared-key|simple-password|md5-key|private-key|key-string|passphrase|ssh-(?:rsa|dsa|ecdsa|ed25519))"
    r"\s+(?:\d\s+)?)(?P<body>\"[^\"]*\"|[^;]+?)(?=\s*;|\s*$)"
)
_IOS = (
    r"(?P<head>\b(?:key\s+\d+\s+md5|password|key|md5|wpa-psk|tacacs-key)\s+(?:ascii\s+|encryption\s+)?(?:\d\s+)?)"
    r"(?P<body>(?!\"?<secret>)[^\s;]+)"
)
_COMMUNITY = r"(?P<head>\bsnmp(?:-server)?\s+community\s+|^[+\-\s]*community\s+(?=\S+\s*\{))(?P<body>[^\s;]+)"
_ASSIGNED = r"""(?P<head>["']?\w*(?:password|secret|token|passphrase|private_key|api_key)["']?\s*[=:]\s*)(?P<body>.+)"""
_CIPHER = r"(?P<head>)(?P<body>\$(?:1|5|6|8|9)\$[^\s\"';<]+)"

_PATTERNS: Final = tuple(
    re.compile(pattern, re.IGNORECASE) for pattern in (_XML, _JUNOS, _IOS, _COMMUNITY, _ASSIGNED, _CIPHER)
)
_PEM: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)


def mask(line: str) -> str:
    """The line with what looks like a secret replaced."""
    for pattern in _PATTERNS:
        line = pattern.sub(_hide, line)
    return line


def mask_text(text: str) -> str:
    """All lines masked; a block of a private key is replaced as a whole."""
    return "\n".join(mask(line) for line in _PEM.sub(MASK, text).split("\n"))


def _hide(match: re.Match[str]) -> str:
    body = match["body"]
    return match["head"] + (f'"{MASK}"' if body.startswith('"') else MASK)

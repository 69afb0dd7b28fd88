"""Parameters many routes have."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Path

PathId = Annotated[
    str,
    Path(min_length=1, max_length=64, description="Identifier.", examples=["019a3f0c77e2a1b2c3d4e5f60718293a"]),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="Chosen by the caller; the same request with the same key makes one job, also after a lost answer.",
        examples=["2f1c2f9e-64b5-4c53-9a36-0c1f5a7f4f0e"],
    ),
]

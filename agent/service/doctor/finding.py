"""What a check says."""

from __future__ import annotations

from enum import Enum

from pydantic import BaseModel, ConfigDict, Field


class Verdict(Enum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


class Finding(BaseModel):
    """One check of the host."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="What was checked; stable, for programs.")
    verdict: Verdict = Field(
        description="`fail`: the agent cannot work so; `warn`: something will not work well; `unknown`: could not see."
    )
    seen: str = Field(description="What was found.")
    advice: str = Field(default="", description="What to do; empty when nothing needs to be done.")


def ok(name: str, seen: str) -> Finding:
    """Nothing to do."""
    return Finding(name=name, verdict=Verdict.OK, seen=seen)


def warn(name: str, seen: str, advice: str) -> Finding:
    """Works, but not well."""
    return Finding(name=name, verdict=Verdict.WARN, seen=seen, advice=advice)


def fail(name: str, seen: str, advice: str) -> Finding:
    """Cannot work."""
    return Finding(name=name, verdict=Verdict.FAIL, seen=seen, advice=advice)


def unknown(name: str, seen: str, advice: str = "") -> Finding:
    """Could not be seen."""
    return Finding(name=name, verdict=Verdict.UNKNOWN, seen=seen, advice=advice)

"""The vectors of forwarding are what their rules say, and can be read back."""

from __future__ import annotations

from collections import Counter

import pytest
from vectors.forwarding.case import read
from vectors.forwarding_make import DIRECTORY, FILES, load, text

from agent.dataplane.engine import Refusal


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_what_the_rules_make_it(name: str) -> None:
    assert (DIRECTORY / f"{name}.txt").read_text(encoding="utf-8") == text(name)


@pytest.mark.parametrize("name", FILES)
def test_reading_a_file_gives_the_cases_it_was_written_from(name: str) -> None:
    assert read(text(name)) == list(FILES[name]())


def test_every_vector_has_a_name_of_its_own_and_a_reason_engines_know() -> None:
    cases = load()
    assert [name for name, count in Counter(case.name for case in cases).items() if count > 1] == []
    assert {reason for case in cases for reason in case.reasons} <= {refusal.value for refusal in Refusal}
    assert all(case.rfc and case.frames for case in cases)
    assert all(bool(case.forward) is (case.expect == "forward") for case in cases)


def test_no_file_was_left_behind() -> None:
    assert {path.stem for path in DIRECTORY.glob("*.txt")} == set(FILES)

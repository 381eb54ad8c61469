"""A few thousand random calls, the same in every run; `make fuzz` draws others for as long as one likes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "fuzz"))
import fuzzing

VALID, INVALID, PARTS = 1200, 500, 3  # make fuzz goes on with others


@pytest.mark.parametrize("part", range(PARTS))
def test_valid_calls(part):
    names = [f"tests:{number}" for number in range(part, VALID, PARTS)]
    problems = [(name, problem) for name in names if (problem := fuzzing.try_valid(name))]
    assert not problems, "\n".join(f"{name}: {problem}" for name, problem in problems[:5])


def test_invalid_calls():
    problems = fuzzing.invalid_calls("tests", 0, INVALID)
    assert not problems, "\n".join(f"{name}: {problem}" for name, problem in problems[:5])

"""Results of the tool that measures speed, made up."""

from __future__ import annotations

from benchmarks.speed import __main__ as tool
from benchmarks.speed import cases
from benchmarks.speed.cases import Case
from benchmarks.speed.results import CaseResult, Run, Timing

ABOUT = {
    "machine": {"cpu": "A processor", "cores": 2, "cpu_kernels": "avx2"},
    "versions": {"torch": "2", "python": "3"},
    "commit": "0123456789abcdef",
    "commit_is_modified": False,
    "date": "today",
    "command": "python -m benchmarks.speed",
}


def made_up(shape: cases.Shape, times: dict[str, list[float | None]], **case: object) -> CaseResult:
    return CaseResult(Case(shape, **case), {key: Timing(1, tuple(rounds)) for key, rounds in times.items()}, {})


def made_up_run(*found: CaseResult) -> Run:
    return Run(ABOUT, tool.labels(), list(found))

"""What was measured, as objects and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from .cases import Case
from .queued import Queued

FOLDER = Path(__file__).parent / "results"
COPIES = ("copy", "clone")
NO_RIVALS = ("imae", "imae_out", "imae_handed_on", "cce", "cce_out", *COPIES)
# Which of ours does the same as a rival, where that is not IMAE through autograd.
COUNTERPARTS = {
    "cross_entropy_forward": "imae_forward",
    "cross_entropy_graph": "imae_graph",
    "cross_entropy_none": "imae_none",
    "step_cross_entropy": "step_imae",
    "step_cross_entropy_graph": "step_imae_graph",
}


@dataclass(frozen=True)
class Spread:
    """A median between its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise some values."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


@dataclass(frozen=True)
class Timing:
    """A contender's microseconds in each round; None where it sat out."""

    calls: int  # passes in each timing
    rounds: tuple[float | None, ...]
    gradient_error: float | None = None  # relative to the largest gradient; None for a copy
    peak_bytes: int | None = None  # on a GPU
    queued: Queued | None = None  # the same

    @property
    def values(self) -> list[float]:
        """The rounds it ran in."""
        return [value for value in self.rounds if value is not None]

    @property
    def spread(self) -> Spread:
        """Median and quartiles in microseconds."""
        return Spread.of(self.values)

    @property
    def median(self) -> float:
        """Median in microseconds."""
        return median(self.values)


@dataclass(frozen=True)
class CaseResult:
    """Everything about one case."""

    case: Case
    timings: dict[str, Timing]
    not_run: dict[str, str]  # key of a contender: why

    @property
    def profiled(self) -> bool:
        """Whether all that a GPU's queue can tell is there."""
        return all(timing.queued for timing in self.timings.values())

    def ratio(self, numerator: str, denominator: str) -> Spread | None:
        """Return the ratio of two contenders' times within the rounds that both ran in; None if one did not run."""
        if numerator not in self.timings or denominator not in self.timings:
            return None
        pairs = zip(self.timings[numerator].rounds, self.timings[denominator].rounds, strict=True)
        return Spread.of([above / below for above, below in pairs if above is not None and below is not None])

    def bandwidth(self, key: str) -> float:
        """Return the bytes that a pass has to move, by its time, in GB/s."""
        moved = self.case.copied if key in COPIES else self.case.bytes
        return moved / self.timings[key].median * 1e-3


@dataclass(frozen=True)
class Run:
    """One run of the tool."""

    about: dict[str, Any]  # date, command, commit, machine, versions, settings
    labels: dict[str, str]  # key of a contender: what to call it
    results: list[CaseResult]


def losses(results: Sequence[CaseResult]) -> list[tuple[CaseResult, str, Spread]]:
    """Return each case and rival that is faster there than IMAE in the same way, with the ratio of the times."""
    found = []
    for result in results:
        for key in result.timings:
            ratio = result.ratio(key, COUNTERPARTS.get(key, "imae"))
            if key not in (*NO_RIVALS, *COUNTERPARTS.values()) and ratio is not None and ratio.median < 1:
                found.append((result, key, ratio))
    return found


def save(run: Run, path: Path) -> None:
    """Write a run as JSON: for people the medians, for recomputing them every round."""
    head = json.dumps({**run.about, "contenders": run.labels}, indent=1)[:-2]
    cases = ",\n".join(_case(result) for result in run.results)
    write(path, f'{head},\n "cases": [\n{cases}\n ]\n}}\n')


def write(path: Path, text: str) -> None:
    """Write beside the file and move it there: stopped at any moment, the file is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text)
    beside.replace(path)


def load(path: Path) -> Run:
    """Read what save wrote."""
    content = json.loads(path.read_text())
    results = []
    for entry in content.pop("cases"):
        case = Case(**{**entry["case"], "shape": tuple(entry["case"]["shape"])})
        timings = {
            key: Timing(t["calls"], tuple(t["rounds_us"]), t["gradient_error"], t.get("peak_bytes"), _queued(t))
            for key, t in entry["timings"].items()
        }
        results.append(CaseResult(case, timings, entry["not_run"]))
    return Run(labels=content.pop("contenders"), about=content, results=results)


def _case(result: CaseResult) -> str:
    """Write a case on a line of its own, and so each contender's timing."""
    about = {"case": asdict(result.case), "bytes": result.case.bytes, "not_run": result.not_run}
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(_timing(result, key))}" for key in result.timings)
    return f' {json.dumps(about)[:-1]}, "timings": {{\n{rows}\n }}}}'


def _timing(result: CaseResult, key: str) -> dict[str, Any]:
    timing = result.timings[key]
    spread = timing.spread
    entry: dict[str, Any] = {
        "median_us": _short(spread.median),
        "quartiles_us": [_short(spread.low), _short(spread.high)],
        "min_us": min(timing.values),
        "gigabytes_per_s": _short(result.bandwidth(key)),
        "gradient_error": timing.gradient_error,
        "calls": timing.calls,
        "rounds_us": timing.rounds,
    }
    for other in ("imae", "copy"):
        ratio = result.ratio(key, other)
        entry[f"over_{other}"] = None if ratio is None else _short(ratio.median)
    if timing.peak_bytes is not None:
        entry["peak_bytes"] = timing.peak_bytes
    if timing.queued is not None:
        entry["queued"] = asdict(timing.queued)
    return entry


def _queued(entry: dict[str, Any]) -> Queued | None:
    names = entry.get("queued")
    return None if names is None else Queued(*(tuple(names[each]) for each in ("kernels", "memory", "waits")))


def _short(value: float) -> float:
    return float(f"{value:.4g}")

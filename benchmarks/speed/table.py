"""A run as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from benchmarks.noisy_labels.table import text_table

from .cases import Case
from .results import CaseResult, Spread, Timing, losses
from .targets import Outcome


def duration(microseconds: float) -> str:
    """Write a time with three digits in the unit that suits it."""
    for unit, size in (("us", 1.0), ("ms", 1e3)):
        if microseconds < 999.5 * size:
            return f"{_three(microseconds / size)} {unit}"
    return f"{_three(microseconds / 1e6)} s"


def times(factor: float) -> str:
    """Write a ratio with two or three digits."""
    return f"{factor:.2g}" if factor < 0.1 else f"{factor:.2f}" if factor < 10 else f"{factor:,.0f}"


def heading(case: Case) -> str:
    """Write what the cases of one table share."""
    if case.device == "cuda":
        return f"{case.dtype}, GPU"
    return f"{case.dtype}, {case.threads} thread{'s' if case.threads > 1 else ''}"


def timing_table(results: Sequence[CaseResult], labels: Mapping[str, str]) -> str:
    """Write every contender's times in every case, and below them who did not run and why.

    Two columns compare within rounds, as medians: the time over that of IMAE, and over that of a plain copy. On a GPU
    the last ones are the kernels, copies and fills of a pass, how often the host waits in it, and the memory it takes.
    """
    on_gpu = any(result.case.device == "cuda" for result in results)
    header = ["", "median", "quartiles", "least", "GB/s", "/ IMAE", "/ copy", *["queued", "waits", "MB"] * on_gpu]
    rows: list[list[str]] = []
    for result in results:
        rows.append([result.case.name, *[""] * (len(header) - 1)])
        for key, timing in result.timings.items():
            spread = timing.spread
            rows.append(
                [
                    f"  {labels[key]}",
                    duration(spread.median),
                    f"{duration(spread.low)} - {duration(spread.high)}",
                    duration(min(timing.values)),
                    f"{result.bandwidth(key):.2f}",
                    _ratio(result.ratio(key, "imae")),
                    _ratio(result.ratio(key, "copy")),
                    *(_on_gpu(timing) if on_gpu else ()),
                ]
            )
    return "\n".join([text_table(header, rows), *_not_run(results, labels)])


def losses_table(results: Sequence[CaseResult], labels: Mapping[str, str]) -> str:
    """Write every case in which a rival's forward and backward pass is faster than IMAE's."""
    rows = [
        [result.case.name, heading(result.case), labels[key], times(ratio.median)]
        for result, key, ratio in losses(results)
    ]
    if not rows:
        return "Faster than IMAE: none."
    return "Faster than IMAE:\n" + text_table(["logits", "", "contender", "time / IMAE"], rows)


def targets_table(outcomes: Sequence[Outcome]) -> str:
    """Write each target with the measured ratio, its quartiles, and whether it is met."""
    rows = []
    for outcome in outcomes:
        ratio = outcome.ratio
        rows.append(
            [
                outcome.target.says,
                outcome.case.name,
                heading(outcome.case),
                outcome.target.wants,
                _ratio(ratio),
                f"{times(ratio.low)} - {times(ratio.high)}" if ratio else "",
                outcome.verdict,
            ]
        )
    counts = ", ".join(
        f"{sum(1 for outcome in outcomes if outcome.verdict == verdict)} {verdict}"
        for verdict in ("pass", "short", "not measured")
    )
    reasons = dict.fromkeys(outcome.reason for outcome in outcomes if outcome.reason)
    header = ["target: ratio of times", "logits", "", "wanted", "median", "quartiles", ""]
    return "\n".join([text_table(header, rows), counts, *(f"not measured: {reason}" for reason in reasons)])


def _not_run(results: Sequence[CaseResult], labels: Mapping[str, str]) -> list[str]:
    """Return one line for each contender and reason, naming the shapes."""
    missing = sorted(
        (labels[key], reason, result.case.name) for result in results for key, reason in result.not_run.items()
    )
    lines = []
    for (label, reason), group in groupby(missing, key=lambda entry: entry[:2]):
        names = [entry[2] for entry in group]
        where = "" if len(names) == len(results) else f" at {', '.join(names)}"
        lines.append(f"not run: {label}{where}: {reason}")
    return lines


def _on_gpu(timing: Timing) -> tuple[str, str, str]:
    seen = timing.queued
    in_queue, waits = (str(len(seen.kernels) + len(seen.memory)), str(len(seen.waits))) if seen else ("", "")
    return in_queue, waits, "" if timing.peak_bytes is None else f"{timing.peak_bytes / 1e6:.2f}"


def _ratio(ratio: Spread | None) -> str:
    return "" if ratio is None else times(ratio.median)


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"

"""What was found, a line of a CSV file for each task and method, and the tables made of it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from benchmarks.noisy_labels.table import markdown_table

FIELDS = ("data", "noise", "rate", "seed", "examples", "method", "wrong", "suspected", "hits", "auc", "seconds")
Row = dict[str, str]

OURS, TRUTH = "imae_ext", "imae_ext, chosen with the truth"
PIPELINES = (OURS, TRUTH, "cleanlab, logistic regression", "cleanlab, MLP")
SHARED = (
    *("cleanlab, logistic regression", "label_errors, logistic regression"),
    *("cleanlab, MLP", "label_errors, MLP"),
    *("cleanlab on imae_ext's networks", OURS),
)


def read(path: Path) -> list[Row]:
    """Read the lines of a file; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, rows: Sequence[Row]) -> None:
    """Write lines to the end of a file, which begins with the names of the fields."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def quality_table(rows: Sequence[Row], methods: Sequence[str]) -> str:
    """Show a line for each data set and noise: AUC, precision / recall of each method; the highest F1 bold.

    Percent, mean over the seeds, ± standard deviation where there are several. Without noise: the share of labels
    suspected, all of them in vain as far as anybody knows.
    """
    lines = []
    for title, group in _groups(rows):
        cells = {method: [row for row in group if row["method"] == method] for method in methods}
        best = max((_f1(cell) for method, cell in cells.items() if cell and method != TRUTH), default=0.0)
        shown = []
        for method, cell in cells.items():
            bold = method != TRUTH and len(methods) > 1 and cell and _f1(cell) == best and best > 0
            text = _cell(cell)
            shown.append(f"**{text}**" if bold else text)
        lines.append([*title, *shown])
    head = ["data", "noise", *methods]
    return markdown_table(head, lines).replace("\\*\\*", "**")


def seconds_table(rows: Sequence[Row]) -> str:
    """Show the seconds of each pipeline, a line for each data set."""
    lines = []
    for data, same in groupby(sorted(rows, key=lambda row: row["data"]), key=lambda row: row["data"]):
        group = list(same)
        shown = [[float(row["seconds"]) for row in group if row["method"] == method] for method in PIPELINES]
        examples = group[0]["examples"]
        lines.append([data, examples, *(_range(cell) for cell in shown if not np.isnan(cell).all())])
    timed = [method for method in PIPELINES if method != TRUTH]
    return markdown_table(["data", "examples", *timed], lines)


def regret(rows: Sequence[Row]) -> str:
    """Say how much is lost by choosing rate and length without the truth."""
    lost = [
        100 * (_f1([truth]) - _f1([ours]))
        for _, group in _groups(rows)
        for ours, truth in zip(
            (row for row in group if row["method"] == OURS),
            (row for row in group if row["method"] == TRUTH),
            strict=False,
        )
    ]
    if not lost:
        return "no runs with noise"
    return (
        f"F1 lost by choosing rate and length without the truth, over {len(lost)} runs: median {np.median(lost):.1f}, "
        f"mean {np.mean(lost):.1f}, at most {max(lost):.1f} points"
    )


def _groups(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str], list[Row]]]:
    order = sorted(rows, key=lambda row: [row["data"], _place(row["noise"]), float(row["rate"])])
    for (data, noise, rate), same in groupby(order, key=lambda row: (row["data"], row["noise"], float(row["rate"]))):
        group = list(same)
        share = int(group[0]["wrong"]) / int(group[0]["examples"])
        yield (data, noise if noise == "none" else f"{noise} {rate or share:.0%}"), sorted(group, key=_seed)


def _place(noise: str) -> tuple[int, str]:
    order = ("none", "symmetric", "asymmetric")
    return (order.index(noise) if noise in order else len(order), noise)


def _seed(row: Row) -> int:
    return int(row["seed"])


def _f1(cell: Sequence[Row]) -> float:
    sums = [2 * int(row["hits"]) / max(1, int(row["suspected"]) + int(row["wrong"])) for row in cell]
    return float(np.mean(sums))


def _cell(cell: Sequence[Row]) -> str:
    if not cell:
        return "-"
    if cell[0]["noise"] == "none":
        return f"{np.mean([int(row['suspected']) / int(row['examples']) for row in cell]):.1%} suspected"
    auc = 100 * np.mean([float(row["auc"]) for row in cell])
    precision = [100 * int(row["hits"]) / max(1, int(row["suspected"])) for row in cell]
    recall = [100 * int(row["hits"]) / int(row["wrong"]) for row in cell]
    return f"{auc:.1f}, {_spread(precision)} / {_spread(recall)}"


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.0f}"
    return f"{np.mean(values):.0f} ± {np.std(values, ddof=1):.0f}"


def _range(values: Sequence[float]) -> str:
    low, high = np.nanmin(values), np.nanmax(values)
    return f"{low:.1f} to {high:.1f}" if high < 10 else f"{low:.0f} to {high:.0f}"

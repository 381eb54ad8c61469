"""The pictures of a run, and README's section: ``python -m benchmarks.speed.figures [--readme README.md]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # pictures go to files; no display is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm

from benchmarks import pictures
from benchmarks.noisy_labels.figures import INK, STYLE

from . import readme
from .machine import ROOT
from .results import FOLDER, CaseResult, Run, load, write
from .table import heading, times

# One colour for each thing that is computed, safe for colour-blind readers; dashed is compiled, dotted a reused buffer.
LINES: dict[str, dict[str, Any]] = {
    "copy": {"color": INK, "lw": 1.2},
    "imae_out": {"color": "#0060A8", "lw": 2, "ls": ":"},
    "imae": {"color": "#0060A8", "lw": 2.6},
    "cross_entropy": {"color": "#D55E00", "lw": 1.5},
    "cross_entropy_compiled": {"color": "#D55E00", "lw": 1.5, "ls": "--"},
    "by_hand": {"color": "#009E73", "lw": 1.5},
    "by_hand_compiled": {"color": "#009E73", "lw": 1.5, "ls": "--"},
    "reference": {"color": "#B0609A", "lw": 1.5},
    "reference_compiled": {"color": "#B0609A", "lw": 1.5, "ls": "--"},
    "liger": {"color": "#B8860B", "lw": 1.5},
    "quack": {"color": "#5D3A9B", "lw": 1.5},
    "quack_at_once": {"color": "#5D3A9B", "lw": 1.5, "ls": ":"},
}
MANY_ROWS = 1024  # fewer measure a call's cost, not the bandwidth


def roofline(run: Run, path: Path) -> None:
    """Draw the bytes that a pass has to move, by its time, against C, a panel for each dtype; the copy is the roof."""
    most = max(result.case.threads for result in run.results)
    chosen = [result for result in run.results if _in_roofline(result) and result.case.threads == most]
    headings = list(dict.fromkeys(heading(result.case) for result in chosen))
    if not headings:
        raise ValueError(f"the run has no case of at least {MANY_ROWS} rows to draw")
    with plt.rc_context(STYLE):
        size = (6.8 * len(headings), 5.2)
        figure, row = plt.subplots(1, len(headings), figsize=size, sharey=True, squeeze=False)
        for axes, name in zip(row[0], headings, strict=True):
            _bandwidths(axes, [result for result in chosen if heading(result.case) == name], run.labels)
            axes.set(title=name, xlabel="C, classes")
        row[0][0].set_ylabel("logits and labels in, gradient out: GB/s")
        figure.suptitle("Bandwidth of a forward and backward pass", x=0.005, ha="left", fontsize=12)
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures.save(figure, path)
        plt.close(figure)


def ratios(run: Run, path: Path) -> None:
    """Draw the time of every contender over IMAE's in every case as a table of colours: red is faster than IMAE."""
    headings = list(dict.fromkeys(heading(result.case) for result in run.results))
    keys = [key for key in LINES if key != "imae" and any(key in result.timings for result in run.results)]
    widest = max(sum(heading(result.case) == name for result in run.results) for name in headings)
    columns = 1 if len(headings) == 1 else 2
    rows = -(-len(headings) // columns)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        size = (columns * (2.4 + 0.62 * widest), rows * (1.6 + 0.36 * len(keys)))
        figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=True)
        for axes in grid.flat[len(headings) :]:
            axes.set_visible(False)
        for axes, name in zip(grid.flat, headings, strict=False):
            _ratio_table(axes, [result for result in run.results if heading(result.case) == name], keys, run.labels)
            axes.set_title(name)
        title = "Time over that of IMAE through autograd, medians within rounds; red: faster than IMAE"
        figure.suptitle(title, x=0.005, ha="left", fontsize=12)
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures.save(figure, path)
        plt.close(figure)


def _in_roofline(result: CaseResult) -> bool:
    case = result.case
    return case.grad_output == 1 and case.leaf and len(case.shape) == 2 and case.rows >= MANY_ROWS


def _bandwidths(axes: Axes, results: Sequence[CaseResult], labels: dict[str, str]) -> None:
    results = sorted(results, key=lambda result: result.case.classes)
    classes = [result.case.classes for result in results]
    axes.set(xscale="log", yscale="log")
    ends = []
    for key, style in LINES.items():
        points = [(result.case.classes, result.bandwidth(key)) for result in results if key in result.timings]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", ms=4, **style)
            ends.append((*points[-1], labels[key], style["color"]))
    shown = [C for i, C in enumerate(classes) if i == 0 or 1.3 * classes[i - 1] < C]
    axes.set_xticks(shown, [f"{C:,}" for C in shown])
    axes.minorticks_off()
    axes.set_xlim(0.8 * classes[0], 1.25 * classes[-1])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.tick_params(length=0)
    _label_ends(axes, ends)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Name each line at the right edge, pushed apart where they would overlap, with a thin line to its last point."""
    low, high = np.log(axes.get_ylim())
    wanted = sorted(((np.log(y) - low) / (high - low), x, y, label, ink) for x, y, label, ink in ends)
    gap = 0.048
    heights: list[float] = []
    for height, *_ in wanted:
        heights.append(max(height, heights[-1] + gap) if heights else height)
    top = 1.0
    for i in reversed(range(len(heights))):  # what was pushed out at the top pushes down again
        heights[i] = min(heights[i], top)
        top = heights[i] - gap
    for at, (_, x, y, label, ink) in zip(heights, wanted, strict=True):
        axes.annotate(
            label,
            (x, y),
            xytext=(1.03, at),
            textcoords="axes fraction",
            color=ink,
            va="center",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": ink, "lw": 0.5, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)},
            annotation_clip=False,
        )


def _ratio_table(axes: Axes, results: Sequence[CaseResult], keys: Sequence[str], labels: dict[str, str]) -> None:
    found = [[result.ratio(key, "imae") for result in results] for key in keys]
    shades = np.array([[np.nan if ratio is None else np.log2(ratio.median) for ratio in row] for row in found])
    axes.imshow(shades, cmap="RdBu", norm=TwoSlopeNorm(0, -4, 4), aspect="auto", alpha=0.75)
    for i, row in enumerate(found):
        for j, ratio in enumerate(row):
            dark = ratio is not None and abs(np.log2(ratio.median)) > 3
            text = "-" if ratio is None else times(ratio.median)
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else INK)
    names = [result.case.name.replace(", ", "\n") for result in results]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(keys)), [labels[key] for key in keys])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the pictures of a run, and write its page and README's section from it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.figures", description=__doc__)
    parser.add_argument("--results", type=Path, default=FOLDER / "cpu.json", help="a run's JSON; default: %(default)s")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the pictures; default: %(default)s")
    parser.add_argument("--readme", type=Path, help="also write its section for the run's device")
    options = parser.parse_args(arguments)
    run = load(options.results)
    name = "speed" if run.results[0].case.device == "cpu" else "speed_gpu"
    roofline(run, options.docs / f"{name}.png")
    ratios(run, options.docs / f"{name}_ratios.png")
    write(options.docs / f"{name}.md", readme.speed_page(run))
    if options.readme:
        readme.update(options.readme, run)


if __name__ == "__main__":
    main()

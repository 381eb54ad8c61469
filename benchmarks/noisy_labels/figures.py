"""The two pictures: training curves, and the weight that each loss gives an example."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

import imae_ext
from benchmarks import pictures
from imae_ext.formulas import Formula

from .measures import Measures
from .table import by_loss
from .training import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[np.float64]

# One colour a loss in every picture, safe for colour-blind readers; other losses take the spare ones in turn.
COLOURS = {"CCE": "#D55E00", "MAE": "#8C8C8C", "GCE": "#009E73", "IMAE": "#0060A8", "SCE": "#E69F00"}
SPARE_COLOURS = ("#CC79A7", "#56B4E9", "#5D3A9B", "#8B4513", "#000000", "#B8B000", "#00A0A0")
INK = "#333333"

# Where a weight curve is labelled, in p, and on which side: clear of the other curves.
LABEL_AT = {"CCE": 0.17, "MAE": 0.58, "GCE": 0.3, "IMAE": 0.62}
LABEL_BELOW = {"GCE"}

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": "#AAAAAA",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.grid": True,
    "grid.color": "#EEEEEE",
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 160,
}

Panels = tuple[tuple[str, Callable[[Measures], float]], ...]
PANELS: Panels = (
    ("Test accuracy (%)", lambda measures: measures.test),
    ("Wrong training labels fitted (%)", lambda measures: measures.noisy_fit),
    ("Right training labels fitted (%)", lambda measures: measures.clean_fit),
)


FIT: Panels = (("Training labels fitted (%)", lambda measures: measures.fit),)  # where nothing else was measured


def pyplot() -> Any:
    """Import matplotlib, which nothing but a picture needs, so that it draws into files without a display.

    Raises:
        ImportError: it is missing; the message says how to get it.

    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("pictures are drawn by matplotlib: pip install -r requirements/demo.txt") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def training_curves(results: Sequence[Result], path: Path, title: str, panels: Panels = PANELS) -> None:
    """Draw test accuracy and the fits of the wrong and the right labels, in percent, against the epoch.

    A line for each loss and rate, the mean over its seeds, in a band of one standard deviation; a loss at several rates
    keeps its colour, has them in its labels, and is dashed but for the first. A panel of which nothing was measured is
    left out.
    """
    groups = by_loss(results)
    names = [group[0].recipe.name for group in groups]
    inks = colours(names)
    panels = tuple(panel for panel in panels if any(not math.isnan(panel[1](one.final)) for one in results)) or FIT
    plt = pyplot()
    with plt.rc_context(STYLE):
        size = (13 / 3 * len(panels), 4.2)
        figure, row = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
        for axes, (heading, value) in zip(row[0], panels, strict=True):
            ends = []
            for i, (name, group) in enumerate(zip(names, groups, strict=True)):
                label = name if names.count(name) == 1 else f"{name}, {group[0].recipe.learning_rate:g}"
                epochs = [measures.epoch for measures in group[0].history]
                values = np.array([[value(measures) for measures in run.history] for run in group])
                mean, spread = values.mean(axis=0), values.std(axis=0, ddof=min(1, len(group) - 1))
                axes.fill_between(epochs, mean - spread, mean + spread, color=inks[name], alpha=0.15, lw=0)
                axes.plot(epochs, mean, "--" if name in names[:i] else "-", color=inks[name], lw=2)
                ends.append((float(mean[-1]), f"{label}  {mean[-1]:.1f}", inks[name]))
            axes.set(title=heading, xlabel="epoch", ylim=(0, 101), xlim=(0, epochs[-1]))
            axes.tick_params(length=0)
            label_ends(axes, ends, gap=5.5)
        figure.suptitle(title, x=0.005, ha="left", fontsize=12)
        pictures.save(figure, path)
        plt.close(figure)


def weight_curves(formulas: Mapping[str, Formula], path: Path) -> None:
    """Draw the weight w(p) of an example, the L1 norm of its logit gradient, for p from 0 to 1.

    The numbers come from imae_ext.row_stats, so the picture shows what the kernels compute.
    """
    inks = colours(list(formulas))
    highest = 8.2
    plt = pyplot()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.5, 4.8))
        for name, formula in formulas.items():
            p, weight = weight_curve(formula)
            highest = max(highest, 1.1 * weight.max())
            axes.plot(p, weight, color=inks[name], lw=2)
            at = np.searchsorted(p, LABEL_AT.get(name, p[weight.argmax()]))
            below = name in LABEL_BELOW
            axes.annotate(
                f"{name}  variance {weight.var():.2f}",
                (p[at], weight[at]),
                xytext=(4, -5 if below else 5),
                textcoords="offset points",
                va="top" if below else "bottom",
                color=inks[name],
            )
        axes.set(
            title="Weight of an example, the L1 norm of its logit gradient",
            xlabel="p, the predicted probability of its label",
            xlim=(0, 1),
            ylim=(0, highest),
        )
        pictures.save(figure, path)
        plt.close(figure)


def weight_curve(formula: Formula, points: int = 1001) -> tuple[Array, Array]:
    """Return (p, w), each (points,), p evenly from 0 to 1: row_stats of two-class logits (logit p, 0)."""
    p = torch.linspace(0, 1, points, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    logits = torch.stack([p.logit(), torch.zeros_like(p)], dim=1)
    p_y, weight, *_ = imae_ext.row_stats(logits, torch.zeros(points, dtype=torch.int64), formula)
    return p_y.numpy(), weight.numpy()


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], gap: float) -> None:
    """Write each line's (height, text, colour) to the right of the axes, at least `gap` data units apart."""
    heights: list[float] = []
    for height, _, _ in sorted(ends):
        heights.append(max(height, heights[-1] + gap) if heights else height)
    # Pushing up may leave the top: push the pile back down from there.
    top = axes.get_ylim()[1]
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], top - gap / 4)
        top = heights[i] - gap + gap / 4
    for at, (_, text, ink) in zip(heights, sorted(ends), strict=True):
        axes.annotate(
            text,
            (1, at),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            color=ink,
            va="center",
            annotation_clip=False,
        )


def colours(names: Sequence[str]) -> dict[str, str]:
    """Give each loss its colour: its own, else the next spare one, from the first again when all are taken."""
    spare = itertools.cycle(SPARE_COLOURS)
    return {name: COLOURS.get(name) or next(spare) for name in dict.fromkeys(names)}

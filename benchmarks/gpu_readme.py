"""Writes README's section on what ran on a GPU, from the results of benchmarks/gpu.sh: no number is typed by hand.

    python -m benchmarks.gpu_readme [FOLDER]     benchmarks/speed/results by default

What has no result yet has an empty place. The peers' own section is that of `python -m benchmarks.speed.figures`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .noisy_labels import archive
from .speed import results
from .speed.cases import shape_name
from .speed.machine import ROOT

BEGIN, END = "<!-- on a GPU:begin -->", "<!-- on a GPU:end -->"
NOT_MEASURED = (
    "Not measured on a GPU yet. `benchmarks/gpu.sh 1 2 3` and `benchmarks/gpu.sh 4 5` measure, and "
    "`python -m benchmarks.gpu_readme` fills in:"
)
CHECKERS = ("memcheck", "racecheck", "initcheck", "synccheck", "clusters")


def steps(folder: Path) -> dict[str, str]:
    """Return how each step of the last runs ended, as the logs tell."""
    found: dict[str, str] = {}
    for log in sorted(folder.glob("gpu_*.log"), key=lambda path: path.stat().st_mtime):
        found |= dict(re.findall(r"^== (\w+): (ok|FAILED \(\d+\)|left out)", log.read_text(), re.MULTILINE))
    return found


def ended(names: tuple[str, ...]) -> Callable[[Path], str]:
    def cell(folder: Path) -> str:
        found = steps(folder)
        return ", ".join(f"{name} {found[name]}" for name in names if name in found)

    return cell


def times(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "gpu_times.json").read_text()))


def card(folder: Path) -> str:
    about = times(folder)
    return f"{about['machine']['gpu']}; torch {about['versions']['torch']}; commit {str(about['commit'])[:10]}"


def copy(folder: Path) -> str:
    return f"{times(folder)['copy_GB_per_s']:.0f} GB/s"


def of_copy(dtype: str) -> Callable[[Path], str]:
    """Write what share of a copy's bandwidth each tier reaches, at each of its shapes."""

    def cell(folder: Path) -> str:
        rows = [row for row in times(folder)["rows"] if row["dtype"] == dtype]
        return ", ".join(
            f"{row['tier']} {100 * row['of_copy_bandwidth']:.0f}% ({shape_name(row['shape'])})" for row in rows
        )

    return cell


def peers(folder: Path) -> str:
    """Write the time of F.cross_entropy divided by that of IMAE."""
    found = [(result.case.name, result.ratio("cross_entropy")) for result in results.load(folder / "cuda.json").results]
    return ", ".join(f"{ratio.median:.2f}x ({name})" for name, ratio in found if ratio is not None)


def head(folder: Path) -> str:
    rows = json.loads((folder / "linear_head_cuda.json").read_text())["rows"]
    others = [row for row in rows if row["way"] != "ours" and "of_ours" in row]  # others have the memory alone
    return ", ".join(f"{row['of_ours']:.2f}x {row['way']} ({row['shape']}, {row['dtype']})" for row in others)


def images(folder: Path) -> str:
    runs = archive.load(folder / "gpu_cifar10.json").runs
    return ", ".join(f"{run.result.recipe.name} {run.result.final.test:.1f}%" for run in runs if not run.searching)


PLACES: dict[str, Callable[[Path], str]] = {
    "card": card,
    "every tier against the reference, and the GPU tests' short form": ended(("smoke", "tests")),
    "bandwidth of a copy": copy,
    "share of it that each tier reaches, forward and backward, float32": of_copy("float32"),
    "the same, bfloat16": of_copy("bfloat16"),
    "time of F.cross_entropy by that of IMAE, both through autograd": peers,
    "linear head: time by ours": head,
    "compute-sanitizer": ended(CHECKERS),
    "CIFAR-10, 40% wrong labels: test accuracy after a dozen epochs of 20,000 images": images,
}


def section(folder: Path) -> str:
    cells = {}
    for name, write in PLACES.items():
        try:
            cells[name] = write(folder)
        except FileNotFoundError:
            cells[name] = ""
    head = [] if any(cells.values()) else [NOT_MEASURED, ""]
    return "\n".join([*head, "| | |", "|---|---|", *(f"| {name} | {cell} |" for name, cell in cells.items())])


def update(readme: Path, folder: Path) -> None:
    text = readme.read_text()
    before, begins, rest = text.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not (begins and ends):
        raise ValueError(f"expected the markers {BEGIN} and {END}, in this order")
    readme.write_text(f"{before}{BEGIN}\n{section(folder)}\n{END}{after}")


if __name__ == "__main__":
    update(ROOT / "README.md", Path(sys.argv[1]) if len(sys.argv) > 1 else results.FOLDER)

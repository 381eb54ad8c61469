"""The table and the picture of what benchmarks/linear_head.py found.

    python -m benchmarks.linear_head_page [--results FILE] [--page docs/language_models.md] [--picture docs/x.png]

Without --page the table is printed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.noisy_labels.table import markdown_table

BEGIN, END = "<!-- linear head:begin -->", "<!-- linear head:end -->"
STORED = Path(__file__).parent / "linear_head.json"
AGAIN = Path(__file__).parent / "linear_head_again.json"  # the first three shapes, another day
NAMES = {
    "ours": "`linear_robust_loss`",
    "linear + cross_entropy": "`F.linear`, `F.cross_entropy`",
    "linear_cross_entropy": "`F.linear_cross_entropy`, its options",
    "cut_cross_entropy, torch_compile": "Apple's, `torch_compile`",
    "liger, scaled": "Liger's scaled head, in torch",
    "products": "the three products alone",
}
LINES: dict[str, dict[str, Any]] = {
    "ours": {"color": "#0060A8", "lw": 2.6},
    "linear + cross_entropy": {"color": "#D55E00", "lw": 1.5},
    "linear_cross_entropy": {"color": "#009E73", "lw": 1.5},
    "cut_cross_entropy, torch_compile": {"color": "#B0609A", "lw": 1.5},
    "liger, scaled": {"color": "#B8860B", "lw": 1.5},
    "products": {"color": "#555555", "lw": 1.2, "ls": ":"},
}
PICTURE = "512x256x"  # rows and hidden size of the shapes that differ in their classes alone
LIMITS = {None: "", "AVX512_CORE": ", no bfloat16 products", "AVX2": ", AVX2 alone"}


def table(run: dict[str, Any]) -> str:
    """Show a line for each case, the time of each way over ours, and the extra memory."""
    cases: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in run["rows"]:
        if not row["shape"].startswith(PICTURE) or row["dtype"] != "float32":
            cases.setdefault((row["dtype"], row.get("limit"), row["shape"]), {})[row["way"]] = row
    ways = [way for way in NAMES if way != "ours"]
    lines = []
    for (dtype, limit, shape), found in cases.items():
        cells = [_ratio(found.get(way)) for way in ways]
        ours = "{:.0f} ms".format(found["ours"]["ms"][0]) if "ms" in found["ours"] else "-"
        memory = " / ".join(f"{found[way]['mb']:.0f}" if "mb" in found.get(way, {}) else "-" for way in list(NAMES)[:3])
        lines.append([f"{shape.replace('x', ' x ')}, {dtype}{LIMITS.get(limit, limit)}", ours, *cells, memory])
    head = [
        "rows x hidden size x classes",
        NAMES["ours"],
        *(NAMES[way] for way in ways),
        "more memory, MB: the first three",
    ]
    return markdown_table(head, lines)


def _ratio(row: dict[str, Any] | None) -> str:
    return f"{row['of_ours']:.2f}" if row and "of_ours" in row else "-"


def in_words(run: dict[str, Any]) -> str:
    """Say what a table of few cases would: each way's times over ours, in the order of the cases."""
    ratios: dict[str, list[str]] = {}
    for row in run["rows"]:
        ratios.setdefault(row["way"], []).append(f"{row['of_ours']:.2f}")
    return "; ".join(
        f"{NAMES[way]} {', '.join(found[:-1])} and {found[-1]}" for way, found in ratios.items() if way != "ours"
    )


def where(run: dict[str, Any]) -> str:
    """Say what the figures are of."""
    machine, versions = run["about"]["machine"], run["about"]["versions"]
    packages = ", ".join(f"{name} {number}" for name, number in versions.items() if name not in ("imae_ext", "numpy"))
    kernels = machine["cpu_kernels"].replace("avx", "AVX-")
    return f"{machine['cpu']} ({kernels}, {machine['cores']} cores), two threads, {packages}."


def picture(run: dict[str, Any], path: Path) -> None:
    """Draw time and extra memory against the number of classes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from benchmarks import pictures
    from benchmarks.noisy_labels.figures import STYLE

    rows = [row for row in run["rows"] if row["shape"].startswith(PICTURE) and row["dtype"] == "float32"]
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.6), layout="constrained")
        for way, style in LINES.items():
            of_way = sorted((int(row["shape"].split("x")[2]), row) for row in rows if row["way"] == way)
            times = [(C, row["ms"][0] / 1e3) for C, row in of_way if "ms" in row]
            sizes = [(C, row["mb"]) for C, row in of_way if row.get("mb", 0) > 0]
            for axes, points in ((left, times), (right, sizes)):
                if points:
                    axes.plot(*zip(*points, strict=True), marker="o", ms=3, label=NAMES[way].replace("`", ""), **style)
        for axes, title in ((left, "Forward and backward, s"), (right, "Memory beyond inputs and gradients, MB")):
            axes.set(xscale="log", yscale="log", title=title, xlabel="classes")
        left.legend(fontsize=7, frameon=False)
        pictures.save(figure, path, dpi=80, pil_kwargs={"optimize": True})
        plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.linear_head_page", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--results", type=Path, default=STORED, help="JSON file (default: the stored one)")
    parser.add_argument("--page", type=Path, help="Markdown file whose table to write anew")
    parser.add_argument("--picture", type=Path, help="file to draw time and memory to")
    options = parser.parse_args(arguments)
    run = json.loads(options.results.read_text(encoding="utf-8"))
    text = f"{table(run)}\n\n{where(run)}"
    if options.page:
        before, _, after = options.page.read_text(encoding="utf-8").partition(BEGIN)
        options.page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after.partition(END)[2]}", encoding="utf-8")
    else:
        print(text)
    if options.picture:
        picture(run, options.picture)


if __name__ == "__main__":
    main()

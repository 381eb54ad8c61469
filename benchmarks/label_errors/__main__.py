"""The command: ``python -m benchmarks.label_errors`` runs what the file of results lacks and prints the tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from . import results

BEGIN, END = "<!-- tables:begin -->", "<!-- tables:end -->"
STORED = Path(__file__).parent / "results" / "cpu.csv"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.label_errors", description=__doc__)
    parser.add_argument("--results", type=Path, default=STORED, help="CSV file (default: the stored one)")
    parser.add_argument("--tables", action="store_true", help="print the tables of the results, run nothing")
    parser.add_argument("--page", type=Path, help="Markdown file whose tables to write anew")
    parser.add_argument("--data", nargs="+", help="of digits, wine, breast-cancer, newsgroups, cifar10n (default: all)")
    parser.add_argument("--seeds", type=int, default=2, help="of the noise (default: %(default)s)")
    parser.add_argument("--directory", type=Path, help="of CIFAR-10 and CIFAR-10N")
    parser.add_argument(
        "--cache", type=Path, default=Path("demo_output"), help="folder for features of images and texts"
    )
    options = parser.parse_args(arguments)
    if not options.tables:
        run(options)
    text = tables(results.read(options.results))
    print(text)
    if options.page:
        before, _, after = options.page.read_text(encoding="utf-8").partition(BEGIN)
        options.page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after.partition(END)[2]}", encoding="utf-8")


def run(options: argparse.Namespace) -> None:
    """Run every task that the file of results does not have, on one thread, and write what was found."""
    from . import methods, tasks  # with cleanlab, which the tables do not need

    torch.set_num_threads(1)
    done = {(row["data"], row["noise"], row["rate"], row["seed"]) for row in results.read(options.results)}
    for data in options.data or tasks.DATA:
        for task in tqdm(tasks.tasks(data, options.seeds, options.directory, options.cache), desc=data, unit="task"):
            name = {"data": task.data, "noise": task.noise, "rate": f"{task.rate:g}", "seed": str(task.seed)}
            if tuple(name.values()) in done:
                continue
            rows = []
            for found in methods.find_all(task):
                seconds = f"{found.seconds:.2f}"
                figures = {key: f"{value:.6g}" for key, value in methods.scores(task, found).items()}
                row = {**name, "examples": str(len(task.given)), "method": found.method, **figures, "seconds": seconds}
                rows.append(row)
            results.append(options.results, rows)


def tables(rows: list[results.Row]) -> str:
    parts = [
        "Each with its own pipeline. AUC, precision / recall, in percent; bold: the highest F1; ±: over the seeds.",
        results.quality_table(rows, results.PIPELINES),
        "On the same probabilities, pair by pair (the last one: p of those that have seen the example counts as well).",
        results.quality_table(rows, results.SHARED),
        "Seconds of the CPU, one thread, beside other work:",
        results.seconds_table(rows),
        results.regret(rows) + ".",
    ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()

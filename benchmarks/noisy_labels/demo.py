"""The demo: what four losses learn, and memorise, from digits of which 40% are labelled wrong.

`python -m benchmarks.noisy_labels.demo` prints the table and the timing and saves the pictures;
with `--search` it chooses the learning rates anew.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from .experiment import LEARNING_RATES, LOSSES, NOISE_RATE, recipes, run
from .figures import pyplot, training_curves, weight_curves
from .runs import run_all
from .search import RATES, SEEDS, choose, search_table
from .table import paper_table
from .timing import SHAPES, TIMED, time_losses, timing_table

SHOWN_SEEDS, OUT = 4, Path("demo_output")
TIMING_SECONDS = 0.6  # for each loss and shape


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.search:
        search(options)
    else:
        demo(options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.noisy_labels.demo",
        description="Train a small network on digits with 40% of the labels wrong, by four losses.",
    )
    parser.add_argument("--seeds", type=int, help=f"runs of each loss (default: {SHOWN_SEEDS})")
    parser.add_argument("--epochs", type=int, default=100, help="length of a run (default: %(default)s)")
    parser.add_argument("--processes", type=int, help="runs at a time (default: one for each core)")
    parser.add_argument("--out", type=Path, help=f"folder of the pictures (default: {OUT})")
    parser.add_argument("--search", action="store_true", help="choose the rates on the validation images")
    given = parser.parse_args(arguments)
    if given.search and (given.seeds is not None or given.out is not None):
        option = "--out" if given.seeds is None else "--seeds"
        parser.error(f"{option}: it has no effect with --search, which has seeds of its own and draws nothing")
    given.seeds, given.out = given.seeds or SHOWN_SEEDS, given.out or OUT
    return given


def demo(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    pyplot()  # now, rather than after a minute of training, if it is missing
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = {name: [rate] for name, rate in LEARNING_RATES.items()}
    results = run_all(run, recipes(chosen, range(options.seeds), options.epochs), options.processes)

    title = f"Digits, {NOISE_RATE:.0%} of the training labels wrong: mean and spread of {options.seeds} seeds"
    print(f"\n{title} after {options.epochs} epochs, in percent\n")
    print(paper_table(results))
    print(
        "\nrate: of SGD, chosen on clean validation images; --search shows how"
        "\ntest best / final: accuracy on clean test images, at the best epoch and at the end"
        "\nnoisy fit: wrong training labels that the network has memorised (lower is better)"
        "\nclean fit: right training labels that it has learned"
        "\nhybrid: accuracy against the true labels, on training and test images together"
    )
    curves, weights = options.out / "curves.png", options.out / "weights.png"
    training_curves(results, curves, title)
    weight_curves(LOSSES, weights)
    print(f"\nPictures: {curves} and {weights}")

    print("\nForward and backward in float32, one thread of this machine's CPU, medians\n")
    print(timing_table(time_losses(TIMED, SHAPES, TIMING_SECONDS)))
    print(
        "\nreference: the same loss in plain PyTorch; its IMAE integrates numerically, the kernels sum a short series"
    )
    print(f"\nAll done in {time.perf_counter() - start:.0f} s")


def search(options: argparse.Namespace) -> None:
    results = run_all(run, recipes(dict.fromkeys(LOSSES, RATES), SEEDS, options.epochs), options.processes)
    print(f"\nAfter {options.epochs} epochs, in percent, {len(SEEDS)} seeds\n")
    print(search_table(results))
    print(f"\nLEARNING_RATES = {choose(results)}")


if __name__ == "__main__":
    main()

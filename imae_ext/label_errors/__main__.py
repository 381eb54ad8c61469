"""The command: ``python -m imae_ext.label_errors FEATURES LABELS --to CSV``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .files import read_labels, read_numbers
from .finding import find_label_errors
from .folds import SAMPLES
from .ranking import LabelErrors, label_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the files, find the labels to look at, write them and say what was found."""
    options = parse(arguments)
    try:
        found = find(options)
        found.write_csv(options.to)
    except (OSError, TypeError, ValueError, IndexError) as error:
        sys.exit(f"error: {error}")
    print(found.how)
    print(f"{options.to}: all labels, the least believed first")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m imae_ext.label_errors",
        description="List the labels of a table, or of embeddings, that are probably wrong.",
    )
    parser.add_argument(
        "features", metavar="FEATURES", type=Path, help="numbers, a row for each example: npy, npz, csv"
    )
    parser.add_argument("labels", metavar="LABELS", help="npy, npz or csv; or the name of a column of FEATURES")
    parser.add_argument("--to", metavar="CSV", type=Path, required=True, help="where to write the list")
    parser.add_argument("--features-key", metavar="NAME", help="which array of an npz file")
    parser.add_argument("--labels-key", metavar="NAME", help="which array of an npz file, or column of a csv file")
    parser.add_argument(
        "--outputs",
        choices=("logits", "probabilities"),
        help="FEATURES are what a model of yours said of each class; LABELS are then integers",
    )
    parser.add_argument(
        "--cutoff", type=float, help="suspect below this p (default: 0.5; see label_errors for --outputs)"
    )
    parser.add_argument("--folds", type=int, help="networks to train (default: 5)")
    parser.add_argument("--sample", choices=SAMPLES, help="whose p counts; see find_label_errors (default: all)")
    parser.add_argument("--seed", type=int, help="(default: 0)")
    parser.add_argument("--device", help="where to train (default: a GPU if there is one)")
    options = parser.parse_args(arguments)
    training = {name: getattr(options, name) for name in ("folds", "sample", "seed", "device")}
    options.training = {name: value for name, value in training.items() if value is not None}
    if options.outputs and options.training:
        parser.error(f"--{next(iter(options.training))} has no effect with --outputs: nothing is trained")
    return options


def find(options: argparse.Namespace) -> LabelErrors:
    """Read the files and judge the labels."""
    labels = read_labels(options.labels, options.features, options.labels_key)
    own_column = not Path(options.labels).exists()
    numbers = read_numbers(options.features, options.features_key, options.labels if own_column else None)
    cutoff = {} if options.cutoff is None else {"cutoff": options.cutoff}
    if options.outputs:
        return label_errors(numbers, labels, probabilities=options.outputs == "probabilities", **cutoff)
    return find_label_errors(numbers, labels, **cutoff, **options.training)


if __name__ == "__main__":
    main()

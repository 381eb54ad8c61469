"""What was read, in words and for the record: how many images, which classes, what was passed over and why."""

from __future__ import annotations

from typing import Any

from .dataset import Dataset

SHOWN = 10  # classes that a line names


def summary(dataset: Dataset) -> dict[str, Any]:
    """Write down what was read, for a run's record."""
    found: dict[str, Any] = {
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
        "classes": list(dataset.class_names) or dataset.num_classes,
        "passed_over": list(dataset.passed),
    }
    if dataset.verified is not None:
        found["verified"] = _verified(dataset)
    return found


def said(dataset: Dataset) -> str:
    """Say what was read, in a line or a few."""
    names = [str(name) for name in dataset.class_names[:SHOWN]]
    more = ["..."] * (len(dataset.class_names) > SHOWN)
    classes = f"{dataset.num_classes:,} classes" + f" ({', '.join(names + more)})" * bool(names)
    parts = f"{len(dataset.train):,} images to train on, {len(dataset.validation):,} for validation"
    lines = [f"{dataset.name}: {parts}, {len(dataset.test):,} to test; {classes}"]
    lines += [f"passed over: {reason}" for reason in dataset.passed]
    if dataset.verified is not None:
        counts = _verified(dataset)
        lines.append(
            f"verified labels: {counts['right']:,} right, {counts['wrong']:,} wrong, {counts['unknown']:,} not"
        )
    return "\n".join(lines)


def _verified(dataset: Dataset) -> dict[str, int]:
    assert dataset.verified is not None
    names = {"right": 1, "wrong": 0, "unknown": -1}
    return {name: int((dataset.verified == value).sum()) for name, value in names.items()}

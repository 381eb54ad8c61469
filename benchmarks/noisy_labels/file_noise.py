"""Labels from a file for a data set: whether they are for its examples, what they change, and which have none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .annotators import NO_LABEL
from .data import Dataset
from .label_files import Given, read_labels
from .label_rows import Examples


def given_for(
    dataset: Dataset,
    path: str | Path | None,
    key: str | None = None,
    *,
    order: str | Path | None = None,
    meant: bool = False,
) -> tuple[Given, dict[str, Any]]:
    """Read a label file for the whole training set: its labels, and what to say of it; arguments as noise.make."""
    if path is None:
        raise ValueError("noise from a file: expected its path, got none")
    whole = dataset.published
    examples = Examples(
        (dataset.train.labels if whole is None else whole.labels).cpu().numpy(),
        dataset.num_classes,
        dataset.class_names,
        dataset.files if whole is None else whole.files,
    )
    given = read_labels(Path(path), key, examples, None if order is None else Path(order))
    known = given.labels != NO_LABEL
    changed = float((given.labels != examples.labels)[known].mean()) if known.any() else 0.0
    source = {
        "file": Path(path).name,
        "key": given.key,
        "examples": len(known),
        "without_label": int((~known).sum()),
        "annotators": 1 if given.votes is None else given.votes.shape[1],
        "ties": given.ties,
        "changed": changed,
        "checked_against": given.true_key,
    }
    if given.true is not None:
        check_order(Path(path), given, examples, dataset.truth_known)
    if changed >= 1 - 1 / dataset.num_classes and not meant:
        raise ValueError(
            f"{path}: {100 * changed:.1f}% of its labels are others than the data set's, as many as chance would give: "
            "it is in another order, or for another data set; --order FILE puts it right, --meant takes it as it is"
        )
    return given, source


def labelled(dataset: Dataset, path: Path, key: str | None, *, order: Path | None, meant: bool) -> Dataset:
    """Leave out the training examples for which a label file has no label."""
    given, _ = given_for(dataset, path, key, order=order, meant=meant)
    kept = torch.from_numpy(given.labels[dataset.train_rows.cpu().numpy()] != NO_LABEL)
    if kept.all():
        return dataset
    missing = int((~kept).sum())
    return dataset.only(kept.nonzero().squeeze(1)).passing(
        f"{missing:,} training images without a label in {path.name}"
    )


def said(source: Mapping[str, Any]) -> str:
    """Say what a label file changes."""
    name = f"labels {source['key']} of {source['file']}" if source["key"] else f"labels of {source['file']}"
    words = [f"{100 * source['changed']:.1f}% are others than the data set's"]
    if source["without_label"]:
        words.append(f"{source['without_label']:,} of {source['examples']:,} examples have none")
    if source["annotators"] > 1:
        what = "shares" if source.get("targets") == "share" else "majority"
        words.append(f"the {what} of {source['annotators']} annotators, {source['ties']:,} ties")
    checked = source["checked_against"]
    words.append(f"order checked against {checked}" if checked else "no true labels in it to check the order against")
    return f"{name}: {'; '.join(words)}"


def check_order(path: Path, given: Given, examples: Examples, truth_known: bool) -> None:
    """Compare the true labels that a file has with those of the data set."""
    assert given.true is not None
    known = given.true != NO_LABEL
    differing = int((given.true != examples.labels)[known].sum())
    # Where nobody vouches for the data set's labels the file's may correct some, yet agree more than by chance.
    most = 0 if truth_known else (1 - 1 / examples.num_classes) * known.sum()
    if differing > most:
        raise ValueError(
            f"{path}: expected {given.true_key} to be the labels of the data set, got {differing} others out of "
            f"{known.sum()}: the file is for the examples in another order (--order FILE puts it right, as CIFAR-N's "
            "image_order_c10.npy), or for another data set"
        )

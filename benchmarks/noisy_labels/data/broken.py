"""Images that cannot be read: all of them are found before training, and named or left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from .dataset import Dataset, Examples
from .images import ImageFiles, counted

PARTS = ("train", "validation", "test")
SHOWN = 20  # broken images that a message names


class BrokenImages(ValueError):
    """Images that cannot be read, of which `reasons` has (name, what is wrong)."""

    def __init__(self, total: int, reasons: Sequence[tuple[str, str]]) -> None:
        self.reasons = tuple(reasons)
        lines = [f"  {reason}" for _, reason in self.reasons[:SHOWN]]
        if len(self.reasons) > SHOWN:
            lines.append(f"  ... and {len(self.reasons) - SHOWN:,} more")
        cannot = f"{len(self.reasons):,} of {counted(total, 'image')} cannot be read"
        super().__init__("\n".join([f"{cannot}; --skip-broken goes on without them", *lines]))


def readable(dataset: Dataset, most_in_memory: int, skip: bool, known: Sequence[str] | None = None) -> Dataset:
    """Decode what fits into memory, and find every image that cannot be read.

    Args:
        dataset: whose parts may be image files.
        most_in_memory: bytes of decoded images; a larger part stays in its files.
        skip: leave broken images out; else they are an error.
        known: the names of broken images, where an earlier call found them: nothing larger is then decoded for it.

    Raises:
        BrokenImages: some cannot be read, and skip is False.

    """
    broken: list[tuple[str, str]] = []
    total = 0
    for part in PARTS:
        examples: Examples = getattr(dataset, part)
        images = examples.inputs
        if not isinstance(images, ImageFiles):
            continue
        total += len(images)
        if images.nbytes <= most_in_memory:
            pixels, found = images.read()
            dataset = replace(dataset, **{part: Examples(pixels, examples.labels)})
        elif known is not None:
            names = set(known)
            found = {row: name for row, name in enumerate(images.names) if name in names}
        else:
            found = images.broken()
        broken += [(images.names[row], reason) for row, reason in found.items()]
        if found:
            dataset = dataset.only(_others(len(images), found), part)
    if broken and not skip:
        raise BrokenImages(total, broken)
    if broken:
        dataset = dataset.passing(f"{counted(len(broken), 'image')} that cannot be read ({_some(broken)})")
        dataset = replace(dataset, broken=tuple(name for name, _ in broken))
    return dataset


def _others(count: int, found: Iterable[int]) -> torch.Tensor:
    kept = torch.ones(count, dtype=torch.bool)
    kept[list(found)] = False
    return kept.nonzero().squeeze(1)


def _some(broken: Sequence[tuple[str, str]]) -> str:
    names = [name for name, _ in broken[:SHOWN]]
    return ", ".join(names + ["..."] * (len(broken) > SHOWN))

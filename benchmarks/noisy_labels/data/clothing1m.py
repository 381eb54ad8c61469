"""Clothing1M: a million photographs from shops, labelled by the words around them; validation and test by people.

It is passed around in two packings. The authors' has lists of images (`noisy_train_key_list.txt`, ...) beside two files
with the labels of all (`noisy_label_kv.txt`, `clean_label_kv.txt`); the other has one list of image and label for each
part (`noisy_train.txt`, ...).
"""

from __future__ import annotations

from pathlib import Path

from .dataset import Dataset
from .lists import Named, examples, find, needed, of_lists, read_list, read_names
from .options import Options, refuse_validation

PAGE = "https://github.com/Cysu/noisy_label (its authors send the link)"
SIDE = 256  # of which training sees crops of 224
CLASS_NAMES = (
    *("T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker"),
    *("Jacket", "Down Coat", "Suit", "Shawl", "Dress", "Vest", "Underwear"),
)
BELOW = (".", "annotations", "dmi_annotations")  # where the lists are kept
ADVICE = f"it comes with Clothing1M, from {PAGE}"


def clothing1m(options: Options) -> Dataset:
    """Read Clothing1M: training on noisy_train with its noisy labels; clean_val and clean_test beside it.

    clean_train, images with labels by people, is left out, as in the paper's experiments.
    """
    refuse_validation("clothing1m", options)
    root = options.directory
    if not (root / "images").is_dir():
        raise FileNotFoundError(f"expected images/ in {root}: get Clothing1M from {PAGE} and unpack its archives there")
    side = SIDE if options.size is None else options.size
    train, validation, test = (
        examples(root, _placed(root, _part(root, part)), side) for part in ("noisy_train", "clean_val", "clean_test")
    )
    return of_lists("clothing1m", CLASS_NAMES, train, test, options, validation)


def _part(root: Path, part: str) -> Named:
    """Read a part's images and labels, in whichever packing it is."""
    whole = find(root, [f"{part}.txt", f"{part}_kv.txt"], BELOW)
    if whole is not None:
        return read_list(whole, len(CLASS_NAMES))
    names = [f"{part}_key_list.txt", f"{part}.txt"]
    keys, kv = needed(root, names, BELOW, ADVICE), f"{part.partition('_')[0]}_label_kv.txt"
    labels = dict(read_list(needed(root, [kv], BELOW, ADVICE), len(CLASS_NAMES)))
    listed = read_names(keys)
    unlabelled = next((name for name in listed if name not in labels), None)
    if not listed or unlabelled is not None:
        raise ValueError(f"{keys}: expected images that have a label, got {unlabelled or 'no images'}")
    return [(name, labels[name]) for name in listed]


def _placed(root: Path, named: Named) -> Named:
    """Bring names to `images/...` in the directory: some lists leave images/ out, some have a whole path before it."""

    def place(name: str) -> str:
        if (root / name).is_file() and not Path(name).is_absolute():
            return name
        _, found, below = f"/{name}".rpartition("/images/")
        return f"images/{below}" if found else f"images/{name}"

    return [(place(name), label) for name, label in named]

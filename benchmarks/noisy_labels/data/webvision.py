"""WebVision 1.0 and mini-WebVision: photographs that Google and Flickr found for the classes of ImageNet."""

from __future__ import annotations

from .dataset import Dataset
from .images import counted
from .lists import Named, examples, find, needed, of_lists, read_list, read_names
from .options import Options

PAGE = "https://data.vision.ee.ethz.ch/cvl/webvision/dataset2017.html"
SIDE = 256  # of which training sees crops of 224
CLASSES, MINI_CLASSES = 1_000, 50
SOURCES = ("google", "flickr", "google+flickr")


def webvision(options: Options) -> Dataset:
    """Read info/train_filelist_google.txt and _flickr.txt; the test is on val_filelist.txt."""
    return _read("webvision", options, "google+flickr", None)


def mini_webvision(options: Options) -> Dataset:
    """Read the first 50 classes of what Google found, as the papers do."""
    return _read("mini-webvision", options, "google", MINI_CLASSES)


def _read(name: str, options: Options, default: str, first: int | None) -> Dataset:
    root, sources = options.directory, options.split or default
    if sources not in SOURCES:
        raise ValueError(f"{name}: expected a split out of {', '.join(SOURCES)}, got {sources}")
    advice = f"download WebVision's info.tar and images from {PAGE} and unpack them there"

    def listed(file: str, count: int) -> Named:
        return read_list(needed(root, [f"info/{file}", file], (".",), advice), count)

    names = find(root, ["info/synsets.txt", "synsets.txt"])
    synsets = read_names(names) if names else [str(label) for label in range(CLASSES)]
    train = [pair for one in sources.split("+") for pair in listed(f"train_filelist_{one}.txt", len(synsets))]
    test = listed("val_filelist.txt", len(synsets))
    passed = []
    if first is not None:
        every = len(train)
        train, test = ([pair for pair in part if pair[1] < first] for part in (train, test))
        synsets = synsets[:first]
        passed.append(f"{counted(every - len(train), 'image')} of classes from {first} on")
    validation = needed(root, ["val_images_256", "val_images", "val"], (".",), advice)
    side = SIDE if options.size is None else options.size
    return of_lists(
        name,
        synsets,
        examples(root, train, side),
        examples(validation, test, side),
        options,
        passed=passed,
    )

"""Data sets of labelled examples in three parts: training, validation (for choosing rates) and test.

The layers, each importing only those before it:

    pixels, images                   images in files, decoded when they are asked for
    dataset, summary                 what a data set is; choosing examples by class; what was read, in words
    pickles, tables                  files of labels as named columns, none of which can run code
    options, lists                   what the readers share
    scikit, cifar, fashion           small images, in memory
    folders, listed                  your own photographs
    animal10n, clothing1m, food101n, mars, mini_imagenet, tiny_imagenet, webvision
                                     published photographs in files
    broken                           images that cannot be read
    load                             a data set by its name
"""

from .dataset import Dataset, Examples, Inputs, Published, order_by_class
from .images import ImageFiles
from .load import CLEAN, DATASETS, load
from .scikit import digits
from .summary import said, summary

__all__ = [
    "CLEAN",
    "DATASETS",
    "Dataset",
    "Examples",
    "ImageFiles",
    "Inputs",
    "Published",
    "digits",
    "load",
    "order_by_class",
    "said",
    "summary",
]

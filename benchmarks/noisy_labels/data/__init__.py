"""Data sets of labelled examples in three parts: training, validation (for choosing rates) and test.

The layers, each importing only those before it:

    images                           images in files, decoded when they are asked for
    dataset                          what a data set is; choosing examples by class
    options, pickles                 what the readers share
    scikit, pairs, cifar, fashion    small images, in memory
    clothing1m, mars, folders        photographs in files
    load                             a data set by its name
"""

from .dataset import Dataset, Examples, Inputs, Published, order_by_class
from .images import ImageFiles
from .load import CLEAN, DATASETS, load
from .scikit import digits

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
]

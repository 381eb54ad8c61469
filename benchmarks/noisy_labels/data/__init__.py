"""Data sets of labelled examples in three parts: training, validation (for choosing rates) and test.

dataset    what a data set is; choosing examples by class
scikit     scikit-learn's handwritten digits, which need no files
cifar      CIFAR-10 and CIFAR-100, the official Python archives
load       a data set by its name
"""

from .dataset import Dataset, Examples, Inputs, Published, order_by_class
from .load import DATASETS, load
from .scikit import digits

__all__ = ["DATASETS", "Dataset", "Examples", "Inputs", "Published", "digits", "load", "order_by_class"]

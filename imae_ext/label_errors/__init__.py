"""Finding the wrong labels in data: by any model's outputs, or by a small network that a robust loss trains.

    ranking       any model's outputs -> labels, the least believed first; what is returned
    finding       a table or embeddings -> the same, by networks that learn from one part of it and judge all of it
    training      the small network
    inputs        what is accepted, and what is said of what is not
    files         arrays and labels from npy, npz and csv

``python -m imae_ext.label_errors FEATURES LABELS --to CSV`` does it for files.

>>> import numpy as np
>>> from imae_ext import label_errors
>>> found = label_errors(np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]), [0, 1, 1])
>>> found.indices
array([1])
>>> print(found.how)
suspected: 1 of 3 labels, counted where another class is as probable as for its own labels, or surer than 0.8
"""

from .finding import find_label_errors
from .ranking import Choice, LabelErrors, label_errors

__all__ = ["Choice", "LabelErrors", "find_label_errors", "label_errors"]

"""Faults of what comes with a target: weights of the rows."""

from __future__ import annotations

from fault import Fault

ROWS = ("test_sample_weight.py",)

TARGETS = (
    Fault(
        "csrc/cpu/group.h",
        ": S(1)) * (of_row ? of_row[i] : S(1));",
        ": S(1)) * (of_row && !of_class ? of_row[i] : S(1));",
        "weights of the rows are left out beside those of the classes",
        ROWS,
    ),
    Fault(
        "csrc/cpu/backend.cpp",
        "sum += double(of_class ? of_class[y] : S(1)) * (of_row ? of_row[i] : S(1));",
        "sum += double(of_class ? of_class[y] : S(1));",
        "mean divides by the weights of the classes alone",
        ROWS,
    ),
    Fault(
        "imae_ext/reference.py",
        "w = w * sample_weight.to(dtype)",
        "w = w * sample_weight.to(dtype).abs()",
        "the reference takes a negative weight for a positive one",
        ROWS,
    ),
    Fault(
        "imae_ext/modules.py",
        "sample_weight=sample_weight,",
        "sample_weight=None,",
        "a module forgets the weights of the rows",
        ROWS,
    ),
    Fault(
        "imae_ext/functional.py",
        "for w in (weight, sample_weight))",
        "for w in (weight, None))",
        "without the extension value_and_grad forgets the weights of the rows",
        ROWS,
    ),
)

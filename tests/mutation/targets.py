"""Faults of what comes with a target: weights of the rows, a yes or no for each logit."""

from __future__ import annotations

from fault import Fault

ROWS = ("test_sample_weight.py",)
BINARY = ("test_binary.py",)

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
    Fault(
        "csrc/binary.h",
        "sum.slope = sum.slope - product<M>(rest, other.g_y);",
        "sum.slope = sum.slope + product<M>(rest, other.g_y);",
        "the no of a soft target pulls the wrong way",
        BINARY,
    ),
    Fault(
        "csrc/binary.h",
        "const auto amount = M::select(no, one, pos_weight * t);",
        "const auto amount = M::select(no, pos_weight, pos_weight * t);",
        "pos_weight weighs the no as well",
        BINARY,
    ),
    Fault(
        "csrc/binary.h",
        "fit = u == M::set(M::infinity());",
        "fit = u != u;",
        "an infinite logit that fits is NaN",
        BINARY,
    ),
    Fault(
        "csrc/cpu/binary.h",
        "targets += V::select(counts, of_sample, Real{});",
        "targets += V::select(counts, w, Real{});",
        "a binary mean divides by the weights of the elements",
        BINARY,
    ),
    Fault(
        "csrc/cpu/binary.h",
        "if (++step < from.repeat) continue;",
        "if (++step <= from.repeat) continue;",
        "weights of rows slip by an element",
        BINARY,
    ),
    Fault(
        "csrc/binary_ops.cpp",
        "case ScalarType::Bool: binary.has_ignored = false;",
        "case ScalarType::Bool:",
        "a true is ignored where ignore_index is 1",
        BINARY,
    ),
)

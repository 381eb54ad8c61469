"""Faults of the statistics that row_stats gives by name."""

from __future__ import annotations

from fault import Fault

BY_NAME = ("test_row_statistics.py",)

STATISTICS = (
    Fault(
        "csrc/cpu/sweeps.h",
        "add(sums.weighted, e * V::max(x, V::set(kLowest)));",
        "add(sums.weighted, e * x);",
        "the entropy of a row with masked classes is NaN",
        BY_NAME,
    ),
    Fault(
        "csrc/cpu/reading.h",
        "kMax ? finite_or_zero(maximum(z, r.C, labels[l])) : own[l];",
        "own[l];",
        "the entropy and the top class from the label's logit instead of the maximum",
        BY_NAME,
    ),
    Fault(
        "csrc/describe.h",
        "M::select(none, one, zero)",
        "zero",
        "a label whose others have no mass is not on top if its logit is negative",
        BY_NAME,
    ),
    Fault(
        "csrc/describe.h",
        "row.squares / row.sum_exp / row.sum_exp",
        "row.squares / row.sum_exp",
        "the sum of squares is normalised once",
        BY_NAME,
    ),
    Fault(
        "imae_ext/stats_ops.py",
        "asked = Asked(log_p=by_log_p is not None, entropy=by_entropy is not None)",
        "asked = Asked(log_p=by_log_p is not None)",
        "the entropy has no derivative",
        BY_NAME,
    ),
    Fault(
        "imae_ext/head_ops.py",
        "missing = [wish and (none or not had) for wish, had in zip(needed, made, strict=True)]",
        "missing = [wish and none for wish in needed]",
        "an exported head gives no gradient that nobody wanted while it was traced",
        ("test_linear_graphs.py",),
    ),
)

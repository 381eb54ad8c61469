# ruff: noqa: E501
"""Faults to plant in the CUDA kernels for statistics of rows, and the numbers that give them away."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fault import kernel_fault as Fault

if TYPE_CHECKING:
    from kernels import Kernels

FAULTS = (
    Fault("a masked class makes the entropy NaN", "describe.cuh", "e * larger(lowest, x)", "e * x"),
    Fault("the weighted sum is only rescaled, not moved", "describe.cuh", "by * (weighted - less * sum_exp)", "by * weighted"),
    Fault("squares rescaled once", "describe.cuh", "by * (by * squares)", "by * squares"),
    Fault("an empty part of a description has an infinite factor", "describe.cuh", "if (sum_exp == 0) return {maximum, 0, 0, 0};", ""),
    Fault("the lanes' squares left apart", "describe.cuh", "squares = group_sum<kLanes>(squares)", "(void)squares"),
    Fault("further sums of one element for a pack", "row.cuh", "few.add(P::of(x.at(e) - m, more), more);", "few.add(P::of(x.at(e) - m, more), more && !P::kMasks);"),
    Fault("entropy alone is not added up", "describe.cuh", "return rows.entropy || rows.sum_p2;", "return rows.sum_p2;"),
    Fault("every lane of a row describes its own part", "describe.cuh", "sum_exp = group_sum<kLanes>(sum_exp);\n    if (more) weighted", "if (more) weighted"),
    Fault("a label out of range is described", "describe.cuh", "const bool known = t.y >= 0;", "const bool known = true;"),
    Fault("an ignored row is described by nothing", "describe.cuh", "write(i, 0, 0, {0, 0, 0, 0});", "(void)i;"),
)  # fmt: skip


def numbers(kernels: Kernels) -> None:
    """Raise if a statistic is off: the cases of the CPU's, by every tier."""
    import statistics_cases
    import torch
    from kernel_calls import Machine
    from kernels import TIERS

    import imae_ext

    kernels.machine = Machine(7, 3)

    def row_stats(logits, target, formula=None, **asked):
        packed = tuple((formula or imae_ext.CCE()).packed)
        return imae_ext.RowStats(**kernels.describe(logits, target, packed, *asked))

    try:
        for name in TIERS:
            os.environ["IMAE_EXT_TIER"] = name
            for shape in statistics_cases.WALKS:
                statistics_cases.walk(row_stats, shape, torch.float32)
            statistics_cases.against_60_digits(row_stats, 7, torch.bfloat16)
            statistics_cases.large_logits(row_stats)
            statistics_cases.limits(row_stats)
            statistics_cases.ignored_rows_and_shapes(row_stats, torch.allclose)
            statistics_cases.labels_out_of_range(row_stats)
    finally:
        del os.environ["IMAE_EXT_TIER"]

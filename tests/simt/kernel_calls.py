"""The structures of kernel_calls.h, in ctypes, and the tensors' side of them."""

from __future__ import annotations

from ctypes import POINTER, Structure, c_double, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

NONE, MEAN, SUM, NORMALIZED = range(4)  # reductions
DIVIDE_BY = {NONE: 0, SUM: 0, MEAN: 1, NORMALIZED: 2}
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # in the order of the kernels' enum


@dataclass(frozen=True)
class Machine:
    """How calls run: the order of threads; blocks, or clusters, that run interleaved, and of a grid at most; shared
    memory of a block; blocks of a cluster at most (0: a card without clusters)."""

    seed: int = 0
    resident: int = 1
    most_blocks: int = 3
    shared: int = 99 << 10  # of the smaller cards
    cluster: int = 8

    def packed(self) -> MachineCall:
        return MachineCall(self.seed, self.resident, self.most_blocks, self.shared, self.cluster)


def structure(name: str, *fields: tuple[str, object]) -> type[Structure]:
    return type(name, (Structure,), {"_fields_": list(fields)})


MachineCall = structure(
    "MachineCall", *((name, c_int64) for name in ("seed", "resident", "most_blocks", "shared", "cluster"))
)
RowsCall = structure(
    "RowsCall",
    ("machine", MachineCall),
    ("dtype", c_int64),
    ("dim", c_int64),
    ("sizes", POINTER(c_int64)),
    ("logits_strides", POINTER(c_int64)),
    ("grad_strides", POINTER(c_int64)),
    ("logits", c_void_p),
    ("target", c_void_p),
    ("target_is_int32", c_int64),
    ("ignore_index", c_int64),
    ("class_weight", c_void_p),
    ("sample_weight", c_void_p),
    ("grad", c_void_p),
)
ForwardCall = structure(
    "ForwardCall",
    ("rows", RowsCall),
    ("formula", POINTER(c_double)),
    ("formula_count", c_int64),
    *((name, c_void_p) for name in ("value", "coefficients", "p", "example_weight")),
    ("divide_by", c_int64),
    ("mean_gradient", c_int64),
    ("loss", c_void_p),
    ("divisor", c_void_p),
)
STATISTICS = ("log_p", "entropy", "sum_p2", "is_top")
DescribeCall = structure(
    "DescribeCall",
    ("rows", RowsCall),
    ("formula", POINTER(c_double)),
    ("formula_count", c_int64),
    *((name, c_void_p) for name in ("p", "example_weight", *STATISTICS)),
)
BackwardCall = structure(
    "BackwardCall",
    ("rows", RowsCall),
    *((name, c_void_p) for name in ("coefficients", "grad_output", "divisor")),
    ("grad_output_is_scalar", c_int64),
)
ScaleCall = structure(
    "ScaleCall",
    ("rows", RowsCall),
    ("count", c_int64),
    ("by", c_void_p),
    ("by_is_double", c_int64),
)


AMOUNTS_CALL = (
    ("machine", MachineCall),
    ("dtype", c_int64),
    ("logits", c_void_p),
    ("formula", POINTER(c_double)),
    ("formula_count", c_int64),
    *((name, c_void_p) for name in ("value", "grad", "grad_output")),
    ("grad_output_is_scalar", c_int64),
    ("divide_gradient", c_void_p),
    ("divide_by", c_int64),
    ("loss", c_void_p),
    ("divisor", c_void_p),
)
ROWS = (*((name, c_int64) for name in ("N", "C")), *((name, c_void_p) for name in ("class_weight", "sample_weight")))
BinaryCall = structure(
    "BinaryCall",
    *AMOUNTS_CALL,
    ("count", c_int64),
    ("target", c_void_p),
    *((name, c_int64) for name in ("target_type", "has_ignored", "ignore_index")),
    *((name, c_void_p) for name in ("weight", "pos_weight", "sample_weight")),
    ("repeat", c_int64 * 3),
    ("period", c_int64 * 3),
)
AMOUNTS = (torch.uint8, torch.int32, torch.int64, torch.float32, torch.float64)  # in the order of the kernels' enum

DenseCall = structure("DenseCall", *AMOUNTS_CALL, *ROWS, ("target", c_void_p), ("smoothing", c_double))
MixedCall = structure(
    "MixedCall",
    *AMOUNTS_CALL,
    *ROWS,
    *((name, c_void_p) for name in ("target", "other")),
    ("ignore_index", c_int64),
    *((name, c_void_p) for name in ("lam", "other_lam")),
    *((name, c_int64) for name in ("lam_is_scalar", "other_lam_is_scalar")),
)


def pointer(t: Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


def unwritten(*sizes: int, like: Tensor) -> Tensor:
    """NaN everywhere, so that what a kernel leaves out shows."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.full(sizes, float("nan"), dtype=dtype)

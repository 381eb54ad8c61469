"""The CUDA kernels in the emulator, called with CPU tensors: what the CUDA operators do, without their allocator."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path

import emulator
import torch
from torch import Tensor

CSRC = Path(__file__).parents[2] / "csrc"
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # in the order of the kernels' enum
TIERS = ("tile", "row2", "row8", "row32", "row128", "row256", "strided", "cluster")
NONE, MEAN, SUM, NORMALIZED = range(4)  # reductions
DIVIDE_BY = {NONE: 0, SUM: 0, MEAN: 1, NORMALIZED: 2}


def compile_kernels(output: Path, csrc: Path = CSRC, sanitizer: str = "", few_types: bool = False) -> Path:
    """The library, or with `sanitizer` the program; `few_types`: float32 and bfloat16 only."""
    flags = (f"-I{csrc}", *["-DIMAE_SIMT_FEW_TYPES"] * few_types)
    here = Path(__file__).parent
    if sanitizer:
        return emulator.compile_program(here / "kernels_main.cpp", output, *flags, sanitizer=sanitizer)
    return emulator.compile_library(here / "kernels.cpp", output, *flags)


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


def pointer(t: Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


def unwritten(*sizes: int, like: Tensor) -> Tensor:
    """NaN everywhere, so that what a kernel leaves out shows."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.full(sizes, float("nan"), dtype=dtype)


class Kernels:
    def __init__(self, library: Path, machine: Machine = Machine()):
        self.library = ctypes.CDLL(str(library))
        for run in (self.library.run_forward, self.library.run_backward, self.library.run_scale):
            run.restype = c_char_p
            run.argtypes = [c_void_p]
        for ask in (self.library.tier_of, self.library.cluster_of):
            ask.restype = c_int
            ask.argtypes = [c_void_p]
        self.machine = machine

    def _run(self, name: str, call: Structure) -> None:
        error = getattr(self.library, name)(ctypes.byref(call))
        if error is not None:
            raise RuntimeError(error.decode())

    def _rows(
        self,
        logits: Tensor,
        target: Tensor,
        grad: Tensor | None,
        class_weight: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> Structure:
        def integers(values: tuple[int, ...]) -> ctypes.Array[c_int64]:
            return (c_int64 * len(values))(*values)

        strides = (grad if grad is not None else logits).stride()
        return RowsCall(
            self.machine.packed(),
            DTYPES.index(logits.dtype),
            logits.dim(),
            integers(tuple(logits.shape)),
            integers(logits.stride()),
            integers(strides),
            logits.data_ptr(),
            target.data_ptr(),
            target.dtype == torch.int32,
            -100,
            pointer(class_weight),
            pointer(sample_weight),
            pointer(grad),
        )

    def tier(self, logits: Tensor, target: Tensor, grad: Tensor | None = None) -> str | None:
        """The tier that such a call takes, or None if it wants contiguous logits."""
        index = self.library.tier_of(ctypes.byref(self._rows(logits, target, grad)))
        return None if index < 0 else TIERS[index]

    def cluster(self, logits: Tensor, target: Tensor) -> int:
        """The blocks that hold a row of such a call together."""
        return self.library.cluster_of(ctypes.byref(self._rows(logits, target, None)))

    def _inputs(self, logits: Tensor, target: Tensor, grad_wanted: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits in a layout that the kernels walk, and a gradient for them, of NaN."""
        grad = torch.full_like(logits, float("nan")) if grad_wanted else None
        target = target.contiguous()
        if self.tier(logits, target, grad) is None:
            logits = logits.contiguous()
            grad = torch.full_like(logits, float("nan")) if grad_wanted else None
        return logits, target, grad

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        formula: tuple[float, ...],
        *,
        class_weight: Tensor | None = None,
        sample_weight: Tensor | None = None,
        reduction: int = MEAN,
        grad: bool = False,
        save: bool = False,
        stats: bool = False,
    ) -> dict[str, Tensor]:
        """Whatever is asked for of: loss, grad; coefficients and divisor (save); p and example_weight (stats)."""
        logits, target, gradient = self._inputs(logits, target, grad)
        rows = self._rows(logits, target, gradient, class_weight, sample_weight)
        N, reduces = target.numel(), reduction != NONE and not stats
        made: dict[str, Tensor] = {}
        if not stats:
            made["loss"] = unwritten(*([] if reduces else target.shape), like=logits)
        if save:
            made["coefficients"], made["divisor"] = unwritten(N, 4, like=logits), unwritten(like=logits)
        if stats:
            made["p"] = unwritten(*target.shape, like=logits)
            made["example_weight"] = unwritten(*target.shape, like=logits)
        self._run(
            "run_forward",
            ForwardCall(
                rows,
                (c_double * len(formula))(*formula),
                len(formula),
                None if reduces else pointer(made.get("loss")),
                pointer(made.get("coefficients")),
                pointer(made.get("p")),
                pointer(made.get("example_weight")),
                0 if stats else DIVIDE_BY[reduction],
                gradient is not None and reduction == MEAN,
                pointer(made["loss"]) if reduces else None,
                pointer(made.get("divisor")),
            ),
        )
        if gradient is not None:
            made["grad"] = gradient
        return made

    def backward(self, logits: Tensor, target: Tensor, saved: dict[str, Tensor], grad_output: Tensor) -> Tensor:
        logits, target, grad = self._inputs(logits, target, True)
        rows = self._rows(logits, target, grad)
        grad_output = grad_output.contiguous()
        self._run(
            "run_backward",
            BackwardCall(
                rows,
                pointer(saved["coefficients"]),
                pointer(grad_output),
                pointer(saved["divisor"]),
                grad_output.dim() == 0,
            ),
        )
        return grad

    def scale_(
        self,
        grad: Tensor,
        by: Tensor,
        target: Tensor,
        *,
        class_weight: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> None:
        rows = self._rows(grad, target, grad, class_weight, sample_weight)
        self._run("run_scale", ScaleCall(rows, grad.numel(), by.data_ptr(), by.dtype == torch.float64))

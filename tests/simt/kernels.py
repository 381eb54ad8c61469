"""The CUDA kernels in the emulator, called with CPU tensors: what the CUDA operators do, without their allocator."""

from __future__ import annotations

import ctypes
from ctypes import Structure, c_char_p, c_double, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

import emulator
import torch
from kernel_calls import (
    AMOUNTS,
    DIVIDE_BY,
    DTYPES,
    MEAN,
    NONE,
    STATISTICS,
    BackwardCall,
    BinaryCall,
    DenseCall,
    DescribeCall,
    ForwardCall,
    Machine,
    MixedCall,
    RowsCall,
    ScaleCall,
    pointer,
    unwritten,
)
from torch import Tensor

CSRC = Path(__file__).parents[2] / "csrc"
TIERS = ("tile", "row2", "row8", "row32", "row128", "row256", "strided", "cluster")


def compile_kernels(output: Path, csrc: Path = CSRC, sanitizer: str = "", few_types: bool = False) -> Path:
    """The library, or with `sanitizer` the program; `few_types`: float32 and bfloat16 only."""
    flags = (f"-I{csrc}", *["-DIMAE_SIMT_FEW_TYPES"] * few_types)
    here = Path(__file__).parent
    if sanitizer:
        return emulator.compile_program(here / "kernels_main.cpp", output, *flags, sanitizer=sanitizer)
    return emulator.compile_library(here / "kernels.cpp", output, *flags)


class Kernels:
    def __init__(self, library: Path, machine: Machine | None = None):
        self.library = ctypes.CDLL(str(library))
        for name in ("forward", "backward", "scale", "binary", "dense", "mixed", "describe"):
            run = getattr(self.library, f"run_{name}")
            run.restype = c_char_p
            run.argtypes = [c_void_p]
        for ask in (self.library.tier_of, self.library.cluster_of):
            ask.restype = c_int
            ask.argtypes = [c_void_p]
        self.machine = machine or Machine()

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
        over: bool = False,
    ) -> dict[str, Tensor]:
        """Whatever is asked for of: loss, grad; coefficients and divisor (save); p and example_weight (stats).
        over: the gradient takes the place of the logits."""
        logits, target, gradient = self._inputs(logits, target, grad)
        if over:
            gradient = logits
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

    def describe(self, logits: Tensor, target: Tensor, formula: tuple[float, ...], *asked: str) -> dict[str, Tensor]:
        logits, target, _ = self._inputs(logits, target, False)
        made = {name: unwritten(*target.shape, like=logits) for name in ("p", "example_weight", *asked)}
        made |= {"is_top": torch.ones(target.shape, dtype=torch.bool)} if "is_top" in asked else {}
        outputs = (pointer(made.get(name)) for name in ("p", "example_weight", *STATISTICS))
        rows, numbers = self._rows(logits, target, None), (c_double * len(formula))(*formula)
        self._run("run_describe", DescribeCall(rows, numbers, len(formula), *outputs))
        return made

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

    def binary(
        self,
        logits: Tensor,  # (N, C)
        target: Tensor,
        formula: tuple[float, ...],
        *,
        weight: Tensor | None = None,  # (C,)
        pos_weight: Tensor | None = None,  # (C,)
        sample_weight: Tensor | None = None,  # (N,)
        **how: Any,  # as _of_amounts has it
    ) -> dict[str, Tensor]:
        N, C = logits.shape
        kind = torch.uint8 if target.dtype == torch.bool else target.dtype
        rest = (
            logits.numel(),
            pointer(target),
            AMOUNTS.index(kind),
            target.dtype != torch.bool,
            -100,
            *(pointer(each) for each in (weight, pos_weight, sample_weight)),
            (c_int64 * 3)(1, 1, C),
            (c_int64 * 3)(C, C, N),
        )
        return self._of_amounts("run_binary", BinaryCall, logits, rest, logits.shape, formula, **how)

    def dense(
        self,
        logits: Tensor,  # (N, C)
        target: Tensor,  # (N, C)
        formula: tuple[float, ...],
        *,
        weight: Tensor | None = None,  # (C,)
        sample_weight: Tensor | None = None,  # (N,)
        smoothing: float = 0.0,
        **how: Any,
    ) -> dict[str, Tensor]:
        rest = (*logits.shape, *(pointer(each) for each in (weight, sample_weight, target)), smoothing)
        return self._of_amounts("run_dense", DenseCall, logits, rest, logits.shape[:1], formula, **how)

    def mixed(
        self,
        logits: Tensor,  # (N, C)
        target: Tensor,  # (N,), int64, as is other
        other: Tensor,
        lam: Tensor,  # (N,) or (), as is other_lam
        formula: tuple[float, ...],
        *,
        other_lam: Tensor | None = None,
        weight: Tensor | None = None,  # (C,)
        sample_weight: Tensor | None = None,  # (N,)
        **how: Any,  # as _of_amounts has it
    ) -> dict[str, Tensor]:
        amounts = (pointer(lam), pointer(other_lam), lam.dim() == 0, other_lam is not None and other_lam.dim() == 0)
        rest = (*logits.shape, *(pointer(each) for each in (weight, sample_weight, target, other)), -100, *amounts)
        return self._of_amounts("run_mixed", MixedCall, logits, rest, logits.shape[:1], formula, **how)

    def _of_amounts(
        self,
        name: str,
        kind: type[Structure],
        logits: Tensor,
        rest: tuple[Any, ...],  # of the structure, behind what all calls of amounts have
        shape: torch.Size,  # of the loss that is not reduced
        formula: tuple[float, ...],
        *,
        reduction: int = MEAN,
        grad_output: Tensor | None = None,
        divisor: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """loss and divisor; or, with grad_output, grad."""
        reduces = reduction != NONE and grad_output is None
        if grad_output is not None:
            made = {"grad": torch.full_like(logits, float("nan"))}
        else:
            made = {"loss": unwritten(*([] if reduces else shape), like=logits), "divisor": unwritten(like=logits)}
        call = kind(
            self.machine.packed(),
            DTYPES.index(logits.dtype),
            pointer(logits),
            (c_double * len(formula))(*formula),
            len(formula),
            None if reduces else pointer(made.get("loss")),
            pointer(made.get("grad")),
            pointer(grad_output),
            grad_output is not None and grad_output.dim() == 0,
            pointer(divisor),
            DIVIDE_BY[reduction] if grad_output is None else 0,
            pointer(made["loss"]) if reduces else None,
            pointer(made.get("divisor")),
            *rest,
        )
        self._run(name, call)
        return made

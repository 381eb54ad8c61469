"""What is measured: shapes, dtypes, threads, and which of them are worth compiling for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, ...]

# A single step of a small network, where a call's cost counts; many rows of few, some and many classes, odd ones among
# them; a vocabulary; and a segmentation map, whose classes are strided.
CPU_SHAPES: tuple[Shape, ...] = (
    (8, 10),
    (128, 10),
    (8192, 10),
    (8192, 32),
    (8192, 100),
    (8192, 1000),
    (8192, 1001),
    (1024, 32000),
    (8, 19, 256, 256),
)
QUICK_SHAPES: tuple[Shape, ...] = ((128, 10), (8192, 10), (8192, 100), (8192, 1000))
COMPILED_SHAPES: tuple[Shape, ...] = ((8192, 10), (8192, 100), (8192, 1000), (1024, 32000), (8, 19, 256, 256))
SCALED_SHAPES: tuple[Shape, ...] = ((8192, 1000),)  # measured with grad_output 0.5 as well

GPU_CLASSES = (2, 10, 14, 100, 365, 1000, 1001, 4096, 21841, 32000, 50257, 128256, 151936, 256000)
LARGE = 256 * 2**20  # bytes of a tensor that no cache holds

LABEL = 8  # bytes: int64

DTYPES = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "bfloat16", "float16")}


@dataclass(frozen=True)
class Case:
    """One cell of the matrix: logits of a shape and dtype, and how the pass over them runs."""

    shape: Shape  # (N, C) or (N, C, d1, ...)
    dtype: str = "float32"
    threads: int = 1
    device: str = "cpu"
    grad_output: float = 1.0
    leaf: bool = True  # the logits are a leaf of the graph, else the output of an operator

    @property
    def name(self) -> str:
        """The shape, and what else is not usual."""
        scaled = "" if self.grad_output == 1 else f", grad_output {self.grad_output:g}"
        return shape_name(self.shape) + scaled + ("" if self.leaf else ", non-leaf")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype itself."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def classes(self) -> int:
        """C."""
        return self.shape[1]

    @property
    def rows(self) -> int:
        """N, times d1 and so on."""
        return math.prod(self.shape) // self.classes

    @property
    def copied(self) -> int:
        """The bytes that a copy of the logits moves: in and out."""
        return 2 * math.prod(self.shape) * self.torch_dtype.itemsize

    @property
    def bytes(self) -> int:
        """What one pass moves: the logits in, the gradient out, and the labels twice, for mean counts them first."""
        return self.copied + 2 * self.rows * LABEL

    def inputs(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return logits and target, decided by the seed and made on the device."""
        generator = torch.Generator(self.device).manual_seed(seed)
        logits = torch.randn(self.shape, generator=generator, device=self.device).to(self.torch_dtype)
        shape = self.shape[0], *self.shape[2:]
        return logits, torch.randint(self.classes, shape, generator=generator, device=self.device)


def shape_name(shape: Iterable[int]) -> str:
    return "x".join(str(size) for size in shape)


def parse_shape(text: str) -> Shape:
    """Read ``8192x10``."""
    shape = tuple(int(size) for size in text.split("x"))
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"expected a shape such as 8192x10, got {text}")
    return shape


def gpu_shapes() -> tuple[Shape, ...]:
    """Training batches, and tensors of 256 MB and more, at every class count; and a segmentation map."""
    shapes = [(N, C) for C in GPU_CLASSES for N in (128, 1024, 8192, math.ceil(LARGE / (4 * C)))]
    largest = 2 * 2**30  # numbers in a tensor; some contenders keep ten of them
    return (*dict.fromkeys(shape for shape in shapes if math.prod(shape) <= largest), (8, 19, 512, 1024))


def default_shapes(device: str) -> tuple[Shape, ...]:
    return CPU_SHAPES if device == "cpu" else gpu_shapes()


def worth_compiling(case: Case) -> bool:
    """Tell whether the compiled contenders take part by default: each compilation takes seconds."""
    if case.device == "cpu":
        return case.shape in COMPILED_SHAPES and case.grad_output == 1
    return case.bytes >= LARGE or case.shape[0] == 8192


def matrix(
    shapes: Sequence[Shape],
    dtypes: Sequence[str],
    threads: Sequence[int],
    device: str = "cpu",
    grad_outputs: Sequence[float] | None = None,
    leaf: bool = True,
) -> list[Case]:
    """Return the cases, those of one number of threads and one dtype together.

    Args:
        shapes: of the logits.
        dtypes: names of torch dtypes.
        threads: numbers of threads.
        device: ``"cpu"`` or ``"cuda"``.
        grad_outputs: for every shape; by default 1, and 0.5 as well for SCALED_SHAPES.
        leaf: whether the logits are a leaf.

    """
    cases = []
    for count in threads:
        for dtype in dtypes:
            for shape in shapes:
                scales = grad_outputs or ((1.0, 0.5) if shape in SCALED_SHAPES else (1.0,))
                cases += [Case(shape, dtype, count, device, scale, leaf) for scale in scales]
    return cases

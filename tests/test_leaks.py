"""Nothing grows over 1,000 calls: C memory, Python memory, tensors; errors included."""

from __future__ import annotations

import ctypes
import gc
import tracemalloc

import pytest
import torch
from calls import FORMULA, batch
from cases import FORMULAS

import imae_ext

CALLS = 1000
LOGITS, TARGET = batch(N=128, C=512)  # 256 KB: one gradient a call left behind would be 250 MB
OUT = torch.empty_like(LOGITS)
BAD = TARGET.clone()
BAD[77] = 512
WEIGHT = torch.linspace(0.5, 1.5, 512)
BUILT = [spec.build() for spec in FORMULAS]


def backward(reduction: str, twice: bool = False, create_graph: bool = False, logits=LOGITS):
    leaf = logits.detach().requires_grad_()
    loss = imae_ext.robust_loss(leaf, TARGET, FORMULA, weight=WEIGHT, reduction=reduction).sum()
    torch.autograd.grad(loss, leaf, retain_graph=twice, create_graph=create_graph)
    if twice:
        torch.autograd.grad(3 * loss, leaf)


def refused(error, call) -> None:
    with pytest.raises(error):
        call()


HALF = LOGITS.half()
OPERATIONS = {
    "forward": lambda k: imae_ext.robust_loss(LOGITS, TARGET, FORMULA),
    "none": lambda k: backward("none"),
    "mean": lambda k: backward("mean"),
    "sum": lambda k: backward("sum", twice=True),
    "normalized": lambda k: backward("normalized", twice=True),
    "float16": lambda k: backward("mean", logits=HALF),
    "forgotten_graph": lambda k: imae_ext.robust_loss(LOGITS.detach().requires_grad_(), TARGET, FORMULA),
    "value_and_grad": lambda k: imae_ext.value_and_grad(LOGITS, TARGET, FORMULA, weight=WEIGHT),
    "value_and_grad_normalized": lambda k: imae_ext.value_and_grad(LOGITS, TARGET, FORMULA, reduction="normalized"),
    "out": lambda k: imae_ext.value_and_grad(LOGITS, TARGET, FORMULA, out=OUT),
    "row_stats": lambda k: imae_ext.row_stats(LOGITS, TARGET, FORMULA),
    "strided": lambda k: imae_ext.value_and_grad(LOGITS[:, ::2], TARGET % 256, FORMULA),
    "formulas_in_turn": lambda k: imae_ext.robust_loss(LOGITS[:8], TARGET[:8], BUILT[k % len(BUILT)]),
    "new_formulas": lambda k: imae_ext.robust_loss(LOGITS[:8], TARGET[:8], imae_ext.IMAE(8 - k / 1000)),
    "named_loss": lambda k: imae_ext.imae_loss(LOGITS[:8], TARGET[:8], T=8 - k / 1000),
    "module": lambda k: imae_ext.IMAELoss(weight=WEIGHT)(LOGITS, TARGET),
    "bad_label": lambda k: refused(IndexError, lambda: imae_ext.robust_loss(LOGITS, BAD, FORMULA)),
    "bad_label_autograd": lambda k: refused(
        IndexError, lambda: imae_ext.robust_loss(LOGITS.detach().requires_grad_(), BAD, FORMULA, reduction="none")
    ),
    "bad_shape": lambda k: refused(ValueError, lambda: imae_ext.value_and_grad(LOGITS, TARGET[1:], FORMULA)),
    "bad_dtype": lambda k: refused(TypeError, lambda: imae_ext.row_stats(LOGITS.long(), TARGET, FORMULA)),
    "bad_parameter": lambda k: refused(ValueError, lambda: imae_ext.IMAE(T=-1 - k)),
}
# the reference's graphs hold hundreds of objects: fewer calls see as much
SLOW = {"create_graph": lambda k: backward("mean", create_graph=True)}


class Heap(ctypes.Structure):
    """What mallinfo2 of the C library returns, in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ["arena", "ord", "small", "blocks", "mapped", "ms", "fsm", "used", "free", "top"]
    ]


def c_memory() -> int:
    """Bytes that malloc has given out and not got back."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Heap
    heap = mallinfo()
    return heap.used + heap.mapped


@pytest.fixture(autouse=True, scope="module")
def what_was_there_before():
    """Take it out of the collector's sight: what follows is then quick to count."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def tensors() -> int:
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


def python_growth(operation, calls: int) -> tuple[int, int]:
    """Growth of tensors, and of bytes that Python allocated, over the calls: the least of three rounds.

    The first round does not count: blocks freed that were allocated before tracing look like growth.
    """
    tensors_grew, bytes_grew = [], []
    tracemalloc.start()
    try:
        for _ in range(4):
            gc.collect()
            before = tensors(), tracemalloc.get_traced_memory()[0]
            for k in range(calls):
                operation(k)
            gc.collect()
            tensors_grew.append(tensors() - before[0])
            bytes_grew.append(tracemalloc.get_traced_memory()[0] - before[1])
    finally:
        tracemalloc.stop()
    return min(tensors_grew[1:]), min(bytes_grew[1:])


def c_growth(operation, calls: int) -> int:
    """Growth of what malloc has given out over the calls: the least of two rounds after the first."""
    grew = []
    for _ in range(3):
        before = c_memory()
        for k in range(calls):
            operation(k)
        grew.append(c_memory() - before)
    return min(grew[1:])


@pytest.mark.parametrize("name", [*OPERATIONS, *SLOW])
def test_nothing_is_left_behind(name):
    """No tensor, no Python object a call, and not a byte a call of C memory.

    The smallest object takes 16 bytes. The slow operations, of which fewer are made, go through torch's own Python,
    whose caches waver by some thousand bytes however many calls there are: there it is a tuple a call that would show.
    """
    operation, calls, least = (OPERATIONS[name], CALLS, 8) if name in OPERATIONS else (SLOW[name], 400, 64)
    new_tensors, new_bytes = python_growth(operation, calls // 2)
    assert new_tensors <= 0 and new_bytes < least * calls // 2, f"{new_tensors} tensors, {new_bytes} bytes more"
    grew = c_growth(operation, calls)
    assert grew <= calls, f"{grew} bytes more in {calls} calls"


def test_the_graph_dies_with_the_loss():
    """Without waiting for the garbage collector: no reference cycle holds the gradient's buffer."""
    gc.disable()
    try:
        before = tensors()
        for reduction in ("none", "mean", "normalized"):
            leaf = LOGITS.clone().requires_grad_()
            loss = imae_ext.robust_loss(leaf, TARGET, FORMULA, reduction=reduction).sum()
            loss.backward(retain_graph=True)
            del leaf, loss
        assert tensors() == before
    finally:
        gc.enable()


def test_a_leak_would_be_seen():
    """The measures above notice one tensor, 16 bytes of Python, or of C a call."""
    kept: list = []
    new_tensors, new_bytes = python_growth(lambda k: kept.append(torch.zeros(1)), 200)
    assert new_tensors == 200 and new_bytes > 8 * 200
    kept.clear()
    assert python_growth(lambda k: kept.append(object()), CALLS // 2)[1] > 8 * CALLS // 2
    assert c_growth(lambda k: kept.append(ctypes.CDLL(None).malloc(16)), CALLS) > CALLS


def test_a_gradient_for_which_there_is_no_memory():
    """Torch's own error says so; on a GPU it is torch.OutOfMemoryError."""
    rows, C = 2**16, 2**30 - 1  # 256 TiB
    logits, target = torch.zeros(1, requires_grad=True).expand(rows, C), torch.zeros(rows, dtype=torch.int64)
    for call in (imae_ext.robust_loss, imae_ext.value_and_grad):
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            call(logits, target, FORMULA)

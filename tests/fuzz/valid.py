"""Random calls that the documentation allows, each held against the extended-precision oracle of the tests.

The oracle shares nothing with the package: tests/oracle64.py is itself checked against 50 digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import formulas
import numpy as np
import torch
from cases import Spec
from expected import Expected, assert_within, exact, expected, row_allowances, rows, stats_allowances
from oracle64 import oracle64
from torch import Tensor

import imae_ext
from imae_ext import reference

DTYPES = torch.float64, torch.float32, torch.float32, torch.bfloat16, torch.float16
CLASSES = (1, 2, 2, 3, 4, 5, 7, 8, 10, 15, 16, 17, 31, 33, 63, 64, 65, 66, 100, 127, 129, 257, 1000, 1025, 2500)
WAYS = (
    *("backward", "backward", "value_and_grad", "out", "no_grad", "module", "row_stats"),
    *("func", "vmap", "create_graph", "retained", "reference", "reference"),
)
BY_THE_REFERENCE = "func", "vmap", "create_graph", "reference"
INF, NAN = float("inf"), float("nan")


@dataclass
class Call:
    spec: Spec
    logits: Tensor
    target: Tensor
    options: dict[str, object]
    way: str
    upstream: Tensor  # for each row for "none", else a scalar

    def __str__(self) -> str:
        shown = {key: tuple(value.shape) if isinstance(value, Tensor) else value for key, value in self.options.items()}
        return (
            f"{self.way}: {self.spec} on {self.logits.dtype} {tuple(self.logits.shape)} strides {self.logits.stride()} "
            f"target {self.target.dtype} {self.target.stride()} {shown}"
        )


def _shape(random: Random) -> tuple[int, ...]:
    C = random.choice(CLASSES)
    most = max(1, 6000 // C)
    kind = random.random()
    if kind < 0.06:
        return (C,)
    if kind < 0.12:
        return random.choice(((0, C), (0, C, 3), (2, C, 0), (3, C, 0, 2)))
    if kind < 0.7:
        return (random.randint(1, min(most, 70)), C)
    extra = [random.randint(1, 6) for _ in range(random.randint(1, 3))]
    return (random.randint(1, max(1, min(5, most // int(np.prod(extra))))), C, *extra)


def _laid_out(x: Tensor, random: Random) -> Tensor:
    """The same numbers in another layout."""
    kind = random.choice(("plain", "plain", "permuted", "sliced", "offset", "padded", "expanded", "negated"))
    if kind == "permuted":
        order = list(range(x.dim()))
        random.shuffle(order)
        return x.permute(order).contiguous().permute([order.index(k) for k in range(x.dim())])
    if kind == "sliced":
        wide = torch.zeros([2 * size for size in x.shape], dtype=x.dtype)
        view = wide[tuple(slice(random.randint(0, 1), None, 2) for _ in x.shape)]
        return view.copy_(x)
    if kind == "offset":
        offset = random.randint(1, 7)
        return torch.zeros(x.numel() + offset, dtype=x.dtype)[offset:].view(x.shape).copy_(x)
    if kind == "padded" and x.dim() > 1:
        wide = torch.zeros(*x.shape[:-1], x.shape[-1] + random.randint(1, 5), dtype=x.dtype)
        return wide[..., : x.shape[-1]].copy_(x)
    if kind == "expanded" and x.dim() > 1 and x.shape[0] > 1:
        return x[:1].expand_as(x)
    if kind == "negated" and x.is_floating_point():
        return torch._neg_view(-x)
    return x.contiguous()


def _labels(random: Random, generator: torch.Generator, shape: tuple[int, ...], C: int) -> tuple[Tensor, int]:
    dtype = random.choice((torch.int64, torch.int64, torch.int32))
    target = torch.randint(C, shape, generator=generator, dtype=torch.int64)
    choices = [-100, -100, -1, 0, C - 1, C, 255, -(2**31), 2**31 - 1]
    ignore_index = random.choice([*choices, -(2**63), 2**63 - 1, 2**31, 2**32, -(2**32)])
    held = dtype is torch.int64 or -(2**31) <= ignore_index < 2**31
    if held and random.random() < 0.6:
        left = torch.rand(shape, generator=generator) < random.choice((0.1, 0.5, 1.0))
        target = torch.where(left, ignore_index, target)
    return _laid_out(target.to(dtype), random), ignore_index


def draw(random: Random) -> Call:
    generator = torch.Generator().manual_seed(random.getrandbits(60))
    spec, shape, dtype = formulas.draw(random), _shape(random), random.choice(DTYPES)
    dim = min(1, len(shape) - 1)
    C, row_shape = shape[dim], (*shape[:dim], *shape[dim + 1 :])
    while C == 1 and not spec.margin:  # a limit that the oracle does not take; tests of their own do
        spec = formulas.draw(random)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * random.choice((0.1, 1, 1, 4, 12))
    logits = _laid_out((logits + random.choice((0, 0, 0, -60, 200))).to(dtype), random)
    target, ignore_index = _labels(random, generator, row_shape, C)
    reductions = ["none", "mean", "sum", *["normalized"] * spec.margin]
    options: dict[str, object] = {"ignore_index": ignore_index, "reduction": random.choice(reductions)}
    if random.random() < 0.4:
        weight = torch.rand(C, generator=generator, dtype=torch.float64) + 0.25
        if random.random() < 0.5:
            weight[torch.rand(C, generator=generator) < 0.3] = 0
        options["weight"] = _laid_out(weight.to(random.choice(DTYPES)), random)
    way = random.choice([way for way in WAYS if spec.margin or way != "row_stats"])
    if way == "vmap" and len(shape) == 1:
        way = "func"
    upstream = torch.tensor(random.choice((1.0, 1.0, 0.5, -2.0)), dtype=torch.float64)
    if options["reduction"] == "none":
        upstream = torch.randn(row_shape, generator=generator, dtype=torch.float64)
    made = torch.float64 if dtype is torch.float64 else torch.float32
    call = Call(spec, logits, target, options, way, upstream.to(made))
    out = left_out(call)
    if bool(out.any()) and random.random() < 0.5 and call.way != "row_stats":
        filler = torch.tensor(random.choice((INF, NAN, -INF)), dtype=dtype)
        call.logits = torch.where(out.unsqueeze(dim), filler, logits)
    return call


def left_out(call: Call) -> Tensor:
    target = call.target.long()
    out = target == call.options["ignore_index"]
    weight = call.options.get("weight")
    return out if weight is None else out | (weight.double()[torch.where(out, 0, target)] == 0)


def run(call: Call) -> dict[str, Tensor]:
    """What the package gives: loss and grad, or p and weight."""
    formula, options = call.spec.build(), call.options
    logits, target = call.logits.detach(), call.target

    def loss(logits: Tensor) -> Tensor:
        return imae_ext.robust_loss(logits, target, formula, **options)

    if call.way == "row_stats":
        p, weight, *_ = imae_ext.row_stats(logits, target, formula, ignore_index=options["ignore_index"])
        return {"p": p, "weight": weight}
    if call.way in ("value_and_grad", "out"):
        out = torch.full_like(logits, 7.0) if call.way == "out" else None
        value, grad = imae_ext.value_and_grad(logits, target, formula, **options, out=out)
        assert out is None or grad is out
        return {"loss": value, "grad": grad, "once": torch.ones(())}
    if call.way == "no_grad":
        with torch.no_grad():
            return {"loss": loss(logits)}
    if call.way == "func":
        value, pull = torch.func.vjp(loss, logits)
        return {"loss": value, "grad": pull(call.upstream)[0]}
    if call.way == "vmap":
        several = torch.stack([logits, logits.flip(0)])
        value = torch.func.vmap(loss)(several)
        grad = torch.func.vmap(lambda z: torch.func.vjp(loss, z)[1](call.upstream)[0])(several)
        return {"loss": value[0], "grad": grad[0]}
    leaf = logits.detach().requires_grad_()
    if call.way == "module":
        value = imae_ext.RobustLoss(formula, **options)(leaf, target)
    elif call.way == "reference":
        value = reference.robust_loss(leaf, target, formula, **options)
    else:
        value = loss(leaf)
    if call.way == "retained":
        torch.autograd.grad(value, leaf, torch.ones_like(value), retain_graph=True)
    grad = torch.autograd.grad(value, leaf, call.upstream, create_graph=call.way == "create_graph")[0]
    return {"loss": value.detach(), "grad": grad.detach()}


def _check_row_stats(call: Call, made: dict[str, Tensor]) -> None:
    spec, target = call.spec, call.target
    kept = (target.long() != int(call.options["ignore_index"])).reshape(-1)
    table = _table(spec, call, kept)
    with np.errstate(all="ignore"):
        allowed = _over_terms(spec, lambda one: stats_allowances(one, _table(one, call, kept), call.logits.dtype))
    for name, wanted, most in zip(("p", "weight"), (table.p_y, table.weight), allowed, strict=True):
        assert made[name].shape == target.shape and bool((made[name].reshape(-1)[~kept] == 0).all())
        assert_within(made[name].reshape(-1)[kept], wanted, 4 * most, name)


def _check_value(call: Call, loss: Tensor, out: Tensor, wanted: Expected, slack: float) -> None:
    by_row = call.options["reduction"] == "none"
    assert loss.shape == (call.target.shape if by_row else ()), "the loss's shape"
    assert loss.dtype == (torch.float64 if call.logits.dtype is torch.float64 else torch.float32), "the loss's dtype"
    if by_row:
        assert bool((loss.reshape(-1)[out] == 0).all()), "the value of a row that is left out"
    if bool(out.all()) and call.options["reduction"] in ("mean", "normalized"):
        assert bool(loss.isnan()), "a mean over no rows"
    else:
        assert_within(loss.reshape(-1) if by_row else loss, wanted.loss, slack * wanted.loss_allowed, "loss")


def check(call: Call) -> None:
    before = call.logits.clone(), call.target.clone()
    made = run(call)
    for tensor, kept in zip((call.logits, call.target), before, strict=True):
        same = (tensor == kept) | ((tensor != tensor) & (kept != kept))
        assert bool(same.all()), "an argument was written to"
    spec, dtype, options = call.spec, call.logits.dtype, call.options
    target, ignored = call.target, int(options["ignore_index"])
    out = left_out(call).reshape(-1)
    if call.way == "row_stats":
        return _check_row_stats(call, made)
    upstream = made.pop("once", call.upstream)
    up = upstream.double().reshape(-1).numpy() if upstream.dim() else float(upstream)
    if options["reduction"] == "none" and upstream.dim() == 0 and target.dim() == 0:
        up = np.asarray([float(upstream)])
    labels = torch.where(left_out(call), ignored, target.long())
    weight = options.get("weight")
    compute = torch.float64 if dtype is torch.float64 else torch.float32
    if weight is not None:
        weight = weight.to(compute).resolve_neg()
    wanted = expected(
        spec,
        call.logits.resolve_neg(),
        labels,
        weight=weight,
        ignore_index=ignored,
        reduction=options["reduction"],
        grad_output=up,
    )
    slack = 1.0
    if len(spec.terms) > 1:  # what cancels between terms is no error
        slack = _cancellation(spec, call, ~out, wanted)
    slack *= 300 if call.way in BY_THE_REFERENCE else 4
    loss = made["loss"]
    if (
        options["reduction"] == "normalized"
        and not bool(out.all())
        and _without_digits(wanted, ~out, labels, weight, compute)
    ):
        return  # docstrings say so
    _check_value(call, loss, out, wanted, slack)
    if "grad" in made:
        grad = made["grad"]
        assert grad.shape == call.logits.shape and grad.dtype == dtype, "the gradient's shape and dtype"
        assert bool((rows(grad)[out] == 0).all()), "the gradient of a row that is left out"
        largest = float(np.abs(wanted.grad).max(initial=0))
        if not bool(out.all()) and largest < torch.finfo(dtype).max:  # beyond which float16 has infinity
            allowed = slack * wanted.grad_allowed + _smoothing(call) * np.abs(np.asarray(up)).max(initial=0)
            assert_within(rows(grad), wanted.grad, allowed, "gradient")


def _without_digits(wanted, kept: Tensor, labels: Tensor, weight: Tensor | None, dtype: torch.dtype) -> bool:
    """Whether the example weights' sum is too small for the dtype of computation, or the quotient too large."""
    factor = 1.0 if weight is None else exact(weight)[labels.reshape(-1)[kept].numpy()]
    divisor, limits = float((factor * wanted.table.weight).sum()), torch.finfo(dtype)
    return abs(divisor) < limits.tiny / limits.eps or abs(float(wanted.loss)) > limits.max


def _smoothing(call: Call) -> float:
    """What LabelSmoothing's gradient may be off where it cancels: it is a difference of numbers of this size."""
    relative = 1e-12 if call.logits.dtype is torch.float64 else 1e-5
    weight = call.options.get("weight")
    most = 1.0 if weight is None else float(weight.double().max())
    sizes = [abs(c) * dict(params)["eps"] for c, name, params in call.spec.terms if name == "LabelSmoothing"]
    return relative * most * sum(sizes)


def _table(spec: Spec, call: Call, kept: Tensor):
    return oracle64(
        spec.terms, exact(rows(call.logits.resolve_neg()))[kept.numpy()], call.target.long().reshape(-1)[kept].numpy()
    )


def _over_terms(spec: Spec, of):
    """Allowances of a combination: the sum of its terms', so that nothing is asked of what cancels."""
    parts = [of(Spec(((abs(c), name, params),))) for c, name, params in spec.terms]
    return [sum(each) for each in zip(*parts, strict=True)]


def _cancellation(spec: Spec, call: Call, kept: Tensor, wanted) -> float:
    """By how much the terms' own allowances exceed the sum's, at most."""
    if not bool(kept.any()):
        return 1.0
    with np.errstate(all="ignore"):
        terms = _over_terms(spec, lambda one: row_allowances(one, _table(one, call, kept), call.logits.dtype))
        whole = row_allowances(spec, _table(spec, call, kept), call.logits.dtype)
        return float(max(1.0, *(np.nanmax(t.max(axis=-1) / w.max(axis=-1)) for t, w in zip(terms, whole, strict=True))))

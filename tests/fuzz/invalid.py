"""Random calls that must be refused: by an error that says so, in good time, with every argument as it was."""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor

import imae_ext
from imae_ext import CCE, GCE, IMAE, MAE, NCE, Focal, LabelSmoothing, reference

REFUSALS = TypeError, ValueError, IndexError, RuntimeError
WAYS = "robust_loss", "backward", "value_and_grad", "row_stats", "module", "reference", "func", "named", "vmap"


def _bad_logits(random: Random, z: Tensor, y: Tensor) -> object:
    return random.choice(
        (
            *(z.long(), z.bool(), z.to(torch.complex64), z.tolist(), None, 3.0, z.numpy(), torch.tensor(1.0)),
            *(z.to(torch.uint8), z.to("meta"), z.new_zeros(z.shape[0], 0), z.new_zeros(0, 0), z.unsqueeze(0)),
            *(z.to_sparse(), z[:, :, None, None], z.t()[:, : z.shape[0] - 1]),
        )
    )


def _bad_target(random: Random, z: Tensor, y: Tensor) -> object:
    C, wrong = z.shape[1], y.clone()
    wrong[random.randrange(len(y))] = random.choice((-1, C, C + 5, 2**40, -(2**62), 2**31))
    one_hot = torch.nn.functional.one_hot(y, C)
    return random.choice(
        (
            *(y.float(), y.double(), y.bool(), y.short(), y.tolist(), None, 1, y.numpy(), y[:-1], y[None], y[:, None]),
            *(
                one_hot,
                one_hot.float()[:, 1:],
                y.to("meta"),
                y.to(torch.complex64),
                torch.tensor(1),
                wrong,
                wrong,
                wrong,
            ),
            *(wrong.clamp(-1, 2**31 - 1).int(), y.to_sparse()),
        )
    )


def _bad_weight(random: Random, z: Tensor, y: Tensor) -> object:
    w = torch.ones(z.shape[1])
    choices = (w[:-1], torch.ones(len(w) + 1), w.long(), w[None], w.tolist(), 2.0, w.to("meta"), w.bool(), w.sum())
    return random.choice((*choices, w.to(torch.complex64), w.to_sparse(), "balanced", w.numpy()))


def _bad_formula(random: Random, z: Tensor, y: Tensor) -> object:
    return random.choice((IMAE, CCE, "imae", 8.0, [CCE()], torch.nn.CrossEntropyLoss(), imae_ext.RobustLoss, {}))


def _bad_reduction(random: Random, z: Tensor, y: Tensor) -> object:
    return random.choice(("average", "", "Mean", None, 1, True, ["mean"], b"mean", torch.tensor(1), {}))


def _bad_ignore_index(random: Random, z: Tensor, y: Tensor) -> object:
    t = torch.tensor
    return random.choice(
        (1.7, True, None, "1", 2**63, -(2**63) - 1, t(1.7), t([1]), t(True), [1], 1j, t([1, 2]), 2**70)
    )


def _bad_out(random: Random, z: Tensor, y: Tensor) -> object:
    return random.choice(
        (
            *(z, z[:], z.double(), torch.zeros(len(z) + 1, z.shape[1]), z.new_zeros(1).expand_as(z), 3, z.tolist()),
            *(
                z.to_sparse(),
                torch.zeros_like(z, requires_grad=True),
                z.to("meta"),
                z.new_zeros(*z.shape, 1),
                z.t(),
                z.flip(0).half(),
            ),
            z.flip(0).half(),
        )
    )


def _bad_parameter(random: Random) -> object:
    """Making the formula is the call."""
    return random.choice(
        (
            lambda: IMAE(random.choice((-1, 31, float("nan"), float("inf"), "8", None, torch.ones(3), 1j, 10**400))),
            lambda: GCE(random.choice((0, -0.1, 16.5, float("nan"), [0.7], "q"))),
            lambda: Focal(random.choice((-1e-9, 65, float("-inf"), b"2"))),
            lambda: LabelSmoothing(random.choice((-1e-9, 1.0001, float("nan")))),
            lambda: random.choice((1e31, -1e300, float("inf"), float("nan"))) * MAE(),
            lambda: CCE() + MAE() + NCE() + GCE() + IMAE(),
            lambda: imae_ext.TaylorCE(random.choice((0, 2.5, 65, -3))),
            lambda: imae_ext.AGCE(random.choice((0.0, 101.0, float("nan")))),
            lambda: imae_ext.DM(8.0, random.choice((0.001, 17.0, -1.0))),
            lambda: imae_ext.IMAELoss(T=random.choice((-1, 31, None, "x"))),
        )
    )


BREAKS = {
    "logits": _bad_logits,
    "target": _bad_target,
    "weight": _bad_weight,
    "formula": _bad_formula,
    "reduction": _bad_reduction,
    "ignore_index": _bad_ignore_index,
    "out": _bad_out,
}


def draw(random: Random):
    """A function that must raise, its tensors, and what it is."""
    if random.random() < 0.1:
        return _bad_parameter(random), [], "a parameter"
    N, C = random.randint(2, 9), random.choice((2, 3, 5, 17, 70))
    if N == C:
        N += 1
    generator = torch.Generator().manual_seed(random.getrandbits(60))
    z = torch.randn(N, C, generator=generator)
    y = torch.randint(C, (N,), generator=generator)
    way = random.choice(WAYS)
    arguments = {"logits": z, "target": y, "formula": CCE(), "reduction": "mean", "ignore_index": -100, "weight": None}
    broken = random.choice([k for k in BREAKS if k != "out" or way == "value_and_grad"])
    if (way in ("func", "vmap") and broken in ("target", "logits")) or (
        way == "row_stats" and broken in ("weight", "reduction")
    ):
        broken = "ignore_index"  # with transforms there are no labels to look at
    if way == "named" and broken == "formula":
        way = "robust_loss"
    if broken == "formula" and random.random() < 0.3:
        value: object = NCE()
        arguments["reduction"] = "normalized"
        if way in ("named", "row_stats"):
            way = "robust_loss"
    else:
        value = BREAKS[broken](random, z, y)
    arguments[broken] = value
    tensors = [x for x in (z, y, value) if isinstance(x, Tensor)]
    shown = f"{type(value).__name__} {value if not isinstance(value, Tensor) else (value.dtype, tuple(value.shape))}"
    return (lambda: _call(way, arguments)), tensors, f"{way}, {broken}: {shown[:120]}"


def _call(way: str, arguments: dict[str, object]) -> object:
    given = dict(arguments)
    z, y, formula = given.pop("logits"), given.pop("target"), given.pop("formula")
    out = given.pop("out", None)
    if way == "backward":
        z = z.clone().requires_grad_() if isinstance(z, Tensor) and z.is_floating_point() else z
    if way == "value_and_grad":
        return imae_ext.value_and_grad(z, y, formula, **given, out=out)
    if way == "row_stats":
        return imae_ext.row_stats(z, y, formula, ignore_index=given["ignore_index"])
    if way == "module":
        return imae_ext.RobustLoss(formula, **given)(z, y)
    if way == "reference":
        return reference.robust_loss(z, y, formula, **given)
    if way == "func":
        return torch.func.grad(lambda z: imae_ext.robust_loss(z, y, formula, **given))(z)
    if way == "vmap":
        return torch.func.vmap(lambda z: imae_ext.robust_loss(z, y, formula, **given))(z[None])
    if way == "named":
        return imae_ext.imae_loss(z, y, **given)
    return imae_ext.robust_loss(z, y, formula, **given)


def _bits(x: Tensor) -> object:
    if x.device.type == "meta" or x.layout is not torch.strided:
        return None
    return x.detach().clone()


def check(random: Random) -> None:
    call, tensors, shown = draw(random)
    before = [_bits(x) for x in tensors]
    try:
        made = call()
    except REFUSALS as error:
        said = str(error)
        assert said.startswith("imae_ext:"), f"{shown}: says {type(error).__name__}: {said[:200]!r}"
        assert len(said) < 600, f"{shown}: says too much"
    except Exception as error:
        raise AssertionError(f"{shown}: raises {type(error).__name__}: {str(error)[:200]!r}") from None
    else:
        raise AssertionError(f"{shown}: returns {made!r:.200}")
    for x, kept in zip(tensors, before, strict=True):
        assert kept is None or torch.equal(x.nan_to_num(), kept.nan_to_num()), f"{shown}: an argument was written to"

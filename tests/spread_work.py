"""What each process of tests/test_spread.py computes."""

from __future__ import annotations

import os
from typing import Any

import spread_cases as cases
import torch
import torch.distributed as dist
import worlds
from cases import FORMULAS
from spread_cases import PLACEMENTS, Found, options_of, spread, vocab, whole
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import loss_parallel

import imae_ext
from imae_ext import CCE, IMAE, MAE, NCE, LabelSmoothing

ENDS = {2: (4, 11), 3: (4, 4, 11), 4: (3, 6, 9, 11)}  # of the classes; a process without any among three
SIZES = tuple(ENDS)
LAYOUTS = ("one row", "images", "strided")
EXTREMES = ("far label", "no other mass", "masked", "nan", "inf", "large")
ODD = (CCE(), IMAE(), NCE(), 0.5 * LabelSmoothing(0.1) + MAE())


def fits(placement: str, size: int) -> bool:
    shape = PLACEMENTS[placement][1]
    return size == 4 or shape is None


def extreme(kind: str, dtype: torch.dtype) -> dict[str, Tensor]:
    data = whole(dtype)
    z, y = data["logits"], data["target"]
    if kind == "far label":
        z[0, y[0]], z[5, y[5]] = -80.0, 90.0
    if kind == "no other mass":
        z[0] = -torch.inf
        z[0, y[0]] = 1.0
    if kind == "masked":  # the classes of a whole process among them
        z[:, :6] = torch.where(torch.arange(6) == y[:, None], z[:, :6], -torch.inf)
        z -= 300.0  # so that nobody may take 0 for the maximum of classes without mass
    if kind == "nan":
        z[0, 3], z[2, 1], z[6, y[6]] = torch.nan, torch.nan, torch.nan  # row 2 is ignored
    if kind == "inf":
        z[0, (y[0] + 1) % 11], z[5, y[5]], z[7, y[7]] = torch.inf, torch.inf, -torch.inf
    if kind == "large":
        z += torch.linspace(-3e4, 3e4, len(z), dtype=dtype)[:, None]
    return data


def laid_out(kind: str) -> dict[str, Tensor]:
    data = whole(torch.float32, 12)
    z, y = data["logits"], data["target"]
    if kind == "one row":
        return {**data, "logits": z[0], "target": y[0]}
    if kind == "images":
        return {**data, "logits": z.reshape(4, 3, 11).transpose(1, 2), "target": y.reshape(4, 3)}
    return {**data, "logits": torch.stack((z, z), -1)[..., 0]}


def work(size: int, slow: bool) -> dict[Any, Any]:
    """All cases of one world, on each of its processes."""
    found: dict[Any, Any] = {}
    meshes: dict[Any, Any] = {}
    for i, placement, reduction, weights in cases.product_of_all() if slow else cases.selection():
        if fits(placement, size):
            data = whole()
            chosen = FORMULAS[i].build(), data, placement, reduction, meshes
            found["spread", i, placement, reduction, weights] = spread(*chosen, **options_of(weights, data))
    if slow:
        return found
    for i, spec in enumerate(FORMULAS):
        reduction = cases.reductions(spec)[i % 3]
        found["vocab", i] = vocab(spec.build(), whole(), ENDS[size], reduction, **options_of("weighed", whole()))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        ends = {2: (77, 200), 3: (77, 150, 200), 4: (50, 77, 150, 200)}[size]
        found["dtype", dtype] = vocab(IMAE(), whole(dtype, 40, 200), ends, "mean")
    for kind in EXTREMES:
        for k, formula in enumerate(ODD):
            found[kind, k] = spread(formula, extreme(kind, torch.float32), "classes", "none", meshes)
    mesh = meshes[None]
    for kind in LAYOUTS:
        found[kind] = spread(CCE() + MAE(), laid_out(kind), "classes" if kind != "one row" else "rows", "mean", meshes)
    found["targets"] = targets(mesh)
    found["soft"] = soft_targets(mesh)
    found["loss_parallel"] = within_loss_parallel(mesh)
    found["wire"] = wire(mesh)
    found["memory"] = memory(size)
    found["messages"] = refusals(mesh)
    found["debug"] = disagreements(size)
    found["compiled"] = compiled(mesh) if size == 2 else None
    if size == 2:
        found["over"] = True
        found["dead"] = after_a_death()
    return found


def gradient_of(loss: Tensor, leaf: Any) -> Found:
    (loss / 2).backward()  # as cases.upstream
    return loss.full_tensor().detach(), leaf.grad.full_tensor()


def leaf_of(data: dict[str, Tensor], mesh: Any, placement: Any) -> Any:
    return distribute_tensor(data["logits"].clone(), mesh, [placement]).requires_grad_()


def targets(mesh: Any) -> dict[str, Found]:
    """Labels and weights as DTensor of either placement, whole, or as this process's part."""
    data, found = whole(), {}
    for placement in (Shard(0), Shard(1)):
        of_rows = placement if placement == Shard(0) else Replicate()
        spread_rows = [distribute_tensor(data[name], mesh, [of_rows]) for name in ("target", "sample_weight")]
        copies = [distribute_tensor(data[name], mesh, [Replicate()]) for name in ("target", "sample_weight")]
        parts = [each.to_local() for each in spread_rows]
        weight = distribute_tensor(data["weight"], mesh, [Replicate()])
        for name, (y, samples) in {"spread": spread_rows, "copies": copies, "parts": parts}.items():
            leaf = leaf_of(data, mesh, placement)
            loss = imae_ext.imae_loss(leaf, y, weight=weight, sample_weight=samples, reduction="normalized")
            found[f"{placement} {name}"] = gradient_of(loss, leaf)
    return found


def soft_targets(mesh: Any) -> dict[str, Found]:
    """Every other kind of target where the rows are sharded, and value_and_grad."""
    data = whole()
    z, t, samples = (data[name] for name in ("logits", "probabilities", "sample_weight"))
    leaves = [leaf_of(data, mesh, Shard(0)) for _ in range(5)]
    options = {"weight": data["weight"], "sample_weight": samples}
    mixed = (data["target"], data["other"], data["lam"], IMAE())
    spread_t = distribute_tensor(t, mesh, [Shard(0)])
    found = {
        "probabilities": gradient_of(imae_ext.robust_loss(leaves[0], spread_t, IMAE(), **options), leaves[0]),
        "normalized": gradient_of(imae_ext.robust_loss(leaves[1], t, IMAE(), reduction="normalized"), leaves[1]),
        "smoothed": gradient_of(imae_ext.cce_loss(leaves[2], data["target"], label_smoothing=0.1), leaves[2]),
        "mixed": gradient_of(imae_ext.mixed_loss(leaves[3], *mixed, **options), leaves[3]),
        "mixed normalized": gradient_of(imae_ext.mixed_loss(leaves[4], *mixed, reduction="normalized"), leaves[4]),
    }
    for name, placement in (("value_and_grad rows", Shard(0)), ("value_and_grad classes", Shard(1))):
        given = distribute_tensor(z, mesh, [placement])
        value, grad = imae_ext.value_and_grad(given, data["target"], IMAE())
        assert grad.placements == given.placements
        found[name] = value.full_tensor(), grad.full_tensor() / 2
    return found


def wanted_soft() -> dict[str, Found]:
    data = whole()
    t, samples = data["probabilities"], data["sample_weight"]
    options = {"weight": data["weight"], "sample_weight": samples}
    mixed = (data["target"], data["other"], data["lam"], IMAE())
    leaves = [data["logits"].clone().requires_grad_() for _ in range(6)]
    losses = {
        "probabilities": imae_ext.robust_loss(leaves[0], t, IMAE(), **options),
        "normalized": imae_ext.robust_loss(leaves[1], t, IMAE(), reduction="normalized"),
        "smoothed": imae_ext.cce_loss(leaves[2], data["target"], label_smoothing=0.1),
        "mixed": imae_ext.mixed_loss(leaves[3], *mixed, **options),
        "mixed normalized": imae_ext.mixed_loss(leaves[4], *mixed, reduction="normalized"),
        "value_and_grad rows": imae_ext.robust_loss(leaves[5], data["target"], IMAE()),
    }
    for loss in losses.values():
        (loss / 2).backward()
    found = {name: (loss.detach(), leaf.grad) for (name, loss), leaf in zip(losses.items(), leaves, strict=True)}
    return {**found, "value_and_grad classes": found["value_and_grad rows"]}


def within_loss_parallel(mesh: Any) -> Found:
    data = whole()
    leaf = leaf_of(data, mesh, Shard(1))
    with loss_parallel():
        return gradient_of(imae_ext.imae_loss(leaf, data["target"]), leaf)


def wire(mesh: Any) -> dict[str, float]:
    """Numbers a row that all-reduces are given, forward and backward."""
    sent: list[int] = []
    reduce = dist.all_reduce

    def counting(x: Tensor, *arguments: Any, **options: Any) -> Any:
        sent.append(x.numel())
        return reduce(x, *arguments, **options)

    found = {}
    dist.all_reduce = counting
    try:
        for name, formula in (("p alone", IMAE()), ("all logits", NCE())):
            data, sent[:] = whole(n=1000), []
            leaf = leaf_of(data, mesh, Shard(1))
            imae_ext.robust_loss(leaf, data["target"], formula).backward()
            found[name] = sum(sent) / 1000
    finally:
        dist.all_reduce = reduce
    return found


def memory(size: int) -> float:
    """MiB at most that a step takes beside its own logits, 64 MiB of which are divided among the processes."""
    logits = torch.zeros(512, 32768 // size).requires_grad_()
    target = torch.arange(512)
    given = {"first_class": dist.get_rank() * logits.shape[1], "num_classes": 32768, "group": "world"}

    def status(name: str) -> int:
        with open("/proc/self/status") as lines:
            return int(next(line for line in lines if line.startswith(name)).split()[1])

    for _ in range(2):  # the first time, libraries are loaded
        logits.grad = None
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
        before = status("VmRSS")
        imae_ext.vocab_parallel_robust_loss(logits, target, IMAE(), **given).backward()
        used = (status("VmHWM") - before) / 1024
    return used


def refusals(mesh: Any) -> dict[str, str]:
    from torch.distributed.tensor import Partial

    data = whole()
    y, t = data["target"], data["probabilities"]
    classes, rows = leaf_of(data, mesh, Shard(1)), leaf_of(data, mesh, Shard(0))
    partial = DTensor.from_local(data["logits"], mesh, [Partial()], run_check=False)
    local = {"first_class": 0, "num_classes": 11, "group": "world"}
    z, message = data["logits"][:, :3], worlds.message
    return {
        "probabilities": message(lambda: imae_ext.cce_loss(classes, t)),
        "smoothing": message(lambda: imae_ext.cce_loss(classes, y, label_smoothing=0.1)),
        "two labels": message(lambda: imae_ext.mixed_loss(classes, y, y, 0.5, CCE())),
        "partial": message(lambda: imae_ext.cce_loss(partial, y)),
        "group": message(lambda: imae_ext.cce_loss(rows, y, group="world")),
        "shape": message(lambda: imae_ext.cce_loss(rows, y[:-2])),
        "placement": message(lambda: imae_ext.cce_loss(classes, distribute_tensor(y, mesh, [Shard(0)]))),
        "label": message(lambda: imae_ext.cce_loss(classes, y.masked_fill(y == 5, 11))),
        "second": message(lambda: torch.autograd.grad(imae_ext.cce_loss(classes, y), classes, create_graph=True)),
        "trained weight": message(lambda: imae_ext.cce_loss(classes, y, weight=data["weight"].requires_grad_())),
        "row_stats": message(lambda: imae_ext.row_stats(rows, y)),
        "binary": message(lambda: imae_ext.binary_robust_loss(rows, t, CCE())),
        "linear": message(lambda: imae_ext.linear_robust_loss(rows, torch.ones(4, 11), y, CCE())),
        "nll": message(lambda: imae_ext.robust_loss_from_nll(rows, CCE())),
        "out": message(lambda: imae_ext.value_and_grad(rows, y, CCE(), out=rows)),
        "beyond": message(lambda: imae_ext.vocab_parallel_robust_loss(z, y, CCE(), **{**local, "first_class": 9})),
        "no group": message(lambda: imae_ext.vocab_parallel_robust_loss(z, y, CCE(), **{**local, "group": None})),
        "its weight": message(lambda: imae_ext.vocab_parallel_robust_loss(z, y, CCE(), weight=torch.ones(3), **local)),
        "a DTensor": message(lambda: imae_ext.vocab_parallel_robust_loss(classes, y, CCE(), **local)),
        "classes": message(lambda: imae_ext.vocab_parallel_robust_loss(z, y, CCE(), **{**local, "num_classes": 0})),
    }


def disagreements(size: int) -> dict[str, str]:
    os.environ["IMAE_EXT_DEBUG"] = "1"
    rank = dist.get_rank()
    data = whole()
    begin, end = (0, *ENDS[size])[rank : rank + 2]
    z, y = data["logits"][:, begin:end], data["target"]

    def call(first: int = begin, rows: int = cases.N) -> str:
        given = {"first_class": first, "num_classes": 11, "group": "world"}
        return worlds.message(lambda: imae_ext.vocab_parallel_robust_loss(z[:rows], y[:rows], CCE(), **given))

    said = {"rows": call(rows=cases.N - (rank == 1)), "classes": call(first=0), "nothing": call()}
    del os.environ["IMAE_EXT_DEBUG"]
    return said


def compiled(mesh: Any) -> list[Found]:
    data, found = whole(), []
    how = {"backend": "aot_eager", "fullgraph": True, "dynamic": False}
    for placement in (Shard(0), Shard(1)):
        leaf = leaf_of(data, mesh, placement)
        step = torch.compile(lambda z, y: imae_ext.imae_loss(2 * z, y), **how)
        found.append(gradient_of(step(leaf, data["target"]), leaf))
    return found


def after_a_death() -> str:
    """What the first process is told if the other one is gone."""
    dist.barrier()
    if dist.get_rank() == 1:
        return ""
    data, given = whole(), {"first_class": 0, "num_classes": 11, "group": "world"}
    return worlds.message(
        lambda: imae_ext.vocab_parallel_robust_loss(data["logits"][:, :4], data["target"], CCE(), **given)
    )

"""`group=` of every loss: processes with unequal rows get the value and the gradient of one that has them all."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.distributed as dist
import worlds
from calls import batch
from group_calls import CALLS, CASES, MEAN_ONLY, SINGLE, C, Found, Rows, differentiated, labels
from torch import Tensor

import imae_ext
from imae_ext import CCE, IMAE
from imae_ext.trainers import causal_lm_loss, classification_loss

ENDS = {2: (17, 23), 3: (9, 9, 23), 4: (1, 13, 13, 23)}  # a process without rows where there are three or more
SIZES = tuple(ENDS)


def of_process(begin: int, end: int) -> dict[Any, Any]:
    """All cases of one process."""
    group = dist.group.WORLD
    found: dict[Any, Any] = {}
    for name, reduction in CASES:
        given = "world" if name == "module" or reduction == "mean" else group
        found[name, reduction] = (CALLS | MEAN_ONLY)[name](Rows(begin, end), reduction=reduction, group=given)
    for dtype in SINGLE:
        rows = Rows(begin, end, getattr(torch, dtype))
        found["dtype", dtype] = CALLS["labels"](rows, reduction="mean", group=group)
    rows = Rows(begin, end)
    found["trainers"] = [differentiated(*each) for each in trainers(rows, "world")]
    rows.target[:] = -100
    rows.logits[:] = torch.nan
    found["all ignored"] = [labels(IMAE())(rows, reduction=r, group=group) for r in ("mean", "normalized")]
    rows = Rows(begin, end)
    rows.weight[:] = 0
    weightless = labels(IMAE(), weight=True)
    found["all ignored"] += [weightless(rows, reduction=r, group=group) for r in ("mean", "normalized")]
    rows = Rows(begin, end)
    if dist.get_world_size() == 2:  # once: the compiler takes long to import
        compiled = torch.compile(imae_ext.robust_loss, backend="aot_eager")
        found["compiled"] = differentiated(lambda z: compiled(z, rows.target, IMAE(), group=group), rows.logits)
    found["DDP"] = {reduction: step(rows, reduction, "world") for reduction in ("mean", "normalized")}
    found["messages"] = refusals(rows)
    found["debug"] = disagreements(rows)
    return found


def trainers(rows: Rows, group: Any) -> list[tuple[Any, Tensor]]:
    by_class = classification_loss(IMAE(), weight=rows.weight, group=group)
    causal = causal_lm_loss(CCE(), group=group)
    return [
        (lambda z: by_class((z,), rows.target), rows.logits),
        (lambda z: causal((z[None],), rows.target[None]), rows.logits),
    ]


def step(rows: Rows, reduction: str, group: Any) -> Tensor:
    """The gradient of a model's weights, averaged by DDP where there is a group."""
    model = torch.nn.Linear(5, C).double()
    with torch.no_grad():
        model.weight.copy_(rows.head)
        model.bias.zero_()
    wrapped = torch.nn.parallel.DistributedDataParallel(model) if group else model
    imae_ext.imae_loss(wrapped(rows.hidden), rows.target, reduction=reduction, group=group).backward()
    return torch.cat([model.weight.grad.flatten(), model.bias.grad])


def refusals(rows: Rows) -> list[str]:
    def call(group: Any) -> Any:
        return lambda: imae_ext.robust_loss(rows.logits, rows.target, IMAE(), group=group)

    others = dist.new_group([0])  # the first process alone
    mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
    return [worlds.message(call(group)) for group in ("all", 3, mesh, others)]


def disagreements(rows: Rows) -> list[str]:
    """What IMAE_EXT_DEBUG=1 says where rank 1 calls something else; the last one agrees."""
    os.environ["IMAE_EXT_DEBUG"] = "1"
    odd = dist.get_rank() == 1
    z, y = rows.logits, rows.target
    said = [
        worlds.message(lambda: imae_ext.robust_loss(z, y, IMAE(4.0 if odd else 8.0), group="world")),
        worlds.message(lambda: imae_ext.robust_loss(z[:, :6] if odd else z, y.clamp(max=5), CCE(), group="world")),
        worlds.message(lambda: imae_ext.robust_loss(z, y, CCE(), reduction="sum" if odd else "mean", group="world")),
        worlds.message(lambda: imae_ext.robust_loss(z.float() if odd else z, y, CCE(), group="world")),
        worlds.message(lambda: imae_ext.robust_loss(z, y, CCE(), group="world")),
    ]
    del os.environ["IMAE_EXT_DEBUG"]
    return said


def work(size: int) -> dict[Any, Any]:
    rank = dist.get_rank()
    return of_process(*((0, *ENDS[size])[rank : rank + 2]))


@pytest.fixture(scope="module", params=SIZES)
def world(request, tmp_path_factory):
    return worlds.run(request.param, tmp_path_factory.mktemp("world"), work, request.param)


def check(parts: list[Found], wanted: Found, averaged: bool, tolerance: float) -> None:
    """Every process has the whole's value, and the average of the gradients is the whole's."""
    value, grads = wanted
    for part, _ in parts:
        if averaged:
            assert torch.allclose(part, value, rtol=tolerance), (part, value)
            assert torch.equal(part, parts[0][0])
    by = len(parts) if averaged else 1
    joined = {"rows": torch.cat([g["rows"] for _, g in parts]) / by}
    if "shared" in grads:
        joined["shared"] = torch.stack([g["shared"] for _, g in parts]).sum(0) / by
    for name, grad in grads.items():
        assert (joined[name] - grad).norm() <= tolerance * grad.norm(), name
        assert grad.norm() > 0


@pytest.mark.parametrize(("name", "reduction"), CASES)
def test_processes_get_what_one_gets(world, name, reduction):
    wanted = (CALLS | MEAN_ONLY)[name](Rows(), reduction=reduction)
    parts = [each[name, reduction] for each in world]
    check(parts, wanted, reduction in ("mean", "normalized"), 1e-12)
    if reduction == "sum":  # nobody tells the others
        assert torch.allclose(sum(part for part, _ in parts), wanted[0])
    if reduction == "none":
        assert torch.allclose(torch.cat([part for part, _ in parts]), wanted[0])


@pytest.mark.parametrize("dtype", SINGLE)
def test_other_dtypes(world, dtype):
    wanted = CALLS["labels"](Rows(), reduction="mean")
    parts = [(v.double(), {"rows": g["rows"].double()}) for v, g in (each["dtype", dtype] for each in world)]
    assert all(each["dtype", dtype][0].dtype is torch.float32 for each in world)
    check(parts, wanted, True, SINGLE[dtype])


def test_compiled(world):
    if len(world) > 2:
        pytest.skip("compiled in a world of two")
    check([each["compiled"] for each in world], CALLS["labels"](Rows(), reduction="mean"), True, 1e-12)


@pytest.mark.parametrize("reduction", ("mean", "normalized"))
def test_gradients_under_ddp(world, reduction):
    """With uneven rows and ignored ones; without a group they are far from the whole's."""
    wanted = step(Rows(), reduction, None)
    for part in world:
        assert (part["DDP"][reduction] - wanted).norm() <= 1e-12 * wanted.norm()
    bounds = (0, *ENDS[len(world)])
    alone = [step(Rows(*ends), reduction, None) for ends in pairwise(bounds) if ends[0] != ends[1]]
    assert (sum(alone) / len(alone) - wanted).norm() > 0.05 * wanted.norm()


def test_trainers_count_the_labels_of_all_processes(world):
    (whole, logits), _ = trainers(Rows(), None)
    check([each["trainers"][0] for each in world], differentiated(whole, logits), True, 1e-12)
    parts = [each["trainers"][1] for each in world]  # each process has a sequence of its own
    single = []
    for begin, end in pairwise((0, *ENDS[len(world)])):
        rows = Rows(begin, end)
        number = (Rows().target[1:] != -100).sum()
        single.append((rows, number))
    counted = sum(int((rows.target[1:] != -100).sum()) for rows, _ in single)
    values = [causal_lm_loss(CCE())((r.logits[None],), r.target[None], counted) for r, _ in single]
    assert torch.allclose(parts[0][0], sum(values))


def test_rows_that_do_not_count_stay_0(world):
    for part in world:
        for value, grads in part["all ignored"]:
            assert value.isnan() and (grads["rows"] == 0).all()


def test_refusals(world):
    for rank, part in enumerate(world):
        named, number, mesh, others = part["messages"]
        assert "'world' or a ProcessGroup, got 'all'" in named
        assert "TypeError: imae_ext: expected group to be None, 'world' or a ProcessGroup, got int" in number
        assert "got DeviceMesh; pass mesh.get_group()" in mesh
        assert ("that this process belongs to" in others) == (rank > 0)


def test_processes_that_disagree_are_told_so(world):
    """On all of them, with rank and difference."""
    for part in world:
        formula, classes, reduction, dtype, nothing = part["debug"]
        assert "disagree about formula: rank 0 has IMAE(T=8.0" in formula and "rank 1 has IMAE(T=4.0" in formula
        assert "about C: rank 0 has 7, rank 1 has 6" in classes
        assert "about reduction: rank 0 has 'mean', rank 1 has 'sum'" in reduction
        assert "about dtype: rank 0 has torch.float64, rank 1 has torch.float32" in dtype
        assert nothing == ""


def test_world_without_processes():
    with pytest.raises(ValueError, match=r"expected a process group for group='world', got none; call torch\.distr"):
        imae_ext.robust_loss(*batch(), IMAE(), group="world")

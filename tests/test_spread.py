"""Classes and rows spread over processes, as DTensor or over a plain group: what one process gets, and at what cost."""

from __future__ import annotations

from typing import Any

import pytest
import spread_cases as cases
import torch
import worlds
from cases import FORMULAS
from spread_cases import PLACEMENTS, Found, options_of, single, whole
from spread_work import EXTREMES, LAYOUTS, ODD, SIZES, extreme, fits, laid_out, wanted_soft, work

import imae_ext
from imae_ext import CCE, IMAE, MAE


@pytest.fixture(scope="module", params=SIZES)
def world(request, tmp_path_factory):
    return worlds.run(request.param, tmp_path_factory.mktemp("world"), work, request.param, False)


def close(found: Found, wanted: Found, tolerance: float) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        scale = other[torch.isfinite(other)].abs().max() if torch.isfinite(other).any() else 0
        assert torch.allclose(one.double(), other.double(), rtol=0, atol=tolerance * float(scale), equal_nan=True)


def agree(world: list[dict[Any, Any]], key: Any, wanted: Found, tolerance: float = 1e-11) -> None:
    for each in world:
        close(each[key], wanted, tolerance)
        assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(each[key], world[0][key], strict=True))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_placement(world, placement):
    ran = 0
    for i, at, reduction, weights in cases.selection():
        if at == placement and fits(placement, len(world)):
            wanted = single(FORMULAS[i].build(), whole(), reduction, **options_of(weights, whole()))
            agree(world, ("spread", i, at, reduction, weights), wanted)
            ran += 1
    assert ran == (len(FORMULAS) if fits(placement, len(world)) else 0)


def test_plain_groups(world):
    for i, spec in enumerate(FORMULAS):
        reduction = cases.reductions(spec)[i % 3]
        agree(world, ("vocab", i), single(spec.build(), whole(), reduction, **options_of("weighed", whole())))


@pytest.mark.parametrize("kind", EXTREMES)
def test_extreme_rows(world, kind):
    """Where one process has an infinite logit, NaN, no mass at all or none of the label's."""
    for k, formula in enumerate(ODD):
        agree(world, (kind, k), single(formula, extreme(kind, torch.float32), "none"), 2e-6)
    value, grad = world[0][kind, 1]
    assert (grad[2] == 0).all() and value[2] == 0  # ignored


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16), ids=str)
def test_dtypes(world, dtype):
    wanted = single(IMAE(), whole(dtype, 40, 200), "mean")
    assert world[0]["dtype", dtype][1].dtype == dtype and world[0]["dtype", dtype][0].dtype == torch.float32
    agree(world, ("dtype", dtype), wanted, 2e-6 if dtype is torch.float32 else torch.finfo(dtype).eps)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layouts(world, kind):
    agree(world, kind, single(CCE() + MAE(), laid_out(kind), "mean"), 2e-6)


def test_kinds_of_targets(world):
    data = whole()
    options = {"weight": data["weight"], "sample_weight": data["sample_weight"]}
    wanted = single(IMAE(), data, "normalized", **options)
    assert len(world[0]["targets"]) == 6
    for each in world:
        for found in each["targets"].values():
            close(found, wanted, 1e-11)


def test_amounts_and_two_labels_where_rows_are_sharded(world):
    for name, wanted in wanted_soft().items():
        for each in world:
            close(each["soft"][name], wanted, 1e-11)


def test_inside_loss_parallel(world):
    agree(world, "loss_parallel", single(IMAE(), whole(), "mean"))


def test_compiled(world):
    if len(world) == 2:
        data = whole()
        leaf = data["logits"].clone().requires_grad_()
        loss = imae_ext.imae_loss(2 * leaf, data["target"])
        (loss / 2).backward()
        for each in world:
            for found in each["compiled"]:
                close(found, (loss.detach(), leaf.grad), 1e-11)


def test_numbers_on_the_wire(world):
    """A maximum and two sums a row, or three for formulas that need all logits; backward sends nothing."""
    for each in world:
        assert each["wire"] == {"p alone": 3, "all logits": 4}


def test_memory_falls_with_the_number_of_processes(world):
    """A gradient of the process's own logits, and little else."""
    for each in world:
        print(len(world), each["memory"])
        assert each["memory"] < 1.25 * 64 / len(world) + 4


REFUSED = {
    "probabilities": "expected class labels for logits whose classes are sharded, got probabilities as target",
    "smoothing": "got label_smoothing=; the formula LabelSmoothing does it",
    "two labels": "expected one label a row for logits whose classes are sharded, got two; shard the rows",
    "partial": "expected logits whose placements are Shard or Replicate, got (Partial(sum),); pass logits.redistribute",
    "group": "expected no group for DTensor logits",
    "shape": "expected target of shape (14,)",
    "placement": "expected target with placements (Replicate(),) on the logits' mesh, or replicated, got (Sh",
    "label": "IndexError: imae_ext: expected labels in [0, 11) or ignore_index=-100, got 11 at row 1",
    "second": "has no second derivative (create_graph=True); gather the logits",
    "trained weight": "has a derivative by the logits alone",
    "row_stats": "expected logits to be a plain Tensor, got a DTensor",
    "binary": "expected logits to be a plain Tensor, got a DTensor",
    "linear": "expected input to be a plain Tensor, got a DTensor",
    "nll": "expected nll to be a plain Tensor, got a DTensor",
    "out": "expected no out for DTensor logits",
    "beyond": "expected first_class from 0 to 8, for 3 of 11 classes, got 9",
    "no group": "expected group to be 'world' or a ProcessGroup, that of the classes, got None",
    "its weight": "expected weight of shape (11,), got (3,)",
    "a DTensor": "expected local_logits to be a plain Tensor, got a DTensor; pass it to robust_loss",
    "classes": "expected num_classes to be a number of classes, got 0",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(world, name):
    for each in world:
        assert REFUSED[name] in each["messages"][name]


def test_processes_that_disagree_are_told_so(world):
    for each in world:
        assert "about N: rank 0 has 14, rank 1 has 13" in each["debug"]["rows"]
        assert "expected the classes [0, 11) once each over the processes" in each["debug"]["classes"]
        assert each["debug"]["nothing"] == ""


def test_the_error_of_a_dead_process_is_torchs_own(world):
    if len(world) == 2:
        said = world[0]["dead"]
        assert "imae_ext" not in said and said.startswith(("RuntimeError", "DistBackendError"))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_every_combination(size, tmp_path):
    world = worlds.run(size, tmp_path, work, size, True)
    ran = 0
    for i, placement, reduction, weights in cases.product_of_all():
        if fits(placement, size):
            wanted = single(FORMULAS[i].build(), whole(), reduction, **options_of(weights, whole()))
            agree(world, ("spread", i, placement, reduction, weights), wanted)
            ran += 1
    assert ran == len(world[0])

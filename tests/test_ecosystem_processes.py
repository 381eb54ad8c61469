"""The page's recipes for several processes, in two of them: the gradient is that of the whole batch in one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from calls import FORMULA, batch, gradient
from test_ecosystem import example

import imae_ext

WORLD = 2


def shards(case: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(2, 32, 10) logits and (2, 32) labels, ignored where the case says."""
    logits, target = batch(N=64, C=10)
    target = target.clone().view(WORLD, 32)
    if case == "uneven":
        target[0, 4:] = -100
    if case == "none":
        target[:] = -100
    return logits.view(WORLD, 32, 10), target


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    mean = example("DistributedDataParallel")["global_mean_loss"]
    normalized = example("DistributedDataParallel", 1)["global_normalized_loss"]
    found = {}
    for case in ("even", "uneven", "none"):
        logits, target = (x[rank] for x in shards(case))
        for name, loss_of in (("mean", lambda x, y, _: mean(x, y)), ("normalized", normalized)):
            loss, grad = gradient(loss_of, logits, target, FORMULA)
            both = [torch.empty_like(grad) for _ in range(WORLD)]
            dist.all_gather(both, grad)
            dist.all_reduce(loss)
            found[case, name] = loss / WORLD, torch.cat(both) / WORLD  # as DDP averages
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(process, (str(folder),), WORLD)
    return torch.load(Path(folder) / "found.pt", weights_only=True)


@pytest.mark.parametrize("case", ("even", "uneven"))
@pytest.mark.parametrize("reduction", ("mean", "normalized"))
def test_processes_take_the_gradient_of_the_whole_batch(found, case, reduction):
    logits, target = (x.flatten(0, 1) for x in shards(case))
    loss, grad = found[case, reduction]
    wanted, wanted_grad = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction=reduction)
    assert torch.allclose(loss, wanted, rtol=1e-6)
    assert (grad - wanted_grad).norm() / wanted_grad.norm() < 1e-6
    print(case, reduction, float((grad - wanted_grad).norm() / wanted_grad.norm()))


@pytest.mark.parametrize("case", ("even", "uneven"))
def test_normalized_by_shard_is_another_gradient(case):
    """What the page warns of."""
    logits, target = shards(case)
    whole = gradient(imae_ext.robust_loss, logits.flatten(0, 1), target.flatten(), FORMULA, reduction="normalized")[1]
    parts = [
        gradient(imae_ext.robust_loss, x, y, FORMULA, reduction="normalized")[1] / WORLD
        for x, y in zip(logits, target, strict=True)
    ]
    off = float((torch.cat(parts) - whole).norm() / whole.norm())
    assert off > 0.01
    print(case, off)


def test_no_label_on_any_process(found):
    for reduction in ("mean", "normalized"):
        loss, grad = found["none", reduction]
        assert loss == 0 and (grad == 0).all()

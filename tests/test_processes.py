"""Threads, forked and spawned processes, and distributed training."""

from __future__ import annotations

import multiprocessing
import threading

import torch
import torch.distributed as dist
from calls import FORMULA, batch, gradient, same_bits
from cases import FORMULAS
from torch import Tensor

import imae_ext


def results(k: int) -> list[Tensor]:
    """Every entry point with a formula and sizes of thread k's own; more formulas than one thread's cache holds."""
    collected = []
    for step in range(20):
        spec = FORMULAS[(k + 3 * step) % len(FORMULAS)]
        logits, target = batch(N=40 + k, C=12 + step, seed=100 * k + step)
        collected += gradient(imae_ext.robust_loss, logits, target, spec.build())
        collected += imae_ext.value_and_grad(logits, target, spec.build(), reduction="none")
        if spec.margin:
            collected += imae_ext.row_stats(logits, target, spec.build())[:2]
    return collected


def test_eight_threads_at_once():
    """Bitwise what each would have got alone."""
    found: dict[int, list[Tensor]] = {}
    start = threading.Barrier(8)

    def work(k: int) -> None:
        start.wait()
        found[k] = results(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for k in range(8):
        alone = results(k)
        assert len(alone) > 80 and all(same_bits(a, b) for a, b in zip(found[k], alone, strict=True))


def test_backward_in_another_thread():
    """Autograd may run a graph elsewhere than where it was made."""
    logits, target = batch()
    leaf = logits.clone().requires_grad_()
    loss = imae_ext.robust_loss(leaf, target, FORMULA)
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join(60)
    assert torch.equal(leaf.grad, gradient(imae_ext.robust_loss, logits, target, FORMULA)[1])


def in_a_child(pipe) -> None:
    torch.set_num_threads(1)
    pipe.send([t.tolist() for t in results(1)])


def test_fork_after_use():
    """A data loader's or a server's worker, forked from a process that has computed losses, computes the same."""
    wanted = [t.tolist() for t in results(1)]
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=in_a_child, args=(there,))
    child.start()
    assert here.poll(60), "the child hangs"
    assert here.recv() == wanted
    child.join(60)
    assert child.exitcode == 0


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 5)).double()

    def forward(self, x):
        return self.layers(x)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(16, 6, generator=generator, dtype=torch.float64), torch.arange(16) % 5


def train(model: torch.nn.Module, features: Tensor, target: Tensor) -> Tensor:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        imae_ext.imae_loss(model(features), target).backward()
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def ddp_worker(rank: int, store: str, path: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    features, target = (t[rank::2] for t in data())
    moved = train(torch.nn.parallel.DistributedDataParallel(Net()), features, target)
    torch.save(moved, f"{path}/{rank}.pt")
    dist.destroy_process_group()


def test_distributed_data_parallel(tmp_path):
    """Two processes with half the batch each end where one with the whole batch does."""
    torch.multiprocessing.spawn(ddp_worker, args=(str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    wanted = train(Net(), *data())
    assert torch.equal(first, second) and torch.allclose(first, wanted, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(wanted, torch.cat([p.detach().reshape(-1) for p in Net().parameters()]))

#!/usr/bin/env bash
# torch's loss_parallel(): F.cross_entropy with probabilities as target has the right value and a wrong gradient.
#
# One would guess that inside loss_parallel(), which is there for logits sharded over their classes, F.cross_entropy
# with probabilities (soft labels, mixup, distillation) either works or is refused, as what it does not know is. It
# computes the value of one process to the last digit, and a gradient that is off by 139% of its norm: there the
# derivative of log_softmax passes what comes from above through unchanged, since that of nll_loss, which only class
# labels use, has the softmax in it already. The same with log_softmax and a sum written by hand; nothing is said.
#
# Seen on 2026-11-29: torch 2.13.0, CPU, two gloo processes. Exits non-zero when the gradient is right or refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
export CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1
cat > "$folder/case.py" <<'PYTHON'
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import loss_parallel


def work(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(6, 8, generator=generator), torch.rand(6, 8, generator=generator).softmax(1)
    alone = logits.clone().requires_grad_()
    wanted = F.cross_entropy(alone, target)
    wanted.backward()
    spread = distribute_tensor(logits, mesh, [Shard(1)]).requires_grad_()
    with loss_parallel():
        loss = F.cross_entropy(spread, distribute_tensor(target, mesh, [Replicate()]))
        loss.backward()
    value, grad = loss.full_tensor().detach(), spread.grad.full_tensor()
    off = float((grad - alone.grad).norm() / alone.grad.norm())
    if rank == 0:
        print(f"value {float(value):.6f}, expected {float(wanted.detach()):.6f}; gradient off by {off:.1%}, expected 0%")
    dist.barrier()
    dist.destroy_process_group()
    if off < 0.01:
        sys.exit(1)


if __name__ == "__main__":
    torch.multiprocessing.spawn(work, (sys.argv[1],), 2)
PYTHON
"$folder/venv/bin/python" "$folder/case.py" "$folder"

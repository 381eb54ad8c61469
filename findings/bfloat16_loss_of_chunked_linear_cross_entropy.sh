#!/usr/bin/env bash
# torch's chunked F.linear_cross_entropy: the mean loss of bfloat16 inputs is added up in bfloat16, and ends far off.
#
# One would guess that options=LinearCrossEntropyOptions() changes the memory, not the loss: the documentation calls
# it equivalent to cross_entropy(linear(input, linear_weight), target), which is right to bfloat16's rounding, and says
# that acc_dtype, which is float32 by default on a CPU, is the dtype of internal accumulation. But the scalar to which
# the chunks' losses are added has the input's dtype (torch/nn/modules/linear_cross_entropy.py: output_dtype is
# acc_dtype for float16, the input's for bfloat16), with every policy. At 4096 x 64 x 32000 there are 256 chunks, each
# adds about 0.04, and numbers of bfloat16 between 8 and 16 are 0.06 apart: the loss is 8.0 where 10.87 is right. The
# gradients are not affected, so that a model learns as it should while the loss that is reported is wrong.
#
# Seen on 2026-11-29: torch 2.13.0, CPU. Exits non-zero when the chunked loss is within 0.1 of the right one, or the
# unchunked one is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
export CUDA_VISIBLE_DEVICES=
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import torch
import torch.nn.functional as F
from torch.nn import LinearCrossEntropyOptions

warnings.filterwarnings("ignore", message=".*NumPy.*")
torch.manual_seed(0)
N, D, C = 4096, 64, 32000
hidden = torch.randn(N, D).bfloat16()
head = (torch.randn(C, D) / D**0.5).bfloat16()
target = torch.randint(C, (N,))
right = float(F.cross_entropy(F.linear(hidden.float(), head.float()), target))


def chunked(**options):
    options = LinearCrossEntropyOptions(**options)
    return float(F.linear_cross_entropy(hidden, head, target, options=options))


found = {
    "options=None": float(F.linear_cross_entropy(hidden, head, target)),
    "LinearCrossEntropyOptions()": chunked(),
    'acc_policy="accurate", acc_dtype=torch.float32': chunked(acc_policy="accurate", acc_dtype=torch.float32),
}
print(f"torch {torch.__version__}; in float32: {right:.4f}")
for name, loss in found.items():
    print(f"{name}: {loss:.4f}, off by {loss - right:+.4f}")
plain, *by_chunks = (abs(loss - right) for loss in found.values())
sys.exit(not (plain < 0.1 and all(off > 0.1 for off in by_chunks)))
PYTHON

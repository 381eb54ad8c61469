"""Co-teaching (Han, Yao, Yu, Niu, Xu, Hu, Tsang & Sugiyama, NeurIPS 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .method import Batch, Epoch, Method, Procedure, Setting, number, whole

ANOTHER = 1 << 22  # added to the seed of the run's network, for the second one's weights


@dataclass(frozen=True)
class CoTeaching(Method):
    """Two networks; in each batch each learns from the examples in which the OTHER one has the smallest losses.

    In epoch t the share kept is `1 - forget min(t / gradual, 1)`, t from 0 (the paper's R(T), with T_k = gradual). The
    first network is the one that is measured; the loss that is reported is the sum of both.

    Claim, to be seen on the digits with 40% symmetric noise: by the end cross entropy's test accuracy has fallen
    far below its best; co-teaching's stays at its best, and few wrong labels are memorised.

    Args:
        forget: the share left out in the end. The paper takes the noise rate for known; so does 0, which stands for
            the true rate, an advantage over losses that are not told it. Where the truth is not known, give a guess.
        gradual: epochs until that share is reached; 10 in the paper.

    """

    forget: float = number(0.0, 0.0, 0.99)
    gradual: float = whole(10, 1, 100_000)

    def start(self, setting: Setting) -> Procedure:
        forget = self.forget or setting.noise_rate
        if forget is None:
            raise ValueError("CoTeaching: the noise rate is not known here: give it forget=SHARE, got forget=0")
        return _CoTeaching(forget, int(self.gradual), setting)


class _CoTeaching(Procedure):
    def __init__(self, forget: float, gradual: int, setting: Setting) -> None:
        super().__init__()
        self.forget, self.gradual = forget, gradual
        self.second = setting.build(setting.seed + ANOTHER).to(memory_format=torch.channels_last)
        self.kept = 1.0

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.second.parameters())}]  # it decays as the first does

    def before_epoch(self, epoch: Epoch) -> None:
        self.second.train()
        self.kept = 1 - self.forget * min((epoch.number - 1) / self.gradual, 1.0)

    def on_batch(self, logits: Tensor, batch: Batch) -> Tensor:
        ours, theirs = (
            cross_entropy(z.float(), batch.labels, reduction="none")
            for z in (logits, batch.model.classify(self.second, batch.inputs))
        )
        number = max(1, int(self.kept * len(ours)))
        for_ours = theirs.detach().topk(number, largest=False).indices
        for_theirs = ours.detach().topk(number, largest=False).indices
        return ours[for_ours].mean() + theirs[for_theirs].mean()

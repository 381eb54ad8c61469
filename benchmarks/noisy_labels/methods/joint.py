"""Joint optimisation of network and labels (Tanaka, Ikami, Yamasaki & Aizawa, CVPR 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from .method import Batch, Epoch, Method, Procedure, Setting, number

AVERAGED = 10  # epochs whose predictions make a label, as in the paper


@dataclass(frozen=True)
class JointOptimization(Method):
    """Labels that follow the network's predictions while it trains at a high rate; then a new network on those labels.

    First step, with soft labels t (C,), s = softmax of the logits, and a uniform prior over the classes:

        mean of -sum_k t_k log s_k  +  alpha (-sum_k log(mean of s_k) / C)  +  beta mean of -sum_k s_k log s_k

    (-sum t log s stands for the divergence KL(t || s), which has the same gradient; the inner mean of s is over
    the batch.) From epoch `begin` on, an example's t is the average of its predictions in the last ten epochs.
    Second step: the network begins anew and learns the labels by the first term alone.

    Claim, to be seen on the digits with 40% symmetric noise: most wrong labels are put right, and the network that
    learns the new labels ends with a far higher test accuracy than cross entropy's. It needs a high rate.

    Args:
        alpha: of the prior term; 1.2 and, for beta, 0.8 are what those who use it take for much symmetric noise on
            CIFAR-10; the authors' code has 1 and 0.5 unless told otherwise.
        beta: of the entropy term.
        begin: the share of the first step's epochs after which labels follow predictions; 70 of 200 in the
            authors' code.
        retrain: the share of the run's epochs that are the second step's; 0 for none.

    """

    alpha: float = number(1.2, 0.0, 100.0)
    beta: float = number(0.8, 0.0, 100.0)
    begin: float = number(0.35, 0.0, 1.0)
    retrain: float = number(0.4, 0.0, 0.9)

    def start(self, setting: Setting) -> Procedure:
        return _Joint(self, setting)


class _Joint(Procedure):
    targets: Tensor  # (n, C): the labels that are trained on
    recent: Tensor  # (AVERAGED, n, C): what the network predicted in the last epochs

    def __init__(self, method: JointOptimization, setting: Setting) -> None:
        super().__init__()
        self.method = method
        self.first = setting.epochs - round(method.retrain * setting.epochs)  # epochs of the first step
        self.begin = max(1, round(method.begin * self.first))
        self.anew = setting.build(setting.seed).requires_grad_(False)
        self.epoch = 1
        given = one_hot(setting.labels, setting.num_classes).float()
        self.register_buffer("targets", given)
        self.register_buffer("recent", torch.zeros(AVERAGED, *given.shape))

    def groups(self) -> list[dict[str, object]]:
        return []

    def before_epoch(self, epoch: Epoch) -> None:
        self.epoch, done = epoch.number, epoch.number - 1
        if self.begin <= done <= self.first:
            self.targets = self.recent[: min(done, AVERAGED)].mean(dim=0)
        if done == self.first:
            epoch.model.network.load_state_dict(self.anew.state_dict())
            epoch.optimizer.state.clear()

    def on_batch(self, logits: Tensor, batch: Batch) -> Tensor:
        log_s = log_softmax(logits.float(), dim=1)
        fit = -(self.targets[batch.rows] * log_s).sum(dim=1).mean()
        if self.epoch > self.first:
            return fit
        s = log_s.exp()
        self.recent[(self.epoch - 1) % AVERAGED, batch.rows] = s.detach()
        prior = -s.mean(dim=0).log().mean()
        entropy = -(s * log_s).sum(dim=1).mean()
        return fit + self.method.alpha * prior + self.method.beta * entropy

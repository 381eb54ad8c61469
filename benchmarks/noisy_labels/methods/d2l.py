"""Dimensionality-driven learning, D2L (Ma, Wang, Houle, Zhou, Erfani, Xia, Wijewickrema & Bailey, ICML 2018)."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from .method import Batch, Epoch, Method, Procedure, Setting, draws, whole

MOST_BATCHES = 10  # of GROUP examples each, from which the dimension is estimated before an epoch
GROUP = 128


@dataclass(frozen=True)
class D2L(Method):
    """Cross entropy until the features' dimension begins to grow; from there on labels give way to predictions.

    Before each epoch the local intrinsic dimension (LID) of the last hidden layer's features is estimated: among 128
    random examples, from the distances r_1 <= ... <= r_k to an example's nearest ones, `-(mean of log(r_i / r_k))^-1`,
    averaged over examples. Learning what the right labels have in common compresses the features;
    memorising spreads them. Once the LID exceeds the mean of the `window` epochs before by two of their standard
    deviations, the network goes back by an epoch, and from there the label of an example is

        a onehot(y) + (1 - a) onehot(argmax p),   a = exp(-(epoch / epochs) LID / (the lowest LID so far))

    Claim, to be seen on the digits with 40% symmetric noise: fewer wrong labels memorised, and a higher test accuracy
    in the end, than by cross entropy at its rate.

    Args:
        k: neighbours; 20 in the paper.
        window: epochs that the latest LID is compared with; 5 in the authors' code.
        warm: epochs before the first of these; 5 in the authors' code.

    """

    k: int = whole(20, 2, GROUP - 1)
    window: int = whole(5, 2, 100_000)
    warm: int = whole(5, 0, 100_000)

    def start(self, setting: Setting) -> Procedure:
        return _D2L(self, setting)


class _D2L(Procedure):
    lids: Tensor  # (epochs,): of the epochs so far, else nan
    turned: Tensor  # (): the epoch in which the dimension was found to grow, or 0

    def __init__(self, method: D2L, setting: Setting) -> None:
        super().__init__()
        self.method, self.seed, self.share = method, setting.seed, 1.0
        self.earlier = setting.build(setting.seed).requires_grad_(False)  # the network as it was an epoch ago
        self.register_buffer("lids", torch.full((setting.epochs,), math.nan, dtype=torch.float64))
        self.register_buffer("turned", torch.zeros((), dtype=torch.int64))

    def groups(self) -> list[dict[str, object]]:
        return []

    def before_epoch(self, epoch: Epoch) -> None:
        network, number = epoch.model.network, epoch.number
        lid = mean_lid(features(epoch, self.seed), int(self.method.k))
        self.lids[number - 1] = lid if lid > 0 and math.isfinite(lid) else self.lids[max(number - 2, 0)]
        if not self.turned and turns(self.lids[:number], int(self.method.window), int(self.method.warm)):
            self.turned.fill_(number)
            network.load_state_dict(self.earlier.state_dict())
        self.earlier.load_state_dict(copy.deepcopy(network.state_dict()))
        if self.turned:
            expansion = float(self.lids[number - 1] / self.lids[:number].min())
            self.share = math.exp(-(number - 1) / len(self.lids) * expansion)

    def on_batch(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p = log_softmax(logits.float(), dim=1)
        loss = -log_p.gather(1, batch.labels.unsqueeze(1)).mean()
        return self.share * loss - (1 - self.share) * log_p.amax(dim=1).mean()


def mean_lid(groups: list[Tensor], k: int) -> float:
    """Estimate the local intrinsic dimension of features in groups (g, f), with k neighbours; the mean over examples.

    An example that coincides with its k nearest ones has none, and is left out; nan if all do.
    """
    found: list[Tensor] = []
    for group in groups:
        distances = torch.cdist(group.double(), group.double(), compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.fill_diagonal_(math.inf).topk(min(k, len(group) - 1), largest=False).values
        ratios = nearest / nearest[:, -1:]
        slopes = -ratios.clamp(min=1e-12).log().mean(dim=1)
        found.append(1 / slopes[slopes > 0])
    values = torch.cat(found)
    return float(values.mean()) if len(values) else math.nan


def turns(lids: Tensor, window: int, warm: int) -> bool:
    """Say whether the last LID is two standard deviations above the mean of the `window` ones before it."""
    if len(lids) <= window + warm:
        return False
    before = lids[-window - 1 : -1]
    return bool(lids[-1] - before.mean() > 2 * before.std(correction=0))


def features(epoch: Epoch, seed: int) -> list[Tensor]:
    """Compute what the last linear layer of the network is given, (GROUP, f) for each group of random examples."""
    inputs = epoch.dataset.train.inputs
    chosen = torch.randperm(len(inputs), generator=draws(seed, epoch.number))[: MOST_BATCHES * GROUP]
    last = [module for module in epoch.model.network.modules() if isinstance(module, nn.Linear)][-1]
    caught: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda module, given: caught.append(given[0].float()))
    epoch.model.eval()
    with torch.no_grad():
        for rows in chosen.split(GROUP):
            if len(rows) > 1:
                epoch.model(inputs[rows])
    epoch.model.train()
    handle.remove()
    return caught

"""Networks that learn from all folds but one and judge all examples, at every rate and length that is to be tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..formulas import Formula
from .inputs import Array
from .training import Network, fit, probabilities

PATIENCE = 3  # lengths without a better score, after which a rate is given up
SAMPLES = ("all", "out", "in")
LIMIT = 4.0  # of a standardised feature: an outlier would else decide alone


@dataclass(frozen=True, eq=False)
class Candidate:
    """What the networks of all folds say of N examples, at one rate and length.

    Attributes:
        rate: the learning rate.
        epochs: that they have learned.
        out: (N,) float64, p of the given label by the network that has not seen the example.
        seen: (N,) float64, the mean of those that have.
        unseen: (N, C) float32, all probabilities of the first: of the network that has not seen the example.
        agreement: share of the given labels that are the most probable ones in unseen.
        score: mean of agreement and of out, by which rate and length are chosen; -1 if a network diverged. The first
            counts mistakes, the second half of the mean absolute error: of both, wrong labels that are spread evenly
            over the classes leave the best network the best (Ghosh et al. 2017).
        networks: how many there are, one for each fold.

    """

    rate: float
    epochs: int
    out: npt.NDArray[np.float64]
    seen: npt.NDArray[np.float64]
    unseen: npt.NDArray[np.float32]
    agreement: float
    score: float
    networks: int

    def p(self, sample: str) -> npt.NDArray[np.float64]:
        """Return the p of one of SAMPLES."""
        if sample == "all":
            return self.seen + (self.out - self.seen) / self.networks
        return self.out if sample == "out" else self.seen


def cross_fit(
    x: Tensor,
    y: Tensor,
    fold: npt.NDArray[np.int64],
    C: int,
    formula: Formula,
    *,
    rates: Sequence[float],
    lengths: Sequence[int],
    hidden: Sequence[int],
    seed: int,
    advance: Callable[[], object],
) -> Iterator[Candidate]:
    """Train a network for each fold and rate, all folds of a rate side by side, and judge after each length.

    Args:
        x: (N, d) float32, standardised, where to train.
        y: (N,) int64 labels, where x is.
        fold: (N,) the fold of each example, from 0.
        C: number of classes.
        formula: the loss.
        rates: learning rates.
        lengths: numbers of epochs, ascending; a rate ends early after PATIENCE of them without a better score.
        hidden: sizes of the hidden layers.
        seed: of the networks.
        advance: called after every epoch of every network.

    """
    learns = [torch.from_numpy(fold != k).to(x.device) for k in range(int(fold.max()) + 1)]
    for rate in rates:
        runs = [
            fit(
                *(x[rows], y[rows], C, formula),
                rate=rate,
                lengths=lengths,
                hidden=hidden,
                seed=(seed * 1009 + k) % 2**63,
                advance=advance,
            )
            for k, rows in enumerate(learns)
        ]
        highest, stale = -2.0, 0
        for epochs, networks in zip(lengths, zip(*runs, strict=True), strict=True):
            candidate = _judge(networks, x, y.cpu().numpy(), fold, rate, epochs)
            yield candidate
            stale = 0 if candidate.score > highest else stale + 1
            highest = max(highest, candidate.score)
            if stale == PATIENCE:
                break


def _judge(
    networks: Sequence[Network],
    x: Tensor,
    classes: npt.NDArray[np.int64],
    fold: npt.NDArray[np.int64],
    rate: float,
    epochs: int,
) -> Candidate:
    N = len(classes)
    out, seen = np.zeros(N), np.zeros(N)
    unseen = np.zeros((0, 0), dtype=np.float32)
    for k, network in enumerate(networks):
        believed = probabilities(network, x).numpy()
        if not k:
            unseen = np.zeros(believed.shape, dtype=np.float32)
        p, own = believed[np.arange(N), classes], fold == k
        out[own], unseen[own] = p[own], believed[own]
        seen[~own] += p[~own] / (len(networks) - 1)
    agreement = float((unseen.argmax(axis=1) == classes).mean())
    score = (agreement + float(out.mean())) / 2 if np.isfinite(out + seen).all() else -1.0
    return Candidate(rate, epochs, out, seen, unseen, agreement, score, len(networks))


def deal(values: Array, classes: npt.NDArray[np.int64], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Deal the examples into folds, (N,), evenly by class, and all with the same features into one.

    A network that had seen the same features under the same wrong label would believe it.
    """
    places: dict[bytes, int] = {}
    same = np.array([places.setdefault((row + 0.0).tobytes(), len(places)) for row in values])  # -0.0 + 0.0 is 0.0
    if len(places) < folds:
        raise ValueError(f"imae_ext: expected at least as many distinct examples as folds={folds}, got {len(places)}")
    first = np.unique(same, return_index=True)[1]
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(classes[first[order]], kind="stable")]
    dealt = np.empty(len(first), dtype=np.int64)
    dealt[order] = np.arange(len(first)) % folds
    result: npt.NDArray[np.int64] = dealt[same]
    return result


def standardised(values: Array) -> npt.NDArray[np.float32]:
    """Return the columns with mean 0 and deviation 1, cut at LIMIT; a constant column is 0."""
    result = np.zeros(values.shape, dtype=np.float32)
    for column in range(values.shape[1]):
        x = values[:, column].astype(np.float64)
        x = x / (np.abs(x).max() or 1.0)  # so that squares do not overflow
        x -= x.mean()
        deviation = x.std()
        if deviation > 1e-12:
            result[:, column] = np.clip(x / deviation, -LIMIT, LIMIT)
    return result

"""Wrong labels of a table or of embeddings, by small networks that learn from one part of it and judge all of it."""

from __future__ import annotations

import contextlib
import importlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..checks import check_options
from ..formulas import IMAE, Formula
from .folds import SAMPLES, Candidate, cross_fit, deal, standardised
from .inputs import Array, as_features, as_labels, check_cutoff
from .ranking import Choice, LabelErrors, judge

RATES = (0.0003, 0.001, 0.003)
LENGTHS = (1, 2, 3, 4, 6, 8, 11, 15, 20, 28, 40)


def find_label_errors(
    features: Tensor | npt.ArrayLike,
    labels: Tensor | npt.ArrayLike,
    *,
    formula: Formula | None = None,
    folds: int = 5,
    sample: str = "all",
    rates: Sequence[float] = RATES,
    lengths: Sequence[int] = LENGTHS,
    hidden: Sequence[int] = (256, 256),
    cutoff: float = 0.5,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> LabelErrors:
    """Rank the labels of a table, or of embeddings, by how little small networks believe them.

    The examples are dealt into folds, those with the same features into the same one. For each fold a network learns
    from the others by a loss that keeps it from memorising, IMAE unless you name another, and then judges all examples.
    ``p`` is the mean of what they all say, the one that has not seen the example among them.

    No clean label is needed: of all rates and lengths that one is taken with which the networks agree best with labels
    that they have not seen, by the share that they predict and the mean probability that they give. Mistakes that are
    spread evenly over the classes lower both for every network alike: the best network is still the best.

    Args:
      features: ``(N, d)`` numbers: a table, or embeddings of images, texts, sounds. Columns are standardised here, and
        cut at 4 standard deviations.
      labels: ``(N,)``: numbers or strings. Any labels are mapped to classes, and returned as they were.
      formula: the loss: ``IMAE(8.0)`` unless given.
      folds: how many, 2 or more. Without cross-validation, train your own network and call :func:`label_errors`.
      sample: whose ``p`` counts. ``"all"``: the mean of all networks; ``"out"``: the one that has not seen the example
        (misses fewer wrong labels, suspects more right ones); ``"in"``: the mean of those that have (the other way
        round). Tried on seven kinds of noise in three tables, ``"all"`` was the best on average.
      rates: learning rates to choose from.
      lengths: numbers of epochs to choose from. A rate is given up after three of them without a better agreement.
      hidden: sizes of the network's hidden layers.
      cutoff: labels with ``p < cutoff`` are suspected. 0.5: those that are more likely wrong than right. These networks
        are sure of most labels, so that little depends on it.
      seed: of folds, initial weights and order. The same seed gives the same result, on the same machine with the
        same number of threads to the last bit. No global random state is read or changed.
      device: where to train; by default the GPU that torch finds, or the CPU.
      progress: show a bar by tqdm, which must be installed; by default on a terminal, if it is.

    Returns:
      A :class:`LabelErrors`; its ``choice`` is the rate and the length, and what decided.

    Raises:
      TypeError: an argument of another type or dtype.
      ValueError: features with NaN or infinity; shapes that do not fit; fewer than two classes with two examples each;
        missing labels; fewer distinct examples than folds; other options out of range.
      ImportError: ``progress=True`` without tqdm.

    Warns:
      RuntimeWarning: a class with a single example, which no network can know without having seen it.

    References:
      Wang et al. 2019, arXiv 1903.12141, for the loss; Ghosh, Kumar & Sastry 2017, arXiv 1712.09482, for the choice.

    Example:
      >>> import numpy as np
      >>> side = np.arange(60) % 2
      >>> features = side[:, None] + 0.1 * np.random.default_rng(0).standard_normal((60, 3))
      >>> labels = np.array(["left", "right"])[side]
      >>> labels[7] = "left"  # wrong
      >>> found = find_label_errors(features, labels, rates=[0.003], lengths=[20])
      >>> found.indices, found.predicted[found.indices]
      (array([7]), array(['right'], dtype='<U5'))
    """
    formula = IMAE(8.0) if formula is None else formula
    _check_options(formula, folds, sample, rates, lengths, hidden, seed)
    check_cutoff(cutoff)
    values = as_features(features)
    given, classes, names = as_labels(labels, len(values))
    _warn_of_single_examples(classes, names)
    fold = deal(values, classes, folds, seed)
    where = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")

    lengths = sorted({int(length) for length in lengths})
    with torch.inference_mode(False), torch.enable_grad(), _bar(progress, len(rates) * lengths[-1] * folds) as advance:
        x, y = torch.from_numpy(standardised(values)).to(where), torch.from_numpy(classes).to(where)
        candidates = cross_fit(
            *(x, y, fold, len(names), formula),
            rates=[float(rate) for rate in rates],
            lengths=lengths,
            hidden=hidden,
            seed=seed,
            advance=advance,
        )
        tried: dict[tuple[float, int], float] = {}
        best: Candidate | None = None
        for candidate in candidates:
            tried[candidate.rate, candidate.epochs] = candidate.score
            if best is None or candidate.score > best.score:
                best = candidate
    if best is None or best.score < 0:
        raise ValueError(f"imae_ext: expected rates at which the networks do not diverge, got {tuple(rates)}")
    choice = Choice(best.rate, best.epochs, best.agreement, tried)
    everything = np.ones(len(classes), dtype=bool)
    predicted = names[best.unseen.argmax(axis=1)]
    found = judge(best.p(sample), everything, given, predicted, cutoff, "the networks give")
    chosen = (
        f"{folds} networks, rate {choice.rate:g}, {choice.epochs} epochs, chosen without clean labels; "
        f"they predict {choice.agreement:.1%} of the labels that they have not seen"
    )
    return replace(found, how=f"{found.how}; {chosen}", choice=choice, probabilities=best.unseen, classes=names)


def _warn_of_single_examples(classes: npt.NDArray[np.int64], names: Array) -> None:
    single = names[np.bincount(classes) == 1]
    if len(single):
        warnings.warn(
            f"imae_ext: {len(single)} classes have a single example ({', '.join(map(str, single[:5]))}): its p "
            "says little, since no network can know the class without having seen it",
            RuntimeWarning,
            stacklevel=3,
        )


def _check_options(formula: Any, folds: Any, sample: Any, rates: Any, lengths: Any, hidden: Any, seed: Any) -> None:
    check_options(formula, "mean")
    for name, value, least in (("folds", folds, 2), ("seed", seed, 0)):
        if not _is_int(value):
            raise TypeError(f"imae_ext: expected {name} to be an int, got {value!r}")
        if value < least:
            raise ValueError(f"imae_ext: expected {name} of at least {least}, got {value}")
    if sample not in SAMPLES:
        raise ValueError(f"imae_ext: expected sample to be one of {', '.join(SAMPLES)}, got {sample!r}")
    for name, values in (("lengths", lengths), ("hidden", hidden)):
        if not isinstance(values, Sequence) or not all(_is_int(v) and v > 0 for v in values):
            raise ValueError(f"imae_ext: expected {name} to be a sequence of positive ints, got {values!r}")
    if not isinstance(rates, Sequence) or not all(isinstance(r, Real) and 0 < float(r) < math.inf for r in rates):
        raise ValueError(f"imae_ext: expected rates to be a sequence of numbers above 0, got {rates!r}")
    if not len(rates) or not len(lengths):
        raise ValueError("imae_ext: expected at least one rate and one length, got none")


def _is_int(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


@contextlib.contextmanager
def _bar(progress: bool | None, total: int) -> Iterator[Callable[[], object]]:
    """Show a bar of so many epochs; yield what moves it by one."""
    try:
        tqdm = importlib.import_module("tqdm").tqdm
    except ImportError:
        if progress:
            raise
        yield lambda: None
        return
    with tqdm(total=total, unit="epoch", disable=None if progress is None else not progress) as bar:
        yield bar.update

"""Wrong labels, found by a model's outputs and by networks trained for it; files and the command."""

from __future__ import annotations

import csv
import doctest
import importlib
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import imae_ext
from benchmarks.noisy_labels.noise import asymmetric, symmetric
from imae_ext.label_errors import finding, folds, ranking
from imae_ext.label_errors.__main__ import main

ROOT = Path(__file__).parents[1]
SHORT = {"rates": [0.01], "lengths": [4, 8], "hidden": [32], "folds": 3, "progress": False}

pytestmark = pytest.mark.usefixtures("one_thread")


def logits_of(N: int = 40, C: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(N, C, generator=generator), torch.randint(C, (N,), generator=generator)


def clusters(N: int = 60, C: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make features around C corners, labels some of which are wrong, and which of them are."""
    generator = np.random.default_rng(seed)
    clean = np.arange(N) % C
    features = 4 * np.eye(C)[clean] + 0.5 * generator.standard_normal((N, C))
    wrong = np.zeros(N, dtype=bool)
    wrong[generator.permutation(N)[: N // 10]] = True
    return features, np.where(wrong, (clean + 1) % C, clean), wrong


# A model's outputs


def test_p_is_the_probability_of_the_label_and_ranks_it() -> None:
    logits, target = logits_of()
    found = imae_ext.label_errors(logits, target, cutoff=0.5)
    expected = logits.double().softmax(1)[torch.arange(40), target].numpy()
    np.testing.assert_allclose(found.p, expected, rtol=1e-13)
    assert found.p.dtype == np.float64
    np.testing.assert_array_equal(found.suspected, expected < 0.5)
    np.testing.assert_array_equal(found.order, np.argsort(expected))
    np.testing.assert_array_equal(found.rank[found.order], np.arange(1, 41))
    np.testing.assert_array_equal(found.indices, [i for i in np.argsort(expected) if expected[i] < 0.5])
    np.testing.assert_array_equal(found.predicted, logits.argmax(1).numpy())
    np.testing.assert_array_equal(found.given, target.numpy())
    assert found.how.startswith(f"suspected: {found.suspected.sum()} of 40 labels, those with p < 0.5, ")
    assert found.choice is None and found.probabilities is None


@pytest.mark.parametrize(
    "made",
    [
        lambda z, y: (z.numpy(), y.numpy()),
        lambda z, y: (z.tolist(), y.tolist()),
        lambda z, y: (z.double(), y.int()),
        lambda z, y: (z.numpy().astype(">f8"), y.numpy().astype(np.uint8)),
        lambda z, y: (z.numpy().astype(np.longdouble), y.numpy().astype(np.uint64)),
        lambda z, y: (z.t().contiguous().t().requires_grad_(), y),
        lambda z, y: (z.flip(0).numpy()[::-1], y.flip(0).numpy()[::-1]),
        lambda z, y: (z.log_softmax(1), y),
    ],
)
def test_tensors_arrays_and_lists_give_the_same(made) -> None:
    logits, target = logits_of()
    expected = imae_ext.label_errors(logits, target)
    found = imae_ext.label_errors(*made(logits, target))
    np.testing.assert_allclose(found.p, expected.p, rtol=1e-6)
    np.testing.assert_array_equal(found.rank, expected.rank)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_it_is(dtype: torch.dtype) -> None:
    logits, target = logits_of()
    found = imae_ext.label_errors(logits.to(dtype), target)
    np.testing.assert_allclose(found.p, imae_ext.label_errors(logits.to(dtype).double(), target).p, rtol=1e-13)


def test_certain_mistakes_keep_their_order() -> None:
    """In float32 both probabilities would be 0."""
    found = imae_ext.label_errors(torch.tensor([[0.0, 200.0], [0.0, 300.0], [5.0, 0.0]]), [0, 0, 0])
    np.testing.assert_array_equal(found.order, [1, 0, 2])
    assert 0 < found.p[1] < found.p[0]


def test_ties_keep_the_order_of_the_examples() -> None:
    found = imae_ext.label_errors(np.zeros((50, 2)), np.zeros(50, dtype=int), cutoff=1.0)
    np.testing.assert_array_equal(found.rank, np.arange(1, 51))
    assert found.suspected.all()


def test_ignored_examples_are_left_out() -> None:
    logits, target = logits_of()
    ignored = torch.arange(40) % 3 == 0
    logits[ignored] = torch.nan
    found = imae_ext.label_errors(logits, target.where(~ignored, -1), ignore_index=-1)
    whole = imae_ext.label_errors(logits[~ignored], target[~ignored])
    np.testing.assert_array_equal(np.isnan(found.p), ignored.numpy())
    np.testing.assert_array_equal(found.rank == 0, ignored.numpy())
    np.testing.assert_array_equal(found.p[~ignored.numpy()], whole.p)
    np.testing.assert_array_equal(found.rank[~ignored.numpy()], whole.rank)
    assert not found.suspected[ignored.numpy()].any()
    assert not np.isin(found.order, np.flatnonzero(ignored.numpy())).any() and len(found.order) == 26
    assert f"{whole.suspected.sum()} of 26 labels" in found.how


def test_nothing_gives_nothing() -> None:
    for target in ([], torch.zeros(0, dtype=torch.long)):
        found = imae_ext.label_errors(torch.zeros(0, 3), target)
        assert found.p.shape == found.rank.shape == found.order.shape == (0,)


def test_masked_classes_are_no_error() -> None:
    found = imae_ext.label_errors(torch.tensor([[0.0, -torch.inf, 1.0]] * 2), [0, 1])
    np.testing.assert_allclose(found.p, [1 / (1 + np.e), 0.0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_probabilities(dtype: torch.dtype) -> None:
    logits, target = logits_of()
    probabilities = logits.softmax(1).to(dtype)
    found = imae_ext.label_errors(probabilities, target, probabilities=True)
    np.testing.assert_array_equal(found.p, probabilities.double()[torch.arange(40), target].numpy())
    with pytest.raises(ValueError, match=r"rows of numbers in .0, 1. that sum to 1: pass probabilities=True"):
        imae_ext.label_errors(probabilities, target)
    assert imae_ext.label_errors(probabilities, target, probabilities=False).p.max() < 0.5


def test_many_rows_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = logits_of()
    whole = imae_ext.label_errors(logits, target)
    monkeypatch.setattr(ranking, "CHUNK", 35)
    parts = imae_ext.label_errors(logits, target)
    np.testing.assert_array_equal(parts.p, whole.p)
    np.testing.assert_array_equal(parts.suspected, whole.suspected)


def confident(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Suspect by the rule, an example at a time."""
    C = probabilities.shape[1]
    usual = [min(0.8, probabilities[labels == k, k].mean()) if (labels == k).any() else 2.0 for k in range(C)]
    found = []
    for row, label in zip(probabilities, labels, strict=True):
        counts = [(p, k) for k, p in enumerate(row) if p >= usual[k] - 1e-6]
        found.append(bool(counts) and max(counts)[1] != label)
    return np.array(found)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_a_model_that_is_sure_of_nothing_is_judged_by_its_own_measure(scale: float) -> None:
    logits, target = logits_of(300)
    z = scale * (logits + 2 * torch.nn.functional.one_hot(target, 5))
    target = target.where(torch.arange(300) % 10 > 0, (target + 1) % 5)
    target = target.where(target != 4, 0)  # a class that is never given
    found = imae_ext.label_errors(z, target)
    expected = confident(z.double().softmax(1).numpy(), target.numpy())
    np.testing.assert_array_equal(found.suspected, expected)
    assert 20 < found.suspected.sum() < 250 and found.cutoff == "confident"
    assert set(found.indices) == set(np.flatnonzero(expected)) and (np.diff(found.p[found.indices]) >= 0).all()
    assert found.how.startswith(f"suspected: {expected.sum()} of 300 labels, those where another class is as probable")
    with_ignored = imae_ext.label_errors(torch.cat([z, z]), torch.cat([target, torch.full((300,), -100)]))
    np.testing.assert_array_equal(with_ignored.suspected, np.concatenate([expected, np.zeros(300, dtype=bool)]))
    known = imae_ext.label_errors(z.softmax(1), target, probabilities=True)
    np.testing.assert_array_equal(known.suspected, expected)


def test_who_is_always_sure_suspects_whom_he_is_surer_of() -> None:
    """0.98 is less than the mean of 0.999, and still means that the label is wrong."""
    sure = np.array([[0.999, 0.001], [0.999, 0.001], [0.98, 0.02], [0.001, 0.999]])
    found = imae_ext.label_errors(sure, [0, 0, 1, 1], probabilities=True)
    np.testing.assert_array_equal(found.suspected, [False, False, True, False])


def test_a_cutoff_of_ones_own() -> None:
    logits, target = logits_of()
    found = imae_ext.label_errors(logits, target, cutoff=0.1)
    np.testing.assert_array_equal(found.suspected, found.p < 0.1)
    assert "p < 0.1, to which the model gives less than that probability" in found.how


Z, Y = torch.zeros(4, 3), [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((Y, Z), {}, TypeError, "expected logits of a floating dtype, got torch.int64; the outputs come first"),
        ((torch.zeros(4), Y), {}, ValueError, r"shape \(N, C\), got \(4,\); of one logit x .* torch.stack"),
        ((torch.zeros(4, 3, 2), Y), {}, ValueError, r"logits.movedim\(1, -1\).flatten\(0, -2\)"),
        ((torch.zeros(4, 1), Y), {}, ValueError, "expected at least 2 classes"),
        ((Z, Y[:3]), {}, ValueError, r"expected target of shape \(4,\), a class for each row of logits, got \(3,\)"),
        ((Z, np.zeros((4, 3))), {}, TypeError, r"pass target.argmax\(1\)"),
        ((Z, np.zeros(4)), {}, TypeError, "expected target of integers, got torch.float64"),
        ((Z, ["a", "b", "c", "d"]), {}, TypeError, "expected target to be a tensor or an array of numbers"),
        ((Z, [0, 1, 3, 0]), {}, IndexError, r"expected labels in \[0, 3\) .* got 3 at row 2"),
        ((Z, [0, 1, -1, 0]), {}, IndexError, "got -1 at row 2"),
        ((Z.log(), Y), {}, ValueError, r"got \[-inf, -inf, -inf\] at row 0 \(4 such rows\)"),
        ((Z + torch.nan, Y), {}, ValueError, "expected outputs that give each label a probability"),
        ((Z + 0.5, Y), {"probabilities": True}, ValueError, r"rows of which sum to 1, got \[0.5, 0.5, 0.5\] at row 0"),
        ((Z + torch.nan, Y), {"probabilities": True}, ValueError, "at row 0"),
        ((Z - 1, Y), {"probabilities": True}, ValueError, "want probabilities=False"),
        ((Z, Y), {"cutoff": 50}, ValueError, r"expected cutoff in \[0, 1\], got 50"),
        ((Z, Y), {"cutoff": "half"}, TypeError, "expected cutoff to be a number in .* or 'confident', got 'half'"),
        ((Z, Y), {"cutoff": np.nan}, ValueError, "expected cutoff in"),
        ((Z, Y), {"ignore_index": 1.5}, TypeError, "expected ignore_index to be an int"),
    ],
)
def test_label_errors_refuses(arguments, options, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        imae_ext.label_errors(*arguments, **options)
    assert str(caught.value).startswith("imae_ext: ")


# A table or embeddings


def test_planted_mistakes_are_found() -> None:
    features, labels, wrong = clusters()
    found = imae_ext.find_label_errors(features, labels, **SHORT)
    np.testing.assert_array_equal(found.suspected, wrong)
    np.testing.assert_array_equal(found.predicted[wrong], (labels[wrong] - 1) % 3)
    assert found.probabilities.shape == (60, 3) and found.probabilities.dtype == np.float32
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found.classes, [0, 1, 2])
    assert "3 networks, rate 0.01" in found.how


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_digits(kind: str) -> None:
    """A third of the digits, a fifth of them labelled wrong."""
    from sklearn.datasets import load_digits

    features, clean = (array[::3] for array in load_digits(return_X_y=True))
    next_class = {c: (c + 1) % 10 for c in range(10)}
    made = symmetric(clean, 0.2, 10, 3) if kind == "symmetric" else asymmetric(clean, 0.2, next_class, 3)
    found = imae_ext.find_label_errors(features, made.labels, rates=[0.001], lengths=[6, 10], progress=False)
    hits = (found.suspected & made.noisy).sum()
    assert hits / found.suspected.sum() > 0.85 and hits / made.noisy.sum() > 0.85


def test_labels_come_back_as_they_were() -> None:
    features, labels, wrong = clusters()
    expected = imae_ext.find_label_errors(features, labels, **SHORT)
    animals = np.array(["ant", "bee", "cat"])
    for given in (animals[labels], animals[labels].tolist(), animals[labels].astype(object), labels * 10.0 - 5):
        found = imae_ext.find_label_errors(features, given, **SHORT)
        np.testing.assert_array_equal(found.p, expected.p)
        np.testing.assert_array_equal(found.given, np.asarray(given))
        assert set(found.predicted) <= set(given) and (found.predicted != np.asarray(given))[wrong].all()
    assert list(found.classes) == [-5.0, 5.0, 15.0]
    flags = imae_ext.find_label_errors(features, torch.from_numpy(labels == 0), **SHORT)
    assert flags.predicted.dtype == bool


def test_the_same_seed_gives_the_same_and_nothing_else_moves() -> None:
    features, labels, _ = clusters()
    kept = features.copy(), labels.copy()
    first = imae_ext.find_label_errors(features, labels, **SHORT, seed=3)
    torch.manual_seed(5)
    np.random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = imae_ext.find_label_errors(torch.from_numpy(features), torch.from_numpy(labels), **SHORT, seed=3)
    assert torch.equal(states[0], torch.get_rng_state())
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])
    np.testing.assert_array_equal(first.p, again.p)
    np.testing.assert_array_equal(features, kept[0])
    np.testing.assert_array_equal(labels, kept[1])
    assert not (imae_ext.find_label_errors(features, labels, **SHORT, seed=4).p == first.p).any()


def test_it_trains_whatever_surrounds_it() -> None:
    features, labels, _ = clusters()
    expected = imae_ext.find_label_errors(features, labels, **SHORT).p
    with torch.no_grad():
        np.testing.assert_array_equal(imae_ext.find_label_errors(features, labels, **SHORT).p, expected)
    with torch.inference_mode():
        np.testing.assert_array_equal(imae_ext.find_label_errors(features, labels, **SHORT).p, expected)
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_array_equal(imae_ext.find_label_errors(features, labels, **SHORT).p, expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_rate_and_length_are_those_of_the_best_score() -> None:
    features, labels, _ = clusters()
    tried = SHORT | {"rates": [1e-6, 0.01], "lengths": [8, 4]}
    found = imae_ext.find_label_errors(features, labels, **tried)
    assert set(found.choice.tried) == {(rate, length) for rate in (1e-6, 0.01) for length in (4, 8)}
    best = max(found.choice.tried, key=found.choice.tried.get)
    assert (found.choice.rate, found.choice.epochs) == best and best[0] == 0.01
    unseen = found.probabilities.argmax(1)
    assert found.choice.agreement == (unseen == labels).mean()


def test_samples_are_of_networks_that_have_seen_the_example_or_not() -> None:
    features, labels, _ = clusters()
    out, seen, every = (imae_ext.find_label_errors(features, labels, **SHORT, sample=s) for s in ("out", "in", "all"))
    np.testing.assert_allclose(every.p, (out.p + 2 * seen.p) / 3, rtol=1e-12)
    np.testing.assert_allclose(out.p, out.probabilities[np.arange(60), labels], rtol=1e-6)
    assert (seen.p != out.p).all()


def test_a_network_judges_none_that_it_has_seen() -> None:
    """Labels at random cannot be predicted unseen, but can be memorised."""
    generator = np.random.default_rng(0)
    features, labels = generator.standard_normal((100, 20)), generator.integers(2, size=100)
    long = SHORT | {"lengths": [50], "hidden": [64], "formula": imae_ext.CCE()}
    seen = imae_ext.find_label_errors(features, labels, **long, sample="in")
    assert seen.p.min() > 0.9
    assert seen.choice.agreement < 0.65


def test_copies_of_an_example_are_in_one_fold() -> None:
    values = np.repeat(np.array([[0.0, 1.0], [-0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]), 4, axis=0)
    dealt = folds.deal(values, np.arange(20) % 2, 4, 0).reshape(5, 4)
    assert (dealt == dealt[:, :1]).all() and (dealt[0] == dealt[1]).all()
    assert len(set(dealt[1:, 0])) == 4


def test_folds_are_even_by_class() -> None:
    classes = np.repeat([0, 1, 2], [50, 20, 10])
    dealt = folds.deal(np.arange(80.0)[:, None], classes, 5, 7)
    counts = np.array([np.bincount(dealt[classes == c], minlength=5) for c in range(3)])
    np.testing.assert_array_equal(counts, [[10] * 5, [4] * 5, [2] * 5])


def test_columns_of_any_scale() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0, 100.0] * 4)
    table = np.stack([x, 1e300 * x, 1e-300 * x, 0 * x, x + 1e9, 0 * x + 7], axis=1)
    found = folds.standardised(table)
    np.testing.assert_allclose(found[:, 0], (x - x.mean()) / x.std(), rtol=1e-6)
    for column in (1, 2, 4):
        np.testing.assert_allclose(found[:, column], found[:, 0], rtol=1e-5)
    assert (found[:, [3, 5]] == 0).all()
    assert folds.standardised(np.eye(50)).max() == folds.LIMIT


def test_a_class_of_one_example_is_warned_of() -> None:
    features, labels, _ = clusters()
    labels[0] = 7
    with pytest.warns(RuntimeWarning, match=r"1 classes have a single example \(7\)") as caught:
        found = imae_ext.find_label_errors(features, labels, **SHORT, sample="out")
    assert found.suspected[0] and caught[0].filename == __file__


def test_divergence_is_an_error() -> None:
    features, labels, _ = clusters()
    with pytest.raises(ValueError, match="expected rates at which the networks do not diverge"):
        imae_ext.find_label_errors(features, labels, rates=[1e30], lengths=[8], progress=False)


def test_the_bar_is_tqdms_where_there_is_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    features, labels, _ = clusters()
    bar = SHORT | {"progress": True}
    imae_ext.find_label_errors(features, labels, **bar)
    assert "24/24" in capsys.readouterr().err
    imae_ext.find_label_errors(features, labels, **SHORT | {"progress": None})  # no terminal here
    assert capsys.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    imae_ext.find_label_errors(features, labels, **SHORT | {"progress": None})
    with pytest.raises(ImportError, match="tqdm"):
        imae_ext.find_label_errors(features, labels, **bar)


X, L = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
HOLE = np.where(np.arange(20).reshape(10, 2) == 7, np.nan, X)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((HOLE, L), {}, ValueError, r"expected finite features, got nan at row 3, column 1 \(1 such numbers in 1 rows"),
        ((np.where(X > 5, np.inf, X), L), {}, ValueError, "expected finite features"),
        ((X[:, 0], L), {}, ValueError, r"pass features\[:, None\]"),
        ((X[:, :, None], L), {}, ValueError, r"pass features.reshape\(len\(features\), -1\)"),
        ((X[:0], L[:0]), {}, ValueError, r"expected features of shape \(N, d\), got \(0, 2\)"),
        ((X.astype(str), L), {}, TypeError, "expected features to be numbers"),
        ((X.astype(complex), L), {}, TypeError, "expected features to be numbers"),
        ((X, L[:9]), {}, ValueError, r"expected labels of shape \(10,\), .* got \(9,\)"),
        ((X, np.eye(2)[L]), {}, ValueError, r"pass labels.argmax\(1\)"),
        ((X, L[:, None]), {}, ValueError, r"pass labels\[:, 0\]"),
        ((X, L * 0), {}, ValueError, "at least two classes with two examples each, got only"),
        ((X, np.arange(10)), {}, ValueError, "got 10 labels, at most one of them twice"),
        ((X, L + 0.5), {}, ValueError, "expected labels to be classes, got 0.5 at row 0"),
        ((X, np.where(L, np.nan, 0)), {}, ValueError, "got nan at row 1"),
        ((X, np.array([None, "a"] * 5)), {}, ValueError, "expected a label in each row, got None at row 0"),
        ((X, np.array([1, "a"] * 5, dtype=object)), {}, TypeError, "expected labels of one type, got int, str"),
        ((X, L), {"folds": 11}, ValueError, "at least as many distinct examples as folds=11, got 10"),
        ((X * 0, L), {}, ValueError, "at least as many distinct examples as folds=5, got 1"),
        ((X, L), {"folds": 1}, ValueError, "expected folds of at least 2, got 1"),
        ((X, L), {"folds": 2.0}, TypeError, "expected folds to be an int"),
        ((X, L), {"seed": -1}, ValueError, "expected seed of at least 0"),
        ((X, L), {"sample": "both"}, ValueError, "expected sample to be one of all, out, in, got 'both'"),
        ((X, L), {"rates": 0.1}, ValueError, "expected rates to be a sequence of numbers above 0, got 0.1"),
        ((X, L), {"rates": [0.0]}, ValueError, "expected rates"),
        ((X, L), {"rates": []}, ValueError, "at least one rate"),
        ((X, L), {"lengths": [0]}, ValueError, "expected lengths to be a sequence of positive ints"),
        ((X, L), {"lengths": []}, ValueError, "at least one rate and one length"),
        ((X, L), {"hidden": 32}, ValueError, "expected hidden to be a sequence of positive ints, got 32"),
        ((X, L), {"formula": "imae"}, TypeError, "expected a formula such as"),
        ((X, L), {"cutoff": 2}, ValueError, "expected cutoff in"),
        ((X, L), {"cutoff": "confident"}, TypeError, "expected cutoff to be a number in"),
    ],
)
def test_find_label_errors_refuses(arguments, options, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        imae_ext.find_label_errors(*arguments, **options)
    assert str(caught.value).startswith("imae_ext: ")


# What is returned


def test_cleanlabs_form() -> None:
    logits, target = logits_of()
    found = imae_ext.label_errors(logits, target)
    columns = found.as_cleanlab()
    assert list(columns) == ["is_label_issue", "label_quality", "given_label", "predicted_label"]
    np.testing.assert_array_equal(columns["is_label_issue"], found.suspected)
    cleanlab = pytest.importorskip("cleanlab")
    probabilities = logits.double().softmax(1).numpy()
    ranked = {"filter_by": "low_self_confidence", "return_indices_ranked_by": "self_confidence"}
    indices = cleanlab.filter.find_label_issues(target.numpy(), probabilities, n_jobs=1, **ranked)
    np.testing.assert_array_equal(indices, found.order[: len(indices)])
    quality = cleanlab.rank.get_label_quality_scores(target.numpy(), probabilities)
    np.testing.assert_allclose(quality, columns["label_quality"], rtol=1e-9)


def test_cleanlab_goes_on_from_what_was_found() -> None:
    classification = pytest.importorskip("cleanlab.classification")
    pandas = pytest.importorskip("pandas")
    features, labels, wrong = clusters()
    found = imae_ext.find_label_errors(features, labels, **SHORT)
    learner = classification.CleanLearning().fit(features, labels, label_issues=pandas.DataFrame(found.as_cleanlab()))
    clean = np.where(wrong, found.predicted, labels)
    assert (learner.predict(features) == clean).all()


def test_results_travel() -> None:
    features, labels, _ = clusters()
    found = imae_ext.find_label_errors(features, labels, **SHORT)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.p, found.p)
    assert again.choice == found.choice


# The command


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A folder with the clusters in every format."""
    features, labels, _ = clusters()
    names = np.array(["ant", "bee", "cat"])[labels]
    np.save(tmp_path / "features.npy", features)
    np.save(tmp_path / "labels.npy", labels)
    np.savez(tmp_path / "both.npz", x=features, y=labels, names=names)
    rows = [",".join(map(repr, row)) for row in features.tolist()]
    lines = [
        "a,b,kind,c",
        *(f"{row.rsplit(',', 1)[0]},{name},{row.rsplit(',', 1)[1]}" for row, name in zip(rows, names, strict=True)),
    ]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "names.csv").write_text("\n".join(["id,kind", *(f"{i},{name}" for i, name in enumerate(names))]))
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["features.npy", "labels.npy"],
        ["both.npz", "both.npz", "--features-key", "x", "--labels-key", "names"],
        ["table.csv", "kind"],
        ["features.npy", "names.csv", "--labels-key", "kind"],
    ],
)
def test_the_command_reads_every_format(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: list[str]
) -> None:
    monkeypatch.chdir(table)
    defaults = imae_ext.find_label_errors.__kwdefaults__ | SHORT
    monkeypatch.setattr(finding.find_label_errors, "__kwdefaults__", defaults)  # a shorter search
    main([*arguments, "--to", "found.csv"])
    wrong = clusters()[2]
    with open("found.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["suspected"] for row in rows] == ["true"] * wrong.sum() + ["false"] * (~wrong).sum()
    assert {int(row["index"]) for row in rows[: wrong.sum()]} == set(np.flatnonzero(wrong))
    assert [int(row["rank"]) for row in rows] == list(range(1, 61))
    assert (rows[0]["given_label"] in ("ant", "bee", "cat")) == (arguments[1] != "labels.npy")
    said = capsys.readouterr().out
    assert f"suspected: {wrong.sum()} of 60 labels" in said and "found.csv" in said


def test_the_command_judges_outputs(table: Path) -> None:
    logits, target = logits_of()
    np.save(table / "logits.npy", logits.numpy())
    np.save(table / "target.npy", target.numpy())
    arguments = [str(table / "logits.npy"), str(table / "target.npy"), "--to", str(table / "found.csv")]
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::RuntimeWarning",
            "-m",
            "imae_ext.label_errors",
            *arguments,
            "--outputs",
            "logits",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = imae_ext.label_errors(logits, target)
    assert done.stdout.startswith(found.how)
    with (table / "found.csv").open(newline="") as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == found.order.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.npy", "labels.npy"], "nowhere.npy"),
        (["both.npz", "labels.npy"], "both.npz: expected one array, got x, y, names: name one"),
        (["both.npz", "labels.npy", "--features-key", "z"], "expected an array 'z', got x, y, names"),
        (["table.csv", "labels.npy"], "expected numbers, got '.*' in column 'kind', line 2"),
        (["table.csv", "sort"], "expected a column or a file 'sort', got the columns a, b, kind, c"),
        (["features.npy", "names.csv"], "expected one column, got id, kind: name one by --labels-key"),
        (["features.npy", "sort"], "expected a file that ends in .npy, .npz, .csv"),
        (["features.npy", "short.npy"], r"expected labels of shape \(60,\)"),
        (["pickled.npy", "labels.npy"], "pickled.npy: .*allow_pickle"),
        (["ragged.csv", "kind"], "ragged.csv: expected 2 cells, got 1 in line 3"),
        (["headless.csv", "labels.npy"], "expected the names of the columns in the first line, got numbers"),
        (["hole.csv", "kind"], "expected a label in each line, got none in line 3"),
    ],
)
def test_the_command_says_what_it_does_not_read(
    table: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(table)
    np.save("short.npy", np.zeros(3, dtype=int))
    np.save("pickled.npy", np.array([{}, {}], dtype=object))
    Path("ragged.csv").write_text("a,kind\n1,x\n2\n")
    Path("headless.csv").write_text("1,2\n3,4\n")
    Path("hole.csv").write_text("a,kind\n1,x\n2,\n")
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main([*arguments, "--to", "found.csv"])
    assert not Path("found.csv").exists()


def test_an_option_without_effect_is_refused(table: Path, capsys: pytest.CaptureFixture) -> None:
    files = [str(table / "features.npy"), str(table / "labels.npy"), "--to", str(table / "found.csv")]
    with pytest.raises(SystemExit):
        main([*files, "--outputs", "logits", "--seed", "1"])
    assert "--seed has no effect with --outputs" in capsys.readouterr().err


# The names


def test_the_function_stays_where_it_is() -> None:
    """The package of the same name must not take its place, in whatever order things are imported."""
    code = """
import imae_ext, sys
function = imae_ext.label_errors
import imae_ext.label_errors
import imae_ext.label_errors.finding
from imae_ext.label_errors import find_label_errors, label_errors
assert imae_ext.label_errors is function is label_errors
assert imae_ext.find_label_errors is find_label_errors
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", ["ranking", "finding"])
def test_examples_in_docstrings(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        failed, tried = doctest.testmod(importlib.import_module(f"imae_ext.label_errors.{name}"))
    assert failed == 0 and tried > 0

"""Wrong labels of a table, by networks that are trained for it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from label_error_data import SHORT, clusters
from sklearn.datasets import load_digits

import imae_ext
from benchmarks.noisy_labels.noise import asymmetric, symmetric
from imae_ext.label_errors import folds

pytestmark = pytest.mark.usefixtures("one_thread")


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

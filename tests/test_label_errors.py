"""Wrong labels by a model's outputs, what is returned, and the names by which to call it."""

from __future__ import annotations

import doctest
import importlib
import itertools
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from label_error_data import SHORT, clusters, logits_of

import imae_ext
from imae_ext.label_errors import ranking

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("one_thread")


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
    """Suspect by the rule, a pair of classes at a time."""
    N, C = probabilities.shape
    usual = [min(0.8, probabilities[labels == k, k].mean()) if (labels == k).any() else 2.0 for k in range(C)]
    joint = np.zeros((C, C))
    for row, label in zip(probabilities, labels, strict=True):
        if counts := [(p, k) for k, p in enumerate(row) if p >= usual[k] - 1e-6]:
            joint[label, max(counts)[1]] += 1
    found = set()
    for i, j in itertools.permutations(range(C), 2):
        if joint[i].sum() == 0:
            continue
        wrong = round(joint[i, j] / joint[i].sum() * (labels == i).sum())
        more = sorted((probabilities[n, i] - probabilities[n, j], n) for n in range(N) if labels[n] == i)
        found |= {n for difference, n in more[:wrong] if difference < 0}
    return np.isin(np.arange(N), list(found))


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
    assert found.how.startswith(
        f"suspected: {expected.sum()} of 300 labels, counted where another class is as probable"
    )
    with_ignored = imae_ext.label_errors(torch.cat([z, z]), torch.cat([target, torch.full((300,), -100)]))
    np.testing.assert_array_equal(with_ignored.suspected, np.concatenate([expected, np.zeros(300, dtype=bool)]))
    known = imae_ext.label_errors(z.softmax(1), target, probabilities=True)
    np.testing.assert_array_equal(known.suspected, expected)


def test_who_is_always_sure_suspects_whom_he_is_surer_of() -> None:
    """0.98 is less than the mean of 0.999, and still means that the label is wrong."""
    sure = np.array([[0.999, 0.001], [0.999, 0.001], [0.98, 0.02], [0.001, 0.999]])
    found = imae_ext.label_errors(sure, [0, 0, 1, 1], probabilities=True)
    np.testing.assert_array_equal(found.suspected, [False, False, True, False])


def test_a_share_is_of_all_labels_but_none_is_suspected_that_the_model_prefers() -> None:
    """Of ten labels 0 two are counted, one of them as 1: five were to be suspected, but eight prefer their 0."""
    unsure = [[0.4, 0.3, 0.3]] * 8
    rows = np.array([[0.8, 0.1, 0.1], [0.05, 0.9, 0.05], *unsure, [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    found = imae_ext.label_errors(rows, [0] * 10 + [1, 2], probabilities=True)
    np.testing.assert_array_equal(found.indices, [1])


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

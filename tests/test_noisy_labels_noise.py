"""The noise makers: their rates are exact, their seeds decide, and label files come back as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.noisy_labels import noise

LABELS = np.random.default_rng(7).integers(10, size=1203)  # unequal classes, a total that no rate divides


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4, 0.8, 1.0])
def test_symmetric_noise_has_the_exact_rate(rate: float) -> None:
    noisy = noise.symmetric(LABELS, rate, 10, seed=3)
    assert noisy.noisy.sum() == round(rate * len(LABELS))
    assert noisy.rate == round(rate * len(LABELS)) / len(LABELS)
    assert noisy.labels.min() >= 0 and noisy.labels.max() < 10
    np.testing.assert_array_equal(noisy.clean, LABELS)


def test_symmetric_noise_is_even_over_the_other_classes() -> None:
    noisy = noise.symmetric(LABELS, 0.4, 10, seed=3)
    for label in range(10):
        sent_to = np.bincount(noisy.labels[noisy.noisy & (label == LABELS)], minlength=10)
        assert sent_to[label] == 0
        others = np.delete(sent_to, label)
        assert others.max() - others.min() <= 1


def test_symmetric_noise_is_decided_by_the_seed() -> None:
    first, again, other = (noise.symmetric(LABELS, 0.4, 10, seed).labels for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.2


def test_noise_leaves_the_labels_it_was_given() -> None:
    labels = LABELS.copy()
    noise.symmetric(labels, 0.4, 10, seed=0)
    noise.asymmetric(labels, 0.4, noise.CIFAR10_CLASS_MAP, seed=0)
    np.testing.assert_array_equal(labels, LABELS)


def test_asymmetric_noise_follows_the_class_map_at_the_exact_rate() -> None:
    class_map = noise.CIFAR10_CLASS_MAP
    noisy = noise.asymmetric(LABELS, 0.4, class_map, seed=3)
    for label in range(10):
        rows = label == LABELS
        changed = noisy.labels[rows & noisy.noisy]
        assert len(changed) == (round(0.4 * rows.sum()) if label in class_map else 0)
        assert set(changed.tolist()) <= {class_map.get(label)}
    np.testing.assert_array_equal(noisy.labels, noise.asymmetric(LABELS, 0.4, class_map, seed=3).labels)
    assert (noisy.labels != noise.asymmetric(LABELS, 0.4, class_map, seed=4).labels).any()


def test_cifar10_class_map_pairs_the_similar_classes() -> None:
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    pairs = {(names[a], names[b]) for a, b in noise.CIFAR10_CLASS_MAP.items()}
    one_way = {("truck", "automobile"), ("bird", "airplane"), ("deer", "horse")}
    assert pairs == one_way | {("cat", "dog"), ("dog", "cat")}


def test_cifar100_classes_go_round_within_their_superclass() -> None:
    class_map = noise.next_in_superclass()
    assert sorted(class_map) == sorted(class_map.values()) == list(range(100))
    groups = noise.CIFAR100_SUPERCLASS
    assert all(groups[a] == groups[b] and a != b for a, b in class_map.items())
    # beaver -> dolphin -> otter -> seal -> whale -> beaver, the aquatic mammals
    assert [class_map[c] for c in (4, 30, 55, 72, 95)] == [30, 55, 72, 95, 4]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".txt"])
def test_label_file_round_trip(tmp_path: Path, suffix: str) -> None:
    made = noise.symmetric(LABELS, 0.3, 10, seed=1)
    path = tmp_path / f"labels{suffix}"
    if suffix == ".npy":
        np.save(path, made.labels)
    elif suffix == ".npz":
        np.savez(path, clean_label=LABELS, worse_label=made.labels)
    else:
        np.savetxt(path, made.labels, fmt="%d")
    read = noise.from_file(path, LABELS, key="worse_label" if suffix == ".npz" else None)
    np.testing.assert_array_equal(read.labels, made.labels)
    np.testing.assert_array_equal(read.noisy, made.noisy)


def test_label_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", LABELS[:-1])
    with pytest.raises(ValueError, match=r"expected 1203 labels, got an array of shape \(1202,\)"):
        noise.from_file(tmp_path / "short.npy", LABELS)
    np.save(tmp_path / "real.npy", LABELS * 0.5)
    with pytest.raises(ValueError, match="integer label"):
        noise.from_file(tmp_path / "real.npy", LABELS)
    np.save(tmp_path / "negative.npy", LABELS - 2)
    with pytest.raises(ValueError, match="labels of 0 or more"):
        noise.from_file(tmp_path / "negative.npy", LABELS)
    np.savez(tmp_path / "other.npz", aggre_label=LABELS)
    with pytest.raises(ValueError, match="has no worse_label: expected a key out of aggre_label: 1,203 whole"):
        noise.from_file(tmp_path / "other.npz", LABELS, key="worse_label")


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_impossible_noise_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="noise rate"):
        noise.symmetric(LABELS, rate, 10, seed=0)
    with pytest.raises(ValueError, match="noise rate"):
        noise.asymmetric(LABELS, rate, {0: 1}, seed=0)


def test_impossible_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="labels below 9"):
        noise.symmetric(LABELS, 0.4, 9, seed=0)
    with pytest.raises(ValueError, match="at least 2 classes"):
        noise.symmetric(np.zeros(3, int), 0.4, 1, seed=0)

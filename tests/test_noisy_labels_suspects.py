"""Wrong labels by name and from files, and the ranking of suspect ones."""

from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from harmful import Harmful
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import imae_ext
from benchmarks.noisy_labels import noise
from benchmarks.noisy_labels.data import Dataset, Examples, Published, digits
from benchmarks.noisy_labels.judging import fit_line
from benchmarks.noisy_labels.measures import Measures
from benchmarks.noisy_labels.noise import NoisyLabels
from benchmarks.noisy_labels.suspects import Ranking, auc, per_example, write_csv
from benchmarks.noisy_labels.training import Recipe, Result

PUBLISHED = torch.arange(30) % 10
ROWS = torch.tensor([29, 3, 4, 11, 17, 20, 21, 22, 23, 5])


def dataset_of(labels: Tensor = PUBLISHED[ROWS], name: str = "by hand", num_classes: int = 10) -> Dataset:
    part = Examples(torch.zeros(len(labels), 1), labels)
    return Dataset(name, num_classes, part, part, part, published=Published(PUBLISHED, ROWS))


# Noise by name


def test_noise_by_name_is_that_of_its_maker() -> None:
    dataset = digits()
    labels = dataset.train.labels.numpy()
    assert (noise.make("none", dataset).labels == labels).all()
    made = noise.make("symmetric", dataset, rate=0.4, seed=5)
    np.testing.assert_array_equal(made.labels, noise.symmetric(labels, 0.4, 10, seed=5).labels)
    np.testing.assert_array_equal(made.clean, labels)
    with pytest.raises(ValueError, match="expected noise out of none, symmetric, asymmetric, file, got odd"):
        noise.make("odd", dataset)


def test_asymmetric_noise_confuses_what_the_data_set_suggests() -> None:
    round_of_10 = {label: (label + 1) % 10 for label in range(10)}
    for name, expected in (
        ("cifar10", noise.CIFAR10_CLASS_MAP),
        ("digits", round_of_10),
        ("fashion-mnist", round_of_10),
    ):
        dataset = dataset_of(torch.arange(500) % 10, name)
        made = noise.make("asymmetric", dataset, rate=0.4, seed=1)
        changed = set(zip(made.clean[made.noisy].tolist(), made.labels[made.noisy].tolist(), strict=True))
        assert changed == set(expected.items())
    dataset = dataset_of(torch.arange(1000) % 100, "cifar100", num_classes=100)
    made = noise.make("asymmetric", dataset, rate=0.2, seed=1)
    class_map = noise.next_in_superclass()
    assert [class_map[label] for label in made.clean[made.noisy]] == made.labels[made.noisy].tolist()
    assert made.rate == 0.2


# Noise from files


def write_pt(path: Path, dtype: type = np.int64, **changes: object) -> np.ndarray:
    """Write a file as CIFAR-N's, (key -> array), and return the wrong labels in it."""
    clean = PUBLISHED.numpy()
    worse = (clean + (np.arange(30) % 3 == 0)) % 10
    labels = {"clean_label": clean, "aggre_label": clean, "worse_label": worse}
    torch.save({key: value.astype(dtype) for key, value in labels.items()} | changes, path)
    return worse


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_cifar_n_goes_by_the_published_order(tmp_path: Path, dtype: type) -> None:
    worse = write_pt(tmp_path / "CIFAR-10_human.pt", dtype)
    made = noise.make("file", dataset_of(), path=tmp_path / "CIFAR-10_human.pt", key="worse_label")
    np.testing.assert_array_equal(made.labels, worse[ROWS.numpy()])
    np.testing.assert_array_equal(made.clean, PUBLISHED[ROWS].numpy())
    assert made.labels.dtype == np.int64 and made.rate == 0.2  # of ROWS, 3 and 21 are wrong
    assert noise.make("file", dataset_of(), path=tmp_path / "CIFAR-10_human.pt", key="aggre_label").rate == 0


def test_a_single_array_beside_the_true_labels_needs_no_key(tmp_path: Path) -> None:
    path = tmp_path / "CIFAR-100_human.pt"
    wrong = (PUBLISHED.numpy() + 1) % 10
    # CIFAR-100N's file has lists of coarse labels as well.
    torch.save({"clean_label": PUBLISHED.numpy(), "noisy_label": wrong, "noisy_coarse_label": wrong.tolist()}, path)
    assert noise.make("file", dataset_of(), path=path, meant=True).rate == 1
    np.savez(tmp_path / "one.npz", clean_label=PUBLISHED.numpy(), tensor=wrong)
    assert noise.make("file", dataset_of(), path=tmp_path / "one.npz", meant=True).rate == 1
    torch.save({"noisy_label": torch.from_numpy(wrong)}, path)  # a tensor, and no true labels to compare
    assert noise.make("file", dataset_of(), path=path, meant=True).rate == 1
    write_pt(path)
    with pytest.raises(ValueError, match=r"holds clean_label: 30 whole .*; worse_label: .*: give one of them as key"):
        noise.make("file", dataset_of(), path=path)


def test_a_data_set_made_by_hand_takes_a_file_in_its_own_order(tmp_path: Path) -> None:
    dataset = dataclasses.replace(dataset_of(), published=None)
    np.savetxt(tmp_path / "labels.txt", dataset.train.labels.numpy(), fmt="%d")
    assert noise.make("file", dataset, path=tmp_path / "labels.txt").rate == 0


def test_files_for_other_examples_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.pt"

    def make(**arguments: str) -> NoisyLabels:
        return noise.make("file", dataset_of(), path=path, **arguments)

    write_pt(path, clean_label=PUBLISHED.numpy()[::-1].copy())
    with pytest.raises(
        ValueError, match=r"clean_label to be the labels of the data set, got 30 others out of 30: .*order"
    ):
        make(key="worse_label")
    write_pt(path, clean_label=PUBLISHED.numpy()[:-1])
    with pytest.raises(ValueError, match=r"expected 30 labels, got an array of shape \(29,\)"):
        make(key="worse_label")
    # As many as the training part has are too few: its order is not the file's.
    write_pt(path, worse_label=PUBLISHED[ROWS].numpy())
    with pytest.raises(ValueError, match=r"expected 30 labels, got an array of shape \(10,\)"):
        make(key="worse_label")
    write_pt(path, worse_label=PUBLISHED.numpy() + 1)
    with pytest.raises(ValueError, match="expected labels below 10, got 10"):
        make(key="worse_label")
    write_pt(path)
    with pytest.raises(
        ValueError, match="has no worst_label: expected a key out of clean_label: 30 whole numbers from 0 to 9; "
    ):
        make(key="worst_label")
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match=r"expected 30 labels, got an array of shape \(2,\)"):
        make()
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"labels\.pt: not a readable label file"):
        make()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"expected a label file, got .*labels\.pt"):
        make()
    with pytest.raises(ValueError, match="noise from a file: expected its path"):
        noise.make("file", dataset_of())


def test_a_label_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path, ran = tmp_path / "labels.pt", tmp_path / "ran"
    write_pt(path, aggre_label=Harmful(ran))
    with pytest.raises(ValueError, match=r"labels\.pt: not a readable label file: it .* holds more than numbers\. "):
        noise.make("file", dataset_of(), path=path, key="worse_label")
    assert not ran.exists()
    torch.load(path, weights_only=False)
    assert ran.exists()  # the file is as bad as it should be


# Suspects


@pytest.mark.parametrize("levels", [5, 10**6])  # many ties; as good as none
def test_auc_is_scikit_learns(levels: int) -> None:
    generator = np.random.default_rng(0)
    p = generator.integers(levels, size=300) / levels
    wrong = generator.random(300) < 0.6 - 0.4 * p
    assert auc(p, wrong) == pytest.approx(roc_auc_score(wrong, -p), abs=1e-12)
    assert auc(torch.from_numpy(p), torch.from_numpy(wrong)) == auc(p, wrong)


def test_auc_by_hand() -> None:
    assert auc([0.1, 0.2, 0.8, 0.9], [True, True, False, False]) == 1
    assert auc([0.1, 0.2, 0.8, 0.9], [False, False, True, True]) == 0
    assert auc([0.5, 0.5, 0.5], [True, False, False]) == 0.5
    assert auc([0.5, 0.4, 0.6], [True, False, False]) == 0.5
    assert math.isnan(auc([0.5, 0.5], [False, False])) and math.isnan(auc([0.5, 0.5], [True, True]))
    assert math.isnan(auc([0.5, math.nan], [False, True]))  # a network that has diverged ranks nothing
    with pytest.raises(ValueError, match=r"of one shape \(n,\), got \(2,\) and \(3,\)"):
        auc([0.5, 0.4], [True, False, False])


def test_examples_are_judged_by_the_network_in_evaluation() -> None:
    # The network's logits are its inputs, or rubbish if dropout were on.
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [-1.0, 1.0, 0.0]])
    part = Examples(logits, torch.tensor([0, 1, 1]))
    network = nn.Dropout(0.99).train()
    given = torch.tensor([1, 2, 1])
    p, weight, predicted = per_example(network, Dataset("by hand", 3, part, part, part), given, imae_ext.IMAE(8.0))
    assert network.training
    torch.testing.assert_close(p, logits.softmax(1)[torch.arange(3), given])
    torch.testing.assert_close(weight, (8 * p * (1 - p)).exp())
    assert predicted.tolist() == [0, 2, 1]


@pytest.mark.parametrize("files", [True, False])
@pytest.mark.parametrize("known", ["truth", "verified", "nothing"])
def test_suspects_are_listed_by_p(tmp_path: Path, known: str, files: bool) -> None:
    clean = PUBLISHED[ROWS].numpy()
    p = np.array([0.9, 0.1, 0.5, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4, 1e-7])
    ranking = Ranking(
        index=np.where(np.arange(10) == 4, -1, ROWS.numpy()),
        files=tuple(f"é, {i}.png" for i in range(10)) if files else (),
        class_names=tuple("abcdefghij"),
        given=(clean + 1) % 10,
        p=p,
        weight=2 * p,
        predicted=np.arange(10),
        trained=np.arange(10) % 3,
        true=clean if known == "truth" else None,
        verified=np.array([1, 0, -1, 1, 0, 1, 0, -1, 1, 0]) if known == "verified" else None,
    )
    write_csv(tmp_path / "suspects.csv", ranking, 0.35)
    with (tmp_path / "suspects.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = ["rank", "index", *(["file"] if files else []), "given_label", "predicted_label", "p_given", "suspect"]
    optional = {"truth": ["true_label"], "verified": ["verified"], "nothing": []}[known]
    assert list(rows[0]) == [*names, "weight", "trained_by", *optional]
    order = [9, 1, 6, 4, 8, 2, 7, 3, 5, 0]
    assert [row["suspect"] for row in rows] == ["yes"] * 4 + ["no"] * 6 and ranking.below(0.35) == 4
    for rank, (row, i) in enumerate(zip(rows, order, strict=True), start=1):
        assert (int(row["rank"]), row["index"]) == (rank, "" if i == 4 else str(int(ROWS[i])))
        given = "abcdefghij"[(clean[i] + 1) % 10]
        assert row["given_label"] == given and row["predicted_label"] == "abcdefghij"[i]
        assert float(row["p_given"]) == pytest.approx(p[i], rel=1e-5)
        assert float(row["weight"]) == pytest.approx(2 * p[i], rel=1e-5) and int(row["trained_by"]) == i % 3
        assert row.get("file") == (f"é, {i}.png" if files else None)
    if known == "truth":
        assert rows[0]["true_label"] == "abcdefghij"[clean[9]] and math.isnan(ranking.auc())  # all are wrong
    if known == "verified":
        assert [row["verified"] for row in rows[4:6]] == ["right", ""]
        assert ranking.auc() == 1  # the four found wrong are below the four found right


def history(*fits: float, epochs: int = 100) -> Result:
    """Make a run whose fit was measured at even distances up to its end."""
    measures = [
        Measures(epochs * (i + 1) // len(fits), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, fit) for i, fit in enumerate(fits)
    ]
    return Result(Recipe("IMAE", imae_ext.IMAE(), 0.1, epochs=epochs), tuple(measures))


@pytest.mark.parametrize(
    ("fits", "message"),
    [
        ((50, 80, 88, 88), "88.0% of the training labels, and that had settled: enough"),
        ((40, 55, 62, 74), "74.0% of the training labels, 12.0 points more than before the last quarter: too little"),
        ((90, 99, 100, 100), "unless all are right it has memorised wrong ones"),
        ((30, 34, 35, 35), "too little to tell right from wrong"),
    ],
)
def test_whether_a_fit_is_enough_is_said(fits: tuple[float, ...], message: str) -> None:
    assert message in fit_line([history(*fits)])
    assert "(mean of 2 networks)" in fit_line([history(*fits), history(*fits)])

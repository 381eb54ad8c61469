"""Label files of every format that people pass around, and what is said of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from harmful import Harmful

from benchmarks.noisy_labels import file_noise, noise
from benchmarks.noisy_labels.annotators import majority, shares
from benchmarks.noisy_labels.data import Dataset, Examples, Published
from benchmarks.noisy_labels.data.tables import FORMATS, read_table
from benchmarks.noisy_labels.label_files import read_labels
from benchmarks.noisy_labels.label_rows import Examples as Given

CLEAN = np.arange(60) % 10
WORSE = np.where(np.arange(60) % 3 == 0, (CLEAN + 1) % 10, CLEAN)
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EXAMPLES = Given(CLEAN, 10, NAMES)


def dataset(num_classes: int = 10, truth_known: bool = True) -> Dataset:
    labels = torch.from_numpy(CLEAN % num_classes)
    part = Examples(torch.zeros(60, 1), labels)
    published = Published(labels, torch.arange(60))
    return Dataset("by hand", num_classes, part, part, part, truth_known=truth_known, published=published)


def labels_of(path: Path, key: str | None = None, examples: Given = EXAMPLES) -> list[int]:
    return read_labels(path, key, examples).labels.tolist()


def csv_of(header: str, *columns: object) -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in zip(*columns, strict=True))]) + "\n"


WRITERS = {
    "tensor.pt": lambda path: torch.save({"noisy": torch.from_numpy(WORSE), "T": np.eye(3)}, path),
    "list.pt": lambda path: torch.save({"noisy": WORSE.tolist(), "seed": 3}, path),
    "alone.pth": lambda path: torch.save(torch.from_numpy(WORSE).float(), path),
    "scalars.pt": lambda path: torch.save(list(WORSE), path),
    "double.pt": lambda path: torch.save({"noisy": WORSE.astype(np.float64)}, path),
    "small.npy": lambda path: np.save(path, WORSE.astype(np.int8)),
    "float.npy": lambda path: np.save(path, WORSE.astype(np.float32)),
    "column.npy": lambda path: np.save(path, WORSE[:, None]),
    "ordered.npy": lambda path: np.save(path, {"clean_label": CLEAN, "worse_label": WORSE}, allow_pickle=True),
    "onehot.npy": lambda path: np.save(path, np.eye(10)[WORSE]),
    "both.npz": lambda path: np.savez(path, clean_label=CLEAN, noisy=WORSE),
    "plain.pickle": lambda path: path.write_bytes(pickle.dumps({"noisy": WORSE.tolist()})),
    "dividemix.json": lambda path: path.write_text(json.dumps(WORSE.tolist())),
    "lists.json": lambda path: path.write_text(json.dumps({"clean": CLEAN.tolist(), "noisy": WORSE.tolist()})),
    "header.csv": lambda path: path.write_text(csv_of("label,label_noisy", CLEAN, WORSE)),
    "pandas.csv": lambda path: path.write_text(csv_of(",label,label_noisy", range(60), CLEAN, WORSE)),
    "shuffled.csv": lambda path: path.write_text(csv_of("idx,label_noisy", range(60)[::-1], WORSE[::-1])),
    "names.csv": lambda path: path.write_text(csv_of("given_label", [NAMES[label] for label in WORSE])),
    "bare.csv": lambda path: path.write_text("\n".join(map(str, WORSE))),
    "tabs.tsv": lambda path: path.write_text(csv_of("label,noisy_label", CLEAN, WORSE).replace(",", "\t")),
    "savetxt.txt": lambda path: np.savetxt(path, WORSE, header="of the second annotator"),
    "printed.txt": lambda path: path.write_text(str(WORSE)),
    "commas.txt": lambda path: path.write_text(",\n".join(map(str, WORSE))),
    "tofile.txt": lambda path: WORSE.tofile(path, sep="\n"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_labels(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)  # type: ignore[no-untyped-call]
    assert labels_of(tmp_path / name) == WORSE.tolist()


def test_true_labels_are_found_under_every_published_name(tmp_path: Path) -> None:
    wrong_order = CLEAN[::-1].copy()
    for name in ("clean_label", "clean_label_train", "true_label", "label_orig", "clean", "y_true", "gt"):
        np.savez(tmp_path / "a.npz", **{name: wrong_order, "noise_label_train": WORSE})
        with pytest.raises(ValueError, match=f"a.npz: expected {name} to be the labels of the data set, got 60 others"):
            noise.make("file", dataset(), path=tmp_path / "a.npz")
    (tmp_path / "b.csv").write_text(csv_of("label,label_noisy", wrong_order, WORSE))
    with pytest.raises(ValueError, match=r"b.csv: expected label to be .* order \(--order FILE puts it right"):
        noise.make("file", dataset(), path=tmp_path / "b.csv")
    # A folder's labels may be the wrong ones, and the file's the right ones; but not in another order.
    (tmp_path / "b.csv").write_text(csv_of("label,label_noisy", WORSE, CLEAN))
    assert noise.make("file", dataset(truth_known=False), path=tmp_path / "b.csv").rate == 0


def test_the_share_of_changed_labels_is_kept_and_as_many_as_by_chance_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.npy"
    np.save(path, WORSE)
    made = noise.make("file", dataset(), path=path)
    assert made.source["changed"] == pytest.approx(20 / 60) and made.source["checked_against"] == ""
    assert file_noise.said(made.source) == (
        "labels of labels.npy: 33.3% are others than the data set's; no true labels in it to check the order against"
    )
    np.save(path, np.roll(CLEAN, 1))
    with pytest.raises(ValueError, match=r"labels.npy: 100.0% of its labels are others than the data set's"):
        noise.make("file", dataset(), path=path)
    assert noise.make("file", dataset(), path=path, meant=True).rate == 1


def test_labels_in_tensorflows_order_are_put_right_by_the_order_file(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(60)
    file = {"clean_label": CLEAN[order], "worse_label": WORSE[order], "aggre_label": CLEAN[order]}
    np.save(tmp_path / "CIFAR-10_human_ordered.npy", file, allow_pickle=True)  # type: ignore[arg-type]
    np.save(tmp_path / "image_order_c10.npy", order)
    arguments = {"path": tmp_path / "CIFAR-10_human_ordered.npy", "key": "worse_label"}
    with pytest.raises(ValueError, match=r"in another order \(--order FILE"):
        noise.make("file", dataset(), **arguments)  # type: ignore[arg-type]
    made = noise.make("file", dataset(), **arguments, order=tmp_path / "image_order_c10.npy")  # type: ignore[arg-type]
    assert made.labels.tolist() == WORSE.tolist() and made.source["checked_against"] == "clean_label"
    np.save(tmp_path / "image_order_c10.npy", order + 1)
    with pytest.raises(ValueError, match=r"image_order_c10.npy: expected an order, each number from 0 to 59 once"):
        noise.make("file", dataset(), **arguments, order=tmp_path / "image_order_c10.npy")  # type: ignore[arg-type]


def test_confident_learnings_file_names_are_places_in_cifar(tmp_path: Path) -> None:
    path = tmp_path / "cifar10_noisy_labels__frac_zero_noise_rates__0.4__noise_amount__0.4.json"
    shuffled = np.random.default_rng(0).permutation(60).tolist()

    def write(names: tuple[str, ...] = NAMES) -> None:
        folder = "/datasets/datasets/cifar10/cifar10/train"
        content = {f"{folder}/{names[CLEAN[i]]}/{i}_{names[CLEAN[i]]}.png": int(WORSE[i]) for i in shuffled}
        path.write_text(json.dumps(content))

    write()
    assert labels_of(path) == WORSE.tolist()
    write((*NAMES[1:], NAMES[0]))
    with pytest.raises(ValueError, match="60 names have another class than the image of their number"):
        labels_of(path)
    path.write_text('{"a/cat.png": 3}')
    with pytest.raises(ValueError, match=r"expected names as 10008_airplane.png, .* got a/cat.png"):
        labels_of(path)


def test_files_that_name_images_are_matched_by_name(tmp_path: Path) -> None:
    files = tuple(f"{NAMES[label]}/{i}.jpg" for i, label in enumerate(CLEAN))
    examples = Given(CLEAN, 10, NAMES, files)
    order = np.random.default_rng(0).permutation(60)
    rows = ([f"C:\\photos\\{files[i]}" for i in order], [NAMES[WORSE[i]] for i in order])
    (tmp_path / "a.csv").write_text(csv_of("path,label", *rows))
    assert labels_of(tmp_path / "a.csv", None, examples) == WORSE.tolist()
    (tmp_path / "a.txt").write_text("".join(f"{files[i]} {WORSE[i]}\n" for i in order[:50]))
    found = labels_of(tmp_path / "a.txt", None, examples)  # ten are not named: they have no label
    assert [found[i] for i in order] == [*WORSE[order[:50]].tolist(), *[-1] * 10]
    (tmp_path / "a.txt").write_text("bird/99.jpg 3\n")
    with pytest.raises(ValueError, match=r"such as airplane/0.jpg; 1 of 1 are none, .* such as bird/99.jpg"):
        labels_of(tmp_path / "a.txt", None, examples)


def test_examples_without_a_label_are_left_out_and_said(tmp_path: Path) -> None:
    given = np.where(np.arange(60) % 6 == 1, -1, WORSE)
    np.save(tmp_path / "a.npy", given)
    with pytest.raises(ValueError, match="10 of 60 training examples have no label"):
        noise.make("file", dataset(), path=tmp_path / "a.npy")
    rest = file_noise.labelled(dataset(), tmp_path / "a.npy", None, order=None, meant=False)
    made = noise.make("file", rest, path=tmp_path / "a.npy")
    assert made.labels.tolist() == given[given >= 0].tolist() and made.clean.tolist() == CLEAN[given >= 0].tolist()
    assert rest.passed == ("10 training images without a label in a.npy",) and made.source["without_label"] == 10
    (tmp_path / "a.csv").write_text(csv_of("worker", ['""' if label < 0 else label for label in given]))
    assert labels_of(tmp_path / "a.csv") == given.tolist()
    np.save(tmp_path / "a.npy", np.full(60, -1))
    with pytest.raises(ValueError, match="every one of them is -1, which means none"):
        labels_of(tmp_path / "a.npy")


# Several annotators


def test_the_majority_of_cifar_10ns_annotators_counts(tmp_path: Path) -> None:
    file = {"clean_label": CLEAN, **{f"random_label{i}": CLEAN.copy() for i in (1, 2, 3)}}
    file["random_label2"][:5] = (CLEAN[:5] + 1) % 10  # outvoted
    file["random_label1"][5:9] = (CLEAN[5:9] + 1) % 10  # three opinions: the first counts
    file["random_label2"][5:9] = (CLEAN[5:9] + 2) % 10
    torch.save(file, tmp_path / "CIFAR-10_human.pt")
    key = "random_label1,random_label2,random_label3"
    made = noise.make("file", dataset(), path=tmp_path / "CIFAR-10_human.pt", key=key)
    assert np.flatnonzero(made.noisy).tolist() == [5, 6, 7, 8]
    assert (made.labels[5:9] == (CLEAN[5:9] + 1) % 10).all()
    assert "the majority of 3 annotators, 4 ties" in file_noise.said(made.source)
    given = read_labels(tmp_path / "CIFAR-10_human.pt", key, EXAMPLES).shares(10)
    assert given[0].tolist() == pytest.approx([2 / 3, 1 / 3] + [0] * 8)
    matrix = np.stack([file[f"random_label{i}"] for i in (1, 2, 3)], axis=1)
    for values in (matrix, matrix.T):
        np.save(tmp_path / "answers.npy", values)
        assert labels_of(tmp_path / "answers.npy") == made.labels.tolist()
    np.savetxt(tmp_path / "answers.txt", np.where(matrix == 9, -1, matrix), fmt="%d")  # as LabelMe's, -1 for not seen
    assert labels_of(tmp_path / "answers.txt")[9] == -1


def test_numbers_for_each_class_are_shares(tmp_path: Path) -> None:
    counts = np.eye(10)[WORSE] * 40 + np.eye(10)[CLEAN] * 11
    np.save(tmp_path / "counts.npy", counts.astype(np.int64))
    found = read_labels(tmp_path / "counts.npy", None, EXAMPLES)
    assert found.labels.tolist() == WORSE.tolist() and found.votes is None
    np.testing.assert_allclose(found.shares(10), counts / 51, rtol=1e-6)
    np.save(tmp_path / "probs.npy", counts / 51)
    np.testing.assert_allclose(read_labels(tmp_path / "probs.npy", None, EXAMPLES).shares(10), counts / 51, rtol=1e-6)
    np.save(tmp_path / "either.npy", np.tile(np.arange(10), (60, 1)))
    with pytest.raises(ValueError, match="as many columns as classes may be 10 annotators or votes for each class"):
        labels_of(tmp_path / "either.npy")


def test_votes_by_hand() -> None:
    votes = [[2, 2, 1], [0, 1, 2], [-1, 3, 3], [-1, -1, -1], [1, 0, 0]]
    chosen, ties = majority(votes)
    assert chosen.tolist() == [2, 0, 3, -1, 0] and ties == 1
    expected = [[0, 1 / 3, 2 / 3, 0], [1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 1], [0] * 4, [2 / 3, 1 / 3, 0, 0]]
    np.testing.assert_allclose(shares(votes, 4), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="expected votes of shape"):
        majority([1, 2])
    with pytest.raises(ValueError, match="from -1 to 2"):
        shares(votes, 3)


# Refused


def test_messages_name_file_keys_and_formats(tmp_path: Path) -> None:
    path = tmp_path / "labels.pt"
    torch.save({"a": WORSE, "b": CLEAN.tolist(), "T": torch.eye(3)}, path)
    with pytest.raises(ValueError) as error:
        labels_of(path)
    assert str(error.value) == (
        f"{path} holds a: 60 whole numbers from 0 to 9; b: 60 whole numbers from 0 to 9; T: 3 x 3 whole numbers from 0 "
        "to 1: give one of them as key, got none"
    )
    with pytest.raises(ValueError, match=r"labels.pt has no c: expected a key out of a: 60 whole"):
        labels_of(path, "c")
    for name, content in (
        ("labels.pt", b"no torch"),
        ("labels.npy", b"no numpy"),
        ("labels.json", b'{"a": '),
        ("labels.csv", b""),
        ("labels.txt", b"[1 2 3 ... 4 5]"),
        ("labels.pickle", pickle.dumps(Harmful(tmp_path / "ran"))),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError) as error:
            read_table(tmp_path / name)
        assert str(tmp_path / name) in str(error.value) and str(error.value).endswith(FORMATS)
    assert not (tmp_path / "ran").exists()
    ordered = tmp_path / "ordered.npy"
    np.save(ordered, {"a": Harmful(tmp_path / "ran")}, allow_pickle=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected numpy arrays and plain containers"):
        read_table(ordered)
    assert not (tmp_path / "ran").exists()


def test_labels_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.npy"
    for values, message in (
        (WORSE + 0.5, "expected one integer label an example, got one array: 60 numbers from 0.5 to 9.5"),
        (WORSE - 2, "expected labels of 0 or more, or -1 for none, got -2"),
        (WORSE + 1, "expected labels below 10, got 10"),
        (np.eye(10)[:8], r"expected 60 labels, got an array of shape \(8, 10\)"),
        (np.array(["boat"] * 60), "expected the data set's classes, airplane, .*; got 'boat'"),
    ):
        np.save(path, values)
        with pytest.raises(ValueError, match=message):
            labels_of(path)


@pytest.mark.parametrize(("kind", "rate"), [("symmetric", 0.9), ("symmetric", 1.0), ("asymmetric", 0.5)])
def test_noise_that_leaves_nothing_to_learn_is_refused(kind: str, rate: float) -> None:
    with pytest.raises(ValueError, match=f"expected a rate of {kind} noise below .* with 10 classes, got {rate:g}"):
        noise.make(kind, dataset(), rate=rate)
    assert noise.make(kind, dataset(), rate=rate, meant=True).rate >= 0.5
    assert noise.make(kind, dataset(), rate=0.4).rate == pytest.approx(0.4, abs=0.1)

"""Wrong labels of files, by the command."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from label_error_data import SHORT, clusters, logits_of

import imae_ext
from imae_ext.label_errors import finding
from imae_ext.label_errors.__main__ import main

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("one_thread")


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

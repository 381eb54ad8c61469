"""The benchmarks of docs/language_models.md: they run, and the page shows what they stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import linear_head, linear_head_page, noisy_completions

PAGE = (Path(__file__).parents[1] / "docs" / "language_models.md").read_text(encoding="utf-8")
STORED = json.loads(linear_head_page.STORED.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text",
    (
        linear_head_page.table(STORED),
        linear_head_page.where(STORED),
        linear_head_page.in_words(json.loads(linear_head_page.AGAIN.read_text(encoding="utf-8"))),
        noisy_completions.table(noisy_completions.read(noisy_completions.STORED)),
    ),
    ids=("times", "machine", "another day", "completions"),
)
def test_the_page_shows_what_is_stored(text):
    assert text in PAGE or text in PAGE.replace("\n", " ")


def test_the_stored_times_reach_what_is_promised():
    found = {(row["shape"], row["dtype"], row["way"]): row for row in STORED["rows"] if not row.get("limit")}
    goals = {"1024x512x32000": (2.0, 1.05), "2048x512x32000": (2.0, 1.15), "2048x256x8000": (1.6, 1.5)}
    for shape, (chunked, unfused) in goals.items():
        at = {way: found[shape, "float32", way] for way in linear_head_page.NAMES if way in at_all(found, shape)}
        assert at["linear_cross_entropy"]["of_ours"] >= chunked
        assert at["linear + cross_entropy"]["of_ours"] >= unfused
        assert at["products"]["of_ours"] >= 1 / 1.06
        assert at["ours"]["mb"] <= at["linear + cross_entropy"]["mb"] / 8


def at_all(found: dict, shape: str) -> set[str]:
    return {way for each, dtype, way in found if each == shape and dtype == "float32"}


def test_times_are_added_to_a_file(tmp_path, capsys):
    """The command that a GPU is given, on a CPU and with a small shape."""
    path, threads = tmp_path / "head.json", torch.get_num_threads()
    for _ in range(2):
        call = ["--device", "cpu", "--preset", "tiny", "--repeats", "1", "--no-memory", "--threads", "1"]
        linear_head.main([*call, "--out", str(path)])
    torch.set_num_threads(threads)
    run = json.loads(path.read_text())
    ways = [row["way"] for row in run["rows"]]
    assert len(ways) == len(set(ways)) >= 3 and all(row["ms"][0] > 0 for row in run["rows"])
    assert run["commands"] == [f"python -m benchmarks.linear_head {' '.join(call)}"]
    assert "ours" in capsys.readouterr().out
    run["about"]["versions"]["liger-kernel"] = "of its rows"
    path.write_text(json.dumps(run))
    linear_head.main([*call, "--out", str(path)])
    run = json.loads(path.read_text())
    assert run["about"]["versions"]["liger-kernel"] == "of its rows"
    run["about"]["machine"]["cpu"] = "another"
    path.write_text(json.dumps(run))
    with pytest.raises(SystemExit, match="of another machine"):
        linear_head.main([*call, "--out", str(path)])


def test_another_loss_is_not_timed(monkeypatch):
    real = linear_head.ways
    monkeypatch.setattr(linear_head, "ways", lambda *a: real(*a) | {"wrong": lambda: 2 * real(*a)["ours"]()})
    with pytest.raises(RuntimeError, match="wrong give another loss"):
        linear_head.main(["--preset", "tiny", "--repeats", "1", "--no-memory", "--threads", "1"])


def test_completions_are_as_described():
    given = noisy_completions.data(3)
    assert given.wrong.double().mean() == 0.3 and len(given.base) == len(given.train) == 2000
    words = {tuple(row[2:7].tolist()) for row in torch.cat([given.base, given.train, given.test])}
    assert len(words) == 5000  # no word of a test is trained on
    for row, wrong in zip(given.train[:200], given.wrong, strict=False):
        text = "".join(noisy_completions.SYMBOLS[i] for i in row)
        right = noisy_completions.TASKS[text[0]](text[2:7])
        assert (text[8:-1] != right) == bool(wrong) and text[1] + text[7] + text[-1] == ":=."


def test_fine_tuning_is_repeatable_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(noisy_completions, "RATES", (1e-3,))
    monkeypatch.setattr(noisy_completions, "LOSSES", {"GCE(0.7)": noisy_completions.GCE(0.7)})
    monkeypatch.setattr(noisy_completions, "data", lambda seed: made(seed, 256, 128, 50))
    made, runs = DATA, []
    for name in ("a", "b"):
        path = tmp_path / name
        noisy_completions.run(path, (0,), (1, 1))
        runs.append([{k: v for k, v in row.items() if k != "seconds"} for row in noisy_completions.read(path)])
    assert runs[0] == runs[1] and [row["loss"] for row in runs[0]] == ["before", "GCE(0.7)"] * 2
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    noisy_completions.run(path, (0,), (1, 1))
    assert [line.rpartition(",")[0] for line in path.read_text().splitlines()] == [x.rpartition(",")[0] for x in lines]


DATA = noisy_completions.data

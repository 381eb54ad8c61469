"""A run of the tool that measures speed: whose sources it measures, and what stays when it is cut short."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from speed_results import ABOUT, made_up, made_up_run

from benchmarks.speed import __main__ as tool
from benchmarks.speed import machine, readme, results
from benchmarks.speed.cases import Case
from benchmarks.speed.results import CaseResult, Run

pytestmark = pytest.mark.usefixtures("same_threads")


def test_the_commit_is_gits_or_what_the_environment_says_or_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def sources() -> tuple[object, object]:
        about = machine.describe("cpu")
        return about["commit"], about["commit_is_modified"]

    def git(*words: str) -> None:
        author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", *author, *words], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.delenv("IMAE_COMMIT", raising=False)
    monkeypatch.delenv("IMAE_DIRTY", raising=False)
    assert sources() == (None, None)
    for dirty, modified in (("", None), ("0", False), ("1", True)):
        monkeypatch.setenv("IMAE_COMMIT", "0123")
        monkeypatch.setenv("IMAE_DIRTY", dirty)
        assert sources() == ("0123", modified)
    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    commit, modified = sources()
    assert len(str(commit)) == 40 and modified is False
    (tmp_path / "file").write_text("two")
    assert sources() == (commit, True)
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setattr(machine, "ROOT", tmp_path / "unpacked")
    assert sources() == ("0123", True)  # the repository around it is another's


def test_readme_takes_no_results_of_unknown_sources() -> None:
    run = made_up_run(made_up((64, 10), {"imae": [1.0]}))
    for modified, text in ((False, "0123456789;"), (True, "0123456789 with changes;"), (None, "perhaps with changes;")):
        about = {**ABOUT, "commit_is_modified": modified}
        assert text in readme.speed_section(Run(about, run.labels, run.results))
    with pytest.raises(ValueError, match="IMAE_COMMIT"):
        readme.speed_section(Run({**ABOUT, "commit": None}, run.labels, run.results))


def test_what_was_measured_stays_when_the_rest_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, original = tmp_path / "folder" / "run.json", tool.measure

    def stopped(case: Case, *rest: object) -> CaseResult:
        if case.shape == (9, 3):
            raise KeyboardInterrupt
        return original(case, *rest)

    monkeypatch.setattr(tool, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        words = ["--quick", "--seconds", "0.01", "--shapes", "8x3", "9x3", "--only", "copy", "--output", str(path)]
        tool.main(words)
    assert [result.case.shape for result in results.load(path).results] == [(8, 3)]
    assert [file.name for file in path.parent.iterdir()] == ["run.json"]


def test_a_run_goes_on_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, measured = tmp_path / "run.json", []
    about = {**ABOUT, "machine": {**ABOUT["machine"], "load_before": 0.1}}

    def made(case: Case, *rest: object) -> CaseResult:
        measured.append(case.shape)
        return made_up(case.shape, {"copy": [float(len(measured))]})

    def go(*words: str, **other: object) -> None:
        about["machine"]["load_before"] += 0.1  # of no matter
        monkeypatch.setattr(tool.machine, "describe", lambda device: {**about, **other})
        tool.main(["--quick", "--output", str(path), "--only", "copy", *words])

    monkeypatch.setattr(tool, "measure", made)
    go("--shapes", "8x3", "9x3")
    go("--shapes", "9x3", "10x3", "--resume")
    assert measured == [(8, 3), (9, 3), (10, 3)]
    run = results.load(path)
    assert [(result.case.shape, result.timings["copy"].median) for result in run.results] == [
        *(((8, 3), 1.0), ((9, 3), 2.0), ((10, 3), 3.0)),
    ]
    first, second = run.about["command"].split("; ")
    assert "8x3 9x3" in first and "9x3 10x3" in second and "--resume" not in second
    written = path.read_text()
    for words, other, reason in (
        ([], {"commit": "4567"}, "commit differ"),
        ([], {"versions": {"torch": "3"}}, "versions differ"),
        ([], {"machine": {**about["machine"], "cpu": "Another"}}, "machine differ"),
        (["--seconds", "9"], {}, "settings differ"),
        (["--only", "clone"], {}, "settings differ"),
        ([], {"commit_is_modified": True}, "commit_is_modified differ"),
    ):
        with pytest.raises(SystemExit, match=reason):
            go("--shapes", "8x3", *words, "--resume", **other)
    assert path.read_text() == written and len(measured) == 3
    for unknown in ({"commit": None}, {"commit_is_modified": None}):
        go("--shapes", "8x3", **unknown)
        with pytest.raises(SystemExit, match="may have changed"):
            go("--shapes", "9x3", "--resume", **unknown)


def test_a_case_without_the_memory_for_it_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(case: Case, *rest: object) -> CaseResult:
        if case.shape == (8, 3):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB.")
        return made_up(case.shape, {"copy": [1.0]})

    monkeypatch.setattr(tool, "measure", made)
    tool.main(["--quick", "--shapes", "8x3", "9x3", "--only", "copy", "--output", str(tmp_path / "run.json")])
    run = results.load(tmp_path / "run.json")
    reason = "out of memory among the others: CUDA out of memory"
    assert [result.not_run for result in run.results] == [{"copy": reason}, {}]
    assert reason in capsys.readouterr().out and "| 8x3 | - |" in readme.speed_section(made_up_run(*run.results))

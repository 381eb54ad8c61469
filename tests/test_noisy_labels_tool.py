"""The command line of the noisy-label experiments: every command, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
import torch

import imae_ext
from benchmarks.noisy_labels import __main__ as tool
from benchmarks.noisy_labels import archive, options, report, rules, share
from benchmarks.noisy_labels.baselines import Forward
from benchmarks.noisy_labels.losses import parse
from benchmarks.noisy_labels.task import Task
from benchmarks.noisy_labels.training import FusedLoss, Recipe

ROOT = Path(__file__).resolve().parent.parent
TASK = Task()
Capture = pytest.CaptureFixture[str]
BRIEF = ["--epochs", "2", "--measure-every", "1", "--processes", "1"]


pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(**changes: object) -> Recipe:
    base = Recipe("IMAE", imae_ext.IMAE(), 0.01, epochs=4, measure_every=1)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_train_runs_every_seed_and_reference_gives_the_same_curve(tmp_path: Path, capsys: Capture) -> None:
    words = ["train", "--loss", "imae", "--T", "4", "--lr", "0.01", "--seeds", "2", *BRIEF, "--out", str(tmp_path)]
    tool.main(words)
    tool.main([*words, "--reference"])
    assert "IMAE(T=4)  0.01" in capsys.readouterr().out
    fused, plain = ([run.result for run in archive.load(tmp_path).runs][i : i + 2] for i in (0, 2))
    assert [one.recipe.seed for one in fused] == [0, 1]
    assert {one.recipe.name for one in plain} == {"IMAE(T=4), reference"}
    assert [FusedLoss(one.recipe).loss_of for one in plain] == [imae_ext.reference.robust_loss] * 2
    for ours, theirs in zip(fused, plain, strict=True):
        for a, b in zip(ours.history, theirs.history, strict=True):
            assert (a.loss, a.max_logit) == pytest.approx((b.loss, b.max_logit), rel=1e-4)
            assert a.test == pytest.approx(b.test, abs=0.6)  # two of the 360 test images
    commands = (tmp_path / "commands.txt").read_text().splitlines()
    assert len(commands) == 2 and str(tmp_path) not in commands[0]
    assert commands[0].startswith("python -m benchmarks.noisy_labels train --loss imae --T 4 --lr 0.01")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sweep three losses over two noises, with two rates to choose from for one of them."""
    out = tmp_path_factory.mktemp("swept")
    losses = ["--losses", "cce", "imae(T=2)", "bootstrap_hard", "--lr", "search", "cce=0.05", "bootstrap_hard=0.05"]
    noises = ["--noises", "none", "asymmetric:0.3"]
    words = [*noises, *losses, "--grid", "0.005", "0.02", "--search-seeds", "1", "--search-epochs", "1", "--seeds", "2"]
    tool.main(["sweep", *words, *BRIEF, "--out", str(out)])
    return out


def test_sweep_chooses_the_rates_and_runs_every_seed(swept: Path) -> None:
    runs = archive.load(swept).runs
    searched = [run.result.recipe for run in runs if run.searching]
    assert {(one.name, one.learning_rate, one.seed, one.epochs) for one in searched} == {
        ("IMAE(T=2)", 0.005, 1001, 1),
        ("IMAE(T=2)", 0.02, 1001, 1),
    }
    for title in ("digits, labels as they are, mlp", "digits, 30% asymmetric noise, mlp"):
        final = [run.result.recipe for run in runs if run.task.title == title and not run.searching]
        names = [(one.name, one.seed) for one in final]
        assert names == [(name, seed) for name in ("CCE", "IMAE(T=2)", "BootstrapHard*") for seed in (0, 1)]
        (chosen,) = {one.learning_rate for one in final if one.name == "IMAE(T=2)"}
        # Nothing fits its labels in an epoch: the rule takes the highest accuracy on the validation images.
        tried = {
            run.result.recipe.learning_rate: run.result.final.validation
            for run in runs
            if run.searching and run.task.title == title
        }
        assert tried[chosen] == max(tried.values())


def test_report_writes_tables_pictures_and_the_readme(swept: Path, tmp_path: Path, capsys: Capture) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    words = ["report", str(swept), "--to", str(tmp_path / "to"), "--pictures", str(tmp_path / "docs")]
    tool.main([*words, "--readme", str(readme), "--archive", str(tmp_path)])
    printed = capsys.readouterr().out
    text = (tmp_path / "to" / "table.txt").read_text()
    assert text.startswith(printed.strip().partition("\n\nArchive: ")[0]) and "AUC: how well" in text
    assert "digits, 30% asymmetric noise, mlp, 2 epochs, 2 seeds" in text and report.PLAIN_NOTE in text
    noisy, clean = (line.split() for line in text.splitlines() if line.startswith("BootstrapHard*  0.05"))
    assert len(noisy) == 2 + 6 * 3 and len(clean) == 2 + 4 * 3 + 2  # six means ± spreads; without noise two are "-"
    assert clean[8] == clean[-1] == "-"
    for name in (f"{swept.name}-{rest}.png" for rest in ("digits-mlp-none", "digits-mlp-asymmetric30", "weights")):
        assert (tmp_path / "docs" / name).read_bytes().startswith(b"\x89PNG")
        assert f"](docs/{name})" in readme.read_text()
    filled = readme.read_text()
    assert filled.startswith(f"before\n{report.BEGIN}\n```\npython -m benchmarks.noisy_labels sweep")
    assert filled.endswith(f"{report.END}\nafter\n") and "old" not in filled
    assert "| BootstrapHard\\* | 0.05 |" in filled
    with (tmp_path / "to" / "runs.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(archive.load(swept).runs) and {line["for"] for line in lines} == {"search", "table"}
    assert "chosen" in (tmp_path / "to" / "search.txt").read_text()
    # The archive tells the same.
    tool.main(["report", str(tmp_path / f"{swept.name}.json"), "--to", str(tmp_path / "again")])
    for name in ("table.txt", "table.md", "table.csv", "runs.csv", "search.txt"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "to" / name).read_text()


def test_the_readme_shows_the_stored_runs() -> None:
    folder = ROOT / "benchmarks" / "noisy_labels"
    names = ("digits", "digits-T", "digits-asymmetric", "cifar10-cpu")
    archives = [archive.load(folder / "results" / f"{name}.json") for name in names]
    found = [section for one in archives for section in report.sections(one)]
    assert [len(section.results) for section in found] == [60, 20, 20, 35, 1, 11, 10]
    readme = (folder / "README.md").read_text()
    for section in found:
        assert report.markdown(section).strip() in readme


def test_suspects_are_listed_the_least_probable_first(swept: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = swept / "digits-mlp-asymmetric30-cce-lr0.05" / "seed0"
    tool.main(["suspects", str(folder), "--to", str(tmp_path / "suspects.csv")])
    assert "AUC of finding the wrong ones" in capsys.readouterr().out
    with (tmp_path / "suspects.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 1200
    p = [float(line["p_given"]) for line in lines]
    assert p == sorted(p) and lines[0]["given_label"] != lines[0]["true_label"]


def test_share_times_every_part(capsys: Capture) -> None:
    tool.main(["share", "--loss", "gce", "--seconds", "0.01"])
    printed = capsys.readouterr().out
    assert printed.startswith("one thread of the CPU, medians")
    assert [line.split()[0] for line in printed.splitlines()[4:]] == ["fused", "reference", "F.cross_entropy"]
    for one in share.time_step(TASK, recipe(), 0.01):
        assert len(one.parts) == 4 and min(one.parts) > 0 and 0 < one.of_step < 100
    with pytest.raises(ValueError, match="Forward is plain PyTorch: expected a fused loss"):
        share.time_step(TASK, recipe(name="Forward", formula=Forward()), 0.01)


def test_share_times_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    monkeypatch.setattr(share, "_now", lambda device: threads.append(torch.get_num_threads()) or len(threads))
    torch.set_num_threads(2)
    share.time_step(TASK, recipe(), 0.01)
    assert set(threads) == {1} and torch.get_num_threads() == 2


def test_suspects_wants_the_folder_of_one_run(swept: Path, tmp_path: Path, capsys: Capture) -> None:
    name = "digits-mlp-asymmetric30-cce-lr0.05"
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "config.json").write_text("{}")
    for folder, message in (
        (swept / name, "expected one run: with made noise every seed has other wrong labels"),
        (swept, "expected runs that differ in seed or fold alone, got "),
        (tmp_path / "stopped", "expected the folder of one finished run, got one that has not come to its end"),
        (tmp_path, "expected a folder of images or of finished runs, found neither"),
        (tmp_path / "absent", "of finished runs, there is no such folder"),
    ):
        with pytest.raises(SystemExit):
            tool.main(["suspects", str(folder), "--to", str(tmp_path / "suspects.csv")])
        (error,) = capsys.readouterr().err.splitlines()
        assert message in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--lr", "0.1", "--loss", "imea"], "no loss is called 'imea'"),
        (["train", "--lr", "0.1", "--loss", "imae", "--q", "2"], "IMAE has no parameter 'q'"),
        (["train", "--lr", "0.1", "--noise", "file"], "expected --labels FILE, got none"),
        (["train", "--lr", "0.1", "--device", "cuda"], "expected a GPU for --device cuda, found none"),
        (["train", "--lr", "0.1", "--device", "cpux"], "--device: expected cpu, cuda, cuda:1, ..., got 'cpux'"),
        (["train", "--lr", "0.1", "--device", "meta"], "--device: expected cpu, cuda, cuda:1, ..., got 'meta'"),
        (["train", "--lr", "0.1", "--directory", "X"], "digits come with scikit-learn: expected no directory, got X"),
        (["train", "--lr", "0.1", "--data", "cifar10"], "cifar10 is read from files"),
        (["train", "--lr", "0.1", "--network", "resnet20"], "resnet20 takes images"),
        (["train", "--lr", "0.1", "--seeds", "0"], "expected a number of at least 1, got '0'"),
        (["sweep", "--losses", "cce", "mae", "--lr", "cce=0.1"], "expected a rate for mae, or `search`"),
        (["sweep", "--losses", "cce", "--lr", "mae=0.1"], "expected a loss out of cce"),
        (["sweep", "--losses", "cce", "--lr", "fast"], "expected a number, got 'fast'"),
        (["sweep", "--losses", "cce", "--lr", "1", "--noises", "symmetric"], "--noises: expected none, symmetric:RATE"),
    ],
)
def test_wrong_requests_are_refused_in_a_line(tmp_path: Path, capsys: Capture, words: list[str], message: str) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as exit:
        tool.main([*words, "--processes", "1", "--out", str(tmp_path / "out")])
    assert exit.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("python -m benchmarks.noisy_labels") and message in error
    assert not (tmp_path / "out").exists()


def test_nothing_to_report_and_no_markers_are_refused(tmp_path: Path, swept: Path, capsys: Capture) -> None:
    (tmp_path / "README.md").write_text("no markers")
    for words, message in [
        ([str(tmp_path), "--to", str(tmp_path / "to")], "expected finished runs"),
        ([str(tmp_path / "none"), "--to", str(tmp_path / "to")], "expected a folder of runs or a file of them"),
        (
            [str(swept), "--to", str(tmp_path / "to"), "--readme", str(tmp_path / "README.md")],
            "expected one <!-- noisy",
        ),
    ]:
        with pytest.raises(SystemExit):
            tool.main(["report", *words])
        assert message in capsys.readouterr().err


def test_every_command_has_help_and_demo_stays(capsys: Capture) -> None:
    for words in (
        ["--help"],
        *([name, "--help"] for name in ("train", "sweep", "report", "suspects", "share", "demo")),
    ):
        with pytest.raises(SystemExit) as exit:
            tool.main(words)
        assert exit.value.code == 0
        assert "usage: python -m benchmarks.noisy_labels" in capsys.readouterr().out


def asked_by(script: str, tmp_path: Path) -> list[list[str]]:
    """The tool's arguments that a script asks for, each list of them one that the tool takes."""
    python = tmp_path / "python"  # notes its arguments
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/asked\n')
    python.chmod(0o755)
    command = ["bash", f"benchmarks/noisy_labels/{script}", str(tmp_path), str(python), str(tmp_path / "out")]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHON": str(python)}, check=True)
    asked = [line.split() for line in (tmp_path / "asked").read_text().splitlines()]
    for words in asked:
        assert words[:2] == ["-m", "benchmarks.noisy_labels"]
        _, given = tool.parse(words[2:])
        rules.check(given)
        if given.run is tool.run_sweep:
            assert all(parse(loss) for loss in given.losses)
            options.rates_of(given, {loss: loss for loss in given.losses})
    return asked


def noises_of(asked: list[list[str]]) -> set[str]:
    given = [tool.parse(words[2:])[1] for words in asked if words[2] == "sweep"]
    return {task.title for each in given for task in options.tasks_of(each)}


def test_the_plan_for_a_gpu_asks_for_what_there_is(tmp_path: Path) -> None:
    asked = asked_by("cifar10.sh", tmp_path)
    assert asked[-1][2] == "report"
    assert all(words[words.index("--device") + 1] == "cuda" for words in asked if words[2] == "sweep")
    assert noises_of(asked) == {
        f"cifar10, {noise}, resnet20"
        for noise in (
            *("labels as they are", "40% symmetric noise", "80% symmetric noise", "40% asymmetric noise"),
            "labels worse_label",
        )
    }


def test_the_plan_for_a_cpu_asks_for_what_there_is(tmp_path: Path) -> None:
    asked = asked_by("cifar10_cpu.sh", tmp_path)
    titles = noises_of(asked)
    assert len(titles) == 2 and any("40% symmetric noise" in title for title in titles), titles
    assert any("worse_label" in title for title in titles), titles


def test_the_plan_for_a_gpu_keeps_what_is_finished(tmp_path: Path) -> None:
    """What was there when it was stopped is reported and in one file, from which it goes on."""
    out, python = tmp_path / "runs" / "cifar10", tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
        echo $3 >> {tmp_path}/asked
        [ $3 = sweep ] || exit 0
        mkdir -p {out}/task/seed0 && touch {out}/task/seed0/result.json {out}/task/seed0/checkpoint.pt
        sleep 3
        echo killed by nobody >> {tmp_path}/asked; exit 1
        """
    )
    python.chmod(0o755)
    command = ["bash", "benchmarks/noisy_labels/cifar10.sh", str(tmp_path), str(python), str(out)]
    environment = os.environ | {"PYTHON": str(python), "EVERY": "0.5"}
    assert subprocess.run(command, cwd=ROOT, env=environment).returncode == 1
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == "sweep" and asked[-1] == "killed by nobody" and set(asked[1:-1]) == {"report"}
    with tarfile.open(f"{out}.tgz") as packed:
        assert [name for name in packed.getnames() if "seed0/" in name] == ["./task/seed0/result.json"]
    time.sleep(1)
    assert (tmp_path / "asked").read_text().splitlines() == asked  # nothing is left running

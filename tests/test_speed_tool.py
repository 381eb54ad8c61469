"""The tool that measures speed: what it writes, how it compares, and that it hides nothing."""

from __future__ import annotations

import contextlib
import io
import json
import math
import platform
import time
from pathlib import Path
from statistics import median

import pytest
import torch
from speed_results import made_up, made_up_run
from torch import Tensor

from benchmarks.speed import __main__ as tool
from benchmarks.speed import cases, figures, kinds, readme, results, table, targets
from benchmarks.speed.cases import Case
from benchmarks.speed.contenders import CONTENDERS, Contender, Step, eager_reference, through_autograd, traced_reference
from benchmarks.speed.measure import Plan, measure
from benchmarks.speed.on_gpu import ON_GPU
from benchmarks.speed.peers import PEERS
from benchmarks.speed.results import CaseResult, Timing

BRIEF = Plan(seconds=0.01, min_rounds=3, compile="none")
SHAPES = ("64x10", "1024x3", "2x5x4x4")  # a small batch, rows enough for the pictures, strided classes
pytestmark = pytest.mark.usefixtures("same_threads")
KEYS = {contender.key: contender for contender in (*CONTENDERS, *PEERS, *ON_GPU)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the tool on tiny shapes; return its JSON file and what it printed."""
    path = tmp_path_factory.mktemp("speed") / "run.json"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAE_COMMIT", "0123456789abcdef")  # for a copy without git's data
        options = ["--quick", "--seconds", "0.01", "--shapes", *SHAPES, "--dtype", "float32", "bfloat16"]
        tool.main([*options, "--output", str(path)])
    return path, printed.getvalue()


# What is written


def test_json_tells_machine_versions_commit_and_command(written: tuple[Path, str]) -> None:
    text = written[0].read_text()
    content = json.loads(text)
    assert set(content) == {
        *("date", "commit", "commit_is_modified", "command", "settings"),
        *("machine", "versions", "contenders", "cases"),
    }
    assert content["machine"]["cpu"] and content["machine"]["cores"] >= 1
    assert content["machine"]["cpu_kernels"] in ("avx512", "avx2", "baseline")
    assert content["versions"]["torch"] == torch.__version__
    assert content["command"].startswith("python -m benchmarks.speed --quick --shapes 64x10 1024x3 2x5x4x4")
    assert "--output" not in content["command"]
    assert platform.node() not in text and str(Path.cwd()) not in text and str(written[0].parent) not in text


def test_every_contender_is_timed_or_has_its_reason(written: tuple[Path, str]) -> None:
    content = json.loads(written[0].read_text())
    assert len(content["cases"]) == len(SHAPES) * 2
    for entry in content["cases"]:
        assert set(entry["timings"]) | set(entry["not_run"]) == set(KEYS)
        assert not set(entry["timings"]) & set(entry["not_run"])
        for key, reason in entry["not_run"].items():
            expected = ("needs a CUDA device", "does not show at this size")
            assert reason.endswith("not compiled at this shape by default" if KEYS[key].compiled else expected)


def test_numbers_follow_from_the_rounds(written: tuple[Path, str]) -> None:
    for entry in json.loads(written[0].read_text())["cases"]:
        copy = entry["timings"]["copy"]["rounds_us"]
        elements = math.prod(entry["case"]["shape"])
        rows = elements // entry["case"]["shape"][1]
        copied = 2 * elements * (4 if entry["case"]["dtype"] == "float32" else 2)
        assert entry["bytes"] == copied + 2 * 8 * rows  # int64 labels, counted and looked up
        for key, timing in entry["timings"].items():
            rounds = timing["rounds_us"]
            assert len(rounds) == len(copy) >= 3
            assert timing["median_us"] == pytest.approx(median(rounds), rel=1e-3)
            low, high = timing["quartiles_us"]
            assert 0 < timing["min_us"] <= low <= timing["median_us"] <= high
            ratio = median(above / below for above, below in zip(rounds, copy, strict=True))
            assert timing["over_copy"] == pytest.approx(ratio, rel=1e-3)
            moved = copied if key in ("copy", "clone") else entry["bytes"]
            assert timing["gigabytes_per_s"] == pytest.approx(1e-3 * moved / timing["median_us"], rel=2e-3)
        assert entry["timings"]["imae"]["over_imae"] == 1


def test_gradients_agree_before_anything_is_timed(written: tuple[Path, str]) -> None:
    for entry in json.loads(written[0].read_text())["cases"]:
        for key, timing in entry["timings"].items():
            if KEYS[key].computes == "copy":
                assert timing["gradient_error"] is None
            else:
                assert timing["gradient_error"] < (1e-5 if entry["case"]["dtype"] == "float32" else 2e-2)


def test_reading_gives_back_what_was_written(written: tuple[Path, str], tmp_path: Path) -> None:
    run = results.load(written[0])
    results.save(run, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == written[0].read_text()


def test_prints_a_table_for_each_dtype(written: tuple[Path, str]) -> None:
    printed = written[1]
    assert "\nfloat32, 1 thread\n" in printed and "\nbfloat16, 1 thread\n" in printed
    assert all(contender.label in printed for contender in KEYS.values())
    assert "not run: liger-kernel: liger-kernel needs a CUDA device" in printed
    assert "Faster than IMAE:" in printed and "0 pass, 0 short, 0 not measured" in printed


# How it measures


def test_a_contender_that_fails_is_recorded_with_its_reason() -> None:
    def fails(logits: Tensor, target: Tensor) -> Tensor:
        raise RuntimeError("no kernel in /usr/lib/somewhere/kernel.so\nand more")

    def wrong(logits: Tensor, target: Tensor) -> Tensor:
        return 2 * torch.nn.functional.cross_entropy(logits, target)

    contenders = [Contender(f.__name__, f.__name__, "cce", through_autograd(f)) for f in (fails, wrong)]
    result = measure(Case((8, 3)), [*contenders, KEYS["copy"]], BRIEF)
    assert list(result.timings) == ["copy"]
    assert result.not_run["fails"] == "RuntimeError: no kernel in (a file)"
    assert result.not_run["wrong"].startswith("its gradient is off by")
    reasons = table.timing_table([result], {"fails": "A", "wrong": "B", "copy": "C"}).splitlines()[-2:]
    assert [line.split(": ")[:2] for line in reasons] == [["not run", "A"], ["not run", "B"]]


def test_a_slow_contender_sits_out_and_ratios_are_within_common_rounds() -> None:
    sleeper = Contender("sleeper", "sleeper", "copy", lambda *_: Step(lambda: time.sleep(0.05), lambda: None))
    result = measure(Case((8, 3)), [sleeper, KEYS["imae"]], Plan(seconds=0.6, min_rounds=3, compile="none"))
    rounds = result.timings["sleeper"].rounds
    assert len(rounds) > 3 and rounds[3:] == (None,) * (len(rounds) - 3)
    assert result.timings["imae"].rounds.count(None) == 0
    made = made_up((8, 10), {"a": [2.0, None, 9.0], "b": [1.0, 5.0, 3.0]})
    ratio = made.ratio("a", "b")
    assert ratio == results.Spread(2.5, 2.25, 2.75)
    assert made.ratio("a", "absent") is None


@pytest.mark.parametrize("case", [Case((64, 10), grad_output=0.5), Case((64, 10), leaf=False)], ids=lambda c: c.name)
def test_other_ways_through_autograd(case: Case) -> None:
    result = measure(case, [*CONTENDERS], BRIEF)  # each gradient is checked, scaled as the case says
    ours, theirs = {"imae", "imae_handed_on", "imae_forward", "cce"}, {"cross_entropy", "cross_entropy_forward"}
    assert ours | theirs | {"reference", "by_hand", "copy", "clone"} == set(result.timings)
    assert result.not_run["imae_out"] == "value_and_grad is outside autograd"


def test_traced_reference_is_the_reference() -> None:
    logits, target = Case((32, 7)).inputs()
    found, expected = (loss(logits, target) for loss in (traced_reference(logits, target), eager_reference))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_reference_is_not_run_where_it_would_fill_the_memory() -> None:
    result = measure(Case((100_001, 2)), [KEYS["reference"]], BRIEF)
    assert "takes too much memory" in result.not_run["reference"]


# How it judges


def test_targets_pass_or_fall_short_or_were_not_measured() -> None:
    fast = made_up((8192, 10), {"imae": [1.0, 2.0], "cross_entropy": [2.0, 4.0]}, threads=1)
    slow = made_up((8192, 10), {"imae": [1.0, 2.0], "cross_entropy": [1.9, 3.8]}, threads=2)
    missing = CaseResult(Case((8192, 10)), {"imae": Timing(1, (1.0,))}, {"cross_entropy": "why"})
    scaled = made_up((8192, 10), {"imae": [1.0], "cross_entropy": [1.0]}, grad_output=0.5)
    outcomes = [o for o in targets.check([fast, slow, missing, scaled]) if o.target.numerator == "cross_entropy"]
    assert [outcome.verdict for outcome in outcomes] == ["pass", "short", "not measured"]
    text = table.targets_table(outcomes)
    assert "1 pass, 1 short, 1 not measured" in text and "not measured: cross_entropy: why" in text


def test_bandwidth_counts_the_labels() -> None:
    """At C = 10 a pass that is as fast as a copy by the byte takes a fifth longer: 96 bytes a row, not 80."""
    shape = (2**23, 10)
    times: dict[str, list[float | None]] = {"copy": [80.0], "imae_out": [96.0]}
    outcomes = {o.target.says: o for o in targets.check([made_up(shape, times, device="cuda")])}
    found = outcomes["bandwidth of IMAE, reused buffer / copy"]
    assert found.ratio == results.Spread(1, 1, 1) and found.verdict == "pass"
    times["imae_out"] = [96 / 0.84]
    assert targets.check([made_up(shape, times, device="cuda")])[0].verdict == "short"


def test_default_matrix_has_every_target_in_every_dtype_and_number_of_threads() -> None:
    matrix = cases.matrix(cases.CPU_SHAPES, ("float32", "bfloat16"), (1, 2))
    for target in targets.CPU_TARGETS:
        about = [case for case in matrix if target.about(case) and case.grad_output == 1]
        assert about and (target.denominator == "copy" or len(about) % 4 == 0)
        compiled = "compiled" in target.numerator
        assert not compiled or all(cases.worth_compiling(case) for case in about)


def test_a_few_cases_in_readme_and_wide_ratios_marked() -> None:
    times: dict[str, list[float | None]] = {"imae": [1.0, 1.0, 1.0], "cross_entropy": [2.0, 2.0, 3.0]}
    run = made_up_run(made_up((8192, 100), times), made_up((8192, 10), times))
    section, page = readme.speed_section(run), readme.speed_page(run)
    assert "8192x100 | 1.00 µs | 2.00 µs (~2x) |" in section and "8192x10 |" not in section and "8192x10 |" in page


def test_faster_rivals_are_shown() -> None:
    times: dict[str, list[float | None]] = {"imae": [2.0], "cce": [1.0], "cross_entropy": [1.5], "copy": [0.1]}
    run = made_up_run(made_up((4096, 10), times))
    text = table.losses_table(run.results, run.labels)
    assert text.splitlines()[-1].split() == ["4096x10", "float32,", "1", "thread", "F.cross_entropy", "0.75"]
    section = readme.speed_section(run)
    assert "| **1.50 µs (0.75x)** |" in section
    assert "Faster than IMAE anywhere in the run: F.cross_entropy at 4096x10 (0.75x to 0.75x)." in section


# What is drawn and written from it


def test_readme_section_is_replaced_between_its_markers(written: tuple[Path, str], tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    begin, end = readme.MARKERS["cpu"]
    path.write_text(f"# Title\n\n{begin}\nold numbers\n{end}\n\n## After\n")
    run = results.load(written[0])
    for _ in range(2):  # once more changes nothing
        readme.update(path, run)
        text = path.read_text()
        assert text.startswith(f"# Title\n\n{begin}\n") and text.endswith(f"\n{end}\n\n## After\n")
        assert text.count(begin) == 1 and "old numbers" not in text
        assert text.count(readme.speed_section(run)) == 1
    page = readme.speed_page(run)
    assert "Forward and backward pass, bfloat16, 1 thread:" in page and "| 64x10 |" in page and "| 64x10 |" in text
    assert str(run.about["machine"]["cpu"]) in text and run.about["command"] in text
    with pytest.raises(ValueError, match="expected the markers"):
        readme.section_of(f"{end} {begin}", "cpu")


def test_pictures_are_written(written: tuple[Path, str], tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("".join(readme.MARKERS["cpu"]))
    figures.main(["--results", str(written[0]), "--docs", str(tmp_path / "docs"), "--readme", str(path)])
    for name in ("speed.png", "speed_ratios.png"):
        assert (tmp_path / "docs" / name).read_bytes().startswith(b"\x89PNG")
    assert "| logits |" in path.read_text()
    assert (tmp_path / "docs" / "speed.md").read_text() == readme.speed_page(results.load(written[0]))
    with pytest.raises(ValueError, match="no case of at least 1024 rows"):
        figures.roofline(made_up_run(made_up((8, 10), {"imae": [1.0]})), tmp_path / "empty.png")


def test_text_of_numbers() -> None:
    assert [table.duration(us) for us in (0.5, 12.34, 999.4, 999.6, 2e6)] == [
        *("0.50 us", "12.3 us", "999 us", "1.00 ms", "2.00 s"),
    ]
    assert [table.times(ratio) for ratio in (0.0123, 0.5, 9.99, 10.1, 12345)] == [
        "0.012",
        "0.50",
        "9.99",
        "10",
        "12,345",
    ]


def test_bad_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--only", "nobody"], ["--shapes", "8192"], ["--shapes", "0x10"]):
        with pytest.raises(SystemExit):
            tool.parse(words)
    assert "no such contender: nobody" in capsys.readouterr().err


@pytest.mark.parametrize("name", kinds.KINDS)
def test_kinds_are_timed_and_held_against_their_goals(name: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    kind = kinds.KINDS[name]
    _, goals = next(iter(kind.goals.items()))
    monkeypatch.setitem(kinds.KINDS, name, kinds.Kind(kind.prepare, {(6, 5): goals}))
    kinds.main([name, "--threads", "1", "--seconds", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith(f"{name} 6x5, 7 rounds: ") and len(lines) == 4 + len(goals)
    assert all(goal.numerator in line and goal.denominator in line for goal, line in zip(goals, lines[4:], strict=True))


def test_a_goal_says_whether_it_is_met() -> None:
    times = {"a": [2.0, 6.0, 4.0], "b": [1.0, 2.0, 2.0]}  # ratios 2, 3, 2
    assert kinds.Goal("a", "b", 2).line(times).endswith("2.00 [2.00, 2.50]   wanted >= 2")
    assert kinds.Goal("a", "b", 2.1).line(times).endswith("wanted >= 2.1, short")
    assert kinds.Goal("a", "b", 1.9, at_least=False).line(times).endswith("wanted <= 1.9, short")
    assert "wanted" not in kinds.Goal("a", "b").line(times)

"""benchmarks/gpu.sh, run with stand-ins for everything that it calls."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import gpu_readme

ROOT = Path(__file__).parents[1]
STAGES = {
    "1": ["module", "smoke", "tests"],
    "2": ["times"],
    "3": ["peers", "head"],
    "4": ["memcheck", "racecheck", "initcheck", "synccheck", "clusters"],
    "5": ["cifar10", "report"],
}
LONG, BRIEF = "123", "45"  # what goes into one call


def steps_of(stages: str) -> list[str]:
    return [step for stage in stages for step in STAGES[stage]]


class Machine:
    """Commands that say how they were called, and fail where FAILING matches that."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.out, self.data = folder / "bin", folder / "out", folder / "data"
        self.bin.mkdir()
        self.data.mkdir()
        for name in ("nvcc", "python", "compute-sanitizer"):
            self.add(name, f'echo "{name} for $TORCH_CUDA_ARCH_LIST: $*"; ! [[ "{name} $*" =~ $FAILING ]]')
        self.add("nvidia-smi", "echo 9.0; echo 9.0")

    def add(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (self.bin / name).chmod(0o755)

    def run(self, *words: str, failing: str = "^$", **environment: str) -> tuple[int, list[str]]:
        """Return the exit status and the lines printed, without the seconds that a step took."""
        places = {"OUT": str(self.out), "DATA": str(self.data), "CUDA_HOME": str(self.bin.parent)}
        known = {"PYTHON": str(self.bin / "python"), "FAILING": failing, **places}
        path = f"{self.bin}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "benchmarks/gpu.sh", *words],
            **{"cwd": ROOT, "env": {**os.environ, **known, "PATH": path, **environment}},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 60},
        )
        return done.returncode, re.sub(r", \d+ s$", "", done.stdout, flags=re.MULTILINE).splitlines()

    def log(self, stages: str) -> str:
        return (self.out / f"gpu_{stages}.log").read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(("stages", "seconds"), [(LONG, 540), (BRIEF, 200)])
def test_the_stages_of_a_call_fit_into_it(machine: Machine, stages: str, seconds: int) -> None:
    code, lines = machine.run("--dry-run", *stages)
    assert code == 0 and not machine.out.exists()
    steps = [(*found.groups(),) for line in lines if (found := re.match(r"(\d)  (\w+) +(\d+) s", line))]
    assert [(stage, step) for stage, step, _ in steps] == [(stage, step) for stage in stages for step in STAGES[stage]]
    total = sum(int(each) for *_, each in steps)
    assert total <= seconds and lines[-1] == f"total         {total} s of {seconds} s"
    assert machine.run("6")[0] == machine.run("results")[0] == 2  # and says what it takes


@pytest.mark.parametrize("stages", [LONG, BRIEF, "2"])
def test_every_step_leaves_its_output_in_one_log(machine: Machine, stages: str) -> None:
    (ROOT / "build" / "gpu_cifar10").mkdir(parents=True, exist_ok=True)
    code, lines = machine.run(*stages)
    steps = steps_of(stages)
    assert code == 0
    assert lines[-len(steps) :] == [f"== {name}: ok" for name in steps]
    assert [file.name for file in machine.out.iterdir()] == [f"gpu_{stages}.log"]  # the stand-ins write no JSON
    log = machine.log(stages)
    assert len(re.findall(r"^(?:python|compute-sanitizer) for 9\.0: ", log, re.MULTILINE)) == len(steps)
    for name in steps:
        assert log.index(f"== {name}: ") < log.index(f"== {name}: ok")


def test_results_have_the_names_that_readme_is_written_from(machine: Machine) -> None:
    """At most eight files come of both calls."""
    (ROOT / "build" / "gpu_cifar10").mkdir(parents=True, exist_ok=True)
    for stages in (LONG, BRIEF):
        machine.run(*stages)
    ran = machine.log(LONG) + machine.log(BRIEF)
    written = set(re.findall(rf"{machine.out}/([\w.]+)", ran)) | {"gpu_cifar10.json", "gpu_123.log", "gpu_45.log"}
    assert f"--archive {machine.out}\n" in ran and "--out build/gpu_cifar10\n" in ran  # of which comes gpu_cifar10.json
    read = set(re.findall(r'"(\w+\.json)"', Path(gpu_readme.__file__).read_text()))
    assert read <= written and len(written) <= 8


def test_checkers_look_at_our_kernels_and_initcheck_at_all(machine: Machine) -> None:
    machine.add("compute-sanitizer", 'echo "$PYTORCH_NO_CUDA_MEMORY_CACHING; $*"')
    assert machine.run("4")[0] == 0
    calls = re.findall(r"^(1?); --tool (\w+) (.*)", machine.log("4"), re.MULTILINE)
    assert [tool for _, tool, _ in calls] == ["memcheck", "racecheck", "initcheck", "synccheck", "racecheck"]
    for uncached, tool, rest in calls:
        assert (uncached == "1") == (tool in ("memcheck", "initcheck"))  # else none sees where a tensor ends
        assert ("--kernel-name kns=imae" in rest) == (tool != "initcheck")
        assert "--error-exitcode 1" in rest


@pytest.mark.parametrize(
    ("failing", "step"), [("gpu_module", "module"), ("-m pytest", "tests"), ("gpu_times", "times")]
)
def test_what_fails_is_shown_and_the_other_stages_go_on(machine: Machine, failing: str, step: str) -> None:
    code, lines = machine.run(*LONG, failing=failing)
    assert code == 1
    ends = lines[-len(steps_of(LONG)) :]
    assert [line for line in ends if "ok" not in line] == [f"== {step}: FAILED (1)"]
    assert any(failing in line and line.startswith("python for") for line in lines)  # the end of its output


def test_a_race_among_clusters_is_told_but_no_failure(machine: Machine) -> None:
    code, lines = machine.run("4", failing="gpu_shapes cluster$")
    assert code == 0 and lines[-1] == "== clusters: FAILED (1)"
    code, lines = machine.run("4", failing="racecheck.*gpu_shapes tile")
    assert code == 1 and "== racecheck: FAILED (1)" in lines


def test_what_does_not_fit_is_left_out(machine: Machine) -> None:
    code, lines = machine.run(*LONG, LIMIT="94")
    assert code == 1
    left_out = {line.split(":")[0][3:] for line in lines if "left out" in line}
    assert left_out == {"module", "times", "peers"}
    assert re.fullmatch(r"== module: left out, \d+ s left, it may take 95", lines[-len(steps_of(LONG))])


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="nothing is missing")
def test_what_is_missing_is_named(machine: Machine) -> None:
    (machine.bin / "nvidia-smi").unlink()
    machine.data.rmdir()
    code, lines = machine.run("1", "5", ARCHS="8.0")
    assert code == 1
    assert "== smoke: left out, missing: nvidia-smi" in lines
    assert f"== cifar10: left out, missing: nvidia-smi {machine.data}" in lines


def test_it_builds_for_the_card_and_not_for_what_others_want(machine: Machine) -> None:
    machine.run("1", TORCH_CUDA_ARCH_LIST="7.5 8.0+PTX")
    assert "python for 9.0: -m benchmarks.gpu_module" in machine.log("1")
    machine.run("1", ARCHS="8.0;9.0")
    assert "python for 8.0;9.0: -m benchmarks.gpu_module" in machine.log("1")
    machine.add("nvidia-smi", "echo no such field; exit 1")
    machine.run("1")
    assert "python for 9.0: -m benchmarks.gpu_module" in machine.log("1")

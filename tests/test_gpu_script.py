"""benchmarks/gpu.sh, run with stand-ins for everything that it calls."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STEPS = ["build", "smoke", "times", "tests", "speed", "memcheck", "racecheck", "initcheck", "synccheck", "clusters"]


class Machine:
    """Commands that say how they were called, and fail where FAILING matches that."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.out = folder / "bin", folder / "out"
        self.bin.mkdir()
        for name in ("nvcc", "python", "compute-sanitizer"):
            self.add(name, f'echo "{name} for $TORCH_CUDA_ARCH_LIST: $*"; ! [[ "{name} $*" =~ $FAILING ]]')
        self.add("nvidia-smi", "echo 9.0; echo 9.0")

    def add(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (self.bin / name).chmod(0o755)

    def run(self, *words: str, failing: str = "^$", **environment: str) -> tuple[int, list[str]]:
        """Return the exit status and the lines printed, without the seconds that a step took."""
        known = {"PYTHON": str(self.bin / "python"), "CUDA_HOME": str(self.bin.parent), "FAILING": failing}
        path = f"{self.bin}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "benchmarks/gpu.sh", *words, str(self.out)],
            **{"cwd": ROOT, "env": {**os.environ, **known, "PATH": path, **environment}},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 60},
        )
        return done.returncode, re.sub(r", \d+ s$", "", done.stdout, flags=re.MULTILINE).splitlines()

    def log(self) -> str:
        return (self.out / "gpu.log").read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_steps_fit_into_ten_minutes(machine: Machine) -> None:
    code, lines = machine.run("--dry-run")
    assert code == 0 and not machine.out.exists()
    steps = [(found[1], int(found[2])) for line in lines if (found := re.match(r"(\w+) +(\d+) s", line))]
    assert [name for name, _ in steps] == [*STEPS, "total"]
    assert sum(seconds for _, seconds in steps[:-1]) == steps[-1][1] <= 540


def test_every_step_leaves_its_output_in_one_log(machine: Machine) -> None:
    code, lines = machine.run()
    assert code == 0
    assert lines[-len(STEPS) :] == [f"== {name}: ok" for name in STEPS]
    assert [file.name for file in machine.out.iterdir()] == ["gpu.log"]  # the stand-ins write no JSON
    log = machine.log()
    calls = re.findall(r"^(?:python|compute-sanitizer) for 9\.0: (.*)", log, re.MULTILINE)
    assert len(calls) == len(STEPS)
    for call, part in zip(calls, ("setup.py", "gpu_shapes --check", "gpu_times", "pytest", "speed"), strict=False):
        assert part in call
    assert f"--output {machine.out}/cuda.json" in calls[4]  # the name that README's section is written from
    for name in STEPS:
        assert log.index(f"== {name}: ") < log.index(f"== {name}: ok")


def test_checkers_look_at_our_kernels_and_initcheck_at_all(machine: Machine) -> None:
    machine.add("compute-sanitizer", 'echo "$PYTORCH_NO_CUDA_MEMORY_CACHING; $*"')
    assert machine.run()[0] == 0
    calls = re.findall(r"^(1?); --tool (\w+) (.*)", machine.log(), re.MULTILINE)
    assert [tool for _, tool, _ in calls] == ["memcheck", "racecheck", "initcheck", "synccheck", "racecheck"]
    for uncached, tool, rest in calls:
        assert (uncached == "1") == (tool in ("memcheck", "initcheck"))  # else none sees where a tensor ends
        assert ("--kernel-name kns=imae" in rest) == (tool != "initcheck")
        assert "--error-exitcode 1" in rest


def test_what_fails_is_shown_and_the_rest_goes_on(machine: Machine) -> None:
    code, lines = machine.run(failing="-m pytest")
    assert code == 1
    assert [line for line in lines[-len(STEPS) :] if "ok" not in line] == ["== tests: FAILED (1)"]
    assert any("-m pytest" in line and line.startswith("python for") for line in lines)  # the end of its output


def test_a_race_among_clusters_is_told_but_no_failure(machine: Machine) -> None:
    code, lines = machine.run(failing="gpu_shapes cluster$")
    assert code == 0 and lines[-1] == "== clusters: FAILED (1)"
    code, lines = machine.run(failing="racecheck.*gpu_shapes tile")
    assert code == 1 and "== racecheck: FAILED (1)" in lines


def test_what_does_not_fit_is_left_out(machine: Machine) -> None:
    code, lines = machine.run(LIMIT="74")  # a second less than the least of them
    assert code == 1
    left_out = {line.split(":")[0][3:] for line in lines if "left out" in line}
    assert left_out == {"build", "tests", "speed"}
    assert re.fullmatch(r"== build: left out, \d+ s left, it may take 125", lines[-len(STEPS)])


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="nothing is missing")
def test_what_is_missing_is_named(machine: Machine) -> None:
    (machine.bin / "nvidia-smi").unlink()
    code, lines = machine.run(LIMIT="9999", ARCHS="8.0")
    assert code == 1
    assert "== smoke: left out, missing: nvidia-smi" in lines and "== build: ok" in lines


def test_it_builds_for_the_card_and_not_for_what_others_want(machine: Machine) -> None:
    machine.run(TORCH_CUDA_ARCH_LIST="7.5 8.0+PTX")
    assert "python for 9.0: setup.py" in machine.log()
    machine.run(ARCHS="8.0;9.0")
    assert "python for 8.0;9.0: setup.py" in machine.log()
    machine.add("nvidia-smi", "echo no such field; exit 1")
    machine.run()
    assert "python for 9.0: setup.py" in machine.log()

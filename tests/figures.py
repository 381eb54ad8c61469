"""Prints what the tests show, goal by goal: python tests/figures.py, some ten minutes; --planted adds forty.

Each line runs its tests by themselves and counts what passed. Exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PASSED = r"(\d+) passed"
FAULTS = r"(\d+) of \d+ caught"


@dataclass(frozen=True)
class Goal:
    """A command, and how often what it counts must be in its output."""

    says: str
    command: Sequence[str]
    at_least: int
    counts: str = PASSED  # the sum of this group's numbers
    minutes: float = 10  # at most


def tests(*arguments: str) -> tuple[str, ...]:
    return ("-m", "pytest", "-n", "auto", "-p", "no:cacheprovider", *arguments)


GOALS = (
    Goal("values and gradients equal the oracle's, CPU", tests("tests/test_case_table.py"), 2000, minutes=3),
    Goal("the same, every instruction set", tests("tests/test_instruction_sets.py"), 3),
    Goal("the same, CUDA kernels emulated, 3 thread orders", tests("tests/test_simt_kernels.py"), 1000, minutes=3),
    Goal("CCE no worse than torch's", tests("tests/test_cross_entropy.py"), 100),
    Goal("gradcheck in float64", tests("tests/test_gradcheck.py"), 30),
    Goal("properties, 480 drawn calls each", tests("tests/test_properties.py"), 11),
    Goal(
        "the contract, input by input",
        tests(*(f"tests/{p.name}" for p in sorted(ROOT.glob("tests/test_contract_*")))),
        100,
    ),
    Goal("bugs that others shipped", tests("tests/test_shipped_bugs.py"), 20),
    Goal("torch's own sample inputs", tests("tests/test_opinfo.py"), 10),
    Goal("the same bits over 100 runs, any threads", tests("tests/test_contract_precision.py", "-k", "hundred"), 3),
    Goal("nothing leaked over 1,000 calls", tests("tests/test_leaks.py"), 5),
    Goal("no report: ASan, UBSan and TSan, kernels emulated", tests("tests/test_simt_rows.py", "-k", "sanitizers"), 2),
    Goal("no report: ASan and UBSan, the extension", ("tests/sanitize.py",), 5000, minutes=20),
)
PLANTED = (Goal("planted faults, caught", ("tests/mutation/run.py",), 45, FAULTS, 120),)


def reach(goal: Goal) -> bool:
    """Run the goal's command and print its line."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, *goal.command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "IMAE_EXT_REQUIRE": "1", "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    minutes = (time.monotonic() - begin) / 60
    count = sum(int(n) for n in re.findall(goal.counts, done.stdout))
    reached = done.returncode == 0 and count >= goal.at_least and minutes <= goal.minutes
    print(
        f"{goal.says:50} {count:>7,}  wanted {goal.at_least:>5,} in {goal.minutes:3g} min, "
        f"took {minutes:4.1f}  {'reached' if reached else 'MISSED'}",
        flush=True,
    )
    if done.returncode:
        print(done.stdout[-2000:])
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description="What the tests show, goal by goal.")
    parser.add_argument("--planted", action="store_true", help="plant faults, too, and demand that a test fails")
    goals = GOALS + (PLANTED if parser.parse_args().planted else ())
    missed = [goal for goal in goals if not reach(goal)]
    print(f"{len(goals) - len(missed)} of {len(goals)} goals reached")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

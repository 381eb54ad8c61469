"""Random calls for as long as one likes:

    python tests/fuzz/fuzzing.py [--seconds S | --calls N] [--seed SEED] [--kind KIND]

Each call has a name, SEED:NUMBER; a failure prints the line that repeats it. Valid calls run here, invalid ones in a
child process, which may neither crash nor hang.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import warnings
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

import invalid  # noqa: E402
import torch  # noqa: E402
import valid  # noqa: E402

IN_ONE_CHILD = 500  # invalid calls
HANGS = 60  # seconds that a child may take for one of them


def try_valid(name: str) -> str | None:
    """What is wrong with this call, if anything."""
    call = None
    try:
        call = valid.draw(Random(name))
        valid.check(call)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:600]}\n  {call}"
    return None


def try_invalid(name: str) -> str | None:
    try:
        invalid.check(Random(name))
    except AssertionError as error:
        return str(error)
    return None


def child(seed: str, first: int, count: int) -> None:
    """Each number is printed before its call, so that the one that crashed or hangs is known."""
    for number in range(first, first + count):
        print("call", number, flush=True)
        problem = try_invalid(f"{seed}:{number}")
        if problem:
            print("problem", number, problem.replace("\n", " "), flush=True)


def invalid_calls(seed: str, first: int, count: int) -> list[tuple[str, str]]:
    """The calls that were not refused as they should be, and what happened."""
    problems: list[tuple[str, str]] = []
    while count > 0:
        command = [sys.executable, __file__, "--child", seed, str(first), str(count)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS + count)
            output, end = done.stdout, f"the process ended with {done.returncode}: {done.stderr[-300:]}"
            ended = done.returncode == 0
        except subprocess.TimeoutExpired as error:
            output, end, ended = (error.stdout or b"").decode(), "no end", False
        last = first
        for line in output.splitlines():
            kind, number, *rest = line.split(" ", 2)
            last = int(number)
            if kind == "problem":
                problems.append((f"{seed}:{number}", rest[0]))
        if ended:
            break
        problems.append((f"{seed}:{last}", end))
        count -= last + 1 - first
        first = last + 1
    return problems


def report(kind: str, name: str, problem: str) -> None:
    print(f"{kind} {name}: {problem}\n  again: python tests/fuzz/fuzzing.py --kind {kind} --call {name}", flush=True)


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--kind", choices=("valid", "invalid", "both"), default="both")
    parser.add_argument("--call", help="one call alone, by its name")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.call:
        problem = (try_valid if options.kind == "valid" else try_invalid)(options.call)
        print(problem or "fine")
        return 1 if problem else 0
    end, number, failed, refused = time.monotonic() + options.seconds, 0, 0, 0
    while time.monotonic() < end:
        if options.kind != "invalid":
            for k in range(number, number + IN_ONE_CHILD):
                problem = try_valid(f"{options.seed}:{k}")
                if problem:
                    report("valid", f"{options.seed}:{k}", problem)
                    failed += 1
        if options.kind != "valid":
            for name, problem in invalid_calls(options.seed, number, IN_ONE_CHILD):
                report("invalid", name, problem)
                refused += 1
        number += IN_ONE_CHILD
    print(f"{number} calls of each kind: {failed} valid and {refused} invalid ones went wrong")
    return 1 if failed or refused else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.speed`: time the matrix, write it as JSON after every case, and print it and the targets."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from . import cases, machine, table, targets
from .contenders import CONTENDERS
from .measure import Plan, look_into_queue, measure
from .on_gpu import ON_GPU
from .peers import PEERS
from .results import FOLDER, CaseResult, Run, load, save

EVERYONE = (*CONTENDERS, *PEERS, *ON_GPU)
BUSY = 0.5  # a load above which others are taking part of the machine


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four shapes, float32, one thread, nothing compiled")
    parser.add_argument("--shapes", nargs="+", type=cases.parse_shape, help="such as 8192x10 8x19x256x256")
    parser.add_argument("--dtype", nargs="+", choices=cases.DTYPES["cuda"], help="default: float32 bfloat16")
    parser.add_argument("--threads", nargs="+", type=int, help="default: 1 2; of no matter on a GPU")
    parser.add_argument("--device", choices=list(cases.DTYPES), default="cpu")
    parser.add_argument("--grad-output", nargs="+", type=float, help="default: 1, and 0.5 at one shape")
    parser.add_argument("--non-leaf", action="store_true", help="logits that are an operator's output")
    parser.add_argument("--compile", choices=["none", "some", "all"], help="where the compiled contenders take part")
    parser.add_argument("--only", nargs="+", metavar="KEY", help=f"contenders: {' '.join(labels())}")
    parser.add_argument("--seconds", type=float, help="time for each case, compiling not counted; default: 3")
    parser.add_argument("--resume", action="store_true", help="keep and skip what the file has of this very commit")
    parser.add_argument("--output", type=Path, help="JSON file; default: results/DEVICE.json, or quick.json")
    options = parser.parse_args(arguments)
    if unknown := set(options.only or ()) - set(labels()):
        parser.error(f"no such contender: {', '.join(sorted(unknown))}")
    return options


def labels() -> dict[str, str]:
    return {contender.key: contender.label for contender in EVERYONE}


def plan(options: argparse.Namespace) -> Plan:
    usual = Plan(seconds=1.0, min_rounds=5, compile="none") if options.quick else Plan()
    return Plan(options.seconds or usual.seconds, usual.min_rounds, options.compile or usual.compile)


def chosen_cases(options: argparse.Namespace) -> list[cases.Case]:
    device = options.device
    shapes = options.shapes or (cases.QUICK_SHAPES if options.quick else cases.default_shapes(device))
    dtypes = options.dtype or (("float32",) if options.quick else cases.DTYPES[device])
    threads = options.threads or ((1,) if options.quick or device == "cuda" else (1, 2))
    return cases.matrix(shapes, dtypes, threads, device, options.grad_output, not options.non_leaf)


def command(options: argparse.Namespace) -> str:
    """Return what to type to repeat this run; the place of the results is left out, and whether some were there."""
    words = ["python", "-m", "benchmarks.speed"]
    for name, value in vars(options).items():
        if name in ("output", "resume") or value in (None, False) or (name, value) == ("device", "cpu"):
            continue
        words.append("--" + name.replace("_", "-"))
        if isinstance(value, list):
            words += [cases.shape_name(each) if name == "shapes" else str(each) for each in value]
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)


def under_bar(chosen: Sequence[cases.Case], verb: str) -> Iterator[cases.Case]:
    """Go through the cases under a progress bar."""
    with tqdm(chosen, unit="case", dynamic_ncols=True) as bar:
        for case in bar:
            bar.set_description(f"{verb} {table.heading(case)}, {case.name}")
            yield case


def begun(path: Path, about: dict[str, Any]) -> Run:
    """Read a run to go on with: of the same commit, machine, versions and settings. Another is not overwritten."""
    run = load(path)
    load_before = {"load_before": about["machine"]["load_before"]}
    same = ("commit", "commit_is_modified", "machine", "versions", "settings")
    then = run.about | {"machine": run.about["machine"] | load_before}
    if differing := [name for name in same if then[name] != about[name]]:
        raise SystemExit(f"{path} cannot be resumed, its {', '.join(differing)} differ: name another by --output")
    if about["commit"] is None or about["commit_is_modified"] is not False:
        raise SystemExit(f"{path} cannot be resumed: the sources may have changed since the commit")
    commands = dict.fromkeys([*run.about["command"].split("; "), about["command"]])
    return Run(about | {"command": "; ".join(commands)}, labels(), run.results)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tool."""
    options = parse(arguments)
    about = machine.describe(options.device)
    if about["machine"]["cpu_kernels"] == "none":
        raise SystemExit("imae_ext's kernels are not built: make build")
    if (before := machine.load()) > BUSY:
        print(f"The machine is busy (load {before}): expect longer times and wider spreads.")
    how = plan(options)
    about |= {"command": command(options), "settings": {**vars(how), "only": options.only}}
    path = options.output or FOLDER / ("quick.json" if options.quick else f"{options.device}.json")
    run = begun(path, about) if options.resume and path.exists() else Run(about, labels(), [])
    contenders = [each for each in EVERYONE if options.only is None or each.key in options.only]
    done = {result.case for result in run.results}
    for case in under_bar([case for case in chosen_cases(options) if case not in done], "timing"):
        try:
            run.results.append(measure(case, contenders, how))
        except torch.OutOfMemoryError as error:
            reason = f"out of memory among the others: {str(error).partition('.')[0]}"
            run.results.append(CaseResult(case, {}, {contender.key: reason for contender in contenders}))
        save(run, path)
    if options.device == "cuda":
        places = {result.case: i for i, result in enumerate(run.results) if not result.profiled}
        for case in under_bar(list(places), "profiling"):
            run.results[places[case]] = look_into_queue(run.results[places[case]], EVERYONE)
            save(run, path)
    by_table = sorted(run.results, key=lambda result: table.heading(result.case))
    for name, group in groupby(by_table, key=lambda result: table.heading(result.case)):
        print(f"\n{name}\n{table.timing_table(list(group), run.labels)}")
    print(f"\n{table.losses_table(run.results, run.labels)}\n")
    print(table.targets_table(targets.check(run.results)))
    print(f"\nWritten: {path}")


if __name__ == "__main__":
    main()

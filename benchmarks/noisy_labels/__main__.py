"""`python -m benchmarks.noisy_labels COMMAND`: training on wrong labels, and what comes of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from . import options, rules
from .names import CUTOFF, FOLDS

# What takes torch is imported by the command that needs it: --help does not wait for it.


def main(arguments: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["demo"]:
        from . import demo

        demo.main(words[1:])
        return
    parser, given = parse(words)
    try:
        rules.check(given)
        given.run(given, words)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def parse(words: Sequence[str]) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Read the command line; `explicit` of what is returned names the options that were given."""
    parser, _ = build()
    given = parser.parse_args(words)
    given.explicit = rules.explicit(build()[1][given.command], words[1:])
    return parser, given


def build() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.noisy_labels", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    made: dict[str, argparse.ArgumentParser] = {}

    def add(name: str, run: Callable[[argparse.Namespace, Sequence[str]], None], about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        command.set_defaults(run=run, command=name)
        made[name] = command
        return command

    command = add("train", train, "Train by one loss at one rate, with one or more seeds.")
    options.add_data(command)
    options.add_one_loss(command)
    command.add_argument("--lr", type=float, required=True, metavar="RATE", help="learning rate")
    options.add_training(command)
    options.add_running(command, seeds=1)

    command = add("sweep", run_sweep, "Train by several losses on several noises, each with its own rate.")
    options.add_data(command)
    options.add_sweep(command)
    options.add_training(command)
    options.add_running(command, seeds=5)

    command = add("report", write_report, "Write tables and pictures of finished runs.")
    command.add_argument("runs", nargs="+", type=Path, help="folders of runs, or files written by --archive")
    command.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder of the tables")
    command.add_argument("--pictures", type=Path, metavar="DIR", help="folder of the pictures (default: that of --to)")
    command.add_argument("--readme", type=Path, metavar="FILE", help="fill its section between the markers")
    command.add_argument("--archive", type=Path, metavar="DIR", help="write each folder's runs into one file there")

    about = "List the labels that networks find suspect: of finished runs, or of a folder of images, after training."
    command = add("suspects", list_suspects, about)
    command.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="folders of runs, or one of images")
    command.add_argument("--to", type=Path, required=True, metavar="CSV", help="file to write")
    help = "a label is suspect if it has a lower probability (default: %(default)s)"
    command.add_argument("--cutoff", type=float, default=CUTOFF, metavar="P", help=help)
    help = f"train one network on all images of a folder, instead of {FOLDS} without another part each"
    command.add_argument("--all", action="store_true", help=help)
    command.add_argument("--directory", type=Path, metavar="DIR", help="where the files of a finished run's data are")
    options.add_data(command, directory=False)
    options.add_one_loss(command)
    command.add_argument("--lr", type=float, metavar="RATE", help="learning rate (default: %(default)s)")
    options.add_training(command)
    options.add_running(command, seeds=1, out=" (default: beside the CSV)")
    command.set_defaults(**judging_defaults())

    command = add("share", time_share, "Time the parts of a training step: what does the loss cost in it?")
    options.add_data(command)
    options.add_one_loss(command)
    options.add_training(command)
    command.add_argument("--seconds", type=float, default=5.0, help="how long to repeat (default: %(default)s)")

    commands.add_parser("demo", help="What make demo runs: four losses on digits with wrong labels.")
    return parser, made


def train(given: argparse.Namespace, words: Sequence[str]) -> None:
    from . import archive, job
    from .runs import run_all
    from .store import folder_of
    from .table import WITH_AUC, paper_table, seeds_text

    recipes = [options.recipe_of(given, options.loss_of(given), given.lr, seed) for seed in range(given.seeds)]
    task = options.task_of(given).checked()
    print(task.says(), flush=True)
    results = run_all(partial(job.run, task, given.out), recipes, options.processes_of(given))
    archive.record(given.out, options.command_of(words))
    print(f"\n{task.title}: {seeds_text(given.seeds)}, in percent\n\n{paper_table(results, WITH_AUC)}")
    print(f"\nRuns: {folder_of(given.out, task, recipes[0]).parent}")


def run_sweep(given: argparse.Namespace, words: Sequence[str]) -> None:
    from . import archive
    from .search import SEEDS
    from .sweep import Search, sweep

    twice = next((loss for loss in given.losses if given.losses.count(loss) > 1), None)
    if twice is not None:
        raise ValueError(f"--losses: expected each once, got {twice} again")
    losses = {text: options.recipe_of(given, text, rate=1.0) for text in given.losses}
    rates = options.rates_of(given, {text: recipe.name for text, recipe in losses.items()})
    tasks = [task.checked() for task in options.tasks_of(given)]
    recipes = list(losses.values())
    search = Search(range(SEEDS[0], SEEDS[0] + given.search_seeds), given.search_epochs or given.epochs)
    for task in tasks:
        print(task.says(), flush=True)
        sweep(task, recipes, rates, range(given.seeds), search, given.out, options.processes_of(given))
    archive.record(given.out, options.command_of(words))


def write_report(given: argparse.Namespace, words: Sequence[str]) -> None:
    from . import archive, report

    print(report.write(given.runs, given.to, given.pictures or given.to, given.readme))
    if given.archive:
        for path in given.runs:
            print(f"\nArchive: {archive.save(given.archive, archive.load(path))}")


def judging_defaults() -> dict[str, object]:
    """Return how `suspects` trains unless told otherwise: long, and slowly enough not to memorise."""
    return {"data": "folder", "network": "small", "size": 32, "lr": 0.01, "epochs": 60, "batch": 32}


def list_suspects(given: argparse.Namespace, words: Sequence[str]) -> None:
    from . import finding

    print(finding.find(given, words))


def time_share(given: argparse.Namespace, words: Sequence[str]) -> None:
    from .share import share_table, time_step

    task = options.task_of(given)
    recipe = options.recipe_of(given, options.loss_of(given), rate=1.0)
    shares = time_step(task, recipe, given.seconds)
    where = "one thread of the CPU" if recipe.device == "cpu" else f"{recipe.device}, one thread of the CPU"
    print(f"{where}, medians of steps taken in turns\n\n{share_table(shares)}")


if __name__ == "__main__":
    main()

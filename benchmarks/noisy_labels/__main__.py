"""`python -m benchmarks.noisy_labels COMMAND`: training on wrong labels, and what comes of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from . import archive, demo, job, options, report, suspects
from .runs import run_all
from .search import SEEDS
from .share import share_table, time_step
from .store import folder_of
from .sweep import sweep
from .table import WITH_AUC, paper_table, seeds_text


def main(arguments: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["demo"]:
        demo.main(words[1:])
        return
    parser, given = parse(words)
    try:
        given.run(given, words)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def parse(words: Sequence[str]) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.noisy_labels", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace, Sequence[str]], None], about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        command.set_defaults(run=run)
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

    command = add("suspects", list_suspects, "List the training labels that a finished run finds suspect.")
    command.add_argument("folder", type=Path, help="of one run, such as OUT/digits-.../seed0")
    options.add_places(command)
    command.add_argument("--to", type=Path, required=True, metavar="CSV", help="file to write")

    command = add("share", time_share, "Time the parts of a training step: what does the loss cost in it?")
    options.add_data(command)
    options.add_one_loss(command)
    options.add_training(command)
    command.add_argument("--seconds", type=float, default=5.0, help="how long to repeat (default: %(default)s)")

    commands.add_parser("demo", help="What make demo runs: four losses on digits with wrong labels.")
    return parser, parser.parse_args(words)


def train(given: argparse.Namespace, words: Sequence[str]) -> None:
    task = options.task_of(given)
    recipes = [options.recipe_of(given, options.loss_of(given), given.lr, seed) for seed in range(given.seeds)]
    task.check()
    results = run_all(partial(job.run, task, given.out), recipes, options.processes_of(given))
    archive.record(given.out, options.command_of(words))
    print(f"\n{task.title}: {seeds_text(given.seeds)}, in percent\n\n{paper_table(results, WITH_AUC)}")
    print(f"\nRuns: {folder_of(given.out, task, recipes[0]).parent}")


def run_sweep(given: argparse.Namespace, words: Sequence[str]) -> None:
    losses = {text: options.recipe_of(given, text, rate=1.0) for text in given.losses}
    rates = options.rates_of(given, {text: recipe.name for text, recipe in losses.items()})
    tasks = options.tasks_of(given)
    for task in tasks:
        task.check()
    search_seeds = range(SEEDS[0], SEEDS[0] + given.search_seeds)
    for task in tasks:
        recipes = list(losses.values())
        sweep(task, recipes, rates, range(given.seeds), search_seeds, given.out, options.processes_of(given))
    archive.record(given.out, options.command_of(words))


def write_report(given: argparse.Namespace, words: Sequence[str]) -> None:
    print(report.write(given.runs, given.to, given.pictures or given.to, given.readme))
    if given.archive:
        for path in given.runs:
            print(f"\nArchive: {archive.save(given.archive, archive.load(path))}")


def list_suspects(given: argparse.Namespace, words: Sequence[str]) -> None:
    run = archive.read(given.folder)
    task = replace(run.task, directory=given.directory, labels=given.labels)
    recipe = run.result.recipe
    dataset, noise = task.dataset(), task.noisy_labels(recipe.seed)
    if job.digest(noise) != run.config["labels_sha256"]:
        raise ValueError(f"{given.folder} was trained on other labels than the data, or the label file, have")
    found = job.examples(recipe, job.load_network(given.folder, task, recipe), dataset, noise)
    suspects.write_csv(given.to, dataset, noise, *found)
    print(f"{len(noise.labels)} training labels, the most suspect first: {given.to}")
    if run.result.auc is not None:
        print(f"AUC of finding the wrong ones: {run.result.auc:.1f}%, chance being 50%")


def time_share(given: argparse.Namespace, words: Sequence[str]) -> None:
    task = options.task_of(given)
    recipe = options.recipe_of(given, options.loss_of(given), rate=1.0)
    shares = time_step(task, recipe, given.seconds)
    where = "one thread of the CPU" if recipe.device == "cpu" else f"{recipe.device}, one thread of the CPU"
    print(f"{where}, medians of steps taken in turns\n\n{share_table(shares)}")


if __name__ == "__main__":
    main()

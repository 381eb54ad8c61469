"""The command line's options, and the tasks and recipes that they ask for."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .names import (
    AUGMENTATIONS,
    CLEAN,
    DATASETS,
    LOSSES,
    MADE,
    NETWORKS,
    NOISES,
    OPTIMIZERS,
    PARAMETERS,
    RATES,
    SCHEDULES,
    SEARCH_SEEDS,
    TARGETS,
)

if TYPE_CHECKING:  # what takes torch is imported where it is used: --help does not wait for it
    from .task import Task
    from .training import Recipe

REDUCTIONS = ("mean", "sum", "normalized")
RATE = 0.4  # of noise, unless told otherwise
NOISE_FORMS = "none, symmetric:RATE, asymmetric:RATE, file or file:KEY"
NOISE_DEFAULT = f"file with --labels; {{}} for {', '.join(CLEAN)}; else none"
RATE_HELP = "one for all, LOSS=RATE for some, or `search`: by validation accuracy, on --grid, with other seeds"


def add_data(parser: argparse.ArgumentParser, directory: bool = True) -> None:
    group = parser.add_argument_group("data")
    about = f"data set, of {', '.join(DATASETS)} (default: %(default)s)"
    group.add_argument("--data", default="digits", choices=DATASETS, metavar="NAME", help=about)
    if directory:
        group.add_argument("--directory", type=Path, metavar="DIR", help="where the data set's files are")
    add_label_file(group)
    group.add_argument(
        "--split", metavar="LIST", help="which published list to train on: red_noise_nl_0.4, google, ..."
    )
    about = f"of {', '.join(NETWORKS)} (default: %(default)s)"
    group.add_argument("--network", default="mlp", choices=NETWORKS, metavar="NAME", help=about)
    group.add_argument("--validation", type=int, metavar="N", help="size of the part held out from training")
    group.add_argument("--fold", metavar="K/N", help="hold out the K-th of N parts of a folder or list, or `none`")
    group.add_argument("--limit", type=int, metavar="N", help="keep N training examples, for small trials")
    group.add_argument("--size", type=int, metavar="PIXELS", help="side that image files are scaled to")
    about = f"how images are varied, of {', '.join(AUGMENTATIONS)} (default: as is usual for the data set)"
    group.add_argument("--augmentation", choices=AUGMENTATIONS, metavar="KIND", help=about)
    group.add_argument("--skip-broken", action="store_true", help="go on without images that cannot be read")
    group.add_argument("--trusted", action="store_true", help="take a folder's labels for the truth")


def add_label_file(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    group.add_argument("--labels", type=Path, metavar="FILE", help="file of labels: of other ones, or of --data list")
    group.add_argument("--key", help="array in the file of labels, such as worse_label, or several with commas between")
    group.add_argument("--order", type=Path, metavar="FILE", help="order of the file of labels: image_order_c10.npy")
    group.add_argument(
        "--targets", default=TARGETS[0], choices=TARGETS, help="of several annotators (default: %(default)s)"
    )
    group.add_argument("--meant", action="store_true", help="take labels that say no more of the classes than chance")


def add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--reduction", default="mean", choices=REDUCTIONS, help="default: %(default)s")
    group.add_argument("--epochs", type=int, default=100, help="default: %(default)s")
    group.add_argument("--batch", type=int, default=128, metavar="N", help="examples a step (default: %(default)s)")
    group.add_argument("--optimizer", default="sgd", choices=OPTIMIZERS, help="default: %(default)s")
    group.add_argument("--momentum", type=float, default=0.9, help="AdamW's beta1, too (default: %(default)s)")
    group.add_argument("--weight-decay", type=float, default=0.0, help="default: %(default)s")
    group.add_argument("--schedule", default="constant", choices=SCHEDULES, help="default: %(default)s")
    group.add_argument("--mixup", type=float, default=0.0, metavar="ALPHA", help="of its Beta distribution; 0: none")
    group.add_argument("--measure-every", type=int, default=2, metavar="N", help="epochs (default: %(default)s)")
    group.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    group.add_argument("--amp", action="store_true", help="run the network in bfloat16 autocast")
    group.add_argument("--reference", action="store_true", help="the loss in plain PyTorch instead of the kernels")


def add_running(parser: argparse.ArgumentParser, seeds: int, out: str = "") -> None:
    group = parser.add_argument_group("running")
    group.add_argument("--seeds", type=_count, default=seeds, metavar="N", help="0 to N-1 (default: %(default)s)")
    group.add_argument("--processes", type=_count, metavar="N", help="runs at a time (default: one a core; 1 on a GPU)")
    about = f"folder of the runs; goes on from there{out}"
    group.add_argument("--out", type=Path, required=not out, metavar="DIR", help=about)


def add_one_loss(parser: argparse.ArgumentParser) -> None:
    """Add what one loss takes: `train` and `share` have it."""
    group = parser.add_argument_group("noise and loss")
    group.add_argument("--noise", choices=NOISES, help=f"default: {NOISE_DEFAULT.format('symmetric')}")
    group.add_argument("--rate", type=float, help=f"of symmetric and asymmetric noise (default: {RATE})")
    group.add_argument("--loss", default="imae", metavar="SPEC", help=loss_help("default: %(default)s"))
    for name in PARAMETERS:
        group.add_argument(f"--{name}", type=float, dest=f"loss_{name}", metavar="X", help="a parameter of the loss")


def add_sweep(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("noises, losses and rates")
    default = NOISE_DEFAULT.format(f"symmetric:{RATE}")
    group.add_argument("--noises", nargs="+", metavar="NOISE", help=f"{NOISE_FORMS} (default: {default})")
    group.add_argument("--losses", nargs="+", required=True, metavar="SPEC", help=loss_help(""))
    group.add_argument("--lr", nargs="+", required=True, metavar="RATE", help=RATE_HELP)
    group.add_argument(
        "--grid", nargs="+", type=float, default=list(RATES), metavar="RATE", help="default: %(default)s"
    )
    group.add_argument(
        "--search-seeds", type=_count, default=len(SEARCH_SEEDS), metavar="N", help="default: %(default)s"
    )
    group.add_argument(
        "--search-epochs",
        type=_count,
        metavar="N",
        help="of the runs that search, whose schedule it shortens, too (default: --epochs)",
    )


def loss_help(end: str) -> str:
    return f"a name, with parameters or without, or a sum of fused ones, as 2*nce+mae; of {LOSSES} {end}".strip()


def task_of(options: argparse.Namespace) -> Task:
    """Read --noise, --rate and --key."""
    noise = options.noise or _default_noise(options)
    return _task(options, noise, RATE if options.rate is None else options.rate, options.key)


def tasks_of(options: argparse.Namespace) -> list[Task]:
    """Read --noises."""
    return [_task(options, *noise) for noise in noises_of(options)]


def noises_of(options: argparse.Namespace) -> list[tuple[str, float, str | None]]:
    """Read --noises, or --noise: the kinds, their rates and the keys of label files."""
    if hasattr(options, "noise"):
        return [(options.noise or _default_noise(options), options.rate or RATE, options.key)]
    if options.noises is None:
        return [(_default_noise(options), RATE, options.key)]
    twice = next((text for text in options.noises if options.noises.count(text) > 1), None)
    if twice is not None:
        raise ValueError(f"--noises: expected each once, got {twice} again")
    return [_noise(text) for text in options.noises]


def _default_noise(options: argparse.Namespace) -> str:
    """Choose noise for labels that are published as right; a file of labels is the noise; all others stay."""
    if options.labels is not None and options.data != "list":
        return "file"
    return "symmetric" if options.data in CLEAN else "none"


def _task(options: argparse.Namespace, noise: str, rate: float, key: str | None) -> Task:
    from .task import Task

    if noise == "file" and options.labels is None:
        raise ValueError("the noise `file` reads labels: expected --labels FILE, got none")
    return Task(
        data=options.data,
        network=options.network,
        noise=noise,
        rate=rate if noise in MADE else 0.0,
        key=key if noise == "file" else None,
        validation=options.validation,
        limit=options.limit,
        size=options.size,
        trusted=options.trusted,
        split=options.split,
        fold=options.fold,
        targets=options.targets,
        augmentation=options.augmentation,
        directory=options.directory,
        labels=options.labels,
        order=options.order,
        meant=options.meant,
        skip_broken=options.skip_broken,
    )


def loss_of(options: argparse.Namespace) -> str:
    """Read --loss and its parameters; return it as a specification."""
    from .losses import with_parameters

    given = {name: getattr(options, f"loss_{name}") for name in PARAMETERS}
    return repr(with_parameters(options.loss, {name: value for name, value in given.items() if value is not None}))


def recipe_of(options: argparse.Namespace, loss: str, rate: float, seed: int = 0) -> Recipe:
    from .losses import label, parse
    from .training import Recipe

    _check_device(options.device)
    formula = parse(loss)
    kinds = [options.reduction] * (options.reduction != "mean") + ["reference"] * options.reference
    kinds += ["AdamW"] * (options.optimizer == "adamw")
    kinds += [f"mixup {options.mixup:g}"] * (options.mixup != 0)
    return Recipe(
        ", ".join([label(formula), *kinds]),
        formula,
        rate,
        reduction=options.reduction,
        epochs=options.epochs,
        batch_size=options.batch,
        momentum=options.momentum,
        seed=seed,
        measure_every=options.measure_every,
        use_reference=options.reference,
        weight_decay=options.weight_decay,
        schedule=options.schedule,
        device=options.device,
        amp=options.amp,
        optimizer=options.optimizer,
        mixup=options.mixup,
    )


def rates_of(options: argparse.Namespace, names: dict[str, str]) -> dict[str, list[float]]:
    """Read --lr: the rates to choose from of each recipe, by its name.

    Args:
        options: of `sweep`.
        names: the name of the recipe of each loss in --losses, as it is written there.

    """
    default: list[float] | None = None
    own: dict[str, list[float]] = {}
    for text in options.lr:
        loss, _, rate = text.rpartition("=")
        if not loss and default is not None:
            raise ValueError(f"--lr {text}: expected one rate for all losses, or `search` over --grid; got two")
        if loss and names.get(loss) in own:
            raise ValueError(f"--lr {text}: expected one rate for {loss}, got two")
        if text == "search":
            default = options.grid
        elif not loss:
            default = [_rate(text)]
        elif loss in names:
            own[names[loss]] = [_rate(rate)]
        else:
            raise ValueError(f"--lr {text}: expected a loss out of {', '.join(names)}")
    missing = [loss for loss, name in names.items() if name not in own and default is None]
    if missing:
        raise ValueError(f"--lr: expected a rate for {', '.join(missing)}, or `search`")
    if default is not None and all(name in own for name in names.values()):
        raise ValueError(
            "--lr: every loss has a rate of its own: expected no rate for all, and no `search`, beside them"
        )
    return {name: own.get(name) or list(default or []) for name in names.values()}


def processes_of(options: argparse.Namespace) -> int:
    from .runs import usable_cores

    return options.processes or (usable_cores() if options.device == "cpu" else 1)


def command_of(words: Sequence[str]) -> str:
    """Write the command down, for the record: of absolute paths only the last part, the others are no one's concern."""
    brief = (Path(word).name if Path(word).is_absolute() else word for word in words)
    return f"python -m benchmarks.noisy_labels {shlex.join(brief)}"


def _noise(text: str) -> tuple[str, float, str | None]:
    kind, _, detail = text.partition(":")
    if kind not in NOISES or (kind == "none" and detail) or (kind in MADE and not detail):
        raise ValueError(f"--noises: expected {NOISE_FORMS}, got {text}")
    return (kind, 0.0, detail or None) if kind in ("file", "none") else (kind, _rate(detail), None)


def _check_device(name: str) -> None:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device: expected cpu, cuda, cuda:1, ..., got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"expected a GPU for --device {name}, found none")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name}: expected a GPU below {torch.cuda.device_count()}, got {device.index}")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected a number, got {text!r}") from None

"""A run from its names to its result: the data, the wrong labels, the network and the loss are made, then trained."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import imae_ext
from imae_ext.formulas import Formula

from . import store, suspects
from .baselines import PlainLoss, anchor_transition, known_transition
from .data import Dataset, Inputs, summary
from .measures import Measures, logits_of
from .methods import Method, Procedure, Setting
from .noise import NoisyLabels
from .task import Task
from .training import Prepared, Recipe, Result, State, train

SAVE_SECONDS = 2.0  # between two checkpoints: of runs that take seconds, writing each would take half of the time
ESTIMATE_SHARE = 10  # the network that a transition matrix is estimated from trains for a tenth of the epochs


def run(task: Task, out: Path, recipe: Recipe, report: Callable[[Measures], None] = lambda measures: None) -> Result:
    """Train a recipe in its folder under `out`, from where it was stopped; if it is finished, read its result.

    Raises:
        ValueError: the folder holds a run with other settings, or a state that cannot be read or gone on from.

    """
    return run_in(store.folder_of(out, task, recipe), task, recipe, report)


def run_in(folder: Path, task: Task, recipe: Recipe, report: Callable[[Measures], None]) -> Result:
    """Do what `run` does in a given folder."""
    dataset, noise = task.dataset(), task.noisy_labels(recipe.seed)
    config = describe(task, recipe, noise)
    store.claim(folder, config)
    if (folder / "result.json").exists():
        _, history, auc = store.read(folder)
        report(history[-1])
        return Result(recipe, history, auc)
    state = store.load_state(folder)
    network = task.build(recipe.seed)
    criterion = _criterion(folder, task, recipe, dataset, noise)
    saved = -math.inf

    def save(state: State) -> None:
        nonlocal saved
        if time.monotonic() - saved >= SAVE_SECONDS or state.history[-1].epoch == recipe.epochs:
            store.save_state(folder, state)
            saved = time.monotonic()

    result = train(recipe, network, dataset, noise, report, criterion=criterion, state=state, save=save)
    result = replace(result, auc=suspect_auc(recipe, network, dataset, noise))
    store.finish(folder, result)
    return result


def describe(task: Task, recipe: Recipe, noise: NoisyLabels) -> dict[str, Any]:
    """Write down all that decides a run. The labels' digest stands for the data and for label files."""
    return {
        "task": task.settings,
        "data": summary(task.dataset()) | ({"labels": dict(noise.source)} if noise.source else {}),
        "recipe": {field.name: getattr(recipe, field.name) for field in fields(recipe)}
        | {"formula": repr(recipe.formula), "device": torch.device(recipe.device).type},
        "labels_sha256": digest(noise),
        "versions": {"torch": torch.__version__, "imae_ext": imae_ext.__version__, "device": _device(recipe.device)},
    }


def digest(noise: NoisyLabels) -> str:
    """Return the SHA-256 of the given and the true labels, in their order, and of the shares, if there are some."""
    shares = b"" if noise.shares is None else noise.shares.tobytes()
    return hashlib.sha256(noise.labels.tobytes() + noise.clean.tobytes() + shares).hexdigest()


def suspect_auc(recipe: Recipe, network: nn.Module, dataset: Dataset, noise: NoisyLabels) -> float | None:
    """Return how well a low p_y finds the wrong training labels, in percent.

    None where the truth is not known, no label is wrong or none right, or the training has diverged.
    """
    if not dataset.truth_known:
        return None
    p, _, _ = examples(recipe, network, dataset, noise)
    found = suspects.auc(p.cpu(), noise.noisy)
    return None if math.isnan(found) else 100 * found


def examples(recipe: Recipe, network: nn.Module, dataset: Dataset, noise: NoisyLabels) -> tuple[Tensor, Tensor, Tensor]:
    """Return p_y, weight and prediction of each training example, (n,) each; the weight is CCE's if it has none."""
    device = torch.device(recipe.device)
    dataset = dataset.to(device)
    model = Prepared(network, dataset).to(device)
    return suspects.per_example(model, dataset, torch.from_numpy(noise.labels).to(device), _weighing(recipe))


def _weighing(recipe: Recipe) -> Formula:
    """Return the formula whose weights are shown."""
    weighs = isinstance(recipe.formula, Formula) and not recipe.formula.needs_all_logits
    return recipe.formula if weighs else imae_ext.CCE()


def opinions(
    recipe: Recipe, network: nn.Module, dataset: Dataset, inputs: Inputs, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what a run's network says of examples: probabilities (n, C), and weights (n,) for labels (n,)."""
    device = torch.device(recipe.device)
    model = Prepared(network, dataset.to(device)).to(device)
    logits = logits_of(model, inputs.to(device)).float()
    return logits.softmax(dim=1), imae_ext.row_stats(logits, labels.to(device), _weighing(recipe))[1]


def load_network(folder: Path, task: Task, recipe: Recipe) -> nn.Module:
    """Build the network of a run and give it its last saved weights."""
    state = store.load_state(folder)
    if state is None:
        raise FileNotFoundError(f"{folder}: expected a checkpoint.pt, got none")
    network = task.build(recipe.seed)
    network.load_state_dict(state.parts["network"])
    return network


def _criterion(folder: Path, task: Task, recipe: Recipe, dataset: Dataset, noise: NoisyLabels) -> Procedure | None:
    """Make what a plain PyTorch loss or method trains with; None for the fused ones."""
    formula = recipe.formula
    if isinstance(formula, Formula):
        return None
    if noise.shares is not None:
        raise ValueError(f"{recipe.name} is plain PyTorch and takes one label an example: expected --targets majority")
    known = known_transition(noise, dataset.num_classes) if dataset.truth_known else None
    if isinstance(formula, Method):
        return formula.start(
            Setting(
                num_classes=dataset.num_classes,
                labels=torch.from_numpy(noise.labels),
                epochs=recipe.epochs,
                seed=recipe.seed,
                build=task.build,
                transition=known,
                noise_rate=noise.rate if dataset.truth_known else None,
                estimate=lambda: _estimate(folder, task, recipe, dataset),
            )
        )
    if not formula.needs_transition:
        return PlainLoss(formula, dataset.num_classes)
    if formula.estimated:  # type: ignore[attr-defined]
        return PlainLoss(formula, dataset.num_classes, _estimate(folder, task, recipe, dataset))
    if known is None:
        raise ValueError(f"{recipe.name}: the true labels are not known here: give it estimated=True")
    return PlainLoss(formula, dataset.num_classes, known)


def _estimate(folder: Path, task: Task, recipe: Recipe, dataset: Dataset) -> Tensor:
    """Estimate the transition matrix from a first network, trained in a folder of its own."""
    # By then the network has learned what the right labels have in common, and not yet the wrong ones.
    epochs = max(1, recipe.epochs // ESTIMATE_SHARE)
    first = replace(recipe, name="CCE", formula=imae_ext.CCE(), epochs=epochs)
    run_in(folder / "estimate", task, first, lambda measures: None)
    device = torch.device(recipe.device)
    model = Prepared(load_network(folder / "estimate", task, first), dataset.to(device)).to(device)
    return anchor_transition(logits_of(model, dataset.to(device).train.inputs).float().softmax(dim=1)).cpu()


def _device(name: str) -> str:
    device = torch.device(name)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"

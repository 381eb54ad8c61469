"""Which option has an effect when: one that would have none is refused, never passed over in silence.

Every option that depends on another has a line in RULES. What depends on the files themselves, such as a validation
part of their own, the readers refuse.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .names import CLEAN, IN_MEMORY, MADE, OWN, OWN_VALIDATION, WITH_SPLITS, WITHOUT_IMAGES
from .options import noises_of


@dataclass(frozen=True)
class Rule:
    """When options have an effect.

    Attributes:
        options: by their names on the command line, without the dashes.
        applies: tells from all options whether these do anything.
        expected: what they need, in words.
        commands: that the rule is about; by default all that have the options.

    """

    options: tuple[str, ...]
    applies: Callable[[argparse.Namespace], bool]
    expected: str
    commands: tuple[str, ...] = ()


def _kinds(given: argparse.Namespace) -> set[str]:
    return {kind for kind, _, _ in noises_of(given)}


def _is_one_of(names: Iterable[str]) -> Callable[[argparse.Namespace], bool]:
    return lambda given: given.data in names


def _reads_file(given: argparse.Namespace) -> bool:
    return "file" in _kinds(given)


def _searches(given: argparse.Namespace) -> bool:
    return "search" in given.lr


def _never(given: argparse.Namespace) -> bool:
    return False


def _photographs(given: argparse.Namespace) -> bool:
    return given.data not in IN_MEMORY


TRAINING = ("train", "sweep", "share", "suspects")  # suspects, where it trains first
RULES = (
    Rule(
        ("labels",), lambda given: _reads_file(given) or given.data == "list", "--noise file, or --data list", TRAINING
    ),
    Rule(("key",), _reads_file, "--labels FILE", ("train", "share", "suspects")),
    Rule(
        ("key",), lambda given: given.noises is None and _reads_file(given), "--labels FILE (else file:KEY)", ("sweep",)
    ),
    Rule(("order", "targets"), _reads_file, "--labels FILE, and labels from it as the noise", TRAINING),
    Rule(
        ("meant",),
        lambda given: bool(_kinds(given) & {"file", *MADE}),
        f"noise {' or '.join(MADE)}, or labels from a file",
        TRAINING,
    ),
    Rule(("rate",), lambda given: bool(_kinds(given) & set(MADE)), f"--noise {' or '.join(MADE)}", TRAINING),
    Rule(
        ("validation",),
        lambda given: given.data not in OWN_VALIDATION and given.fold is None,
        f"a data set without a validation part of its own ({', '.join(OWN_VALIDATION)} have one), and no --fold",
        TRAINING,
    ),
    Rule(("fold",), _is_one_of(OWN), f"--data {' or '.join(OWN)}", TRAINING),
    Rule(("split",), _is_one_of(WITH_SPLITS), f"--data {' or '.join(WITH_SPLITS)}", TRAINING),
    Rule(
        ("size", "skip-broken"),
        _photographs,
        f"a data set of image files ({', '.join(IN_MEMORY)} are none)",
        TRAINING,
    ),
    Rule(
        ("augmentation",),
        lambda given: given.data not in WITHOUT_IMAGES,
        f"a data set of images ({' and '.join(WITHOUT_IMAGES)} are read as numbers)",
        TRAINING,
    ),
    Rule(
        ("trusted",),
        lambda given: given.data not in CLEAN,
        f"labels that nobody vouches for (those of {', '.join(CLEAN)} are taken for the truth anyway)",
    ),
    Rule(("noise", "rate", "trusted"), _never, "a run of train with it, whose folder suspects takes", ("suspects",)),
    Rule(("grid", "search-seeds", "search-epochs"), _searches, "--lr search", ("sweep",)),
    Rule(
        ("epochs", "measure-every", "schedule", "weight-decay", "reference", "mixup"),
        _never,
        "the command train (a step has nothing of it, or both ways are timed)",
        ("share",),
    ),
)


def check(given: argparse.Namespace) -> None:
    """Refuse the first option that was given and has no effect.

    Args:
        given: as `__main__.parse` returns it; `explicit` has the names of what was given.

    """
    for rule in RULES:
        if rule.commands and given.command not in rule.commands:
            continue
        for option in rule.options:
            name = option.replace("-", "_")
            if name in given.explicit and not rule.applies(given):
                raise ValueError(
                    f"--{option}{_value(getattr(given, name))}: it has no effect here, expected {rule.expected}"
                )


def explicit(command: argparse.ArgumentParser, words: Iterable[str]) -> frozenset[str]:
    """Return which options of a command were given, whatever their values; its defaults are lost by it."""
    for action in command._actions:
        action.default = argparse.SUPPRESS
    command._defaults.clear()
    return frozenset(vars(command.parse_args(list(words))))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return ""
    if isinstance(value, list):
        return "".join(f" {one}" for one in value)
    return f" {value:g}" if isinstance(value, float) else f" {value}"

"""What the public functions and modules share: their options, how these are documented, and what is said of others."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from inspect import Parameter
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from torch import Tensor

from . import hints

if TYPE_CHECKING:
    from .distributed.groups import Group

F = TypeVar("F", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """The options of every loss; :func:`imae_ext.robust_loss` explains them and has their defaults."""

    weight: Tensor | None
    sample_weight: Tensor | None
    label_smoothing: float
    ignore_index: int
    reduction: str
    group: Group


class ModuleOptions(TypedDict, total=False):
    """Those that stay from call to call: what a module is made with."""

    weight: Tensor | None
    label_smoothing: float
    ignore_index: int
    reduction: str
    group: Group


def explained(function: F) -> F:
    """Say what to pass instead of an argument that the function does not have."""
    signature = inspect.signature(function)
    known = frozenset(signature.parameters)
    places = sum(each.kind is not Parameter.KEYWORD_ONLY for each in signature.parameters.values())
    inner = _by_position(function)

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        if len(arguments) > places or (keywords and not known.issuperset(keywords)):
            _refuse(function, tuple(signature.parameters), places, len(arguments), keywords)
        return inner(*arguments, **keywords) if keywords else inner(*arguments)

    return cast(F, call)


def _by_position(function: Any) -> Callable[..., Any]:
    """Return the same function with its options by position, too, for a caller that has counted the arguments.

    Python looks up the default of each option that has no position: six of them take a hundredth of a small step.
    """
    code, defaults = function.__code__, function.__kwdefaults__ or {}
    options = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    if code.co_flags & inspect.CO_VARARGS or not all(name in defaults for name in options):
        return cast(Callable[..., Any], function)
    count = code.co_argcount + len(options)
    return FunctionType(
        code.replace(co_argcount=count, co_kwonlyargcount=0),
        function.__globals__,
        function.__name__,
        (*(function.__defaults__ or ()), *(defaults[name] for name in options)),
        function.__closure__,
    )


def _refuse(function: Any, known: tuple[str, ...], places: int, given: int, keywords: dict[str, Any]) -> None:
    name = re.sub(r"\.(__init__|forward)$", "", function.__qualname__)
    if known[0] == "self":
        known, places, given = known[1:], places - 1, given - 1
    for keyword in keywords:
        if keyword not in known:
            raise TypeError(f"imae_ext: {name} has no argument {keyword}{hints.unknown_keyword(keyword, known)}")
    positional, options = ", ".join(known[:places]) or "no argument", "=, ".join(known[places:])
    raise TypeError(
        f"imae_ext: {name} takes {positional} by position, got {given} arguments"
        + (f"; write the others with their names: {options}=" if options else "")
    )


def with_options_of(source: Callable[..., Any]) -> Callable[[F], F]:
    """Show the options of another function where a signature says ``**options``."""
    options = [each for each in inspect.signature(source).parameters.values() if each.kind is Parameter.KEYWORD_ONLY]

    def change(function: F) -> F:
        own = inspect.signature(function)
        named = [each for each in own.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
        function.__signature__ = own.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
        return explained(function)

    return change


def documented_by(make: Callable[..., Any], source: Callable[..., Any]) -> Callable[[F], F]:
    """Put Args, Returns and Raises before a docstring's Example: parameters of the formula, the rest of a function."""
    parameters, rest = _section(make, "Args"), _section(source, "Args")
    options = [rest[name] for name in Options.__annotations__]
    raises = "\n".join(_section(source, "Raises").values())
    returns = re.search(r"^Returns:\n((?:  .*\n)+)", inspect.getdoc(source) or "", re.MULTILINE)
    assert returns

    def change(function: F) -> F:
        text, example = (inspect.getdoc(function) or "").split("Example:")
        arguments = "\n".join([rest["logits"], rest["target"], *parameters.values(), *options])
        function.__doc__ = (
            f"{text.strip()}\n\nArgs:\n{arguments}\n\nReturns:\n{returns[1]}\nRaises:\n{raises}\n\nExample:{example}"
        )
        return function

    return change


def _section(of: Callable[..., Any], title: str) -> dict[str, str]:
    """Return the entries of a section of a docstring by their names."""
    found = re.search(rf"^{title}:\n((?:  .*\n?)+)", inspect.getdoc(of) or "", re.MULTILINE)
    entries = re.split(r"^(?=  \S)", found[1], flags=re.MULTILINE)[1:] if found else []
    return {entry.strip().split(":")[0]: entry.rstrip() for entry in entries}

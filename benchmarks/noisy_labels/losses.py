"""Losses by name, as the command line takes them: `imae`, `imae(T=16)`, `2.0*nce+mae`, `forward(estimated=True)`."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields

import imae_ext
from imae_ext.formulas import Formula, SingleFormula

from .baselines import Backward, Baseline, BootstrapHard, BootstrapSoft, Forward, NoiseAdaptation
from .methods import METHODS, Method

Objective = Formula | Baseline | Method
Maker = Callable[..., Objective]

FUSED: tuple[Maker, ...] = (
    *(imae_ext.CCE, imae_ext.MAE, imae_ext.MSE, imae_ext.GCE, imae_ext.IMAE, imae_ext.DM, imae_ext.RCE),
    *(imae_ext.SCE, imae_ext.Focal, imae_ext.TaylorCE, imae_ext.AGCE, imae_ext.AUL, imae_ext.AEL),
    *(imae_ext.LabelSmoothing, imae_ext.NCE),
)
PLAIN: tuple[Maker, ...] = (BootstrapHard, BootstrapSoft, Forward, Backward, NoiseAdaptation, *METHODS)
MAKERS: dict[str, Maker] = {maker.__name__.lower(): maker for maker in (*FUSED, *PLAIN)}


def parse(text: str) -> Objective:
    """Read a loss: a name with parameters or none, or a sum of fused ones with factors; case does not matter.

    Raises:
        ValueError: not such an expression, or a name, parameter or value that no loss has.

    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"loss {text!r}: expected a form such as imae(T=8) or 2.0*nce+mae") from error
    try:
        return _read(tree.body)
    except (TypeError, ValueError) as error:
        raise ValueError(f"loss {text!r}: {error}") from error


def with_parameters(text: str, parameters: Mapping[str, float]) -> Objective:
    """Read a loss given by its bare name, and give it these parameters."""
    if not parameters:
        return parse(text)
    if text.strip().lower().replace("_", "") not in MAKERS:
        raise ValueError(f"loss {text!r}: expected a name alone beside --{next(iter(parameters))}, got an expression")
    return parse(f"{text}({', '.join(f'{name}={value!r}' for name, value in parameters.items())})")


def parameter_names() -> list[str]:
    """Name every number that some loss takes."""
    found = (p for maker in MAKERS.values() for p in inspect.signature(maker).parameters.values())
    return list(dict.fromkeys(p.name for p in found if not isinstance(p.default, bool)))


def catalogue(makers: tuple[Maker, ...] = (*FUSED, *PLAIN)) -> str:
    """List the losses with their parameters and what these are by default."""
    return ", ".join(_signature(maker) for maker in makers)


def label(objective: Objective) -> str:
    """Write what tables and pictures call the loss: parameters only where they are not the default, `*` if plain."""
    if isinstance(objective, (Baseline, Method)):
        return f"{_short(objective)}*"
    if objective == imae_ext.SCE():
        return "SCE"
    return " + ".join(f"{'' if c == 1 else f'{c:g} '}{_short(formula)}" for c, formula in objective.terms)


def rank(objective: Objective) -> tuple[bool, int, object]:
    """Return what sorts losses as tables list them: fused before plain, formulas before sums, then by parameters."""
    if isinstance(objective, (Baseline, Method)):
        return True, PLAIN.index(type(objective)), repr(objective)
    return False, len(objective.terms), objective.packed


def _read(node: ast.expr) -> Objective:
    if isinstance(node, ast.Name):
        return _make(node.id, {})
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        parameters = {word.arg: _number(word.value) for word in node.keywords if word.arg}
        if len(parameters) == len(node.keywords):
            return _make(node.func.id, parameters)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
        if isinstance(node.op, ast.Add):
            return _fused(node.left) + _fused(node.right)
        factor, loss = (node.right, node.left) if isinstance(node.right, ast.Constant) else (node.left, node.right)
        return _number(factor) * _fused(loss)
    raise ValueError(f"expected names, name=number in parentheses, + and *, got {ast.unparse(node)!r}")


def _fused(node: ast.expr) -> Formula:
    loss = _read(node)
    if not isinstance(loss, Formula):
        raise ValueError(f"expected fused losses in a sum, got {label(loss)}, which is plain PyTorch")
    return loss


def _make(name: str, parameters: dict[str, float]) -> Objective:
    maker = MAKERS.get(name.lower().replace("_", ""))
    if maker is None:
        raise ValueError(f"no loss is called {name!r}; there are {catalogue()}")
    known = inspect.signature(maker).parameters
    for parameter in parameters:
        if parameter not in known:
            raise ValueError(f"{maker.__name__} has no parameter {parameter!r}; its form is {_signature(maker)}")
    return maker(**parameters)


def _number(node: ast.expr) -> float:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        value = None
    if not isinstance(value, (bool, int, float)):
        raise ValueError(f"expected a number, got {ast.unparse(node)!r}")
    return value if isinstance(value, bool) else float(value)


def _signature(maker: Maker) -> str:
    parameters = inspect.signature(maker).parameters.values()
    return f"{maker.__name__}({', '.join(f'{p.name}={_brief(p.default)}' for p in parameters)})"


def _short(formula: SingleFormula | Baseline | Method) -> str:
    changed = [
        f"{field.name}={_brief(getattr(formula, field.name))}"
        for field in fields(formula)  # type: ignore[arg-type]
        if getattr(formula, field.name) != field.default
    ]
    return f"{type(formula).__name__}({', '.join(changed)})" if changed else type(formula).__name__


def _brief(value: float) -> str:
    return str(value) if isinstance(value, bool) else f"{value:g}"

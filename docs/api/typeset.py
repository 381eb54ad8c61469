"""Turns formulas as docstrings write them, ``-r**gamma log p``, into LaTeX."""

from __future__ import annotations

import ast
import re

GREEK = {"eps": r"\epsilon", "lambd": r"\lambda", "alpha": r"\alpha", "beta": r"\beta", "gamma": r"\gamma"}
FUNCTIONS = {"log": r"\log", "exp": r"\exp", "expm1": r"\operatorname{expm1}"}
COMPARISONS = {ast.Lt: "<", ast.LtE: r"\le", ast.Gt: ">", ast.GtE: r"\ge", ast.Eq: "="}
TOKEN = re.compile(r"\d+\.?\d*(?:e-?\d+)?|expm1|[A-Za-z]+(?:_[a-z])?|\*\*|[<>=]=|[-+*/()<>,=]")
WORD = re.compile(r"[\w.]+$")


def latex(formula: str) -> str | None:
    """Typeset a formula; None for what is no formula, such as the name of an argument."""
    tokens = TOKEN.findall(formula)
    if "".join(tokens) != formula.replace(" ", "") or len(tokens) < 2:
        return None
    names = [each for each in tokens if each[0].isalpha()]
    if any(
        len(each.split("_")[0]) > 1 and each not in GREEK | FUNCTIONS and not each.startswith("sum_") for each in names
    ):
        return None
    try:
        return _node(ast.parse(_with_products(tokens), mode="eval").body)
    except (SyntaxError, KeyError):
        return None


def _with_products(tokens: list[str]) -> str:
    """Write out what a formula leaves out: the sign of a product, and the parentheses of ``log p``."""
    out: list[str] = []
    for k, token in enumerate(tokens):
        before = tokens[k - 1] if k else ""
        if before in FUNCTIONS and token != "(":
            out.append(f"({token})")
            continue
        starts = token == "(" or WORD.match(token)
        if out and starts and (before == ")" or WORD.match(before)) and not (token == "(" and before in FUNCTIONS):
            out.append("*")
        out.append(token)
    return " ".join(out)


def _node(node: ast.expr) -> str:
    match node:
        case ast.Constant():
            digits, _, power = f"{node.value:g}".partition("e")
            return digits if not power else f"{'' if digits == '1' else digits}10^{{{int(power)}}}"
        case ast.Name():
            stem, _, index = node.id.partition("_")
            stem = r"\sum" if stem == "sum" else GREEK.get(stem, stem)
            return f"{stem}_{{{index}}}" if index else stem
        case ast.UnaryOp(op=ast.USub()):
            return f"-{_factor(node.operand)}"
        case ast.Call(func=ast.Name(id=name)):
            return rf"{FUNCTIONS[name]}\left({_node(node.args[0])}\right)"
        case ast.Compare():
            parts = [_node(node.left)]
            for operation, right in zip(node.ops, node.comparators, strict=True):
                parts += [COMPARISONS[type(operation)], _node(right)]
            return " ".join(parts)
        case ast.BinOp(op=ast.Add()):
            return f"{_node(node.left)} + {_node(node.right)}"
        case ast.BinOp(op=ast.Sub()):
            return f"{_node(node.left)} - {_factor(node.right)}"
        case ast.BinOp(op=ast.Mult()):
            return rf"{_factor(node.left)}\,{_factor(node.right)}"
        case ast.BinOp(op=ast.Div()):
            return rf"\frac{{{_node(node.left)}}}{{{_node(node.right)}}}"
        case ast.BinOp(op=ast.Pow()):
            return f"{_factor(node.left)}^{{{_node(node.right)}}}"
    raise KeyError(ast.dump(node))


def _factor(node: ast.expr) -> str:
    """Typeset a part of a product: sums in parentheses."""
    inner = _node(node)
    is_sum = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub)
    return rf"\left({inner}\right)" if is_sum else inner

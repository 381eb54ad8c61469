"""How long files and functions of code are; the exceptions, each with its reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("csrc", "imae_ext", "tests", "benchmarks", "packaging", "docs")
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 300, 60

FILES: dict[str, str] = {}
FUNCTIONS = {
    "csrc/cuda/row.cuh: walk_rows": "one loop whose every step shares the registers that hold the row",
}


def sources() -> list[Path]:
    """Every file of code, by its ending."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    return [path for path in found if path.suffix in (".py", ".h", ".cpp", ".cu", ".cuh")]


def of_python(text: str) -> Iterator[tuple[str, int]]:
    """Functions and their lines, docstrings not counted."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node, clean=False) is not None and first.end_lineno is not None
            docstring = first.end_lineno - first.lineno + 1 if documented else 0
            yield node.name, node.end_lineno - node.lineno + 1 - docstring


def of_cpp(text: str) -> Iterator[tuple[str, int]]:
    """Functions and their lines, as clang-format lays them out: from a line that opens to the one that closes."""
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if not re.match(r" *(?!if|for|while|switch|else|do\b|\})\S.*\).*\{$", line):
            continue
        head = lines[i - 1] if line.strip().startswith(":") else line  # the members of a constructor have a line
        name = re.search(r"(\w+)\(", head)
        open_braces = accumulate(line.count("{") - line.count("}") for line in lines[i:])
        count = next((k for k, depth in enumerate(open_braces, 1) if depth <= 0), 1)
        yield name[1] if name else head.strip(), count


def too_long() -> tuple[set[str], set[str]]:
    """Files and functions over the limits."""
    files, functions = set(), set()
    for path in sources():
        text, name = path.read_text(), str(path.relative_to(ROOT))
        if text.count("\n") > MOST_LINES_OF_A_FILE:
            files.add(name)
        measured = of_python(text) if path.suffix == ".py" else of_cpp(text)
        functions |= {f"{name}: {function}" for function, lines in measured if lines > MOST_LINES_OF_A_FUNCTION}
    return files, functions

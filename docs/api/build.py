"""Builds the pages of the API from the docstrings, formulas typeset: make docs."""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pdoc
from typeset import latex

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

import imae_ext  # noqa: E402

CODE = re.compile(r"``([^`]+)``")
ROLE = re.compile(r":(?:func|class|mod):`([^`]+)`")


def typeset(docstring: str) -> str:
    """Make ``formula`` mathematics, and :func:`name` a link, as pdoc writes them."""

    def span(match: re.Match[str]) -> str:
        made = latex(match[1].replace("\n", " "))
        return f"`{match[1]}`" if made is None else f"\\\\({made}\\\\)"

    return ROLE.sub(r"`\1`", CODE.sub(span, docstring))


def documented(module: ModuleType) -> list[object]:
    """List the module, what it exports, and the methods of that."""
    found: list[object] = [module]
    for name in getattr(module, "__all__", [each for each in vars(module) if not each.startswith("_")]):
        each = getattr(module, name)
        if not (inspect.isclass(each) or inspect.isfunction(each)) or not each.__module__.startswith("imae_ext"):
            continue
        found.append(each)
        if inspect.isclass(each):
            found += [member for member in vars(each).values() if inspect.isfunction(member)]
    return found


def main() -> None:
    done: set[int] = set()
    for module in (imae_ext, imae_ext.reference):
        for each in documented(module):
            if each.__doc__ and id(each) not in done:
                each.__doc__ = typeset(inspect.cleandoc(each.__doc__))
                done.add(id(each))
    pdoc.render.configure(docformat="google", math=True, show_source=False, search=False)
    # Annotations that a module borrows from another are shown as they are written, which is what a reader wants.
    warnings.filterwarnings("ignore", "Error parsing type annotation")
    pdoc.pdoc("imae_ext", output_directory=HERE / "html")
    print(f"docs/api/html/index.html: {len(done)} docstrings")


if __name__ == "__main__":
    main()

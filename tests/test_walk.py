"""docs/walk.md is the way that a call takes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch

import imae_ext

ROOT = Path(__file__).parents[1]
PACKAGE = Path(imae_ext.__file__).parent
PAGE = (ROOT / "docs/walk.md").read_text()


def entered() -> list[tuple[str, str]]:
    """File and name of each function of the package that a small training step enters, as the page's example does."""
    logits, target = torch.randn(8, 5, requires_grad=True), torch.randint(5, (8,))
    seen = []

    def note(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.parent == PACKAGE:
            seen.append((path.name, frame.f_code.co_name))

    imae_ext.imae_loss(logits, target).backward()  # makes the formula
    sys.setprofile(note)
    try:
        imae_ext.imae_loss(logits, target).backward()
    finally:
        sys.setprofile(None)
    return seen


def test_the_table_is_what_a_call_enters():
    table = re.findall(r"^\| `(\w+\.py)` \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert table == entered()


def test_the_files_and_functions_in_c_are_there():
    named = re.findall(r"`(csrc/[\w/.]+)`(?:, `(\w+)`)?", PAGE)
    assert len(named) >= 10
    for file, name in named:
        assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), (file, name)

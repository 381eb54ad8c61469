"""Every hint of every message, followed: what it says to pass works, and computes what was meant."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hint_calls import logits, one_hot, several, target, x
from hints_of_arguments import OF_ARGUMENTS
from hints_of_heads import OF_HEADS
from hints_of_processes import OF_PROCESSES
from hints_of_targets import OF_TARGETS
from hints_of_tensors import OF_TENSORS

import imae_ext
from imae_ext import AGCE, MAE, NCE, cce_loss, hints

PACKAGE = Path(imae_ext.__file__).parent
TABLE = {**OF_TARGETS, **OF_TENSORS, **OF_ARGUMENTS, **OF_HEADS, **OF_PROCESSES}


@pytest.mark.parametrize("name", TABLE)
def test_a_hint_leads_to_what_was_meant(name):
    hint = TABLE[name]
    with pytest.raises(hint.error) as caught:
        hint.wrong()
    message = str(caught.value)
    assert message.startswith("imae_ext: ") and message.endswith(hint.says), message
    followed, wanted = hint.followed(), hint.wanted()
    if isinstance(wanted, torch.Tensor) and wanted.device.type == "meta":
        assert followed.shape == wanted.shape
    else:
        torch.testing.assert_close(followed, wanted)


def executed() -> tuple[set[int], set[tuple[str, int]]]:
    """Run the wrong calls: return the lines of hints.py that ran, and where in the package errors were raised."""
    lines: set[int] = set()
    raised: set[tuple[str, int]] = set()

    def trace(frame, event, argument):
        if frame.f_code.co_filename == hints.__file__ and event == "line":
            lines.add(frame.f_lineno)
        return trace

    for hint in TABLE.values():
        sys.settrace(trace)
        try:
            hint.wrong()
        except Exception as error:
            at = error.__traceback__
        finally:
            sys.settrace(None)
        while at:
            raised.add((Path(at.tb_frame.f_code.co_filename).name, at.tb_lineno))
            at = at.tb_next
    return lines, raised


def test_every_hint_is_in_the_table():
    """A branch of hints.py, or a raise with a hint of its own, that the table does not reach."""
    lines, raised = executed()
    missing = []
    for node in ast.walk(ast.parse(Path(hints.__file__).read_text())):
        says = any(isinstance(each, ast.Constant) and "; " in str(each.value) for each in ast.walk(node))
        if isinstance(node, ast.Return) and says and not lines & set(range(node.lineno, node.end_lineno + 1)):
            missing.append(f"hints.py:{node.lineno}")
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Raise):
                continue
            text = ast.unparse(node)
            if ("; " in text or "hint" in text) and not any(
                (path.name, line) in raised for line in range(node.lineno, node.end_lineno + 1)
            ):
                missing.append(f"{path.name}:{node.lineno}: {text[:90]}")
    assert not missing, "\n".join(missing)


def test_one_hot_is_only_what_has_one_label_a_row():
    """Two labels or none in a row: argmax would take one of them in silence."""
    for wrong in (several, one_hot * 2, one_hot - 1):
        with pytest.raises((TypeError, ValueError)) as caught:
            cce_loss(logits, wrong)
        assert "argmax" not in str(caught.value)


def test_soft_labels_of_one_logit_are_not_cut_to_integers():
    with pytest.raises(ValueError, match="imae_ext: expected probabilities of 2 classes or more") as caught:
        cce_loss(x[:, None], torch.full((6, 1), 0.3))
    assert "long()" not in str(caught.value) and "argmax" not in str(caught.value)


def test_messages_without_values_to_look_at_do_not_look():
    """Under torch.func and on fake tensors a look would be an error of its own."""
    for wrong in (one_hot, target.float()):
        with pytest.raises((TypeError, ValueError), match="imae_ext: expected target"):
            torch.func.vmap(cce_loss)(logits[None], wrong[None])


def test_numpy_numbers_are_coefficients():
    assert np.float64(2) * MAE() == 2 * MAE() == MAE() * np.float32(2) and repr(np.float64(2) * MAE()) == "2.0 * MAE()"
    assert NCE() + AGCE() == sum([NCE(), AGCE()])

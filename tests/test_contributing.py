"""CONTRIBUTING.md names commands, targets and files that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import sizes

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]


def test_it_has_commands() -> None:
    assert any(command == "make quick" for command in COMMANDS)
    assert all(re.match(r"(make [a-z]|pytest tests/|\.ci/run$)", command) for command in COMMANDS), COMMANDS


@pytest.mark.parametrize(
    "target", sorted({m for text in (TEXT, *COMMANDS) for m in re.findall(r"make ([a-z-]+)\b", text)})
)
def test_target_exists(target: str) -> None:
    """Every word after "make" in code is a target; in prose "make" is avoided."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def test_targets_expand() -> None:
    """Make can plan every target of the page, nothing run."""
    targets = sorted({m for command in COMMANDS for m in re.findall(r"^make ([a-z-]+)", command)})
    done = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_files_exist() -> None:
    named = set(re.findall(r"\]\(([^)#:]+)\)", TEXT)) | set(re.findall(r"`((?:tests|docs|csrc)/[\w/.-]+)`", TEXT))
    named |= {word for command in COMMANDS for word in command.split() if word.startswith(("tests/", ".ci/"))}
    assert len(named) > 3
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_files_and_functions_can_be_read_at_a_sitting() -> None:
    """Nothing is longer than the page says but for the exceptions, which are still as long."""
    files, functions = sizes.too_long()
    advice = (
        "part what is too long, or name it with its reason in tests/sizes.py; what is no longer too long goes there"
    )
    assert files == set(sizes.FILES), advice
    assert functions == set(sizes.FUNCTIONS), advice


def test_lengths_by_hand() -> None:
    """A docstring does not count, a nested block does not end a function."""
    made = 'def f(x):\n    """One\n    two\n    """\n    if x:\n        return 1\n    return 2\n'
    assert list(sizes.of_python(made)) == [("f", 4)]
    made = "template <class T>\nvoid g(T x) {\n  if (x) {\n    h(x);\n  }\n}\n"
    assert list(sizes.of_cpp(made)) == [("g", 5)]

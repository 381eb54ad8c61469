"""CONTRIBUTING.md names commands, targets and files that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

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

"""docs/distributed.md: its code runs, its training example ends where one process does, its model is what is stored."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.distributed import model

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/distributed.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_examples_run():
    """Of one process each, all in one process of its own, since DDP and meshes leave threads and groups behind."""
    assert len(EXAMPLES) == 3
    ends = [f"{code}\nassert loss.isfinite()\n" for code in EXAMPLES]
    for code in ends:
        compile(code, "docs/distributed.md", "exec")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", "\n".join(ends)], check=True, cwd=ROOT, env=environment, timeout=120)


@pytest.mark.parametrize("size", (2, 4))
def test_training_over_processes(size):
    """By torchrun, as the page says."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, "-m", "benchmarks.distributed.train"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for way in ("ddp", "fsdp", "tensor_parallel"):
        assert re.search(rf"^{way}: {size} processes, off by \d", done.stdout, re.MULTILINE), done.stdout


def test_the_model_of_bytes_is_that_of_the_stored_counts():
    for line in model.table("bfloat16"):
        assert line in PAGE, f"python -m benchmarks.distributed.model: {line}"


def test_the_stored_speed_is_what_was_asked_for():
    """Two processes, 1024x128256: at least 1.5x as fast as torch's loss_parallel, in the same run."""
    stored = json.loads(model.COUNTED.read_text())
    assert (stored["rows"], stored["classes"]) == (1024, 128256)
    for dtype, found in stored["found"].items():
        for name in ("CCE", "IMAE", "NCE"):
            ratio = found["torch"]["median"] / found[name]["median"]
            assert ratio >= 1.5, (dtype, name, ratio)
            assert found[name]["numbers_a_row"] <= 4

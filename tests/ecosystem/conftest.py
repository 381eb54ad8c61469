"""The losses inside the real packages: `make ecosystem` installs them, `make test` leaves this folder out.

Models are tiny and randomly initialised; nothing is downloaded.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the packages are imported
os.environ["HF_DATASETS_OFFLINE"] = "1"

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    """Let torchvision, which timm imports, load beside a torch for CPUs.

    Its wheels on PyPI are built for CUDA: their operators cannot be loaded there, and torchvision then fails to
    register what two of them do on the meta device. Nothing here calls them, so their names are enough.
    """
    if torch.version.cuda is None:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

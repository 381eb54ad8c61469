"""What the tests of wrong labels look at: outputs, and clusters some of whose labels are wrong."""

from __future__ import annotations

import numpy as np
import torch

SHORT = {"rates": [0.01], "lengths": [4, 8], "hidden": [32], "folds": 3, "progress": False}


def logits_of(N: int = 40, C: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(N, C, generator=generator), torch.randint(C, (N,), generator=generator)


def clusters(N: int = 60, C: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make features around C corners, labels some of which are wrong, and which of them are."""
    generator = np.random.default_rng(seed)
    clean = np.arange(N) % C
    features = 4 * np.eye(C)[clean] + 0.5 * generator.standard_normal((N, C))
    wrong = np.zeros(N, dtype=bool)
    wrong[generator.permutation(N)[: N // 10]] = True
    return features, np.where(wrong, (clean + 1) % C, clean), wrong

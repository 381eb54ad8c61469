"""Fused noise-robust classification losses for PyTorch.

>>> import torch, imae_ext
>>> logits, target = torch.zeros(4, 10, requires_grad=True), torch.arange(4)
>>> imae_ext.imae_loss(logits, target).backward()

The losses: :func:`imae_loss`, :func:`robust_loss` with any formula, and the modules, drop-in for
``nn.CrossEntropyLoss``. :func:`value_and_grad` and :func:`row_stats` work outside autograd. ``imae_ext.reference`` is
the same in plain PyTorch.
"""

from . import reference
from .binary import BinaryRobustLoss, binary_robust_loss
from .distributed.vocab import vocab_parallel_robust_loss
from .formulas import (
    AEL,
    AGCE,
    AUL,
    CCE,
    DM,
    GCE,
    IMAE,
    MAE,
    MSE,
    NCE,
    RCE,
    SCE,
    Combination,
    Focal,
    Formula,
    LabelSmoothing,
    SingleFormula,
    TaylorCE,
)
from .from_nll import robust_loss_from_nll
from .functional import robust_loss, row_stats, value_and_grad
from .label_errors import LabelErrors, find_label_errors, label_errors
from .linear import LinearRobustLoss, linear_robust_loss
from .losses import (
    ael_loss,
    agce_loss,
    aul_loss,
    cce_loss,
    dm_loss,
    focal_loss,
    gce_loss,
    imae_loss,
    label_smoothing_loss,
    mae_loss,
    mse_loss,
    nce_loss,
    rce_loss,
    sce_loss,
    taylor_ce_loss,
)
from .mixed import mixed_loss
from .modules import RobustLoss
from .named_modules import (
    AELLoss,
    AGCELoss,
    AULLoss,
    CCELoss,
    DMLoss,
    FocalLoss,
    GCELoss,
    IMAELoss,
    LabelSmoothingLoss,
    MAELoss,
    MSELoss,
    NCELoss,
    RCELoss,
    SCELoss,
    TaylorCELoss,
)
from .stats import RowStats
from .votes import vote_shares

__version__ = "0.1.0"

__all__ = [
    "AEL",
    "AGCE",
    "AUL",
    "CCE",
    "DM",
    "GCE",
    "IMAE",
    "MAE",
    "MSE",
    "NCE",
    "RCE",
    "SCE",
    "AELLoss",
    "AGCELoss",
    "AULLoss",
    "BinaryRobustLoss",
    "CCELoss",
    "Combination",
    "DMLoss",
    "Focal",
    "FocalLoss",
    "Formula",
    "GCELoss",
    "IMAELoss",
    "LabelErrors",
    "LabelSmoothing",
    "LabelSmoothingLoss",
    "LinearRobustLoss",
    "MAELoss",
    "MSELoss",
    "NCELoss",
    "RCELoss",
    "RobustLoss",
    "RowStats",
    "SCELoss",
    "SingleFormula",
    "TaylorCE",
    "TaylorCELoss",
    "ael_loss",
    "agce_loss",
    "aul_loss",
    "binary_robust_loss",
    "cce_loss",
    "dm_loss",
    "find_label_errors",
    "focal_loss",
    "gce_loss",
    "imae_loss",
    "label_errors",
    "label_smoothing_loss",
    "linear_robust_loss",
    "mae_loss",
    "mixed_loss",
    "mse_loss",
    "nce_loss",
    "rce_loss",
    "reference",
    "robust_loss",
    "robust_loss_from_nll",
    "row_stats",
    "sce_loss",
    "taylor_ce_loss",
    "value_and_grad",
    "vocab_parallel_robust_loss",
    "vote_shares",
]

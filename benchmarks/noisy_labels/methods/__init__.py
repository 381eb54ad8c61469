"""Methods that papers on wrong labels propose, in plain PyTorch: a small class with hooks, one file each.

    method           what a method is, and when training calls it
    elr              early-learning regularization
    joint            joint optimisation of network and labels
    coteaching       co-teaching
    sop              sparse over-parameterization
    d2l              dimensionality-driven learning
    masking          masking
    bilevel          deep bilevel learning

A new one is a file here, a line in METHODS, and tests of its mathematics.
"""

from .bilevel import Bilevel
from .coteaching import CoTeaching
from .d2l import D2L
from .elr import ELR
from .joint import JointOptimization
from .masking import Masking
from .method import Batch, Epoch, Method, Procedure, Setting
from .sop import SOP

METHODS: tuple[type[Method], ...] = (ELR, JointOptimization, CoTeaching, SOP, D2L, Masking, Bilevel)

__all__ = [
    "D2L",
    "ELR",
    "METHODS",
    "SOP",
    "Batch",
    "Bilevel",
    "CoTeaching",
    "Epoch",
    "JointOptimization",
    "Masking",
    "Method",
    "Procedure",
    "Setting",
]

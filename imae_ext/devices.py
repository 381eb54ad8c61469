"""Which path a call takes, by the device of its logits: this build's kernels, or plain torch (imae_ext/plain.py).

>>> path_of("cpu") in (KERNELS, PLAIN)
True
"""

from __future__ import annotations

import logging
import os
import re

import torch
from torch import Tensor

from . import _torch
from ._extension import compiled

KERNELS, PLAIN = "kernels", "plain torch"
_KNOWN = ("cpu", "cuda")


def _allowed() -> frozenset[str]:
    """Read IMAE_EXT_DEVICES: the device types whose kernels may be used."""
    wish = os.environ.get("IMAE_EXT_DEVICES")
    if wish is None:
        return frozenset((*_KNOWN, "meta"))
    names = frozenset(name.strip() for name in wish.split(",") if name.strip())
    if names - set(_KNOWN):
        raise ValueError(
            f"imae_ext: expected IMAE_EXT_DEVICES to name, of {', '.join(_KNOWN)}, those whose kernels may be used, "
            f"separated by commas, or to be empty, got {wish!r}"
        )
    return names


def _without_kernels(device_type: str) -> str:
    """Return why no kernel of this build can serve a type of device, or nothing."""
    if compiled is None:
        return "the compiled extension is missing"
    if _torch.missing:
        return f"torch has no {_torch.missing[0]}"
    if device_type not in (*_KNOWN, "meta"):
        return f"there are no kernels for {device_type}"
    if device_type not in _allowed():
        return "IMAE_EXT_DEVICES leaves it out"
    if device_type == "cuda" and torch.version.hip:
        return "there are no kernels for ROCm"
    if device_type == "cuda" and not compiled.cuda_architectures:
        return "this build has no CUDA kernels"
    return ""


_SERVED = frozenset(each for each in (*_KNOWN, "meta") if not _without_kernels(each))

serves_cpu = "cpu" in _SERVED  # for who knows that the logits are there


def runs_on(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether code for these architectures runs on a GPU of this compute capability.

    >>> runs_on("8.0;9.0+PTX", (8, 6)), runs_on("8.0;9.0+PTX", (12, 0)), runs_on("9.0", (10, 0))
    (True, True, False)
    """
    for major, minor, ptx in re.findall(r"(\d+)\.(\d+)a?(\+PTX)?", architectures):
        built = int(major), int(minor)
        if built <= capability and (ptx or built[0] == capability[0]):
            return True
    return False


@_torch.constant
def _gpu_is_served(index: int | None) -> bool:
    known = _gpus.get(index)
    if known is None:
        assert compiled is not None
        known = _gpus[index] = runs_on(compiled.cuda_architectures, torch.cuda.get_device_capability(index))
    return known


_gpus: dict[int | None, bool] = {}


def has_kernels(logits: Tensor) -> bool:
    """Whether this build's kernels serve these logits; says once of each type of device if they do not."""
    if getattr(logits, "is_cpu", False) and "cpu" in _SERVED:  # as below, in a third of the time
        return True
    device = getattr(logits, "device", None)
    kind = getattr(device, "type", None)
    if device is None or kind is None:  # no tensor, which either path refuses
        return False
    if kind in _SERVED and (kind != "cuda" or _gpu_is_served(device.index)):
        return True
    if kind not in _announced:
        announce(kind)
    return False


def path_of(device_type: str, index: int | None = None) -> str:
    """Return which path the logits of a device take."""
    served = device_type in _SERVED and (device_type != "cuda" or _gpu_is_served(index))
    return KERNELS if served else PLAIN


def reason(device_type: str, index: int | None = None) -> str:
    """Say why a device's logits take the plain path; nothing if they do not."""
    if path_of(device_type, index) == KERNELS:
        return ""
    capability = f"its compute capability is not among {getattr(compiled, 'cuda_architectures', '')}"
    return _without_kernels(device_type) or capability


_announced: set[str] = set()


@_torch.constant
def announce(device_type: str) -> None:
    """Say once that a type of device runs in plain torch, unless the user or an earlier warning said so."""
    if device_type in _announced:
        return
    _announced.add(device_type)
    if compiled is None or _torch.missing or os.environ.get("IMAE_EXT_DEVICES") is not None:
        return
    if device_type == "cuda" and not torch.version.hip:
        how = "install a wheel, or build where nvcc is: IMAE_CUDA=1 pip install --no-build-isolation ."
    else:
        how = "there are kernels for cpu and cuda; torch.compile makes some where it supports the device"
    logging.getLogger("imae_ext").warning(
        "imae_ext: on %s the losses run in plain torch, right but slower than by a kernel: %s (%s)",
        device_type,
        reason(device_type),
        how,
    )

"""Every name that is used of torch and is not public, with what happens once torch has it no longer.

The kernels' path needs all of them: while any is missing, the losses run in plain torch (imae_ext/plain.py), which does
without, right but slower, and one warning says so.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from functools import cache, reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ._extension import compiled

missing: list[str] = []


def _find(name: str, otherwise: Any) -> Any:
    """Return what torch has under the name, or something that is right in every case."""
    try:
        return reduce(getattr, name.split("."), torch)
    except AttributeError:
        missing.append(f"torch.{name}")
        return otherwise


# inside torch.func.grad, vmap, ...; unknown: as if it were so, which the reference computes
transforming: Callable[[], bool] = _find("_C._are_functorch_transforms_active", lambda: True)
# several grad_outputs at once, is_grads_batched; unknown: as if it were so, and nothing is done in place
is_batch: Callable[[Tensor], bool] = _find("_C._functorch.is_legacy_batchedtensor", lambda _: True)
# logits that outlived the transform they were made in; unknown: torch's own ops and Function.apply do it
unwrap: Callable[[Tensor], Tensor] = _find("_C._functorch.unwrap_if_dead", lambda x: x)
# the hooks of checkpointing and offloading, None without; unknown: as if there were some, and nothing is kept
saving_hooks: Callable[[bool], Any] = _find("_C._autograd._top_saved_tensors_default_hooks", lambda _: True)
# whether this backward retains the graph; unknown: as if it did, and what was given is held as long as the loss is
keeps_graph: Callable[[], bool] = _find("_C._autograd._get_current_graph_task_keep_graph", lambda: True)
# how many modes such as FakeTensorMode are on; unknown: subclasses tell
modes: Callable[[], int] = _find("_C._len_torch_dispatch_stack", lambda: 0)
# the level of forward mode, -1 outside; unknown: as if inside, which the reference computes
_find("autograd.forward_ad._current_level", None)
# whether torch.export traces; is_compiling() says so, too, in twice the time
_find("compiler._is_compiling_flag", None)


def transformed() -> bool:
    """Whether a transform of torch.func is active, or a level of forward mode is open."""
    return transforming() or getattr(forward_ad, "_current_level", 0) >= 0


def has_values(x: Tensor) -> bool:
    """Whether a tensor's values may be looked at: not in torch.func, torch.compile, make_fx or FakeTensorMode."""
    if torch.compiler.is_compiling() or modes() > 0:
        return False
    active = "torch._C._are_functorch_transforms_active" not in missing and transforming()
    return not active and (not missing or type(x) in (Tensor, torch.nn.Parameter))


# Of an address, and whether a double is there; without the compiled module nothing asks.
is_one_at: Callable[[int, bool], bool] = getattr(compiled, "is_one", lambda address, is_float64: False)


def call_of(operator: Callable[..., Any]) -> Callable[..., Any]:
    """Return what an operator calls, without its Python: a tenth of a small call."""
    return getattr(operator, "_op", operator)


def multiplies_bfloat16() -> bool:
    """Whether this CPU has products of bfloat16 and torch's library may use them; unknown: not, which is slower."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "ALL")).upper()
    if not torch.backends.mkldnn.enabled or not re.match("ALL|DEFAULT|AVX512_CORE_(BF16|FP16|AMX)|AVX10", limit):
        return False
    return _has_bfloat16()


@cache
def _has_bfloat16() -> bool:
    try:
        known = torch.cpu.get_capabilities()
    except AttributeError:  # an older torch
        return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def apply_of(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """Return Function.apply without what it does for torch.func's transforms: a seventh of a small call."""
    return getattr(super(torch.autograd.Function, function), "apply", function.apply)


def call_directly(function: type[torch.autograd.Function]) -> None:
    """Have autograd call a Function's backward itself, not a method that looks for it: a fiftieth of a small step.

    And give the class itself the attributes that autograd asks it for in every step, which it has from its bases.
    """
    if hasattr(function, "_backward_cls"):
        function._backward_cls.apply = function.backward  # type: ignore[attr-defined]
    for name in ("clear_saved_tensors_on_access", "boxed_grads_call", "setup_context"):
        if hasattr(function, name):
            setattr(function, name, getattr(function, name))


def constant(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have torch.compile call a function once and keep the result.

    It is torch.compiler.assume_constant_result, which would import the whole compiler.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


if missing:
    warnings.warn(
        f"imae_ext: torch {torch.__version__} has no {', '.join(missing)}: the losses run in plain torch, slower "
        "than by the kernels; look for a newer imae_ext",
        RuntimeWarning,
        stacklevel=2,
    )

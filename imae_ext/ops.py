"""The operators torch.ops.imae_ext.* and their derivative.

mean and sum of float32, bfloat16 and float64 logits write the gradient in the forward pass; backward hands that buffer
over, scaled by grad_output if it is not 1. The other cases save each row's coefficients, and backward reads the logits
again: grad_output differs from row to row (none), the divisor is known only at the end (normalized), or a loss scale
must be applied before rounding (float16).

A row that does not count, since its label is ignored or it weighs nothing, has a gradient of exactly 0 whatever comes
from above: 0 times an upstream gradient of inf or NaN, as of a sum divided by a count of 0, would be NaN and end in
every weight of a model. So whatever multiplies a gradient knows which rows count.

Whatever the kernels cannot differentiate goes through the reference, which is right to any order: a gradient that is
itself differentiated, the transforms of torch.func, forward mode, and weights that want a gradient.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, compiler
from torch.autograd import forward_ad
from torch.autograd.graph import increment_version

from . import _torch, by_reference, checks, held, out_checks, reference
from .by_reference import Options
from .checks import REDUCTIONS
from .formulas import Formula, unpack

_op = torch.ops.imae_ext
_forward = _op.forward.default
_forward_backward = _op.forward_backward.default
# For eager calls alone: torch.compile cannot trace these.
_eager_forward_backward = _torch.call_of(_forward_backward)
_eager_forward_backward_mean = _torch.call_of(_op.forward_backward_mean.default)
_eager_forward_backward_out = _torch.call_of(_op.forward_backward_out.default)
_forward_save = _op.forward_save.default
_traced_forward_backward = _op.traced_forward_backward.default
_traced_forward_save = _op.traced_forward_save.default
_backward = _op.backward.default
_scale = _op.scale_.default
_row_stats = _op.row_stats.default

_compiling, _in_dynamo, is_one_at = compiler.is_compiling, compiler.is_dynamo_compiling, _torch.is_one_at
# Python finds a name of torch, which has a __getattr__, in ten times the time of one of this module.
_is_grad_enabled, _float64, _float16 = torch.is_grad_enabled, torch.float64, torch.float16

Pair = tuple[Tensor, Tensor]


def _arguments(logits: Tensor, target: Tensor, options: Options) -> tuple[Any, ...]:
    """Return what the operators of a loss take."""
    formula, weight, sample_weight, ignore_index, reduction = options
    return logits, target, formula.packed, weight, sample_weight, ignore_index, REDUCTIONS[reduction]


def _scaled(grad: Tensor, grad_output: Tensor, target: Tensor, options: Options) -> Tensor:
    """Do what scale_ does, rounding once, but not in place and in plain PyTorch."""
    _, weight, sample_weight, ignore_index, _ = options
    counts = reference.row_weights(target, weight, sample_weight, ignore_index, grad_output.dtype) != 0
    product = grad.to(grad_output.dtype) * grad_output
    return torch.where(counts.unsqueeze(min(1, grad.dim() - 1)), product, 0.0).to(grad.dtype)


# What the two Functions take beside the logits: the target and the options. One argument that is no tensor costs less
# than a tensor and a tuple.
_Given = tuple[Tensor, Options, bool]  # and whether there are weights


class _OnePass(torch.autograd.Function):
    """For eager mode: forward takes a context, the cheapest form of a Function. Its gradient is written in forward.

    The gradient, ready before it is asked for, is no saved tensor: reading one reads all, and the logits may have
    changed meanwhile, which is no error. It passes the hooks by itself: checkpointing drops it, offloading moves it.
    Without hooks nothing is a saved tensor, for to save and release them is a twentieth of a small step: what a second
    backward needs is held as long as they would be.

    ctx.held has the options; what held.given makes of the arguments, None with hooks; the gradient, or what a hook
    packed of it, None once it was given away; and the hook that unpacks it.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, given: _Given) -> Tensor:
        target, options, weighed = given
        formula, weight, sample_weight, ignore_index, reduction = options
        if weighed or ignore_index != -100 or reduction != "mean":
            loss, grad = _eager_forward_backward(*_arguments(logits, target, options))
        else:  # four arguments fewer, which is a thirtieth of a small step
            loss, grad = _eager_forward_backward_mean(logits, target, formula.packed)
        hooks = _torch.saving_hooks(False)
        if hooks:
            ctx.save_for_backward(logits, target, weight, sample_weight)
            ctx.held = options, None, hooks[0](grad), hooks[1]
        else:
            changes = logits._version + target._version  # what held.changes counts, without its call
            if weighed:
                changes += held.changes(weight, sample_weight)
            ctx.held = options, (logits, target, changes), grad, None
        return loss  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, None]:
        options, kept, grad, unpack = ctx.held
        compiling = _in_dynamo()
        later = kept if compiling or _torch.keeps_graph() else None
        if _is_grad_enabled():  # create_graph
            ctx.held = options, later, grad, unpack
            logits, target = held.given(ctx, options, kept)
            return by_reference.gradient(logits, target, options, grad_output), None
        ctx.held = options, later, None, None
        if unpack:
            return _scaled(unpack(grad), grad_output, ctx.saved_tensors[1], options), None
        if grad is None:  # a second backward through a retained graph; the first one gave the buffer away
            logits, target = held.given(ctx, options, kept)
            _, grad = _forward_backward(*_arguments(logits, target, options))
        else:
            target = kept[1]
        # A 1 changes nothing, and is known without waiting for a device, in half of what item() takes, where memory is
        # the value: not of a tensor that is to be negated, nor of one that is traced.
        is_plain = not compiling and type(grad_output) is Tensor and grad_output.is_cpu and not grad_output.is_neg()
        try:
            if is_plain and _torch.modes() == 0 and is_one_at(grad_output.data_ptr(), grad_output.dtype is _float64):
                return grad, None
        except RuntimeError:  # a transform's, which has no memory
            pass
        try:
            _, weight, sample_weight, ignore_index, _ = options
            _scale(grad, grad_output, target, weight, sample_weight, ignore_index)
        except RuntimeError:
            if not _torch.is_batch(grad_output):
                raise
            grad = _scaled(grad, grad_output, target, options)
        return grad, None


class _TwoPass(torch.autograd.Function):
    """The same, but backward reads the logits again, with the rows' coefficients from forward."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, given: _Given) -> Tensor:
        target, options, _ = given
        _, weight, sample_weight, _, _ = ctx.options = options
        loss, rows, divisor = _forward_save(*_arguments(logits, target, options))
        ctx.save_for_backward(logits, target, weight, sample_weight, rows, divisor)
        return loss  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, None]:
        logits, target, *_, rows, divisor = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph
            return by_reference.gradient(logits, target, ctx.options, grad_output), None
        ignore_index = ctx.options[3]
        try:
            return _backward(logits, target, rows, divisor, grad_output, ignore_index), None
        except RuntimeError:
            checks.check_labels(logits, target, ignore_index)
            _ask_for_memory(logits)
            raise


for _each in (_OnePass, _TwoPass):
    _torch.call_directly(_each)
# torch.func's transforms never get here
_apply_one_pass, _apply_two_pass = _torch.apply_of(_OnePass), _torch.apply_of(_TwoPass)


# --- for torch.compile and export: operators with a derivative of their own -----------------------------------------


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    logits, target, ctx.packed, weight, sample_weight, ctx.ignored, ctx.code = inputs
    ctx.save_for_backward(logits, target, weight, sample_weight, *output[1:])
    ctx.set_materialize_grads(False)


def _derivative(ctx: Any, grad_output: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    if any(other is not None for other in others):
        raise RuntimeError("imae_ext: the traced operators have a derivative of the loss alone")
    grad = None
    if grad_output is not None:
        logits, target, weight, sample_weight, *found = ctx.saved_tensors
        options = unpack(ctx.packed), weight, sample_weight, ctx.ignored, list(REDUCTIONS)[ctx.code]
        if torch.is_grad_enabled():  # create_graph
            grad = by_reference.gradient(logits, target, options, grad_output)
        elif len(found) == 1:
            grad = _scaled(found[0], grad_output, target, options)
        else:
            grad = _backward(logits, target, *found, grad_output, ctx.ignored)
    return grad, None, None, None, None, None, None


for _name in ("traced_forward_backward", "traced_forward_save"):
    torch.library.register_autograd(f"imae_ext::{_name}", _derivative, setup_context=_save)


# What a compiled graph reads in backward tells torch < 2.13 whether that may be differentiated again. It must be logits
# then, which are read twice: with the gradient alone, a penalty would silently be left out.
_MAY_KEEP_GRADIENT = torch.__version__ >= "2.13"


def _traced(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    formula, weight, sample_weight, ignore_index, reduction = options
    checks.check_options(formula, reduction, ignore_index)
    checks.check_tensors(logits, target, weight, sample_weight)
    arguments = _arguments(logits, target, options)
    if not torch.is_grad_enabled():
        return cast(Tensor, _forward(*arguments))
    one_pass = _MAY_KEEP_GRADIENT and reduction in ("mean", "sum") and logits.dtype is not _float16
    return cast(Tensor, (_traced_forward_backward if one_pass else _traced_forward_save)(*arguments)[0])


def _ask_for_memory(logits: Tensor) -> None:
    """Raise torch's own error if there is none for the gradient: the operators only tell which call failed."""
    torch.empty_like(logits)


# What wrong arguments may raise before checks.py has looked at them. Not Exception: checkpointing ends a recomputation
# with one of its own.
REFUSALS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


def needs_reference(*others: Tensor | None) -> bool:
    """Whether the kernels do not serve: a derivative by another tensor than the logits, a transform, forward mode."""
    return _torch.transformed() or any(getattr(each, "requires_grad", False) for each in others)


def loss(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    """Compute the loss, differentiable with respect to the logits."""
    _, weight, sample_weight, ignore_index, reduction = options
    if type(ignore_index) is not int:
        options = checks.plain(options)
    weighed = weight is not None or sample_weight is not None
    if _torch.transforming() or forward_ad._current_level >= 0 or (weighed and needs_reference(weight, sample_weight)):
        return by_reference.loss(logits, target, options)
    if _in_dynamo() or compiler._is_compiling_flag:
        return _traced(logits, target, options)
    try:
        if logits.requires_grad and _is_grad_enabled():
            if reduction in ("mean", "sum") and logits.dtype is not _float16:
                return _apply_one_pass(_torch.unwrap(logits), (target, options, weighed))  # type: ignore[no-any-return]
            return _apply_two_pass(_torch.unwrap(logits), (target, options, weighed))  # type: ignore[no-any-return]
        return _forward(*_arguments(logits, target, options))  # type: ignore[no-any-return]
    except REFUSALS:
        checks.check(logits, target, *options)
        if logits.requires_grad and torch.is_grad_enabled():
            held.check_counted(target, weight, sample_weight)
            _ask_for_memory(logits)
        raise


def value_and_grad(logits: Tensor, target: Tensor, options: Options, out: Tensor | None) -> Pair:
    """Compute the loss and its gradient, into `out` if given, outside autograd."""
    *_, ignore_index, reduction = options = checks.plain(options)
    compiling = _compiling()
    if compiling:  # what is refused while tracing can be said; later, it could not
        checks.check(logits, target, *options)
        if out is not None:
            out_checks.check_out(logits, out)
    try:
        if logits.requires_grad:
            logits = logits.detach()
        arguments = _arguments(logits, target, options)
        if reduction == "normalized":
            if out is not None:
                out_checks.check_out(logits, out)
            value, *rows = _forward_save(*arguments)
            grad = _backward(logits, target, *rows, torch.ones_like(value), ignore_index)
            return value, grad if out is None else out.copy_(grad)
        if out is None:
            return cast(Pair, (_forward_backward if compiling else _eager_forward_backward)(*arguments))
        if out.requires_grad:
            out_checks.check_out(logits, out)
        if compiling:  # a graph cannot be told whether out shares the logits' memory: then, too, this is right
            value, grad = _forward_backward(*arguments)
            return value, out.copy_(grad)
        value = _eager_forward_backward_out(*arguments, out)
        increment_version(out)  # so that autograd notices if it had saved the buffer
        return value, out
    except REFUSALS:
        checks.check(logits, target, *options)
        if out is None:
            _ask_for_memory(logits)
        else:
            out_checks.check_out(logits, out)
        raise


def row_stats(logits: Tensor, target: Tensor, formula: Formula, ignore_index: int) -> Pair:
    """Compute p_y and the example weight of each row."""
    if type(ignore_index) is not int:
        ignore_index = checks.as_label(ignore_index)
    if _compiling():
        checks.check(logits, target, formula, None, None, ignore_index, "normalized")
    try:
        return cast(Pair, _row_stats(logits.detach(), target, formula.packed, ignore_index))
    except REFUSALS:
        checks.check(logits, target, formula, None, None, ignore_index, "normalized")
        raise

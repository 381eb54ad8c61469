"""Faults of what runs on any device: the three steps in plain torch, and the choice between them and the kernels."""

from __future__ import annotations

from fault import Fault

PLAIN, CHOICE = ("test_plain.py",), ("test_devices.py",)

ANYWHERE = (
    Fault(
        "imae_ext/plain.py",
        "largest = largest.masked_fill(largest == -torch.inf, 0.0)",
        "pass",
        "in plain torch a row whose other classes have no mass is NaN",
        ("test_contract_values.py",),
        only="plain",
    ),
    Fault(
        "imae_ext/plain.py",
        "u = u.masked_fill(found.z_y == torch.inf, torch.nan)  # as softmax has it",
        "pass",
        "in plain torch an infinite label logit is a perfect fit instead of NaN",
        ("test_contract_values.py",),
        only="plain",
    ),
    Fault(
        "imae_ext/plain.py",
        "a, b = by_rest * ((C - 1) * row.r) - by_u, -by_rest",
        "a, b = by_rest * ((C - 1) * row.r) - by_u, None",
        "in plain torch the part of the gradient that is alike for all classes is left out",
        PLAIN,
    ),
    Fault(
        "imae_ext/plain.py",
        "self.live = self.live & ((self.weight != 0) | ~known)",
        "pass",
        "in plain torch a row of weight 0 counts",
        PLAIN,
    ),
    Fault(
        "imae_ext/plain.py",
        "found._replace(z_y=found.z_y.masked_fill(~known, torch.nan))",
        "found",
        "in plain torch a label out of range is taken for the last class",
        CHOICE,
    ),
    Fault(
        "imae_ext/plain.py",
        "call, ctx.call = ctx.call, None",
        "call = ctx.call",
        "in plain torch a second backward takes the first one's gradient for logits",
        PLAIN,
    ),
    Fault(
        "imae_ext/plain.py",
        "None if _torch.saving_hooks(False) else call",
        "call",
        "in plain torch the buffer is kept past the hooks of checkpointing",
        PLAIN,
    ),
    Fault(
        "imae_ext/plain.py",
        "self.divisor = self._total(self._counted(weight * reference._example_weight(self.formula, row)))",
        "self.divisor = self._total(self._counted(reference._example_weight(self.formula, row)))",
        "in plain torch normalized divides by the example weights alone",
        ("test_sample_weight.py",),
    ),
    Fault(
        "imae_ext/plain.py",
        "compute = torch.float32 if logits.dtype.itemsize < 4 else logits.dtype",
        "compute = logits.dtype",
        "in plain torch half precision is computed in half precision",
        PLAIN,
    ),
    Fault(
        "imae_ext/plain.py",
        "return (grad * by if batch else grad.mul_(by)).to(self.dtype)",
        "return grad.mul_(by).to(self.dtype)",
        "in plain torch a batch of upstream gradients is written into the one buffer",
        PLAIN,
    ),
    Fault(
        "imae_ext/devices.py",
        "if built <= capability and (ptx or built[0] == capability[0]):",
        "if built <= capability:",
        "kernels of an older GPU are taken for the present one's",
        CHOICE,
    ),
    Fault(
        "imae_ext/functional.py",
        "    if devices.has_kernels(logits):\n        return soft_ops",
        "    if compiled:\n        return soft_ops",
        "probabilities go to kernels that are switched off",
        CHOICE,
    ),
    Fault(
        "imae_ext/mixed.py",
        "mixed_ops.loss if devices.has_kernels(logits) else",
        "mixed_ops.loss if compiled else",
        "two labels go to kernels that are switched off",
        CHOICE,
    ),
    Fault(
        "imae_ext/binary.py",
        "if devices.has_kernels(logits):",
        "if compiled:",
        "binary losses go to kernels that are switched off",
        CHOICE,
    ),
    Fault(
        "imae_ext/linear.py",
        " or not devices.has_kernels(x)",
        "",
        "a head goes to kernels that are switched off",
        CHOICE,
    ),
)

"""Faults of what lies between processes: groups, spread classes, DTensor, signatures."""

from __future__ import annotations

from fault import Fault

GROUP, SPREAD = ("test_group.py",), ("test_spread.py",)

SPREAD_FAULTS = (
    Fault(
        "imae_ext/distributed/groups.py",
        "share = (factor / safe)",
        "share = (1 / safe)",
        "a group's gradient lacks the factor that averaging divides by",
        GROUP,
    ),
    Fault(
        "imae_ext/distributed/groups.py",
        "safe = torch.where(whole_divisor == 0, 1.0, whole_divisor)",
        "safe = whole_divisor",
        "a group without any row that counts makes NaN of gradients",
        GROUP,
    ),
    Fault(
        "imae_ext/distributed/groups.py",
        "whole = total(part, groups) / factor\n    by",
        "whole = part / factor\n    by",
        "a process sees the value of its own rows",
        GROUP,
    ),
    Fault(
        "imae_ext/distributed/groups.py",
        "numbers = (whole, factor / whole_divisor, -factor * whole / whole_divisor)",
        "numbers = (whole, factor / whole_divisor, 0 * whole)",
        "a weight's gradient leaves out the divisor",
        GROUP,
    ),
    Fault(
        "imae_ext/distributed/rows.py",
        'if reduction == "mean":\n        return by.sum()',
        'if reduction == "mean":\n        return (by != 0).to(by.dtype).sum()',
        "a group's mean divides by the number of rows whatever they weigh",
        GROUP,
    ),
    Fault(
        "imae_ext/distributed/head_of_group.py",
        "of_mean.sum()",
        "counts.to(torch.float64).sum()",
        "a fused head's mean over a group forgets the weights",
        GROUP,
    ),
    Fault(
        "imae_ext/trainers.py",
        "* groups_[0].size()",
        "* 1",
        "a trainer's loss over a group has a gradient too small",
        GROUP,
    ),
    Fault(
        "imae_ext/distributed/signature.py",
        "if mine != theirs:",
        'if field != "formula" and mine != theirs:',
        "nobody notices that processes compute other formulas",
        GROUP,
    ),
    Fault(
        "imae_ext/distributed/spread.py",
        "sums = [own.sum_exp * off.exp(), own.z_y]",
        "sums = [own.sum_exp, own.z_y]",
        "the processes' sums are added up though they are of other maxima",
        SPREAD,
    ),
    Fault(
        "imae_ext/distributed/spread.py",
        "others = (size - self.here.long())",
        "others = (size + 0 * self.here.long())",
        "the label counts among the others of its process",
        SPREAD,
    ),
    Fault(
        "imae_ext/distributed/spread.py",
        "empty = (own.sum_exp == 0) | ~torch.isfinite(own.shift)",
        "empty = ~torch.isfinite(own.shift)",
        "a process without any mass decides the maximum",
        SPREAD,
    ),
    Fault(
        "imae_ext/distributed/spread.py",
        "torch.where(here, g_y, first)",
        "g_y",
        "the first class of a process gets the gradient of a label that is elsewhere",
        SPREAD,
    ),
    Fault(
        "imae_ext/distributed/spread.py",
        "shift = shift.masked_fill(~self.live, torch.inf)",
        "pass",
        "rows that do not count have a gradient",
        SPREAD,
    ),
    Fault(
        "imae_ext/distributed/spread.py",
        "if self.spread.rows else x.sum()",
        "if False else x.sum()",
        "a mean over a mesh of two dimensions is that of some rows",
        SPREAD,
    ),
    Fault(
        "imae_ext/distributed/dtensor.py",
        "chunk = -(-size[sharded] // mesh.size(k))",
        "chunk = max(size[sharded] // mesh.size(k), 1)",
        "shards of another size than torch's",
        SPREAD,
    ),
    Fault(
        "imae_ext/distributed/dtensor.py",
        "x = x.narrow(k, self.begin[dim], self.size[dim])",
        "x = x.narrow(k, 0, self.size[dim])",
        "every process takes the first rows of the target",
        SPREAD,
    ),
    Fault(
        "imae_ext/distributed/vocab.py",
        "Spread(first_class, num_classes, (found,), ())",
        "Spread(0, num_classes, (found,), ())",
        "every process takes its classes for the first ones",
        SPREAD,
    ),
)

"""The statistics of a row that no formula needs: log p, entropy, sum of squares, whether the label is on top.

In plain PyTorch, with a few tensors of the logits' size: the twin of csrc/describe.h, and what the derivative is taken
of. They are taken over the other classes and then joined with the label, so that nothing cancels: lse - sum p_j z_j
would be several nats off for float32 logits near 1e4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .reference import rows


class Asked(NamedTuple):
    """Which statistics are wanted."""

    log_p: bool = False
    entropy: bool = False
    sum_p2: bool = False
    is_top: bool = False


def statistics(logits: Tensor, target: Tensor, ignore_index: int, asked: Asked) -> list[Tensor | None]:
    """Return what is asked for, of the target's shape: log p and entropy differentiable, 0 for ignored rows."""
    log_p, entropy, sum_p2, is_top = asked
    if not any(asked):
        return [None] * 4
    row, live, y = rows(logits, target, ignore_index, needs_all_logits=False)
    finite = torch.isfinite(row.u)
    at = row._replace(u=torch.where(finite, row.u, 0.0))  # where the label has all mass, or none, p log p is 0
    wrong = torch.where(row.u.isnan(), row.u, 0.0)

    def given(x: Tensor) -> Tensor:
        return torch.where(live, x, 0.0).reshape(target.shape)

    found: list[Tensor | None] = [given(-row.nlp) if log_p else None, None, None, None]
    if not (entropy or sum_p2 or is_top):
        return found
    C = logits.shape[min(1, logits.dim() - 1)]
    z = logits.movedim(min(1, logits.dim() - 1), -1).reshape(-1, C).to(row.u.dtype)
    z = torch.where(live.unsqueeze(-1), z, 0.0)
    own = y.unsqueeze(-1) == torch.arange(C, device=y.device)
    others = torch.where(own, -torch.inf, z)
    top = others.detach().amax(-1)
    d = others - torch.where(torch.isfinite(top), top, 0.0).unsqueeze(-1)
    e = torch.exp(d)
    total = e.sum(-1)
    total = torch.where(total == 0, 1.0, total)  # no other class has any mass
    if entropy:
        of_others = torch.log(total) - (e * torch.where(d == -torch.inf, 0.0, d)).sum(-1) / total
        of_label = torch.where(finite, at.p * at.nlp - at.r * torch.nn.functional.logsigmoid(-at.u), 0.0)
        r = torch.where(finite, at.r, torch.where(row.u > 0, 0.0, 1.0))
        found[1] = given(of_label + r * of_others + wrong)
    if sum_p2:
        found[2] = given((row.p**2 + row.r**2 * ((e / total.unsqueeze(-1)) ** 2).sum(-1)).detach() + wrong)
    if is_top:
        z_y = z.detach().gather(-1, y.unsqueeze(-1)).squeeze(-1)
        found[3] = ((z_y >= top) & live & ~row.u.isnan()).reshape(target.shape)
    return found

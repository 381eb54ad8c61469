"""The layouts that logits come in.

Each takes (rows, C) values in their dtype and returns logits that hold them in its own way; rows in the order of
logits.movedim(1, -1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _offset(k: int) -> Callable[[Tensor], Tensor]:
    def place(x: Tensor) -> Tensor:
        store = torch.full((x.numel() + k,), float("nan"), dtype=x.dtype)
        store[k:] = x.reshape(-1)
        return store[k:].view_as(x)

    return place


def _padded(x: Tensor) -> Tensor:
    wide = torch.full((x.shape[0], x.shape[1] + 3), float("nan"), dtype=x.dtype)
    wide[:, 1:-2] = x
    return wide[:, 1:-2]


def _every_other(x: Tensor) -> Tensor:
    wide = torch.full((2 * x.shape[0], 2 * x.shape[1]), float("nan"), dtype=x.dtype)
    wide[::2, ::2] = x
    return wide[::2, ::2]


def _spatial(x: Tensor) -> Tensor:
    return x.view(2, 3, x.shape[0] // 6, x.shape[1]).permute(0, 3, 1, 2).contiguous()


LAYOUTS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "contiguous": ("the common case", lambda x: x),
    "transposed": ("classes strided, rows adjacent", lambda x: x.t().contiguous().t()),
    "padded": ("a slice of wider rows: row stride above C, NaN either side", _padded),
    "every_other": ("both strides doubled, NaN between the elements", _every_other),
    "expanded_rows": ("row stride 0: every row is the first", lambda x: x[:1].expand(x.shape[0], -1)),
    "expanded_classes": ("class stride 0: all logits of a row share one address", lambda x: x[:, :1].expand_as(x)),
    "vector": ("(C,): one row without a batch", lambda x: x[0]),
    "sequence": ("(N, C, d): classes in the middle", lambda x: x.view(3, -1, x.shape[1]).transpose(1, 2).contiguous()),
    "spatial": ("(N, C, d1, d2) as segmentation gives it", _spatial),
    "channels_last": ("the same, classes innermost", lambda x: _spatial(x).to(memory_format=torch.channels_last)),
    "spatial_crop": ("a crop: no two dimensions of it merge", lambda x: _crop(_spatial(x))),
    **{f"offset{k}": (f"storage starts {k} elements off alignment", _offset(k)) for k in range(1, 8)},
}


# Images of (N, C, d1, d2) that are already there, laid out anew.
RELAID: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, 3).contiguous().transpose(0, 3),
    "strided": lambda x: torch.stack([x, x], -1)[..., 0],
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "expanded": lambda x: x[:1].expand_as(x),
}


def _crop(x: Tensor) -> Tensor:
    whole = torch.full((x.shape[0] + 1, x.shape[1] + 1, x.shape[2] + 2, x.shape[3] + 3), float("nan"), dtype=x.dtype)
    crop = whole[1:, 1:, 1:-1, 2:-1]
    crop.copy_(x)
    return crop

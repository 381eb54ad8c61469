"""Small calls through every tier, dtype and operator, for compute-sanitizer."""

import itertools
import os

import torch

import imae_ext


def main() -> None:
    for C, dtype in itertools.product((3, 10, 64, 100, 1001, 9001), (torch.float32, torch.bfloat16, torch.float64)):
        z = torch.randn(40, C, device="cuda").to(dtype).requires_grad_()
        y = torch.randint(C, (40,), device="cuda")
        y[3] = -100
        for reduction in ("mean", "none", "normalized"):
            imae_ext.imae_loss(z, y, reduction=reduction).sum().mul(0.5).backward()
        imae_ext.row_stats(z, y, imae_ext.IMAE())
    z = torch.randn(5, 60001, device="cuda").requires_grad_()  # in clusters, where the card has them
    imae_ext.imae_loss(z, torch.randint(60001, (5,), device="cuda")).backward()
    for tier in ("row2", "row8", "row32", "row128", "row256", "strided", "cluster"):
        os.environ["IMAE_EXT_TIER"] = tier
        z = torch.randn(40, 37, device="cuda", requires_grad=True)
        imae_ext.nce_loss(z, torch.randint(37, (40,), device="cuda")).backward()
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()

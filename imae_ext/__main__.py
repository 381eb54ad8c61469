"""Prints what was built and what it runs on: ``python -m imae_ext``."""

import platform

import torch

from . import __version__
from ._extension import compiled


def main() -> None:
    """Print one fact a line."""
    print(f"imae_ext {__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    if compiled is None:
        print("compiled extension: missing; the losses run as plain PyTorch")
        return
    print(f"CPU kernels: {compiled.cpu_instruction_set()}, {torch.get_num_threads()} threads")
    print(f"CUDA kernels: {compiled.cuda_architectures or 'not built'}")
    for i in range(torch.cuda.device_count()):
        print(f"device {i}: {torch.cuda.get_device_name(i)}")


if __name__ == "__main__":
    main()

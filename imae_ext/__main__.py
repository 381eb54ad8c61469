"""Prints what was built and what it runs on: ``python -m imae_ext``."""

import platform

import torch

from . import __version__, devices
from ._extension import compiled


def main() -> None:
    """Print one fact a line."""
    print(f"imae_ext {__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    if compiled is None:
        print("compiled extension: missing; the losses run in plain torch on every device")
        return
    print(f"CPU kernels: {compiled.cpu_instruction_set()}, {torch.get_num_threads()} threads")
    print(f"CUDA kernels: {compiled.cuda_architectures or 'not built'}")
    _say("cpu", "cpu", None)
    for i in range(torch.cuda.device_count()):
        _say(f"device {i}: {torch.cuda.get_device_name(i)}", "cuda", i)
    other = torch.accelerator.current_accelerator()
    if other is not None and other.type != "cuda":
        _say(other.type, other.type, None)


def _say(name: str, device_type: str, index: int | None) -> None:
    why = devices.reason(device_type, index)
    print(f"{name}: {devices.path_of(device_type, index)}" + (f", since {why}" if why else ""))


if __name__ == "__main__":
    main()

"""Prints what was built, and which way the losses take on each device, and why: ``python -m imae_ext``."""

import platform

import torch

from . import __version__, devices
from ._extension import BUILD, compiled, missing_because

SLOW = "plain torch, slower"


def cpu() -> str:
    """Return the way on a CPU."""
    if compiled is None:
        return f"{SLOW}: the compiled extension is missing ({missing_because}); build it with {BUILD}"
    if why := devices.reason("cpu"):
        return f"{SLOW}: {why}"
    return f"kernels for {compiled.cpu_instruction_set()}, {torch.get_num_threads()} threads"


def cuda(version: str | None, hip: str | None, architectures: str | None) -> str:
    """Return the way on a GPU, for a torch of these versions and kernels of these architectures (None: not built)."""
    if hip:
        return f"no kernels: torch is for ROCm {hip}, and the kernels are for CUDA only"
    if not version:
        return "no kernels, and none needed: torch is for the CPU only"
    if architectures is None:
        return "no kernels: the compiled extension is missing"
    if not architectures:
        return (
            f"no kernels: they were not built, though torch is for CUDA {version}: no nvcc was found, or IMAE_CUDA=0 "
            f"was set; with a CUDA toolkit at hand, IMAE_CUDA=1 {BUILD} builds them or says what is missing"
        )
    return f"kernels for {architectures}"


def main() -> None:
    """Print one fact a line."""
    print(f"imae_ext {__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    print(f"CPU: {cpu()}")
    built = None if compiled is None else compiled.cuda_architectures
    print(f"CUDA: {cuda(torch.version.cuda, torch.version.hip, built)}")
    for i in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(i)
        _say(f"device {i}: {torch.cuda.get_device_name(i)}, compute capability {major}.{minor}", "cuda", i)
    other = torch.accelerator.current_accelerator()
    if other is not None and other.type != "cuda":
        _say(other.type, other.type, None)


def _say(name: str, device_type: str, index: int | None) -> None:
    why = devices.reason(device_type, index)
    print(f"{name}: {devices.path_of(device_type, index)}" + (f", since {why}" if why else ""))


if __name__ == "__main__":
    main()

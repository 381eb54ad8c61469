"""Builds imae_ext._C. IMAE_CUDA=1 demands the CUDA kernels, =0 leaves them out; unset, they follow torch and nvcc.

IMAE_KERNELS=0 builds nothing: for a machine without a compiler, where the losses run as plain PyTorch.
IMAE_OLD_GLIBC=1 has the binary run on a glibc older than the one here, back to 2.28: for wheels.
"""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import setuptools

if int(setuptools.__version__.split(".")[0]) < 77:  # older ones fail on pyproject.toml, with a page that names no cause
    sys.exit(
        f"imae_ext: the build needs setuptools 77 or later, found {setuptools.__version__}:\n"
        "  pip install -r requirements/build.txt"
    )

try:
    import pybind11
    import torch
    from torch.utils import cpp_extension
except ModuleNotFoundError as missing:
    sys.exit(
        f"imae_ext: the build needs {missing.name}, and pip must see it:\n"
        "  pip install 'torch>=2.11' -r requirements/build.txt\n"
        "  pip install --no-build-isolation -e ."
    )

ROOT = Path(__file__).parent.resolve()
STABLE_ABI = "0x020b000000000000"  # the oldest torch that the binary runs on: 2.11
STRICT = os.environ.get("IMAE_WERROR") == "1"
OLD_GLIBC = os.environ.get("IMAE_OLD_GLIBC") == "1"
SOURCES = [
    "module.cpp",
    "ops.cpp",
    "binary_ops.cpp",
    "dense_ops.cpp",
    "mixed_ops.cpp",
    "prepare.cpp",
    "cpu/backend.cpp",
    "cpu/dispatch.cpp",
    "cpu/baseline.cpp",
    "cpu/avx2.cpp",
    "cpu/avx512.cpp",
]
CUDA_SOURCES = [
    "cuda/backend.cpp",
    "cuda/dispatch.cu",
    "cuda/float64.cu",
    "cuda/float32.cu",
    "cuda/float16.cu",
    "cuda/bfloat16.cu",
    *(["cuda/old_glibc.cpp"] if OLD_GLIBC else []),
]


def cuda_home() -> Path | None:
    """Find a toolkit that has nvcc and the headers; torch's own guess may be only a wrapper's folder."""
    nvcc = shutil.which("nvcc")
    guesses = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    if nvcc:
        guesses.insert(2, str(Path(nvcc).resolve().parent.parent))
    for guess in guesses:
        if guess and Path(guess, "bin/nvcc").exists() and Path(guess, "include/cuda_runtime.h").exists():
            return Path(guess)
    return None


def with_cuda(home: Path | None) -> bool:
    wish = os.environ.get("IMAE_CUDA", "")
    if wish == "1" and home is None:
        sys.exit("imae_ext: IMAE_CUDA=1, but no CUDA toolkit with nvcc was found; set CUDA_HOME")
    if torch.version.hip:
        print("imae_ext: this torch is for ROCm, which has no kernels here: for the CPU only", file=sys.stderr)
    if wish != "1" and torch.version.cuda and home is None:
        print("imae_ext: no nvcc found: building the CPU kernels only", file=sys.stderr)
    return wish == "1" or (wish != "0" and home is not None and torch.version.cuda is not None)


def flags() -> list[str]:
    return [
        "-O2",
        "-g0",
        *os.environ.get("IMAE_CXXFLAGS", "").split(),
        "-std=c++20",
        "-fvisibility=hidden",
        f"-fmacro-prefix-map={ROOT}/=",  # errors name csrc/..., not where it was built
        "-fno-math-errno",
        "-fno-trapping-math",
        "-Wall",
        "-Wextra",
        "-Werror=switch",  # a formula without a case must not compile
        "-Wno-unused-parameter",  # torch's headers
        "-Wno-psabi",  # vectors are passed between inlined functions only
        "-Wno-uninitialized",  # GCC 12 warns of its own intrinsics' headers; clang-tidy looks at ours
        "-Wno-maybe-uninitialized",
        "-Wno-unknown-warning-option",  # Clang does not know the one before
        *(["-include", str(ROOT / "csrc/old_glibc.h")] if OLD_GLIBC else []),
        *(["-Werror"] if STRICT else []),
        f"-DTORCH_TARGET_VERSION={STABLE_ABI}",
    ]


def interface() -> str:
    """Read the number that Python compares at import: the compiled module may be older than the Python files."""
    (number,) = re.findall(r"^INTERFACE = (\d+)$", Path("imae_ext/_extension.py").read_text(), re.MULTILINE)
    return number


def cuda_architectures() -> list[str]:
    """Choose what to compile for: TORCH_CUDA_ARCH_LIST, or the GPUs that are here, or a broad default."""
    present = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    wanted = re.split(r"[;\s]+", os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip("; "))
    if wanted == [""]:
        wanted = [f"{major}.{minor}" for major, minor in sorted(present)] or ["8.0", "9.0+PTX"]
    too_old = [each for each in wanted if re.match(r"[1-7]\.|Kepler|Maxwell|Pascal|Volta|Turing", each)]
    if too_old:
        print(f"imae_ext: no CUDA kernels for {', '.join(too_old)}: they need 8.0 (Ampere) or later", file=sys.stderr)
    return [each for each in wanted if each not in too_old]


def cuda_options(home: Path) -> dict[str, list]:
    """Tell CppExtension how to compile and link CUDA, with a torch that may know nothing of it."""
    architectures = ";".join(cuda_architectures())
    if not architectures and os.environ.get("IMAE_CUDA") == "1":
        sys.exit("imae_ext: IMAE_CUDA=1, but no architecture is left to build for; set TORCH_CUDA_ARCH_LIST")
    if not architectures:
        return {}
    os.environ["TORCH_CUDA_ARCH_LIST"] = architectures
    cpp_extension.CUDA_HOME = str(home)  # torch looks here for nvcc
    # nvcc may be of another CUDA than torch: it sees none of torch's headers, and its runtime is linked in
    cpp_extension._check_cuda_version = lambda *_: None
    return {
        "include_dirs": [str(home / "include")],
        "library_dirs": [str(home / name) for name in ("lib64", "lib") if (home / name).is_dir()],
        "libraries": ["cudart_static", "rt", "pthread", "dl"],
        "define_macros": [("IMAE_CUDA_ARCHS", f'"{architectures}"')],
        "nvcc": ["-O3", "-std=c++20", "-lineinfo", "--threads=2", *(["-Werror=all-warnings"] if STRICT else [])],
        # keeps libtorch among the needed libraries: under a CUDA torch it brings the symbol of the current stream
        "link": ["-Wl,--push-state,--no-as-needed", "-ltorch", "-Wl,--pop-state"],
    }


def extension(home: Path | None) -> cpp_extension.CppExtension:
    cuda = cuda_options(home) if with_cuda(home) and home else {}
    sources = SOURCES + (CUDA_SOURCES if cuda else [])
    return cpp_extension.CppExtension(
        "imae_ext._C",
        ["csrc/" + source for source in sources],
        include_dirs=[pybind11.get_include(), *cuda.get("include_dirs", [])],  # pybind11 before torch's older copy
        library_dirs=cuda.get("library_dirs", []),
        libraries=cuda.get("libraries", []),
        define_macros=[("IMAE_INTERFACE", interface()), *cuda.get("define_macros", [])],
        extra_compile_args={"cxx": flags(), "nvcc": cuda.get("nvcc", [])},
        extra_link_args=[*cuda.get("link", []), *os.environ.get("IMAE_LDFLAGS", "").split()],
    )


class Build(cpp_extension.BuildExtension):
    """Says what helps where there is no compiler, or it fails."""

    def run(self) -> None:
        """Look for a compiler, and compile."""
        compiler = shlex.split(os.environ.get("CXX", "c++"))[0]
        without = (
            "imae_ext: IMAE_KERNELS=0 before the command installs without kernels: the losses then run as plain "
            "PyTorch, 10 to 100 times slower"
        )
        if self.extensions and not shutil.which(compiler):
            sys.exit(
                f"imae_ext: no C++ compiler: {compiler} was not found; install g++ or clang++, or set CXX\n{without}"
            )
        try:
            super().run()
        except Exception:
            print(f"imae_ext: the kernels could not be compiled, as said above\n{without}", file=sys.stderr)
            raise


def main() -> None:
    os.environ.setdefault("MAX_JOBS", str(os.cpu_count()))
    modules = [] if os.environ.get("IMAE_KERNELS") == "0" else [extension(cuda_home())]
    setuptools.setup(ext_modules=modules, cmdclass={"build_ext": Build})


main()

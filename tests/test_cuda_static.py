"""What nvcc can tell without a GPU: every architecture compiles, nothing spills, and wide accesses are wide.

Compiled once for each state of the sources and kept in build/static. C++ becomes PTX for two cards only, and that the
machine code of all six: what csrc says of cards tells those two apart, and no others.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "static"
ELEMENTS = ("float64", "float32", "float16", "bfloat16")
PTX = {80: (80, 86, 89), 90: (90, 100, 120)}  # 90: clusters
ARCHITECTURES = tuple(card for cards in PTX.values() for card in cards)
FLAGS = ("-O3", "-std=c++20", "-lineinfo", "-Xptxas=-v", "-Werror=all-warnings", "-c")
READ_ON = 90  # the architecture whose machine code is looked into
DISASSEMBLER = "nvidia-cuda-cuobjdump==13.4.92", "nvidia-cuda-nvdisasm==13.4.92"


def toolkit() -> Path | None:
    guesses = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    nvcc = shutil.which("nvcc")
    if nvcc:
        guesses.append(str(Path(nvcc).resolve().parent.parent))
    return next((Path(g) for g in guesses if g and Path(g, "bin/nvcc").exists()), None)


TOOLKIT = toolkit()
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(TOOLKIT is None, reason="no nvcc")]


def state() -> str:
    digest = hashlib.sha256(repr((PTX, FLAGS, TOOLKIT)).encode())
    for source in sorted((ROOT / "csrc").rglob("*")):
        if source.suffix in (".h", ".cuh", ".cu"):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def compile_element(element: str) -> Path:
    """The object file; beside it the log of the compiler."""
    output = FOLDER / state() / f"{element}.o"
    log = output.with_suffix(".log")
    if not log.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        targets = [f"-gencode=arch=compute_{ptx},code=[{','.join(f'sm_{a}' for a in PTX[ptx])}]" for ptx in PTX]
        source = ROOT / "csrc" / "cuda" / f"{element}.cu"
        done = subprocess.run(
            [str(TOOLKIT / "bin/nvcc"), *FLAGS, *targets, str(source), "-o", str(output)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        log.write_text(done.stdout)
    return output


@pytest.fixture(scope="module")
def objects():
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(ELEMENTS, pool.map(compile_element, ELEMENTS), strict=True))


def disassembler() -> list[str]:
    """cuobjdump of the toolkit, or else from PyPI."""
    if (TOOLKIT / "bin/cuobjdump").exists():
        return [str(TOOLKIT / "bin/cuobjdump")]
    target = FOLDER / "disassembler"
    if not list(target.rglob("cuobjdump")):
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--target", str(target), *DISASSEMBLER], check=True
        )
    return [str(next(target.rglob("bin/cuobjdump")))]


def machine_code(element: Path, architecture: int = READ_ON) -> dict[str, str]:
    """Mangled name of each kernel -> its code."""
    command = disassembler()
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ["PATH"]])  # it calls nvdisasm
    done = subprocess.run(
        [*command, "-sass", "-arch", f"sm_{architecture}", str(element)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": path},
    )
    return {part.split()[0]: part for part in done.stdout.split("Function : ")[1:]}


@pytest.mark.parametrize("element", ELEMENTS)
def test_no_kernel_spills(objects, element):
    log = objects[element].with_suffix(".log").read_text()
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    frames = re.findall(r"(\d+) bytes stack frame", log)
    kernels = 22  # 7 tiers, both ways; clusters, forward; counting; scaling; binary; amounts, and two labels, twice
    assert len(spills) == kernels * len(ARCHITECTURES)
    assert all(int(stores) + int(loads) == 0 for stores, loads in spills)
    assert all(int(frame) == 0 for frame in frames)


@pytest.mark.parametrize("element", ELEMENTS)
def test_tiers_that_move_16_bytes_at_a_time(objects, element):
    code = machine_code(objects[element])
    seen = set()
    for name, text in code.items():
        kernel = re.search(r"(row|cluster|tile|scale|strided)_kernel", name)
        if not kernel or kernel[1] == "strided":
            continue
        seen.add(kernel[1])
        load = r"LDG\.E\.128" if kernel[1] == "scale" else r"LDGSTS\.E\.BYPASS\.128"
        assert re.search(load, text), f"{name}: logits are not loaded 16 bytes at a time"
        assert re.search(r"STG\.E\.128", text), f"{name}: the gradient is not stored 16 bytes at a time"
        if kernel[1] in ("row", "cluster"):
            assert re.search(r"\bLDS\.128", text), f"{name}: packs are not read whole from shared memory"
        assert not re.search(r"\b(LDL|STL)\b", text), f"{name}: local memory"
    assert seen == {"row", "cluster", "tile", "scale"}


def test_clusters_meet_at_their_own_barrier_and_write_to_each_other(objects):
    for architecture in ARCHITECTURES:
        (text,) = (t for n, t in machine_code(objects["float32"], architecture).items() if "cluster_kernel" in n)
        new = architecture >= 90
        assert ("BPT.TRAP" in text) != new, "on older cards it stops"
        for barrier in ("UCGABAR_ARV", "UCGABAR_WAIT"):
            assert text.count(barrier) == 2 * new, f"sm_{architecture}: {barrier}"  # at the start, and one a row
        # an address in another block's shared memory is neither a shared (STS) nor a global one (STG)
        assert bool(re.search(r"\bST\.E\b", text)) == new, f"sm_{architecture}"


def test_the_maximum_takes_one_instruction_for_a_word(objects):
    maximum = {"float32": "FMNMX", "float16": r"V?HMNMX2?", "bfloat16": r"V?HMNMX2?\.BF16_V2"}
    for element, instruction in maximum.items():
        for name, text in machine_code(objects[element]).items():
            if re.search(r"(row|cluster)_kernel.*Forward", name):
                loops = re.findall(r"\bLDS\.128 (?:(?!LDS\.128|BRA).)*? BRA\b", text, re.DOTALL)
                assert any(len(re.findall(rf"\b{instruction} ", loop)) >= 4 for loop in loops), name


def test_float_sweeps_use_the_fast_exponential(objects):
    for name, text in machine_code(objects["float32"]).items():
        if "_kernel" in name and "scale" not in name:
            assert "MUFU.EX2" in text, name


PROGRAM = """
#include <cstdio>
#include <initializer_list>
#include "csrc/cuda/entries.h"
#include "csrc/prepare.h"

int main() {
  const double formula[] = {double(imae::FormulaId::kIMAE), 1, 8, 1e-8};
  imae::Forward forward;
  imae::Backward backward;
  forward.formula = &imae::prepare(formula, 4);
  int64_t label = 0;
  forward.target = backward.target = &label;
  forward.N = backward.N = 1;
  for (int64_t C : {8, 60, 400, 1000, 2000, 20000, 100000, 1000000}) {
    forward.C = backward.C = forward.logits_view.outer_stride = backward.logits_view.outer_stride = C;
    std::printf("%d %d\\n", imae::cuda_float32.forward(forward, {}, nullptr, nullptr),
                imae::cuda_float32.backward(backward, nullptr));
  }
}
"""


def test_a_card_that_does_not_answer_is_an_error(objects, tmp_path):
    """As with a driver that is too old for the runtime."""
    (tmp_path / "main.cpp").write_text(PROGRAM)
    libraries = [f"-L{TOOLKIT / name}" for name in ("lib64", "lib") if (TOOLKIT / name).is_dir()]
    sources = [str(tmp_path / "main.cpp"), str(ROOT / "csrc/prepare.cpp"), str(objects["float32"])]
    linked = [*libraries, "-lcudart_static", "-lrt", "-lpthread", "-ldl"]
    subprocess.run(["g++", "-std=c++20", f"-I{ROOT}", *sources, *linked, "-o", str(tmp_path / "program")], check=True)
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([str(tmp_path / "program")], capture_output=True, text=True, env=hidden)
    errors = done.stdout.split()
    assert done.returncode == 0 and len(errors) == 16 and "0" not in errors, (done.returncode, done.stdout)


if __name__ == "__main__":  # the table of registers
    with ThreadPoolExecutor(2) as pool:
        for made in pool.map(compile_element, ELEMENTS):
            log = made.with_suffix(".log").read_text()
            for entry in re.finditer(r"entry function '(\S+)' for '(\S+)'(?:.*\n)*?.*Used (\d+) registers", log):
                print(made.stem, entry[2], entry[3], entry[1])

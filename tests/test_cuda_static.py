"""What nvcc can tell without a GPU: every architecture compiles, nothing spills, and wide accesses are wide.

Looked at is what the build in place has made, if it is of these sources, and else what is compiled here: C++ to PTX and
machine code for two cards. The PTX becomes machine code of the others. Kept in build/static for each state of csrc.
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
BUILT = {80: (86, 89), 90: (100, 120)}  # what C++ is compiled for: to the cards whose code comes of that PTX
ARCHITECTURES = (*BUILT, *(card for cards in BUILT.values() for card in cards))
FLAGS = ("-O3", "-std=c++20", "-lineinfo", "-Werror=all-warnings", "-c")
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


def sources() -> list[Path]:
    return sorted(each for each in (ROOT / "csrc").rglob("*") if each.suffix in (".h", ".cuh", ".cu"))


def state() -> str:
    digest = hashlib.sha256(repr((BUILT, FLAGS, TOOLKIT)).encode())
    for source in sources():
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def run(*command: object, **options: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def disassembler() -> Path:
    """cuobjdump of the toolkit, or else from PyPI."""
    if (TOOLKIT / "bin/cuobjdump").exists():
        return TOOLKIT / "bin/cuobjdump"
    target = FOLDER / "disassembler"
    if not list(target.rglob("cuobjdump")):
        run(sys.executable, "-m", "pip", "install", "-q", "--target", target, *DISASSEMBLER)
    return next(target.rglob("bin/cuobjdump"))


def dump(made: Path, *options: str, **more: object) -> str:
    tool = disassembler()
    path = os.pathsep.join([str(tool.parent), os.environ["PATH"]])  # it calls nvdisasm
    return run(tool, *options, made, env={**os.environ, "PATH": path}, **more)


def built(element: str) -> Path | None:
    """The object file of the build in place, if nothing of csrc is newer and it has what is looked at."""
    newest = max(source.stat().st_mtime for source in sources())
    for made in ROOT.glob(f"build/temp.*/csrc/cuda/{element}.o"):
        if made.stat().st_mtime > newest:
            has = set(re.findall(r"sm_(\d+)\.(cubin|ptx)", dump(made, "-lelf", "-lptx")))
            if has >= {(str(card), kind) for card in BUILT for kind in ("cubin", "ptx")}:
                return made
    return None


class Made:
    """An element's machine code: the object file of what C++ is compiled for, and a file for each other card."""

    def __init__(self, element: str) -> None:
        folder = FOLDER / state() / element
        folder.mkdir(parents=True, exist_ok=True)
        self.object = built(element) or folder / "compiled.o"
        if not self.object.exists():
            targets = [f"-gencode=arch=compute_{card},code=[sm_{card},compute_{card}]" for card in BUILT]
            source = ROOT / "csrc" / "cuda" / f"{element}.cu"
            run(TOOLKIT / "bin/nvcc", *FLAGS, *targets, source, "-o", self.object)
        dump(self.object, "-xptx", "all", cwd=folder)
        self.files = dict.fromkeys(BUILT, self.object)
        for card, others in BUILT.items():
            (ptx,) = folder.glob(f"*sm_{card}.ptx")
            for other in others:
                self.files[other] = folder / f"{other}.cubin"
                if not self.files[other].exists():
                    flags = ("--warning-as-error", "--generate-line-info", f"-arch=sm_{other}")
                    run(TOOLKIT / "bin/ptxas", *flags, ptx, "-o", self.files[other])

    def code(self, architecture: int = READ_ON) -> dict[str, str]:
        """Mangled name of each kernel -> its machine code."""
        text = dump(self.files[architecture], "-sass", "-arch", f"sm_{architecture}")
        return {part.split()[0]: part for part in text.split("Function : ")[1:]}

    def registers(self, architecture: int) -> dict[str, tuple[int, int, int]]:
        """Of each kernel the registers, and the bytes of its stack and of local memory: where registers spill to."""
        text = dump(self.files[architecture], "-res-usage", "-arch", f"sm_{architecture}")
        found = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", text)
        return {name: tuple(map(int, numbers)) for name, *numbers in found}


@pytest.fixture(scope="module")
def objects():
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(ELEMENTS, pool.map(Made, ELEMENTS), strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("element", ELEMENTS)
def test_no_kernel_spills(objects, element, architecture):
    found = objects[element].registers(architecture)
    # 7 tiers: forward, backward, statistics; clusters, forward; counting; scaling; binary; amounts, two labels, twice
    assert len(found) == 29
    for name, (registers, stack, local) in found.items():
        assert stack == local == 0, f"{name}: {registers} registers, {stack} bytes of stack"


@pytest.mark.parametrize("element", ELEMENTS)
def test_tiers_that_move_16_bytes_at_a_time(objects, element):
    code = objects[element].code()
    seen = set()
    for name, text in code.items():
        kernel = re.search(r"(row|cluster|tile|scale|strided)_kernel", name)
        if not kernel or kernel[1] == "strided":
            continue
        seen.add(kernel[1])
        load = r"LDG\.E\.128" if kernel[1] == "scale" else r"LDGSTS\.E\.BYPASS\.128"
        assert re.search(load, text), f"{name}: logits are not loaded 16 bytes at a time"
        stores = bool(re.search(r"STG\.E\.128", text))
        assert stores != ("DescribeJob" in name), f"{name}: the gradient is stored 16 bytes at a time, if there is one"
        if kernel[1] in ("row", "cluster"):
            assert re.search(r"\bLDS\.128", text), f"{name}: packs are not read whole from shared memory"
        assert not re.search(r"\b(LDL|STL)\b", text), f"{name}: local memory"
    assert seen == {"row", "cluster", "tile", "scale"}


def test_clusters_meet_at_their_own_barrier_and_write_to_each_other(objects):
    for architecture in ARCHITECTURES:
        (text,) = (t for n, t in objects["float32"].code(architecture).items() if "cluster_kernel" in n)
        new = architecture >= 90
        assert ("BPT.TRAP" in text) != new, "on older cards it stops"
        for barrier in ("UCGABAR_ARV", "UCGABAR_WAIT"):
            assert text.count(barrier) == 2 * new, f"sm_{architecture}: {barrier}"  # at the start, and one a row
        # an address in another block's shared memory is neither a shared (STS) nor a global one (STG)
        assert bool(re.search(r"\bST\.E\b", text)) == new, f"sm_{architecture}"


def test_the_maximum_takes_one_instruction_for_a_word(objects):
    maximum = {"float32": "FMNMX", "float16": r"V?HMNMX2?", "bfloat16": r"V?HMNMX2?\.BF16_V2"}
    for element, instruction in maximum.items():
        for name, text in objects[element].code().items():
            if re.search(r"(row|cluster)_kernel.*Forward", name):
                loops = re.findall(r"\bLDS\.128 (?:(?!LDS\.128|BRA).)*? BRA\b", text, re.DOTALL)
                assert any(len(re.findall(rf"\b{instruction} ", loop)) >= 4 for loop in loops), name


def test_float_sweeps_use_the_fast_exponential(objects):
    for name, text in objects["float32"].code().items():
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
    sources = [str(tmp_path / "main.cpp"), str(ROOT / "csrc/prepare.cpp"), str(objects["float32"].object)]
    linked = [*libraries, "-lcudart_static", "-lrt", "-lpthread", "-ldl"]
    subprocess.run(["g++", "-std=c++20", f"-I{ROOT}", *sources, *linked, "-o", str(tmp_path / "program")], check=True)
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([str(tmp_path / "program")], capture_output=True, text=True, env=hidden)
    errors = done.stdout.split()
    assert done.returncode == 0 and len(errors) == 16 and "0" not in errors, (done.returncode, done.stdout)


if __name__ == "__main__":  # the table of registers
    for each in ELEMENTS:
        made = Made(each)
        for card in ARCHITECTURES:
            for name, (registers, *_) in made.registers(card).items():
                print(each, card, registers, name)

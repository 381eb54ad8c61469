"""Which module the GPU's script takes, and README's section of what it finds; on made-up files."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import gpu_module, gpu_readme
from benchmarks.speed import results

NAME = "_C.abi3.so"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("csrc/cuda", "imae_ext", "dist"):
        (tmp_path / folder).mkdir(parents=True)
    put(tmp_path / "csrc/cuda/row.cuh", 100)
    return tmp_path


def put(path: Path, time: float, text: str = "good") -> None:
    path.write_text(text)
    os.utime(path, (time, time))


def put_wheel(path: Path, time: float, text: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"imae_ext/{NAME}", text)
        archive.writestr("imae_ext/ops.py", "not this one")
    os.utime(path, (time, time))


@pytest.fixture
def take(monkeypatch: pytest.MonkeyPatch, root: Path) -> Callable[[str], str]:
    """Return where the module comes from; one serves if its file says `good`."""

    def serves(root: Path) -> str:
        (module,) = gpu_module.in_place(root)
        return "" if module.read_text() == "good" else "for 8.0, not (9, 0)"

    def build(root: Path) -> None:
        for old in gpu_module.in_place(root):
            old.unlink()
        put(root / "imae_ext" / NAME, 200)

    monkeypatch.setattr(gpu_module, "serves", serves)
    monkeypatch.setattr(gpu_module, "build", build)
    monkeypatch.setattr(gpu_module.shutil, "which", lambda _: "nvcc")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    return lambda wish="": gpu_module.see_to_module(root, wish)


def test_a_module_in_place_is_taken_unless_a_source_is_newer(root: Path, take: Callable[[str], str]) -> None:
    put(root / "imae_ext" / NAME, 150)
    assert take("") == f"{NAME}, as it was"
    put(root / "imae_ext" / NAME, 50)
    assert take("keep") == f"{NAME}, as it was"
    assert take("") == "built for 9.0"
    assert take("build") == "built for 9.0"


def test_a_wheel_that_serves_is_unpacked(root: Path, take: Callable[[str], str]) -> None:
    put(root / "imae_ext" / "_C.cpython-311.so", 150, "of a CPU")
    put_wheel(root / "dist/old.whl", 50, "good")
    put_wheel(root / "dist/other.whl", 180, "of another card")
    put_wheel(root / "dist/right.whl", 170, "good")
    assert take("") == "of right.whl"
    assert [path.name for path in (root / "imae_ext").iterdir()] == [NAME]


def test_where_nothing_serves_and_nothing_can_be_built(
    monkeypatch: pytest.MonkeyPatch, root: Path, take: Callable[[str], str]
) -> None:
    put(root / "imae_ext" / NAME, 150, "of a CPU")
    with pytest.raises(SystemExit, match="MODULE=keep"):
        take("keep")
    monkeypatch.setattr(gpu_module.shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match="no nvcc"):
        take("")


def test_readme_has_what_was_measured_and_empty_places_for_the_rest(tmp_path: Path) -> None:
    names = list(gpu_readme.PLACES)
    empty = gpu_readme.section(tmp_path)
    assert empty.startswith("Not measured") and all(f"| {name} |  |" in empty for name in names)
    (tmp_path / "gpu_123.log").write_text("== smoke: ok, 3 s\n== tests: FAILED (1), 5 s\n== times: ok, 9 s\n")
    row = {"tier": "tile", "shape": [64, 3], "dtype": "float32", "of_copy_bandwidth": 0.874}
    about = {
        "machine": {"gpu": "A card"},
        "versions": {"torch": "2"},
        "commit": "0123456789abc",
        "copy_GB_per_s": 2999.6,
    }
    (tmp_path / "gpu_times.json").write_text(json.dumps({**about, "rows": [row]}))
    shape = {"shape": "64x16x200", "dtype": "bfloat16"}
    head = [{**shape, "way": "ours", "of_ours": 1.0}, {**shape, "way": "products", "of_ours": 0.804}]
    head.append({**shape, "way": "liger", "mb": 3.0})
    (tmp_path / "linear_head_cuda.json").write_text(json.dumps({"rows": head}))
    lines = gpu_readme.section(tmp_path).splitlines()
    assert lines[8] == "| linear head: time by ours | 0.80x products (64x16x200, bfloat16) |"
    assert lines[2:7] == [
        "| card | A card; torch 2; commit 0123456789 |",
        f"| {names[1]} | smoke ok, tests FAILED (1) |",
        "| bandwidth of a copy | 3000 GB/s |",
        f"| {names[3]} | tile 87% (64x3) |",
        "| the same, bfloat16 |  |",
    ]
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{gpu_readme.BEGIN}\n{gpu_readme.END}\nafter\n")
    for _ in range(2):
        gpu_readme.update(readme, tmp_path)
        text = "\n".join(lines)
        assert readme.read_text() == f"before\n{gpu_readme.BEGIN}\n{text}\n{gpu_readme.END}\nafter\n"


def test_readme_has_the_section_of_the_results_that_are_here() -> None:
    text = (gpu_readme.ROOT / "README.md").read_text()
    section = text.partition(gpu_readme.BEGIN)[2].partition(gpu_readme.END)[0].strip()
    assert section == gpu_readme.section(results.FOLDER)

"""What one is told when the package is built or found in the wrong way, and what a source archive holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import tomllib

from imae_ext.__main__ import cuda

ROOT = Path(__file__).parents[1]


def python(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    path = {"PYTHONPATH": os.pathsep.join([*environment.pop("first", "").split(), str(ROOT)])}
    everything = os.environ | path | environment
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=everything, capture_output=True, text=True, timeout=120
    )


def test_a_setuptools_that_is_too_old_is_named(tmp_path):
    (tmp_path / "setuptools").mkdir()
    (tmp_path / "setuptools/__init__.py").write_text('__version__ = "68.2.2"')
    done = python("-c", "import runpy; runpy.run_path('setup.py')", first=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == (
        "imae_ext: the build needs setuptools 77 or later, found 68.2.2:\n  pip install -r requirements/build.txt\n"
    )


def test_the_setuptools_that_is_asked_for_is_the_same_everywhere():
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert "setuptools>=77" in required and "setuptools>=77" in (ROOT / "requirements/build.txt").read_text()


def test_no_compiler(tmp_path):
    """Two lines, the second with what can be done without one."""
    folders = "--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp")
    done = python(
        "setup.py", "--quiet", "build_ext", *folders, CXX="/nowhere/g++ -pipe", IMAE_CUDA="0", IMAE_KERNELS="1"
    )
    assert done.returncode == 1
    no_compiler, without = done.stderr.splitlines()[-2:]
    assert no_compiler.startswith("imae_ext: no C++ compiler: /nowhere/g++ was not found; install g++")
    assert without.startswith("imae_ext: IMAE_KERNELS=0 before the command installs without kernels")
    assert len(done.stderr.splitlines()) < 8, done.stderr


def test_a_build_for_rocm_says_that_it_has_no_kernels():
    code = "import runpy, sys, torch; torch.version.hip = '6.4'; sys.argv[1:] = ['--name']; runpy.run_path('setup.py')"
    done = python("-c", code, IMAE_CUDA="0")
    assert "imae_ext: this torch is for ROCm, which has no kernels here" in done.stderr and "imae-ext" in done.stdout


STALE = """
import importlib.util, json, os, sys, traceback
import torch

def load(change):
    spec = importlib.util.find_spec("imae_ext")
    (path,) = [str(p) for p in __import__("pathlib").Path(spec.submodule_search_locations[0]).glob("_C.*")]
    spec = importlib.util.spec_from_file_location("imae_ext._C", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    exec(change, {"module": module})
    sys.modules["imae_ext._C"] = module
    import imae_ext

for change in json.loads(sys.argv[1]):  # each in a process of its own, and torch imported once
    sys.stdout.flush()
    if os.fork() == 0:
        try:
            load(change)
            print(json.dumps([change, ""]), flush=True)
        except BaseException:
            print(json.dumps([change, traceback.format_exc()]), flush=True)
        os._exit(0)
    os.wait()
"""
WITHOUT_AN_OPERATOR = """
import torch._ops as o
g = o._OpNamespace.__getattr__
def without(self, name):
    return g(self, "no_such_operator" if self.name == "imae_ext" and name == "forward_save" else name)
o._OpNamespace.__getattr__ = without
"""
CHANGES = {
    "del module.interface": "it has interface none, not ",
    "module.interface = 0": "it has interface 0, not ",
    "table = module.formulas()[:-1]; module.formulas = lambda: table": "it has other formulas",
    "table = module.formulas(); table[0] = ('CCE', 14, *table[0][2:]); module.formulas = lambda: table": "formulas",
    WITHOUT_AN_OPERATOR: "it has other operators",
    "pass": "",
}


def test_a_module_of_other_sources_is_refused():
    done = python("-c", STALE, json.dumps(list(CHANGES)))
    assert done.returncode == 0, done.stderr
    found = dict(map(json.loads, done.stdout.splitlines()))
    assert found.keys() == CHANGES.keys()
    for change, reason in CHANGES.items():
        assert reason in found[change] and bool(reason) == bool(found[change]), (change, found[change])
        if reason:
            last = found[change].splitlines()[-1]
            assert last.startswith("ImportError: imae_ext: the compiled module in ") and "built from other" in last
            assert last.endswith("build again, in the folder of the clone: pip install --no-build-isolation -e .")


def test_the_warning_of_the_fallback_points_to_the_line_that_imports(tmp_path):
    (tmp_path / "user.py").write_text("import sys\nsys.modules['imae_ext._C'] = None\n\nimport imae_ext\n")
    for arguments in (("user.py",), ("-c", "import user")):
        done = python(*arguments, cwd=tmp_path, first=str(tmp_path), IMAE_EXT_REQUIRE="0")
        assert f"{tmp_path / 'user.py'}:4: RuntimeWarning: imae_ext: the compiled extension could" in done.stderr


@pytest.mark.parametrize(
    ("versions", "says"),
    (
        ((None, None, ""), "none needed: torch is for the CPU only"),
        (("12.8", None, None), "the compiled extension is missing"),
        (("12.8", None, ""), "no nvcc was found"),
        (("12.8", None, "9.0;10.0"), "kernels for 9.0;10.0"),
        ((None, "6.4", ""), "ROCm 6.4"),
    ),
)
def test_the_command_says_why_a_gpu_has_no_kernels(versions, says):
    assert says in cuda(*versions)


def test_a_source_archive_holds_what_its_tests_import(tmp_path):
    done = python(
        "setup.py", "--quiet", "egg_info", "-e", str(tmp_path), "sdist", "-d", str(tmp_path), IMAE_KERNELS="0"
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        held = {name.split("/", 1)[1] for name in tar.getnames() if "/" in name}
    kinds = {".py", ".h", ".cpp", ".cu", ".cuh", ".md", ".txt", ".json", ".png"}
    folders = ("benchmarks", "csrc", "docs", "imae_ext", "requirements", "tests")
    wanted = {str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*")}
    wanted = {path for path in wanted if Path(path).suffix in kinds and (ROOT / path).is_file()}
    assert len(wanted) > 100 and wanted <= held, (done.stderr, sorted(wanted - held)[:9])
    assert not [name for name in held if name.endswith((".so", ".pyc"))]


def test_an_editable_install_is_found_from_the_folder_above():
    """A path, not setuptools' finder of single packages: that one comes after the empty namespace of the folder."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(setuptools["package-dir"]) == {""}
    done = python("-c", "import imae_ext; print(imae_ext.__version__)", cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr

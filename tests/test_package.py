"""The package as it is installed: its version, its README, its command, and what happens without the extension."""

import doctest
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cases import FORMULAS
from torch.utils import cpp_extension

import imae_ext
from imae_ext import reference
from imae_ext._extension import compiled

ROOT = Path(__file__).parents[1]

WITHOUT_EXTENSION = """
import sys, warnings
sys.modules["imae_ext._C"] = None  # what a missing or unloadable extension looks like
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import imae_ext
assert [w.category for w in caught] == [RuntimeWarning] and "pip install" in str(caught[0].message), caught
import torch
logits, target = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 2, -100])
imae_ext.IMAELoss()(logits, target).backward()
value, grad = imae_ext.value_and_grad(logits, target, imae_ext.IMAE(), out=torch.empty(4, 3))
assert torch.equal(grad, logits.grad) and grad[3].eq(0).all()
with torch.inference_mode():
    arguments = torch.randn(4, 3), torch.tensor([0, 1, 2, -100]), imae_ext.IMAE()
    imae_ext.value_and_grad(*arguments, weight=torch.ones(3), out=torch.empty(4, 3))
p, w, *_ = imae_ext.row_stats(logits, target, imae_ext.IMAE())
assert p[3] == 0 and (w[:3] >= 1).all()
try:
    imae_ext.imae_loss(logits, target + 5)
except IndexError as error:
    print("IndexError:", error)
for wrong in (lambda: imae_ext.TaylorCE(2.5), lambda: imae_ext.AUL(0.5), lambda: imae_ext.IMAE(99.0)):
    try:
        print(wrong())
    except ValueError as error:
        print("ValueError:", error)
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | path | environment, capture_output=True, text=True, timeout=120
    )


def test_without_the_extension_the_reference_runs_after_one_warning():
    done = python("-c", WITHOUT_EXTENSION, IMAE_EXT_REQUIRE="0")
    assert done.returncode == 0, done.stderr
    assert "IndexError: imae_ext: expected labels in [0, 3) or ignore_index=-100, got 5 at row 0" in done.stdout
    assert done.stdout.count("ValueError: imae_ext: ") == 3, done.stdout


def test_a_required_extension_that_is_missing_is_an_error():
    done = python("-c", "import sys; sys.modules['imae_ext._C'] = None; import imae_ext", IMAE_EXT_REQUIRE="1")
    assert done.returncode != 0
    assert "ModuleNotFoundError" in done.stderr and "imae_ext._C" in done.stderr


def test_the_command_says_what_was_built():
    lines = python("-m", "imae_ext").stdout.splitlines()
    assert lines[0].startswith(f"imae_ext {imae_ext.__version__}, torch ")
    assert re.fullmatch(r"CPU: kernels for (baseline|avx2|avx512), \d+ threads", lines[1])
    assert lines[2].startswith("CUDA: ")


def test_the_operators_of_the_gpu_compile():
    """Where torch has no CUDA, the package is built without them."""
    version = re.search(r'STABLE_ABI = "(\w+)"', (ROOT / "setup.py").read_text())[1]
    flags = ["-std=c++20", "-fvisibility=hidden", "-Wall", "-Werror", f"-DTORCH_TARGET_VERSION={version}"]
    includes = [f"-isystem{path}" for path in cpp_extension.include_paths()]
    source = str(ROOT / "csrc/cuda/backend.cpp")
    done = subprocess.run(["g++", *flags, *includes, "-fsyntax-only", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_import_adds_little_to_that_of_torch():
    code = "import torch, time; t = time.process_time(); import imae_ext; print(time.process_time() - t)"
    assert any(float(python("-c", code).stdout) < 0.15 for _ in range(3))  # often the first of them


def test_the_version_is_the_same_everywhere():
    """The build reads imae_ext.__version__; what people read repeats it."""
    assert 'version = { attr = "imae_ext.__version__" }' in (ROOT / "pyproject.toml").read_text()
    for name, pattern in (("CITATION.cff", r"^version: (.+)"), ("CHANGELOG.md", r"^## ([\d.]+)")):
        version = re.findall(pattern, (ROOT / name).read_text(), re.MULTILINE)[0]
        assert version == imae_ext.__version__, name


FUNCTIONS = [each for each in map(vars(imae_ext).get, imae_ext.__all__) if inspect.isfunction(each)]
MODULES = [m.name for m in pkgutil.walk_packages(imae_ext.__path__, "imae_ext.") if not m.name.endswith(("._C", "__"))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    module.__test__ = {  # doctest takes a function that is wrapped for another module's
        key: value.__doc__ or ""
        for key, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and hasattr(value, "__wrapped__")
    }
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried > 0 or name not in {function.__module__ for function in FUNCTIONS}


@pytest.mark.parametrize("function", [each for each in FUNCTIONS if each is not imae_ext.SCE], ids=lambda f: f.__name__)
def test_every_function_has_an_example(function):
    """SCE is a formula, as those that are classes."""
    assert ">>>" in function.__doc__


def test_readme_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    scope: dict[str, object] = {}
    exec(example, scope)
    assert scope["logits"].grad.abs().sum() > 0
    assert scope["p"].shape == scope["weight"].shape == (128,)


def test_readme_names_every_formula_and_function():
    readme = (ROOT / "README.md").read_text()
    missing = [name for name in imae_ext.__all__ if not name.endswith("Loss") and name not in readme]
    assert set(missing) <= {"Combination", "Formula", "RowStats", "SingleFormula"}


def test_every_formula_of_the_extension_is_everywhere():
    """A formula that was added in one place only would be computed, but not exported or tested."""
    names = {name for name, *_ in compiled.formulas()}
    assert names <= set(imae_ext.__all__)
    assert names == {formula.__name__ for formula in reference.VALUE}
    assert names <= {type(g).__name__ for spec in FORMULAS for _, g in spec.build().terms}

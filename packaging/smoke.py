"""What a wheel must do where it was installed; run in a bare environment, away from the checkout.

With --module FOLDER, where FOLDER holds libtorch, only the compiled module is loaded and called: for an interpreter
that no torch could be had for.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import glob
import importlib.util
import platform
import sys
import sysconfig
import time
from pathlib import Path


def in_threads(call, count: int = 8) -> list:
    """Call a function from many threads at once."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(call) for _ in range(10 * count)]]


def check_the_lock() -> str:
    """Refuse a module that switched the lock back on in free-threaded Python; return the Python."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return platform.python_version()
    assert not sys._is_gil_enabled(), "importing the module switched the lock on"
    return f"{platform.python_version()}, free-threaded"


def module_alone(libraries: str) -> None:
    """Load the module beside libtorch, whose libraries know nothing of Python."""
    for name in ("libgomp*.so*", "libc10.so", "libtorch_cpu.so", "libtorch.so"):
        for path in glob.glob(f"{libraries}/{name}"):
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    (folder,) = importlib.util.find_spec("imae_ext").submodule_search_locations
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    spec = importlib.util.spec_from_file_location("_C", f"{folder}/_C{suffix}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table = module.formulas()
    assert len(table) >= 14 and table[0][0] == "CCE", table
    assert all(each == table for each in in_threads(module.formulas))
    assert f"INTERFACE = {module.interface}\n" in Path(folder, "_extension.py").read_text(), module.interface
    print(f"{check_the_lock()} | none | the module alone, {module.cpu_instruction_set()}")


def whole_package() -> None:
    """Train, differentiate, compile and refuse, all by the kernels."""
    import torch

    began = time.perf_counter()
    import imae_ext
    from imae_ext import devices, reference

    assert devices.path_of("cpu") == devices.KERNELS, devices.reason("cpu")
    torch.manual_seed(0)
    model, target = torch.nn.Linear(20, 5), torch.arange(256) % 5
    features = torch.randn(256, 20) + torch.nn.functional.one_hot(target, 20)
    optimizer, criterion = torch.optim.SGD(model.parameters(), lr=0.5), imae_ext.IMAELoss(T=8.0)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = criterion(model(features), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0], losses
    seconds = time.perf_counter() - began

    logits = torch.randn(64, 10, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(10, (64,))
    for formula in (imae_ext.IMAE(), imae_ext.DM(), imae_ext.GCE(), 2.0 * imae_ext.NCE() + imae_ext.MAE()):
        ours, wanted = (f(logits, labels, formula) for f in (imae_ext.robust_loss, reference.robust_loss))
        gradients = [torch.autograd.grad(each, logits)[0] for each in (ours, wanted)]
        assert torch.allclose(ours, wanted, rtol=1e-11) and torch.allclose(*gradients, rtol=1e-9, atol=1e-13), formula
    compiled = torch.compile(imae_ext.robust_loss, backend="eager", fullgraph=True)
    assert torch.equal(compiled(logits, labels, imae_ext.IMAE()), imae_ext.robust_loss(logits, labels, imae_ext.IMAE()))
    try:
        imae_ext.imae_loss(logits, labels + 10)
    except IndexError:
        pass
    else:
        raise AssertionError("a label out of range was taken")

    loss, grad = imae_ext.value_and_grad(logits.detach(), labels, imae_ext.IMAE())
    same = in_threads(lambda: imae_ext.value_and_grad(logits.detach(), labels, imae_ext.IMAE()))
    assert all(torch.equal(loss, a) and torch.equal(grad, b) for a, b in same)
    print(f"{check_the_lock()} | {torch.__version__} | all; imported and trained in {seconds:.1f} s")


if __name__ == "__main__":
    module_alone(sys.argv[2]) if sys.argv[1:2] == ["--module"] else whole_package()

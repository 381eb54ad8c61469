"""docs/environment.md has every environment variable that the sources read, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Read where it stands in the source: os.environ.get("X"), os.environ["X"] and getenv("X").
READ = re.compile(r"""(?:environ(?:\.get|\.pop)?|getenv)\s*[(\[]\s*["'](\w+)["']""")
OF_OTHERS = {"CXX", "PATH", "PYTEST_XDIST_WORKER", "TMPDIR", "HOME"}  # not ours to describe


def sources() -> list[Path]:
    found = [ROOT / "setup.py"]
    for folder in ("imae_ext", "csrc", "benchmarks"):
        found += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".cpp", ".h", ".cu", ".cuh")]
    return found


def test_the_table_has_what_the_sources_read() -> None:
    read = {name for path in sources() for name in READ.findall(path.read_text())} - OF_OTHERS
    listed = set()
    for row in re.findall(r"^\| (`.+?) \|", (ROOT / "docs/environment.md").read_text(), re.MULTILINE):
        listed |= set(re.findall(r"`(\w+)`", row))
    assert {name for name in read if name.startswith("IMAE_")} >= {"IMAE_CUDA", "IMAE_EXT_CPU", "IMAE_EXT_REQUIRE"}
    assert read - listed == set(), "read, but not in docs/environment.md"
    assert {name for name in listed - read if name != "MAX_JOBS"} == set(), (
        "in docs/environment.md, but read by nothing"
    )


def test_no_other_name_of_ours_is_set_anywhere() -> None:
    """A variable that a script sets and nothing reads would be a misspelt one."""
    table = (ROOT / "docs/environment.md").read_text()
    scripts = [ROOT / "Makefile", ROOT / ".ci/run", *(ROOT / "benchmarks").glob("*.sh")]
    set_there = {name for path in scripts for name in re.findall(r"\b(IMAE_[A-Z_]+)=", path.read_text())}
    assert set_there and all(f"`{name}`" in table for name in set_there)

"""What a step sends and holds for 8 to 1,024 processes, on paper: a model, computed from counted bytes; no measurement.

    python -m benchmarks.distributed.model

Counted, by benchmarks/distributed/speed.py with two processes and stored in two_processes.json: the numbers a row that
each loss hands to all-reduces, and the most memory that it takes beside its logits. Assumed: collectives go round a
ring, so that a process sends 2 (P - 1) / P times what it hands to an all-reduce, and (P - 1) / P of what an all-gather
makes; memory that grows with the logits falls with the processes; numbers reduced are float32. Latency, overlap and
the network's shape are not in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COUNTED = Path(__file__).parent / "two_processes.json"
COUNTED_PROCESSES = 2
ROWS, BYTES_OF_A_NUMBER = 8192, 4
ITEMSIZE = {"float32": 4, "bfloat16": 2}
PROCESSES, CLASSES = (8, 64, 1024), (32_768, 131_072, 1_048_576)
CONTENDERS = {"IMAE": "classes sharded, IMAE", "torch": "`loss_parallel`, cross entropy", "gathered": "gathered"}


def sent(contender: str, counted: dict[str, Any], P: int, C: int, itemsize: int) -> float:
    """Return bytes that a process sends in a step."""
    if contender == "gathered":
        return (P - 1) / P * ROWS * C * itemsize
    return 2 * (P - 1) / P * ROWS * BYTES_OF_A_NUMBER * float(counted["numbers_a_row"])


def held(contender: str, counted: dict[str, Any], P: int, C: int, itemsize: int) -> float:
    """Return bytes that a process holds at most, its own logits among them."""
    own = ROWS * C * itemsize / P
    of_whole = contender == "gathered"  # what was counted beside two halves is of the whole, whatever P is
    beside = counted["memory"] * (ROWS * C * itemsize / COUNTED_PROCESSES if of_whole else own)
    return own + float(beside)


def shown(count: float) -> str:
    """Return bytes with their unit.

    >>> shown(1536), shown(3 << 30)
    ('1.5 KiB', '3.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:,.1f} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1024
    raise AssertionError


def table(dtype: str) -> list[str]:
    """Return the lines of the table, for logits of a dtype."""
    counted = json.loads(COUNTED.read_text())["found"][dtype]
    head = "".join(f" {name}: sends | holds |" for name in CONTENDERS.values())
    lines = [f"| processes | classes |{head}", "|---:|---:|" + "---:|---:|" * len(CONTENDERS)]
    for P in PROCESSES:
        for C in CLASSES:
            cells = [
                f" {shown(sent(name, counted[name], P, C, ITEMSIZE[dtype]))} "
                f"| {shown(held(name, counted[name], P, C, ITEMSIZE[dtype]))} |"
                for name in CONTENDERS
            ]
            lines.append(f"| {P:,} | {C:,} |{''.join(cells)}")
    return lines


if __name__ == "__main__":
    print("\n".join(table("bfloat16")))

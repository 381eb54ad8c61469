"""toys.cpp from Python."""

import ctypes
import re
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SOURCES = {name: (HERE / name).read_text().splitlines() for name in ("toys.cuh", "toy_results.cuh")}


class Library:
    def __init__(self, path: Path):
        self.c = ctypes.CDLL(str(path))
        self.c.run_toy.restype = ctypes.c_char_p

    def run(self, toy, fault=0, seed=0, resident=1, exited_threads_count=0):
        """The error (None if there is none), x and out of a toy."""
        n = self.c.toy_size(toy.encode())
        x = np.random.default_rng(0).integers(-8, 9, n).astype(np.float32)
        out = np.full(n, -77, np.float32)
        error = self.c.run_toy(
            toy.encode(), fault, seed, resident, exited_threads_count, ctypes.c_void_p(x.ctypes.data),
            ctypes.c_void_p(out.ctypes.data),
        )  # fmt: skip
        return error and error.decode(), x, out

    def convert(self, function, array, dtype):
        out = np.empty(array.shape, dtype)
        pointers = ctypes.c_void_p(array.ctypes.data), ctypes.c_void_p(out.ctypes.data)
        getattr(self.c, function)(*pointers, ctypes.c_int64(array.size))
        return out


def source_lines(report):
    """The lines of the toys that a report names."""
    return [SOURCES[name][int(line) - 1] for name, line in re.findall(r"(\w+\.cuh):(\d+)", report)]

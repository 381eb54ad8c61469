"""Reading pickles that hold data, and nothing that runs."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

_RECONSTRUCT = np.empty(0).__reduce__()[0]
_FROM_BUFFER = np.empty(0).__reduce_ex__(5)[0]


def _latin1(text: str, encoding: str) -> bytes:
    """Stand in for codecs.encode, by which Python 3 writes bytes into protocols below 3: always as Latin-1."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"expected bytes as latin1, got {encoding}")
    return text.encode(encoding)


# numpy.core became numpy._core in numpy 2; files name the module of their time.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("_codecs", "encode"): _latin1,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"expected numpy arrays and plain containers, got {module}.{name}") from None


def read_pickle(content: bytes) -> Any:
    """Unpickle numpy arrays, lists, dicts, numbers, strings and bytes; Python 2's strings come as bytes.

    Raises:
        pickle.UnpicklingError: the content is no pickle, is cut short, or names anything else.

    """
    try:
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle runs into almost any error
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error

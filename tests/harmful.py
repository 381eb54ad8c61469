"""A pickle that does harm when it is read without care: it makes a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


class Harmful:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (os.mkdir, (str(self.folder),))

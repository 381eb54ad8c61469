"""Pictures that are written anew only when they show something else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEY = "Shown"  # of the text in a PNG file that says what it shows


def save(figure: Figure, path: Path, **options: Any) -> bool:
    """Write a PNG, unless the file shows the same already: its bytes differ from one matplotlib to the next.

    Returns whether the file was written.
    """
    from PIL import Image, UnidentifiedImageError

    digest = hashlib.sha256("\n".join(shown(figure)).encode()).hexdigest()
    try:
        with Image.open(path) as there:
            if there.info.get(KEY) == digest:
                return False
    except (FileNotFoundError, UnidentifiedImageError):
        pass
    figure.savefig(path, metadata={KEY: digest}, **options)
    return True


def shown(figure: Figure) -> list[str]:
    """List all words and numbers of a figure, as it was told them, to six digits."""
    found = [_words(figure), _numbers(figure.get_size_inches())]
    for axes in figure.axes:
        found += [axes.get_title("left"), axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        found += [str(axes.get_visible()), axes.get_xscale(), axes.get_yscale(), _words(axes)]
        for line in axes.lines:
            found += [str((line.get_color(), line.get_linestyle())), _numbers(line.get_xydata())]
        found += [_numbers(path.vertices) for area in axes.collections for path in area.get_paths()]
        found += [_numbers(np.ma.filled(image.get_array(), np.nan)) for image in axes.images]
    return found


def _words(where: Any) -> str:
    return repr([text.get_text() for text in where.texts])


def _numbers(values: Any) -> str:
    return repr([f"{x:.6g}" for x in np.asarray(values, np.float64).reshape(-1)])

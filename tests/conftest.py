"""What tests of several files need before they begin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Draw the same random numbers in every run, whichever tests the process has run before."""
    torch.manual_seed(0)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Compile as in a new process, and leave nothing compiled behind."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Train on one thread, as the experiments do: a result is the same to the last bit only then."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def same_threads() -> Iterator[None]:
    """Give back the number of threads, which a measurement sets."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)

"""The toys, compiled once for all tests of the emulator."""

from pathlib import Path

import emulator
import pytest
from toy_library import Library

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("simt")


@pytest.fixture(scope="session")
def library_file(folder):
    return emulator.compile_library(HERE / "toys.cpp", folder / "toys.so")


@pytest.fixture(scope="session")
def toys(library_file):
    return Library(library_file)


@pytest.fixture(scope="session")
def asan(folder):
    return emulator.compile_program(HERE / "toys.cpp", folder / "asan", sanitizer="address,undefined")


@pytest.fixture(scope="session")
def tsan(folder):
    return emulator.compile_program(HERE / "toys.cpp", folder / "tsan", sanitizer="thread")

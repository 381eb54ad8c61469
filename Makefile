# make demo, make test: each sets up whatever is missing. PYTHON chooses the interpreter, TORCH what to install if it
# has no torch >= 2.11 (then everything goes into .venv).
PYTHON ?= python3
TORCH ?= torch==2.13.0

HAS_TORCH := $(shell $(PYTHON) -c 'import torch; v = torch.__version__.split(".")[:2]; print((int(v[0]), int(v[1])) >= (2, 11))' 2>/dev/null)
ifeq ($(HAS_TORCH),True)
PY := $(shell command -v $(PYTHON))
else
PY := $(CURDIR)/.venv/bin/python
endif
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
export PATH := $(dir $(PY)):$(PATH)

# PYTHONS: interpreters to build wheels for, besides PYTHON; those on PATH by default.
PYTHONS ?=
ROWS ?=
# Arguments of pytest, or words that choose faults.
ARGS ?=
# Tests that need seconds, not minutes, and together see a wrong formula, layout, option or gradient of the kernels.
QUICK := case_table contract_autograd contract_parameters cross_entropy mathematics shipped_bugs
# What is longer than CI may take, those of them that this file has.
NIGHTLY := $(shell sed -nE 's/^(faults|figures|ecosystem|fuzz|wheels|matrix|test-arm|test-slow):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

.PHONY: build debug compile-commands quick demo test ecosystem test-slow test-cuda test-arm fuzz sanitize faults nightly figures bench docs \
	wheels matrix matrix-row lint tidy format clean

$(CURDIR)/.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(PIP) '$(TORCH)' numpy || (rm -rf .venv; exit 1)

build: $(PY)
	$(PIP) -r requirements/build.txt
	$(PY) setup.py --quiet build_ext --inplace

# Unoptimised, for a debugger; `make build` puts the fast one back.
debug: $(PY)
	$(PIP) -r requirements/build.txt
	IMAE_CXXFLAGS="-O0 -g $(IMAE_CXXFLAGS)" $(PY) setup.py --quiet build_ext --inplace --build-temp build/debug

# For editors and clang-tidy: how each file is compiled.
compile-commands: build
	ninja -C "$$(ls -td build/temp.* | head -1)" -t compdb compile > compile_commands.json

quick: build
	$(PIP) -r requirements/demo.txt -r requirements/test.txt
	IMAE_EXT_REQUIRE=1 OMP_NUM_THREADS=1 $(PY) -m pytest -x -n auto -k "not plain and not reference" \
		$(QUICK:%=tests/test_%.py) $(ARGS)

demo: build
	$(PIP) -r requirements/demo.txt
	$(PY) -m benchmarks.noisy_labels.demo

test: build
	$(PIP) -r requirements/demo.txt -r requirements/test.txt
	IMAE_EXT_REQUIRE=1 OMP_NUM_THREADS=1 $(PY) -m pytest -n auto -m "not cuda and not slow and not arm" $(ARGS)

# Tests of minutes: what a change to the tree as a whole may break.
test-slow: build
	$(PIP) -r requirements/demo.txt -r requirements/test.txt
	IMAE_EXT_REQUIRE=1 OMP_NUM_THREADS=1 $(PY) -m pytest -m slow $(ARGS)

# The CUDA kernels without a GPU: emulated, and with nvcc at hand compiled and disassembled.
test-cuda: build
	$(PIP) -r requirements/demo.txt -r requirements/test.txt
	IMAE_EXT_REQUIRE=1 OMP_NUM_THREADS=1 $(PY) -m pytest -n auto -m cuda $(ARGS)

# The kernels of 64-bit Arm, cross-compiled and run in an emulator: Debian's g++-aarch64-linux-gnu and qemu-user.
test-arm: build
	command -v aarch64-linux-gnu-g++ && command -v qemu-aarch64
	$(PIP) -r requirements/demo.txt -r requirements/test.txt
	IMAE_EXT_REQUIRE=1 OMP_NUM_THREADS=1 $(PY) -m pytest tests/test_arm.py --durations=3 $(ARGS)

# The losses inside the real transformers, TRL, timm, Lightning and skorch; the torch that is there stays.
ecosystem: build
	mkdir -p build
	$(PY) -c 'import torch; print("torch==" + torch.__version__)' > build/torch.txt
	$(PIP) -r requirements/demo.txt -r requirements/test.txt -r requirements/ecosystem.txt -c build/torch.txt
	IMAE_EXT_REQUIRE=1 OMP_NUM_THREADS=1 $(PY) -m pytest tests/ecosystem $(ARGS)

# Random calls, valid and invalid, for SECONDS; a failure prints the line that repeats it.
SECONDS ?= 60
SEED ?= $(shell date +%s)
fuzz: build
	$(PIP) -r requirements/demo.txt -r requirements/test.txt
	OMP_NUM_THREADS=1 $(PY) tests/fuzz/fuzzing.py --seconds $(SECONDS) --seed $(SEED)

sanitize: build
	$(PIP) -r requirements/demo.txt -r requirements/test.txt
	$(PY) tests/sanitize.py

# Plants faults, one after the other, and demands that a test fails.
faults: build
	$(PIP) -r requirements/demo.txt -r requirements/test.txt
	$(PY) tests/mutation/run.py $(ARGS)

# Before a release: hours. Goes on after a failure, and fails at the end.
nightly: build
	$(MAKE) --keep-going $(NIGHTLY)

figures: build
	$(PIP) -r requirements/demo.txt -r requirements/test.txt
	$(PY) tests/figures.py

bench: build
	$(PIP) -r requirements/demo.txt
	$(PY) -m benchmarks.speed
	$(PY) -m benchmarks.speed.figures --readme README.md

# The API with its formulas typeset, from the docstrings: docs/api/html.
docs: build
	$(PIP) -r requirements/docs.txt
	$(PY) docs/api/build.py

lint: tidy
	$(PIP) -r requirements/lint.txt
	ruff check .
	ruff format --check .
	mypy
	git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' | xargs clang-format --dry-run --Werror

# Alone: what the compiler does not warn of in the host code.
tidy: compile-commands
	$(PIP) -r requirements/lint.txt
	git ls-files 'csrc/*.cpp' | grep -v cuda | xargs -n 1 -P 2 clang-tidy -p . --quiet

format: $(PY)
	$(PIP) -r requirements/lint.txt
	ruff check --fix-only .
	ruff format .
	git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' | xargs clang-format -i

wheels: build
	$(PIP) -r requirements/wheels.txt
	$(PY) packaging/wheels.py $(PYTHONS)

# The wheels in bare environments, outside the checkout: every Python on PATH with the oldest and the newest torch.
matrix: $(PY)
	$(PY) packaging/matrix.py --tests $(ROWS)

# One row of it, for CI: what is compiled already as a wheel, with the torch that is here.
matrix-row: build
	$(PIP) -r requirements/test.txt
	rm -rf build/dist
	$(PY) setup.py --quiet bdist_wheel --dist-dir build/dist
	$(PY) packaging/matrix.py --tests --dist build/dist '$(PY)=here'

clean:
	rm -rf build imae_ext/*.so demo_output compile_commands.json docs/api/html

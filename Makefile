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

.PHONY: build demo test ecosystem test-cuda sanitize figures bench lint format clean

$(CURDIR)/.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(PIP) '$(TORCH)' numpy || (rm -rf .venv; exit 1)

build: $(PY)
	$(PIP) -r requirements/build.txt
	$(PY) setup.py --quiet build_ext --inplace

demo: build
	$(PIP) -r requirements/demo.txt
	$(PY) -m benchmarks.noisy_labels.demo

test: build
	$(PIP) -r requirements/demo.txt -r requirements/test.txt
	IMAE_EXT_REQUIRE=1 OMP_NUM_THREADS=1 $(PY) -m pytest -n auto -m "not cuda" $(ARGS)

# The CUDA kernels without a GPU: emulated, and with nvcc at hand compiled and disassembled.
test-cuda: build
	$(PIP) -r requirements/demo.txt -r requirements/test.txt
	IMAE_EXT_REQUIRE=1 OMP_NUM_THREADS=1 $(PY) -m pytest -n auto -m cuda $(ARGS)

# The losses inside the real transformers, TRL, timm, Lightning and skorch; the torch that is there stays.
ecosystem: build
	mkdir -p build
	$(PY) -c 'import torch; print("torch==" + torch.__version__)' > build/torch.txt
	$(PIP) -r requirements/demo.txt -r requirements/test.txt -r requirements/ecosystem.txt -c build/torch.txt
	IMAE_EXT_REQUIRE=1 OMP_NUM_THREADS=1 $(PY) -m pytest tests/ecosystem $(ARGS)

sanitize: build
	$(PIP) -r requirements/demo.txt -r requirements/test.txt
	$(PY) tests/sanitize.py

figures: build
	$(PIP) -r requirements/demo.txt -r requirements/test.txt
	$(PY) tests/figures.py

bench: build
	$(PIP) -r requirements/demo.txt
	$(PY) -m benchmarks.speed
	$(PY) -m benchmarks.speed.figures --readme README.md

lint: $(PY)
	$(PIP) -r requirements/lint.txt
	ruff check .
	ruff format --check .
	mypy
	git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' | xargs clang-format --dry-run --Werror

format: $(PY)
	$(PIP) -r requirements/lint.txt
	ruff check --fix-only .
	ruff format .
	git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' | xargs clang-format -i

clean:
	rm -rf build imae_ext/*.so demo_output

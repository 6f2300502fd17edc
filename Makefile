# hpsweep: `make sweep` and `make test` set everything up themselves. `make help` lists the rest.
PYTHON ?= python3
TORCH ?= torch==2.13.0
# Where torch comes from when not from the default package index, e.g. the CUDA or CPU wheels of pytorch.org:
TORCH_INDEX ?=
EXPERIMENT ?= lr_by_density
ADDRESS ?= local
RESULTS ?= results
PYTEST_ARGS ?=
WORKERS ?= 2
BENCH ?= throughput

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NAME := $(basename $(notdir $(EXPERIMENT)))

# Another torch asked for than the one that is installed: install it. Unasked, what is installed stays.
INSTALLED := $(shell cat $(STAMP) 2>/dev/null)
ifeq ($(filter-out file default undefined,$(origin TORCH) $(origin TORCH_INDEX)),)
TORCH := $(or $(word 1,$(INSTALLED)),$(TORCH))
TORCH_INDEX := $(word 2,$(INSTALLED))
else ifneq ($(INSTALLED),$(strip $(TORCH) $(TORCH_INDEX)))
.PHONY: $(STAMP)
OTHER := $(INSTALLED)
endif

# As many tests at a time, each with one thread: more wait for each other most of the time.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help install sweep test test-slow test-gpu test-as-on-gpu test-kernels check docs notebooks notebooks-check bench clean
.DEFAULT_GOAL := help

help:  ## list what can be made, and the variables
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo ""
	@echo "  EXPERIMENT=$(EXPERIMENT)  what is swept: a file, or a name in experiments/"
	@echo "  ADDRESS=$(ADDRESS)             where it runs: local (worker processes here), auto, or a Ray address"
	@echo "  RESULTS=$(RESULTS)           the folder that holds one folder per experiment"
	@echo "  TORCH='$(TORCH)' TORCH_INDEX='$(TORCH_INDEX)'  which torch is installed, and from which index"
	@echo "  BENCH='$(BENCH)'         which benchmark, with its options ('gpu --quick'), or several ('overhead scale')"
	@echo "  WORKERS=$(WORKERS)                  how many tests run at a time"
	@echo "  PYTHON=$(PYTHON)            the interpreter the virtual environment is made from (3.11 or newer)"

install: $(STAMP)  ## make .venv with tested versions and the hpsweep command

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hpsweep needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing $(TORCH) and the versions in constraints.txt into $(VENV)"
	@$(if $(OTHER),$(BIN)/python -m pip uninstall -q -y torch)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt '$(TORCH)' $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[run,notebooks,dev]'
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-deps mup
	@echo '$(strip $(TORCH) $(TORCH_INDEX))' > $@

sweep: install  ## run an experiment, then its optima, figures, card and report
	$(BIN)/hpsweep run $(EXPERIMENT) --results $(RESULTS) --address $(ADDRESS)
	$(BIN)/hpsweep optimum $(RESULTS)/$(NAME) --save
	$(BIN)/hpsweep plot $(RESULTS)/$(NAME) --save
	@if grep -q '"target": null' $(RESULTS)/$(NAME)/meta.json; then echo "$(EXPERIMENT) names no target: no card"; \
	  else set -x; $(BIN)/hpsweep transfer $(RESULTS)/$(NAME) --save; fi
	$(BIN)/hpsweep report $(RESULTS)/$(NAME) --save

test: install  ## run the tests: about a quarter of an hour on two cores
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: install  ## run the long forms of some tests, which `make test` leaves out
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-gpu: install  ## run the tests that need a GPU, on one GPU: some minutes
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS) tests/proxy/test_gpu.py tests/sweep/test_gpu_commands.py

test-as-on-gpu: install  ## run the tests as on a machine that says it has a GPU; what is trained there is trained on the CPU
	PATH="$(CURDIR)/tests/as_on_gpu:$$PATH" PYTHONPATH="$(CURDIR)/tests/as_on_gpu:$(CURDIR)" \
	  $(PYTEST) -m "not slow and not gpu" $(PYTEST_ARGS)

# What is fitted has other last digits under other matrix kernels, and the tests hold under each. `make test` has run
# this processor's own: Haswell's where it has AVX2 and no AVX-512. The native engine is tested as lesser processors too.
ONLY_AVX2 := $(shell grep -s avx2 /proc/cpuinfo | grep -vm1 avx512f)
KERNELS ?= $(if $(ONLY_AVX2),Sandybridge,Haswell)
NATIVE_TARGETS ?= $(if $(ONLY_AVX2),,AVX2) SSE2
KERNEL_TESTS ?= tests/export/test_export.py tests/analysis/optimum tests/analysis/transfer/test_along_drift.py \
  tests/analysis/transfer/test_drift.py tests/analysis/transfer/test_card_regret.py \
  tests/analysis/transfer/test_regret_matrix.py tests/analysis/test_published_numbers.py

test-kernels: install  ## run the tests of what is fitted, and of the native engine, as on other x86 processors
	@test "$$(uname -m)" = x86_64 || echo "no x86 processor: its own kernels are all there is to test"
	@test "$$(uname -m)" != x86_64 || for kernel in $(KERNELS); do \
	  echo "$$kernel:"; OPENBLAS_CORETYPE=$$kernel ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	  $(PYTEST) -m "not slow and not coverage" $(PYTEST_ARGS) $(KERNEL_TESTS) || exit 1; done
	@test "$$(uname -m)" != x86_64 || for target in $(NATIVE_TARGETS); do \
	  echo "the native engine as $$target:"; HPSWEEP_TEST_TARGET=$$target \
	  $(PYTEST) -m "not slow" $(PYTEST_ARGS) tests/proxy/test_native.py || exit 1; done

check: install  ## format and lint (ruff), types (mypy strict), import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

notebooks: install  ## execute the notebooks in place
	$(BIN)/python notebooks/execute.py

notebooks-check: install
	$(BIN)/python notebooks/execute.py --check

docs: install  ## build the site into build/site; a broken link is an error
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . build/site
	@echo build/site/index.html

bench: install  ## measure the engines on this machine, about 20 minutes, or what BENCH names
	$(BIN)/python -m benchmarks $(BENCH)

clean:  ## remove the virtual environment and caches; results stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

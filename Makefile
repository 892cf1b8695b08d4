# Everything from nothing but Python 3.11 and make. `make help` lists the targets.
#
# Each step of the set-up leaves a stamp in .venv/stamps and is not repeated, so a second run starts at once.
# Another interpreter: `make test PYTHON=python3.12`. Another torch: `make distclean test TORCH="torch torchvision"`.
# More arguments for the tool behind a target: `make test ARGS="-k resnet -x"`.

PYTHON  ?= python3
VENV    ?= .venv
# Two test processes with one torch thread each: the fastest on the two cores of our CI, and repeatable.
WORKERS ?= 2
# Named in every pip call, so that no extra can move torch to another version.
TORCH   ?= torch==2.14.1 torchvision==0.29.1
ARGS    ?=

BIN    := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two pips in one environment would trip over each other; under `make -j` too.
.NOTPARALLEL:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- environment: venv, then torch, then one stamp an extra ---

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Secateur needs Python 3.11 or newer; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: | $(STAMPS)/venv
	@echo "Installing $(TORCH): some minutes, the first time only"
	$(PIP) $(TORCH)
	@touch $@

$(STAMPS)/extra-%: pyproject.toml constraints.txt $(STAMPS)/torch
	$(PIP) -c constraints.txt $(TORCH) -e ".[$*]"
	@touch $@

# --- what people run ---

.PHONY: demo
demo: $(STAMPS)/extra-demo ## prune a small network on real digits, from nothing to the report
	$(BIN)/python examples/digits.py $(ARGS)

.PHONY: test
test: $(STAMPS)/extra-test ## the fast tests
	$(PYTEST) -m "not slow" $(ARGS)

.PHONY: test-slow
test-slow: $(STAMPS)/extra-test ## the tests marked slow
	$(PYTEST) -m slow $(ARGS)

.PHONY: fuzz
fuzz: $(STAMPS)/extra-test ## random networks, many examples
	$(PYTEST) -m fuzz --hypothesis-profile=fuzz -o faulthandler_timeout=3600 $(ARGS)

# Strict on purpose: no doctest found (exit status 5 of pytest) is a failure.
.PHONY: doctest
doctest: $(STAMPS)/extra-test ## the examples in the docstrings
	$(BIN)/python -m pytest --doctest-modules src $(ARGS)

.PHONY: lint
lint: $(STAMPS)/extra-lint ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: $(STAMPS)/extra-lint ## let ruff fix and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: $(STAMPS)/extra-test $(STAMPS)/extra-lint ## pyright on src
	$(BIN)/pyright --pythonpath $(BIN)/python $(ARGS)

.PHONY: zoo
zoo: $(STAMPS)/extra-zoo ## the table of third-party models
	$(BIN)/python benchmarks/zoo.py $(ARGS)

.PHONY: bench-peers
bench-peers: $(STAMPS)/extra-zoo ## Secateur and Torch-Pruning in the same run
	$(BIN)/python benchmarks/peers.py $(ARGS)

.PHONY: clean
clean: ## remove caches and build products
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: distclean
distclean: clean ## remove the environment too
	rm -rf $(VENV)

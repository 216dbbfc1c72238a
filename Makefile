PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test check lint types clean

help:  ## Show what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 12

# Set up once, and again whenever a pin or a dependency changes: to run it, and with what tests and experiments need.
$(VENV)/ready: WHAT := .[all]
$(VENV)/ready-dev: WHAT := .[dev]
$(VENV)/ready $(VENV)/ready-dev: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say which with make PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (the first time takes a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '$(WHAT)'
	@touch $@

run: $(VENV)/ready  ## Load a corpus, then start API and page: make run [CORPUS=path.jsonl]
	@exec $(BIN)/qaserve up $(if $(CORPUS),"$(CORPUS)")

test: $(VENV)/ready-dev  ## Run every test
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/ready-dev  ## Check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/ready-dev  ## Check types
	@$(BIN)/mypy

check: lint types test  ## Everything that CI checks

clean:  ## Remove the virtual environment and caches; data and models stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

# `make demo` and `make test` do all the set-up on a fresh machine. PYTHON and PIP_ARGS choose the interpreter and, for instance, another
# source of torch wheels.
PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export DVC_NO_ANALYTICS := 1
export RAY_USAGE_STATS_ENABLED := 0
export GX_ANALYTICS_ENABLED := false
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo ui test test-slow lint format bench mutations faults bench-audit docs lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## Create .venv and install the lock

$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: $(READY) ## Run the whole flow on the embedded catalogue (ARGS: options of diger demo)
	@diger demo $(ARGS)

ui: $(READY) ## Dagster's UI and daemon on http://127.0.0.1:3000 (ARGS="--port 3001": elsewhere)
	@diger ui $(ARGS)

test: $(READY) ## Run the tests (not the slow ones)
	@$(BIN)/python -m pytest -q -m "not slow and not gpu"

test-slow: $(READY) ## Run the slow tests
	@$(BIN)/python -m pytest -q -m "slow and not gpu" --timeout=1800

lint: $(READY) ## Linters and types
	@ruff check .
	@ruff format --check .
	@mypy

format: $(READY) ## Format the code
	@ruff check --fix .
	@ruff format .

bench-audit: $(READY) ## Damage table and speed of the audit, on a local disk and on an S3 server
	@$(BIN)/python -m benchmarks.audit
	@$(BIN)/python -m benchmarks.audit --s3 --artefacts 1500
	@$(BIN)/python -m benchmarks.report

bench: $(READY) ## Benchmarks of the CPU part
	@OMP_WAIT_POLICY=passive $(BIN)/python -m benchmarks.cpu
	@$(BIN)/python -m benchmarks.report

mutations: $(READY) ## Break each property of the method once: a test must notice
	@$(BIN)/python -m tests.mutations

faults: $(READY) ## The fault bench: what the system survives (up to half an hour)
	@$(BIN)/python -m benchmarks.faults

docs: $(READY) ## Write the configuration reference, dvc.yaml and the definitions' snapshot anew
	@diger params --markdown > docs/configuration.md
	@$(BIN)/python -m orchestration.on_dvc
	@$(BIN)/python -m tests.support.definitions_snapshot

lock: ## Pin what is installed in .venv
	@echo "# Every dependency, pinned: \`make setup\` installs exactly these. Made by \`make lock\` on Linux x86-64, Python 3.11." > requirements.lock
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/^\(torch==[0-9.]*\)+.*/\1/' >> requirements.lock

clean: ## Remove what runs have made (not the virtual environment)
	rm -rf store .dagster pipeline data/snapshots/demo-1 data/snapshots/demo-2

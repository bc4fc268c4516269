# Everything runs in .venv, made from pyproject.toml where it is missing or older.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    ?=

.PHONY: help setup train test test-fast test-slow lint clean

help:
	@echo "make train      train DQN on CartPole-v1 until it is solved, evaluate it, draw its curve, film it"
	@echo "make test       tests, lint and the import contract"
	@echo "make test-slow  the tests that take longer than a minute"
	@echo "make lint       ruff and the import contract alone"

$(VENV)/.base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("jaxdl needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

setup: $(VENV)/.test

train: $(VENV)/.base
	$(BIN)/jaxdl train cartpole $(if $(RUN),--out $(RUN))

test: $(VENV)/.test lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.test
	$(BIN)/ruff check .
	@# the contract is of the package as it is installed: the four folders as one
	@rm -rf $(VENV)/contract && mkdir -p $(VENV)/contract && cp -r jaxdl $(VENV)/contract/ && cp -r agents generative experiments $(VENV)/contract/jaxdl/
	cd $(VENV)/contract && ../bin/lint-imports --no-cache ../../pyproject.toml

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

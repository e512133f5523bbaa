# Two commands for a newcomer: make demo, make test. Everything runs in .venv, which is made on the way.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# constraints.txt pins what was tested, torch first: that version installs a CPU build where one is offered.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-fast lint types bench train clean

demo: $(VENV)/installed
	$(BIN)/sish demo demo

test: $(VENV)/installed-test
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

test-fast: $(VENV)/installed-test
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-test
	$(BIN)/mypy sish benchmarks

bench: $(VENV)/installed-test
	$(BIN)/python -m benchmarks.retrieval --quick

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt torch
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) install --constraint constraints.txt --editable '.[dev,interop]'
	touch $@

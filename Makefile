PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint gpu-test

demo: $(READY)  ## decode, cut, mix and show real photographs
	$(BIN)/dali-cutmix demo

test: lint  ## linter, formatter check, types, tests
	$(BIN)/python -m pytest

gpu-test: $(READY)  ## what only a GPU can show
	$(BIN)/python -m pytest -m gpu

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV), once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Each worker takes the tests of the other when it has none left. Which runs where is of no matter.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: help demo check test lint docs gpu-test bench packages front-door

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

demo: $(READY)  ## decode, cut, mix and show real photographs
	$(BIN)/dali-cutmix demo

check: lint  ## linter, formatter check, types and the quick tests, in a minute
	$(PYTEST) -m "not slow"

test: lint  ## linter, formatter check, types and all tests
	$(PYTEST)

docs: $(READY)  ## the documentation, into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open build/site/index.html"

gpu-test: $(READY)  ## what only a GPU can show
	$(BIN)/python benchmarks/first_gpu.py
	$(BIN)/python -m pytest -m gpu

HARDWARE = $(shell $(BIN)/python -c "import torch; print('-'.join(torch.cuda.get_device_name().lower().removeprefix('nvidia ').split()) if torch.cuda.is_available() else 'cpu')")

bench: $(READY)  ## all benchmarks, and the tables and plots of the documentation
	mkdir -p benchmarks/results/$(HARDWARE)
	$(BIN)/dali-cutmix bench mix --batch-size 256 --out benchmarks/results/$(HARDWARE)/bench-mix.json
	$(BIN)/dali-cutmix bench loader --out benchmarks/results/$(HARDWARE)/bench-loader.json
	$(BIN)/dali-cutmix bench train --out benchmarks/results/$(HARDWARE)/bench-train.json
	$(BIN)/dali-cutmix bench --out benchmarks/results/$(HARDWARE)/bench-profile.json
	for kind in detection segmentation volumes; do \
		$(BIN)/dali-cutmix bench $$kind --out benchmarks/results/$(HARDWARE)/bench-$$kind.json || exit 1; \
	done
	$(BIN)/python benchmarks/tables.py

lint: $(READY)  ## linter, formatter check, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

packages: $(READY)  ## wheel and sdist, into dist; the tests of the sdist
	rm -rf build/sdist dist
	$(BIN)/python -m build --outdir dist
	mkdir -p build/sdist && tar -xzf dist/*.tar.gz --strip-components=1 -C build/sdist
	cd build/sdist && PYTHONPATH=. ../../$(BIN)/python -m pytest -q -m "not slow" tests

front-door:  ## the README's lines in a new environment, as a newcomer would run them
	$(PYTHON) tests/front_door.py

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV), once: DALI, torch and what the tests need are downloaded and installed"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt -e '.[test]'
	@touch $@

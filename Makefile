# Everything runs in .venv, which is made on first use. PYTHON picks the interpreter that makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests of one file stay in one process: they share what is costly to build.
PARALLEL ?= -n 2 --dist loadfile

.PHONY: demo test test-all lint format docs site setup clean

demo: $(READY)  ## the main job on the built-in sample: convert, train, kill, resume, audit
	$(BIN)/python recipes/demo.py

test: $(READY)  ## the fast tests, minutes
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not dist and not slurm and not gpu and not realsize"

test-all: $(READY)  ## every test that this machine can run, and the linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)  ## the table of keys in docs/configuration.md, anew from the schema
	sed -i '/^| key/,$$d' docs/configuration.md
	$(BIN)/python -m theworld.config >> docs/configuration.md

site: $(READY)  ## the documentation as pages in build/site
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --quiet --strict

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 10) <= v[:2] < (3, 13) else f"Python 3.10, 3.11 or 3.12 is needed, $(PYTHON) is {v.major}.{v.minor}; call make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[dev]'
	touch $(READY)

clean:
	rm -rf demo runs logs benchmarks/out .pytest_cache .ruff_cache

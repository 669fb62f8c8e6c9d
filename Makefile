# Everything runs in .venv, which is made on first use. PYTHON picks the interpreter that makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# What to install beside the recipe itself: extras of pyproject.toml.
EXTRAS ?= dev
# Tests of one file stay in one process: they share what is costly to build.
PARALLEL ?= -n 2 --dist loadfile

# The lane of newer versions: an environment of its own, by constraints-next.txt. docs/newer-torch.md says what for.
NEXT := .venv-next
NEXT_EXTRAS ?= dev,benchmark
# What constraints-next.txt puts over the bounds of composer, streaming and pyproject.toml.
OVER := torch torchvision transformers huggingface-hub diffusers numpy
QUICK := not slow and not dist and not slurm and not gpu and not realsize

.PHONY: demo test test-all bench lint format docs site setup install clean setup-next test-next demo-next lock-next

demo: $(READY)  ## the main job on the built-in sample: convert, train, kill, resume, audit
	$(BIN)/python recipes/demo.py

test: $(READY)  ## the fast tests, minutes
	$(BIN)/python -m pytest $(PARALLEL) -m "$(QUICK)"

test-all: $(READY)  ## every test that this machine can run, and the linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest

bench: $(READY)  ## the benchmarks that need no GPU, a quarter of an hour, into benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks.run_all

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
	$(MAKE) install EXTRAS=docs
	$(BIN)/mkdocs build --quiet --strict

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] < (3, 13) else f"Python 3.11 or 3.12 is needed, $(PYTHON) is {v.major}.{v.minor}; call make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(MAKE) install
	touch $(READY)

# uv does what pip does in a fraction of its time. It knows nothing of pip's settings, so that pip does it where those name
# another index than PyPI, and where uv fails, whatever the reason. Like pip it compiles what it installs: else each process
# of a user who has Python write no bytecode (PYTHONDONTWRITEBYTECODE) compiles torch anew, 14 CPU seconds a start.
install:  ## the packages of EXTRAS, into the environment that is there
	if ! $(BIN)/python -m pip config list | grep -qE "[.](index-url|no-index)=" \
	   && $(BIN)/python -m pip install -q -c constraints.txt uv \
	   && $(BIN)/python -m uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'; then :; \
	else $(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[$(EXTRAS)]'; fi

setup-next: $(NEXT)/.ready  ## .venv-next: the newest torch, transformers 5, Python 3.11 to 3.13

test-next: $(NEXT)/.ready  ## the fast tests, with the versions of constraints-next.txt
	$(NEXT)/bin/python -m pytest $(PARALLEL) -m "$(QUICK)" $(TESTS)

demo-next: $(NEXT)/.ready  ## the demo, with the versions of constraints-next.txt
	$(NEXT)/bin/python recipes/demo.py

# uv puts versions over other packages' bounds, and lets a Python pass that is newer than they say. pip does neither: where
# its settings name another index, it installs the complete list, each package without looking at what it asks for.
$(NEXT)/.ready: pyproject.toml constraints-next.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] < (3, 14) else f"Python 3.11 to 3.13 is needed, $(PYTHON) is {v.major}.{v.minor}; call make PYTHON=python3.12 setup-next")'
	test -x $(NEXT)/bin/python || $(PYTHON) -m venv $(NEXT)
	if $(NEXT)/bin/python -m pip config list | grep -qE "[.](index-url|no-index)="; then \
	  $(NEXT)/bin/python -m pip install -q --progress-bar off --no-deps -r constraints-next.txt \
	  && $(NEXT)/bin/python -m pip install -q --no-deps --ignore-requires-python -e .; \
	else \
	  sed '/^$$/q' constraints-next.txt > $(NEXT)/over.txt \
	  && $(NEXT)/bin/python -m pip install -q "$$(grep ^uv== constraints-next.txt)" \
	  && $(NEXT)/bin/python -m uv pip install -q --compile-bytecode --python $(NEXT)/bin/python -c constraints-next.txt \
	    --override $(NEXT)/over.txt -e '.[$(NEXT_EXTRAS)]'; \
	fi
	touch $(NEXT)/.ready

lock-next: $(NEXT)/.ready  ## constraints-next.txt anew, with the newest versions that there are today
	printf '%s\n' $(OVER) > $(NEXT)/over.txt
	$(NEXT)/bin/python -m uv pip compile -q --universal --python-version 3.11 --no-annotate --no-header \
	  --override $(NEXT)/over.txt --all-extras -o $(NEXT)/all.txt pyproject.toml
	for name in $(OVER); do grep "^$$name==" $(NEXT)/all.txt; done > $(NEXT)/first.txt
	{ grep "^#" constraints-next.txt; cat $(NEXT)/first.txt; echo; \
	  { grep -vxFf $(NEXT)/first.txt $(NEXT)/all.txt; grep "^uv==" constraints-next.txt; } | sort -f; } > $(NEXT)/new.txt
	mv $(NEXT)/new.txt constraints-next.txt

clean:
	rm -rf demo runs logs benchmarks/out .pytest_cache .ruff_cache

# Two commands: `make study` runs a real unlearning study, `make test` runs the checks and the tests.
# Both set up .venv by themselves. PYTHON names another interpreter; VENV another place.
#
# pip takes torch from the package index that it is set to. On Linux a CPU-only build saves 2 GB of downloads: put it
# into .venv before, or name PyTorch's own index of CPU builds in PIP_EXTRA_INDEX_URL.

VENV := .venv
LOCK := requirements.lock
BIN := $(VENV)/bin
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Every version comes from the lock; what is asked for decides how much of it is installed.
INSTALL := $(PIP) install --quiet --constraint $(LOCK)
STUDY := studies/quickstart.toml

.PHONY: study test test-all mutation bench bench-all docs format lock clean

study: $(VENV)/.stamp-study
	$(BIN)/qunlearn run $(STUDY)

test: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -n 2

# Breaks every method in turn: each break must turn the tests of behaviour red (about ten minutes).
mutation: $(VENV)/.stamp-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/methods/mutation_run.py

# Our engines and other people's side by side, about three minutes; bench-all measures everything (more than an hour,
# on a machine that does nothing else).
bench: $(VENV)/.stamp-bench
	$(BIN)/python studies/benchmark_engines.py

bench-all: $(VENV)/.stamp-bench
	$(BIN)/python studies/benchmark_engines.py --all
	$(BIN)/python studies/benchmark_studies.py --mnist
	$(BIN)/python studies/benchmark_noise.py --all

docs: $(VENV)/.stamp-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	@echo "The pages: docs/_build/html/index.html"

format: $(VENV)/.stamp-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A fresh environment with everything, frozen; torch first, since the Makefile installs it first and alone.
lock: $(VENV)/.stamp-venv
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet "$$(grep '^torch==' $(LOCK))"
	build/lock/bin/python -m pip install --quiet ".[dev,docs,ibm]"
	build/lock/bin/python -m pip freeze --all --exclude qunlearn --exclude pip \
		| sed -e 's/+[a-z0-9.]*$$//' -e '/ @ /d' -e '/^nvidia-/d' -e '/^triton==/d' > build/lock.txt
	{ grep '^torch==' build/lock.txt; grep -v '^torch==' build/lock.txt; } > $(LOCK)
	rm -rf build/lock build/lock.txt

clean:
	rm -rf $(VENV) build docs/_build docs/methods

# The set-up, in steps; a stamp in $(VENV) says that a step is done for this lock and this pyproject.toml.
$(VENV)/.stamp-venv:
	@test -n "$(PYTHON)" || { echo "expected Python 3.11, 3.12 or 3.13 on the PATH, found none; \
	install one or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c '$(SUPPORTED)' || { echo "expected Python 3.11, 3.12 or 3.13, got $$($(PYTHON) --version)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-study: $(VENV)/.stamp-venv $(LOCK) pyproject.toml setup.py
	@echo "Installing into $(VENV) (a few minutes the first time)"
	$(PIP) install --quiet "$$(grep '^torch==' $(LOCK))"
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-study
	$(INSTALL) --editable ".[dev,ibm]"
	@touch $@

$(VENV)/.stamp-docs: $(VENV)/.stamp-study
	$(INSTALL) --editable ".[docs,ibm]"
	@touch $@

$(VENV)/.stamp-bench: $(VENV)/.stamp-study
	$(INSTALL) --editable ".[bench,ibm]"
	@touch $@

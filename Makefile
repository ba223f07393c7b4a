# Each target is a line or two; the work is in Python. Every target but `env` needs only what `env` installed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: env demo test quick lint bench export audit label-env label-test
env: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' && touch $@

# Threads that wait must not spin: on a busy machine that costs many times the work itself.
export OMP_WAIT_POLICY ?= PASSIVE

demo: env
	$(BIN)/python -m common demo demo $(if $(DATASET),--dataset "$(DATASET)")

# In as many processes as there are cores, each with one thread. A file's tests stay together, as they share what they
# prepare; reordered, files of a single long test would come last.
test: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

quick: env
	$(BIN)/python -m pytest -m 'not slow'

lint: env
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

export: env
	for bundle in bundles/*/; do $(BIN)/python -m common export $$bundle || exit 1; done

# No part of `lint`: it asks a service in the network. What that doesn't know is told, and the target fails.
audit:
	$(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

# MONAI Label, in an environment of its own: what it needs doesn't go with what this project needs.
label-env: .venv-label/installed

.venv-label/installed: apps/requirements.txt apps/requirements-alone.txt
	$(PYTHON) -m venv .venv-label
	.venv-label/bin/python -m pip install --quiet --disable-pip-version-check -r apps/requirements.txt
	.venv-label/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r apps/requirements-alone.txt && touch $@

label-test: env label-env
	$(BIN)/python -m pytest -m label

bench: env
	$(BIN)/python -m benchmarks $(DATASET) $(CHECKPOINT)

# `make demo` and `make test` each set up everything they need; run `make help` for the rest.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin

# Bytecode makes every later start of torch and ComfyUI several seconds faster.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
PARALLEL := -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: help setup demo test test-fast faults check docs ui lock

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: .venv/ready ## make .venv with all pinned dependencies

demo: setup ## run the default graph once and print where its latent, picture and MLflow run are
	$(BIN)/python run.py

test: setup ## run all tests, in two processes
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: setup ## run the tests that start no processes, servers or browsers
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

faults: setup ## test the Kafka worker under faults at full size: 500 requests a test, 20 kills
	LATENTGRID_FAULTS=500 $(BIN)/python -m pytest tests/service/test_faults.py

check: setup ## lint, check types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup ## build the documentation site
	$(BIN)/mkdocs build --strict

ui: setup ## show the runs in outputs/ in the MLflow UI, at port 5000
	@id=$$($(BIN)/python -c "$$FIND_EXPERIMENT" 2>/dev/null); page="http://127.0.0.1:5000/#/experiments$${id:+/$$id/runs}"; \
	echo "The runs: $$page   (Ctrl-C ends the UI)"; \
	if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || [ "$$(uname)" = Darwin ]; then \
		(for _ in $$(seq 60); do sleep 1; $(BIN)/python -c "$$TRY_UI" 2>/dev/null && \
			exec $(BIN)/python -m webbrowser "$$page" >/dev/null; done) & \
	fi; \
	exec $(BIN)/mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db --port 5000 --workers 1

define FIND_EXPERIMENT
import sqlite3
store = sqlite3.connect("file:outputs/mlflow.db?mode=ro", uri=True)
print(*store.execute("SELECT experiment_id FROM experiments WHERE name = 'latentgrid'").fetchone())
endef
export FIND_EXPERIMENT

export TRY_UI := import socket; socket.create_connection(("127.0.0.1", 5000), 1)

lock: setup ## resolve requirements.txt anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--upgrade --all-extras --group dev pyproject.toml --output-file requirements.txt

# uv installs the set of 180 packages in a fraction of pip's time; it is itself one of the pinned packages.
.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "latentgrid needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python's venv is missing: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	awk '/^uv==/ {found = 1} found {print} found && !/\\$$/ {exit}' requirements.txt > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r .venv/uv.txt
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

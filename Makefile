# fleetctl: `make` lists what can be made. Everything it needs it installs itself, into .venv and node_modules.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := core agent controller balancer cli tests scripts
PROTOS := $(wildcard proto/fleet/v1/*.proto)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml requirements-dev.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements-dev.lock -e '.[dev]'
	touch $@

setup: $(VENV)/.installed ## make the virtual environment with everything for development

proto: $(VENV)/.installed ## regenerate the code of the contracts in proto/
	$(BIN)/python -m grpc_tools.protoc -Iproto --plugin=$(BIN)/protoc-gen-mypy --plugin=$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=proto --grpc_python_out=proto --mypy_out=quiet:proto --mypy_grpc_out=quiet:proto $(PROTOS)

lock: ## pin today's versions of everything into requirements-dev.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade --upgrade-strategy eager -e '.[dev]'
	$(BIN)/pip freeze --exclude-editable | grep -vE '^(pip|setuptools)==' > requirements-dev.lock

fmt: $(VENV)/.installed ## format the code
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix --quiet $(CODE)

lint: $(VENV)/.installed ## style and likely mistakes
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

type: $(VENV)/.installed ## mypy strict
	$(BIN)/mypy

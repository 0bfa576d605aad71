# fleetctl: `make` lists what can be made. Everything it needs it installs itself, into .venv and node_modules.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := core agent controller balancer cli tests scripts examples
PROTOS := $(wildcard proto/fleet/v1/*.proto)
EXPRESS := examples/express
NODE_EXAMPLES := express fastify nestjs
EXAMPLES := $(NODE_EXAMPLES:%=examples/%/node_modules/.installed) examples/.venv/.installed examples/go/hello
# How often `make soak` and `make bench-restarts` repeat.
ROUNDS ?= 10
# `make faults`, `make faults-hosts`: for how long, how many lines a second each worker logs, and whose faults again (default: a random seed's).
SECONDS ?= 60
RATE ?= 1000
SEED ?=
TIMESTAMPS ?=
# `make faults-outages`: which scenes, as pytest's -k.
SCENES ?=
# `make faults-controller`: how often the controller dies.
DEATHS ?= 30
# `make faults-takeover`: how often the leading controller dies; `make faults-changes`: how much is changed meanwhile.
RUNS ?= 20
CHANGES ?= 1000

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml requirements-dev.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements-dev.lock -e '.[dev]'
	touch $@

setup: $(VENV)/.installed ## make the virtual environment with everything for development

$(NODE_EXAMPLES:%=examples/%/node_modules/.installed): examples/%/node_modules/.installed: examples/%/package.json examples/%/package-lock.json
	npm ci --prefix examples/$* --include=dev --no-audit --no-fund --loglevel=error
	npm run build --prefix examples/$* --if-present --loglevel=error
	touch $@

examples/nestjs/node_modules/.installed: examples/nestjs/tsconfig.json $(wildcard examples/nestjs/src/*.ts)

examples/.venv/.installed: $(wildcard examples/*/requirements.txt)
	$(PYTHON) -m venv examples/.venv
	examples/.venv/bin/pip install --quiet --disable-pip-version-check $(^:%=-r %)
	touch $@

# Without Go its example is left out, and its test is skipped.
examples/go/hello: examples/go/main.go examples/go/go.mod
	@if command -v go >/dev/null; then cd examples/go && CGO_ENABLED=0 go build -o hello .; else echo 'no go on PATH: examples/go is not built'; fi

examples: $(EXAMPLES) ## install what the examples of docs/apps.md need

demo: $(VENV)/.installed $(EXPRESS)/node_modules/.installed ## three hosts, an Express app, a resize and a soft restart under load
	$(BIN)/python scripts/demo.py

proto: $(VENV)/.installed ## regenerate the code of the contracts in proto/
	$(BIN)/python -m grpc_tools.protoc -Iproto --plugin=$(BIN)/protoc-gen-mypy --plugin=$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=proto --grpc_python_out=proto --mypy_out=quiet:proto --mypy_grpc_out=quiet:proto $(PROTOS)

sync-client: $(VENV)/.installed ## write fleetctl.Client from the asynchronous calls
	$(BIN)/python scripts/sync_client.py

fleet-file-docs: $(VENV)/.installed ## write what docs/ says of the fleet file's fields, and of PM2's attributes
	$(BIN)/python scripts/fleet_file_docs.py

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
	$(BIN)/mypy --explicit-package-bases tests/load tests/integration/fleet tests/integration/examples tests/faults tests/bench tests/hosts scripts

test: lint type $(EXAMPLES) ## everything this machine can run: lint, types, all tests
	$(BIN)/pytest

test-unit: $(VENV)/.installed ## the tests of pure code: no network, seconds
	$(BIN)/pytest tests/unit tests/property

test-hosts: $(VENV)/.installed ## docs/install.md on hosts with systemd, in containers; as root it installs and starts what is missing
	$(BIN)/python -m tests.hosts.engine
	$(BIN)/pytest tests/hosts

test-hosts-wide: $(VENV)/.installed ## the scenes of a fleet without a single point of failure, on seven hosts: 20 minutes
	$(BIN)/python -m tests.hosts.engine
	FLEET_TEST_WIDE=1 $(BIN)/pytest tests/hosts/test_wide_fleet.py

wheel: $(VENV)/.installed ## dist/fleetctl-VERSION-py3-none-any.whl, to install on hosts
	rm -rf build dist
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

soak: $(VENV)/.installed $(EXPRESS)/node_modules/.installed ## ROUNDS soft restarts and resizes under load, judged by the journals
	$(BIN)/python -m tests.bench.restarts --rounds $(ROUNDS) --resize --steady 60

soak-rollouts: $(VENV)/.installed ## every operation under load on three hosts and two balancers, broken revisions and killed workers too
	$(BIN)/python -m tests.bench.rollouts --rounds $(if $(filter file,$(origin ROUNDS)),1,$(ROUNDS))

faults: $(VENV)/.installed ## SECONDS of random kills of one host's agent and supervisor under load (SEED, RATE), judged by the journals
	$(BIN)/python -m tests.faults --seconds $(SECONDS) --rate $(RATE) $(if $(SEED),--seed $(SEED)) $(if $(TIMESTAMPS),--timestamps)

faults-points: $(VENV)/.installed ## the supervisor killed before each of its system calls around one worker (ARGS="--since run --first 0 --last 40" for less)
	$(BIN)/python -m tests.faults.kill_points $(ARGS)

faults-outages: $(VENV)/.installed ## etcd lost, older, full, without a quorum; full disks; two agents of one name (SCENES, as pytest's -k)
	$(BIN)/pytest tests/faults/outages --override-ini 'python_files=scene_*.py' $(if $(SCENES),-k '$(SCENES)')

faults-controller: $(VENV)/.installed ## kill -9 of the controller at DEATHS random moments of rollouts under load (SEED), judged by the journals
	$(BIN)/python -m tests.faults.controller_deaths --deaths $(DEATHS) $(if $(SEED),--seed $(SEED))

faults-hosts: $(VENV)/.installed ## SECONDS of random faults and operations on seven hosts under load (SEED), judged against the invariants
	$(BIN)/python -m tests.hosts.engine
	$(BIN)/python -m tests.faults.fleet --seconds $(if $(filter file,$(origin SECONDS)),300,$(SECONDS)) $(if $(SEED),--seed $(SEED))

faults-planted: $(VENV)/.installed ## seven bugs, planted one at a time: each must be caught, and nothing without it
	$(BIN)/python -m tests.faults.planted $(if $(SEED),--seed $(SEED))

faults-takeover: $(VENV)/.installed ## kill -9 of the leading of three controllers, RUNS times (SEED): seconds until the next one acts, each below five
	$(BIN)/python -m tests.faults.takeovers --runs $(RUNS) $(if $(SEED),--seed $(SEED))

faults-changes: $(VENV)/.installed ## CHANGES changes while leaders of etcd and controllers are killed (SEED): all are there, none twice
	$(BIN)/python -m tests.faults.changes --changes $(CHANGES) $(if $(SEED),--seed $(SEED))

faults-deploy: $(VENV)/.installed ## kill -9 of controller, agent and client at DEATHS random moments of deploys (SEED): a retry completes, nothing is left
	$(BIN)/python -m tests.faults.deploy_deaths --deaths $(DEATHS) $(if $(SEED),--seed $(SEED))

soak-deploy: $(VENV)/.installed ## ROUNDS deploys of Express under load: good, not building, not booting, never ready; and rollbacks
	$(BIN)/python -m tests.bench.deploys --rounds $(if $(filter file,$(origin ROUNDS)),1,$(ROUNDS))

bench-deploy: $(VENV)/.installed ## ROUNDS deploys of 50 MB to ten hosts beside copying and unpacking the same bytes by hand
	$(BIN)/python -m tests.bench.deploy_seconds --rounds $(ROUNDS)

bench-restarts: $(VENV)/.installed $(EXPRESS)/node_modules/.installed ## ROUNDS soft restarts under load: failures, seconds, latency
	$(BIN)/python -m tests.bench.restarts --rounds $(ROUNDS)

bench-rollouts: $(VENV)/.installed ## ROUNDS soft restarts of 24 workers: seconds beside the sum of what their steps cannot do without
	$(BIN)/python -m tests.bench.rollout_seconds --rounds $(ROUNDS)

bench-host: $(VENV)/.installed ## one host: fleetctl beside PM2, supervisord and circus (70 minutes; ARGS="--repetitions 2 --cases crash" for less)
	$(BIN)/python -m tests.bench.host $(ARGS)

bench-upstreams: $(VENV)/.installed ## from ready to the first request, and from a crash to out of the list, beside the bare chain
	$(BIN)/python -m tests.bench.upstreams --rounds $(ROUNDS)

bench-routes: $(VENV)/.installed ## what a route, and its access log, cost a request, beside a bare HAProxy with the same servers
	$(BIN)/python -m tests.bench.routes

bench: bench-restarts bench-rollouts bench-deploy bench-upstreams bench-routes bench-host ## every benchmark

clean: ## remove what was built or installed here
	rm -rf $(VENV) examples/.venv examples/*/node_modules examples/nestjs/dist examples/go/hello examples/celery/queue .demo .bench .hosts .faults build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help setup examples proto sync-client fleet-file-docs lock fmt lint type demo test test-unit test-hosts test-hosts-wide wheel soak soak-rollouts faults faults-points faults-outages faults-controller faults-takeover faults-changes faults-hosts faults-planted faults-deploy soak-deploy bench bench-deploy bench-restarts bench-rollouts bench-upstreams bench-routes bench-host clean

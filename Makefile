# The only task runner. `make` alone prints this help.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV ?= .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough and really runs (a version manager's shim may not).
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt 2>/dev/null | cksum | cut -d' ' -f1)

.PHONY: help setup cluster lint format verify test test-without-cluster charts images e2e unit demo conformance chaos fuzz clients

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make the virtual environment with the pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 with venv is needed: install python3 and python3-venv, or say make PYTHON=/path/to/python3"; exit 1; }
	@echo "setup: installing the pinned dependencies into $(VENV) (about a minute the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@rm -f $(VENV)/.installed-* && touch $@

cluster: ## Build the Kubernetes control plane from source (once, 5 to 10 minutes)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 with venv is needed"; exit 1; }
	@$(PYTHON) -m e2e.cluster build

images: $(STAMP) ## Build the images of operator and runtime without Docker (root; minutes the first time)
	@$(BIN)/python -m e2e.images

lint: $(STAMP) ## Check style, types and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

verify: $(STAMP) ## Compare docs/reference with the code (part of make test)
	@$(BIN)/python -m docs.generate --check

format: $(STAMP) ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: ## Run the whole chain on a real Kubernetes API (KEEP=1 stays up; CLUSTER=node or kind runs pods, current uses KUBECONFIG)
	@$(MAKE) --no-print-directory --jobs=2 $(STAMP) $(if $(filter current,$(CLUSTER)),,cluster)
	@CLUSTER="$(CLUSTER)" KEEP="$(KEEP)" $(BIN)/python -m e2e.demo

unit: $(STAMP) ## Run the tests that need no server (seconds)
	$(BIN)/pytest tests/architecture tests/unit

# The tests below need a Kubernetes API; all others run while it is being built.
CLUSTER_TESTS := tests/charts tests/crds tests/integration/cluster tests/integration/operator tests/integration/demo

test: ## Run every check that needs no pods, on real servers
	@$(MAKE) --no-print-directory --jobs=2 test-without-cluster cluster
	$(BIN)/pytest -n 2 $(CLUSTER_TESTS)

test-without-cluster: lint
	$(BIN)/pytest -n 2 tests $(addprefix --ignore=,$(CLUSTER_TESTS))

charts: $(STAMP) cluster ## Check the Helm charts against a real API server (part of make test)
	$(BIN)/pytest tests/charts

e2e: $(STAMP) cluster ## Tell the stories on a real cluster with pods (CLUSTER=node|kind, STORIES=install,burst, KEEP=1)
	@CLUSTER="$(CLUSTER)" STORIES="$(STORIES)" KEEP="$(KEEP)" $(BIN)/python -m e2e.run

conformance: $(STAMP) ## Hold MCP against its official suite and client (needs npm; a minute)
	@$(BIN)/python -m e2e.conformance

clients: $(STAMP) ## Drive claude-mem's own hooks and tools against a running Commonplace (needs node and npm; a minute)
	@$(BIN)/python -m e2e.clients

CHAOS ?= 10

chaos: $(STAMP) ## Kill workers and servers in longer runs (CHAOS=10: ten times as long as in make test)
	CHAOS=$(CHAOS) $(BIN)/pytest --timeout 3600 $(addprefix tests/integration/runtime/worker/test_,crashes.py outages.py order.py)

FUZZ_SECONDS ?= 600

fuzz: $(STAMP) ## Call the whole API with good and bad data (FUZZ_SECONDS=600, FUZZ_SEED=n: the same again)
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(FUZZ_SEED) $(BIN)/pytest -s --timeout $$(($(FUZZ_SECONDS) + 300)) tests/integration/runtime/api/test_fuzz.py

# Every target installs what it needs: Debian packages when run as root, Python packages into .venv. What a machine lacks
# (root, namespaces, ptrace) is named and left out.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup bpf programs demo test lint bench lock guest clean

venv := .venv
bin := $(venv)/bin
installed := $(venv)/.installed
# Every protocol machine has a test for nearly every branch; a choice of tests (PYTEST_ARGS) is not held to it.
coverage := --cov --cov-report=term:skip-covered --cov-fail-under=95
# Most tests wait for something, so that two processes share even a small machine; tests/conftest.py says how.
shared := -n 2
PYTEST_ARGS ?= $(coverage) $(shared)

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(installed): requirements.lock pyproject.toml lab/environment.sh
	@lab/packages.sh python bpf
	@lab/environment.sh $(venv)
	@touch $@

setup: $(installed) programs ## create .venv from requirements.lock

bpf: ## compile the programs for the kernel (agent/dataplane/bpf, lab/bpf)
	@lab/packages.sh bpf
	@python3 bpf_build.py

programs: $(installed)
	@$(bin)/python bpf_build.py --optional

demo: $(installed) programs ## carry a video from source to receiver, manage three relays on the way (DEMO_SECONDS bounds it)
	@lab/packages.sh lab routers
	@$(bin)/python -m lab demo

test: $(installed) programs guest ## run every test this machine can run
	@lab/packages.sh lab peers routers manager
	@$(bin)/python -m pytest $(PYTEST_ARGS)

guest: $(installed)
	@lab/packages.sh guest
	@$(bin)/python -m lab kernel-amt build --optional
	@$(bin)/python -m lab debian-kernel build --optional

lint: $(installed) ## ruff, mypy, the import contracts and the API's description
	@$(bin)/ruff check .
	@$(bin)/ruff format --check .
	@$(bin)/mypy
	@$(bin)/lint-imports
	@lab/packages.sh lint
	@openapi/lint.sh

bench: $(installed) programs ## measure, and write docs/bench.md and docs/bench.png
	@lab/packages.sh lab
	@$(bin)/python -m lab.bench

lock: $(installed) ## resolve pyproject.toml into requirements.lock again
	@.cache/bootstrap/bin/uv pip compile pyproject.toml --extra agent --extra manager --extra dev --universal --generate-hashes \
	    --no-header --quiet --output-file requirements.lock

clean: ## remove everything made by the other targets
	@if [ -x $(bin)/python ]; then $(bin)/python -m lab down --quiet || true; fi
	@rm -rf $(venv) .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage build dist demo-output
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@rm -f agent/dataplane/bpf/*.bpf.o lab/bpf/*.bpf.o

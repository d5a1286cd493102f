# Every target does its own set-up: `make demo` and `make test` are all that a fresh clone needs.
#
#   make demo [FILES=folder] [KEEP=1]   real files into Glacier archives and back, on the local cloud
#   make test                           lint, types, import contracts, all tests
#   make cloud                          start the local cloud and deploy into it
#   make cloud-stop                     stop it; what it holds stays
#   make deploy [CONTEXT="k=v k=v"]     deploy again into the local cloud, with settings
#   make deploy TARGET=account          deploy into the AWS account that the shell's credentials open
#   make bench                          measure; results go to docs/benchmarks.md
#   make bench-peers [FILES=10000] [ROUNDS=3]   neve beside restic, aws s3 sync, tar and rclone
#   make scale                          reckon and simulate any size; results go to docs/scale.md
#   make chaos                          the fault campaign: every fault is found, nothing else is an alarm
#   make clean                          stop the local cloud; remove everything that can be made again

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint collected format cloud cloud-stop deploy bench bench-peers scale chaos clean

# The first Python that neve supports; name another one with PYTHON=...
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; \
	then command -v $$p; break; fi; done)
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# What the CDK thinks of the age of Node.js is for its own maintainers.
export JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION := 1
export JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION := 20
# Where containers set it, each of a hundred processes would compile the same files again.
unexport PYTHONDONTWRITEBYTECODE

TARGET ?= local
CONTEXT ?=
FILES ?=
ROUNDS ?=
KEEP ?=
PYTEST_ARGS ?=
WORKERS ?= 3

help:
	@sed -n 's/^#   //p' Makefile

setup:
	@test -n "$(PYTHON)" || { echo "[set-up] No Python 3.11 to 3.14 found. Install one (on Debian 12 and later: apt install python3 python3-venv), or name it with PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -I neve_local/prepare.py

demo: setup
	@"$(BIN)/python" -m neve_local.demo $(if $(FILES),--files "$(FILES)") $(if $(filter-out 0,$(KEEP)),--keep)

lint: setup
	@echo "[lint] ruff check";         "$(BIN)/ruff" check --quiet .
	@echo "[lint] ruff format";        "$(BIN)/ruff" format --check --quiet .
	@echo "[lint] mypy --strict";      "$(BIN)/mypy" --no-error-summary
	@echo "[lint] import contracts";   "$(BIN)/lint-imports" --no-logo

format: setup
	@"$(BIN)/ruff" check --fix --quiet . ; "$(BIN)/ruff" format .

# Compiles the tests for all workers to come, on the core that mypy leaves idle. Whatever is wrong, the run says so.
collected: setup
	@"$(BIN)/python" -m pytest --collect-only --quiet >/dev/null 2>&1 || true

# One run. What needs the local cloud stays together on one worker (tests/conftest.py), so that one cloud serves it all;
# that worker mostly waits, so two others work beside it also where there are two cores. Every branch of the domain has
# to be covered.
test: setup
	@$(MAKE) --no-print-directory --jobs=2 lint collected
	@echo "[test] unit, contract, infra, and the deployed stacks on the local cloud"
	@"$(BIN)/python" -m pytest -n $(WORKERS) --cov=lambdas/neve/domain --cov-branch --cov-fail-under=100 --cov-report=term-missing:skip-covered $(PYTEST_ARGS)

cloud: setup
	@"$(BIN)/neve" local up $(foreach pair,$(CONTEXT),-c $(pair))

cloud-stop: setup
	@"$(BIN)/neve" local down

ifeq ($(TARGET),account)
deploy: setup
	node_modules/.bin/cdk deploy --all $(foreach pair,$(CONTEXT),-c $(pair))
else
deploy: cloud
endif

bench: setup
	@"$(BIN)/python" -m bench

bench-peers: setup
	@"$(BIN)/python" -m bench.peers $(if $(FILES),--files $(FILES)) $(if $(ROUNDS),--rounds $(ROUNDS))

scale: setup
	@"$(BIN)/python" -m scale

chaos: setup
	@"$(BIN)/python" -m tests.chaos.campaign

clean:
	@if [ -x "$(BIN)/neve" ]; then "$(BIN)/neve" local down --wipe || true; fi
	rm -rf .venv .neve node_modules cdk.out build *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

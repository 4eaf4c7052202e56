# The same few commands for people and for CI. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
STORE ?= var/store
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: help setup demo run test check format lock bench clean
.DEFAULT_GOAL := help

help: ## List the commands
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python {v[0]}.{v[1]} found; Pawcast needs 3.11 to 3.13. Fix: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing the locked packages into .venv (a minute or two, once)"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.runtime
	@echo "Installing the locked test tools into .venv"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

setup: .venv/.runtime ## Build .venv from the hashed lock

lock: ## Renew both locks from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --upgrade -q -o requirements.lock
	uv pip compile pyproject.toml --extra dev -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --upgrade -q -o requirements-dev.lock

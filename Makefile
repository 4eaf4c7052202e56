# The same commands for people and for CI. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: help setup demo run test test-all test-unit test-integration test-long test-chaos test-browser check bench-ingest bench-train bench-serve bench-endurance bench-gpu screenshot results lock clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python {v[0]}.{v[1]} found; Pawcast needs 3.11 to 3.13. Fix: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing the locked packages into .venv (a minute or two, once)"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: requirements-dev.lock tests/clients.lock .venv/.runtime
	@echo "Installing the locked test tools into .venv"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --require-hashes -r tests/clients.lock
	@touch $@

setup: .venv/.runtime ## Install the locked packages and the command `pawcast` into .venv

lock: ## Update the locked packages from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --upgrade -q -o requirements.lock
	uv pip compile pyproject.toml --extra dev -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --upgrade -q -o requirements-dev.lock
	sed -n 's/^\([a-z0-9_.-]*==.*\) \\$$/\1/p' requirements-dev.lock > .venv/ours.txt
	uv pip compile tests/clients.in --override .venv/ours.txt $$(sed 's/==.*//; s/^/--no-emit-package /' .venv/ours.txt) --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --upgrade -q -o tests/clients.lock

PORT ?= 8000

# With STORE=s3 the demo uses a private S3 server, which stops when the demo ends.
ON_S3 := $(filter s3,$(STORE))
S3_SERVER := $(if $(ON_S3),$(BIN)/python -m pawcast_infra.local.seaweedfs --dir var/demo/s3 --)
DEMO_STORE := $(if $(ON_S3),s3://pawcast/demo,$(STORE))

demo: .venv/.runtime $(if $(ON_S3),.venv/.dev) ## Draw cats and dogs and do the whole job on them [STORE=s3] [PORT=8000]
	@$(S3_SERVER) $(BIN)/pawcast demo --port $(PORT) $(if $(DEMO_STORE),--store "$(DEMO_STORE)")

run: .venv/.runtime ## Do the whole job on your photos: TRAIN=train.zip TEST=test1.zip [STORE=…] [PORT=8000]
	@test -n "$(TRAIN)" -a -n "$(TEST)" || { echo "error: make run needs TRAIN and TEST. Expected: zips or folders of photos. Fix: make run TRAIN=train.zip TEST=test1.zip" >&2; exit 2; }
	@$(BIN)/pawcast run --labelled "$(TRAIN)" --unlabelled "$(TEST)" --port $(PORT) $(if $(STORE),--store "$(STORE)")

test: test-unit test-integration test-browser ## Run the unit, browser and most integration tests

test-all: test test-long test-chaos ## Run all tests: also long integration tests and fault injection

test-unit: .venv/.dev ## Run the unit tests
	@$(BIN)/python -m pytest tests/unit -m "not long"

test-integration: .venv/.dev ## Run the integration tests that take less than half a minute
	@$(BIN)/python -m pytest tests/integration -m "not long"

test-long: .venv/.dev ## Run the unit and integration tests that take longer
	@$(BIN)/python -m pytest tests/unit tests/integration -m long

test-chaos: .venv/.dev ## Run the tests that kill processes and inject faults
	@$(BIN)/python -m pytest tests/chaos

# Root on Debian installs a missing Chromium. Without one the tests are skipped, except in CI.
test-browser: .venv/.dev ## Run the tests of the web page in Chromium
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		{ echo "Installing Debian's chromium for the browser tests"; apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium; } >/dev/null 2>&1; } || true
	@if command -v chromium >/dev/null; then $(BIN)/python -m pytest tests/browser; \
	elif test -n "$(PAWCAST_CI)"; then echo "error: CI needs a chromium for the browser tests. Fix: apt-get install chromium" >&2; exit 1; \
	else echo "skipped: the browser tests need a chromium. Fix: apt-get install chromium"; fi

check: .venv/.dev ## Check lint, format, types and the generated tables
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python tests/benchmarks/readme.py --check

# An environment for the peers of each benchmark: peers_NAME.lock is installed into var/bench/NAME.
var/bench/%/.installed: tests/benchmarks/peers_%.lock
	@echo "Installing the peers into $(@D) (some gigabytes, once)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip --disable-pip-version-check -q install --no-deps --require-hashes -r $<
	@touch $@

bench-ingest: .venv/.dev var/bench/ingest/.installed ## Compare ingest with its peers: TRAIN=train.zip
	@test -n "$(TRAIN)" || { echo "error: make bench-ingest needs TRAIN. Expected: Kaggle's train.zip. Fix: make bench-ingest TRAIN=train.zip" >&2; exit 2; }
	@$(BIN)/python tests/benchmarks/ingest.py --labelled "$(TRAIN)" --peers var/bench/ingest/bin/python
	@$(MAKE) results

bench-train: .venv/.dev var/bench/train/.installed ## Compare training with its peers: TRAIN=train.zip
	@test -n "$(TRAIN)" || { echo "error: make bench-train needs TRAIN. Expected: Kaggle's train.zip. Fix: make bench-train TRAIN=train.zip" >&2; exit 2; }
	@$(BIN)/python -m tests.benchmarks.train --labelled "$(TRAIN)" --peers var/bench/train/bin/python $(ARGS)
	@$(MAKE) results

bench-serve: .venv/.dev var/bench/serve/.installed ## Compare the service with its peers: TEST=test1.zip [STORE=… MODEL=catdog@3]
	@test -n "$(TEST)" || { echo "error: make bench-serve needs TEST. Expected: Kaggle's test1.zip. Fix: make bench-serve TEST=test1.zip" >&2; exit 2; }
	@$(BIN)/python -m tests.benchmarks.serve --images "$(TEST)" --peers var/bench/serve/bin/python --store "$(or $(STORE),var/store)" $(if $(MODEL),--model "$(MODEL)") $(ARGS)
	@$(MAKE) results

bench-endurance: .venv/.dev ## Load the service to its limits and kill its replicas: TEST=test1.zip
	@test -n "$(TEST)" || { echo "error: make bench-endurance needs TEST. Expected: a zip of photos. Fix: make demo, then make bench-endurance TEST=test1.zip" >&2; exit 2; }
	@$(BIN)/python -m tests.benchmarks.endurance --images "$(TEST)" --store "$(or $(STORE),var/demo/store)"
	@$(MAKE) results

bench-gpu: .venv/.dev ## Measure training and serving on a GPU, after make run: STORE=var/store
	@test -n "$(STORE)" || { echo "error: make bench-gpu needs STORE. Expected: a folder with a dataset. Fix: make run, then make bench-gpu STORE=var/store" >&2; exit 2; }
	@$(BIN)/python -m tests.benchmarks.gpu --store "$(STORE)" --dataset "$(or $(DATASET),dogs-vs-cats)" $(if $(ONLY),--only $(ONLY))
	@$(MAKE) results

screenshot: .venv/.dev ## Take the screenshots of the web page [OUT=folder]
	@$(BIN)/python -m tests.browser.screenshots $(if $(OUT),"$(OUT)" many,tests/browser)

results: .venv/.runtime ## Update the tables in the documents from tests/benchmarks/results
	@$(BIN)/python tests/benchmarks/readme.py

clean: ## Remove .venv, var and everything else that these commands made
	rm -rf .venv var predictions .mypy_cache .ruff_cache .pytest_cache

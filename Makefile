# The same few commands for people and for CI. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: help setup demo run test test-all test-unit test-integration test-long test-chaos test-browser check bench-ingest bench-train bench-serve bench-endurance bench-gpu screenshot results lock clean
.DEFAULT_GOAL := help

help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

setup: .venv/.runtime ## Build .venv from the hashed lock

lock: ## Renew the locks from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --upgrade -q -o requirements.lock
	uv pip compile pyproject.toml --extra dev -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --upgrade -q -o requirements-dev.lock
	sed -n 's/^\([a-z0-9_.-]*==.*\) \\$$/\1/p' requirements-dev.lock > .venv/ours.txt
	uv pip compile tests/clients.in --override .venv/ours.txt $$(sed 's/==.*//; s/^/--no-emit-package /' .venv/ours.txt) --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --upgrade -q -o tests/clients.lock

PORT ?= 8000

# `make demo STORE=s3` runs on a real S3 server, which comes with the test tools and lasts as long as the demo.
ON_S3 := $(filter s3,$(STORE))
DEMO_STORE := $(if $(ON_S3),s3://pawcast/demo,$(or $(STORE),var/demo/store))

demo: .venv/.runtime $(if $(ON_S3),.venv/.dev) ## The main job on drawn cats and dogs, in a few minutes; STORE=s3: on S3
	@$(BIN)/python jobs/synthesize.py --out var/demo/photos
	@$(if $(ON_S3),$(BIN)/python infra/local/seaweedfs.py --dir var/demo/s3 --) \
		$(BIN)/python jobs/pipeline.py --labelled var/demo/photos/train.zip --unlabelled var/demo/photos/test1.zip \
		--dataset demo --recipe smoke --test-size 200 --store "$(DEMO_STORE)" --out var/demo --port $(PORT)

run: .venv/.runtime ## The main job on your photos: make run TRAIN=train.zip TEST=test1.zip
	@test -n "$(TRAIN)" -a -n "$(TEST)" || { echo "error: make run needs TRAIN and TEST. Expected: zips or folders of photos. Fix: make run TRAIN=train.zip TEST=test1.zip" >&2; exit 2; }
	@$(BIN)/python jobs/pipeline.py --labelled "$(TRAIN)" --unlabelled "$(TEST)" --store "$(or $(STORE),var/store)" --port $(PORT)

test: test-unit test-integration test-browser ## Unit, integration and browser tests; the fast ones first

test-all: test test-long test-chaos ## Every test: also those that take long, and those of bad days

test-unit: .venv/.dev
	@$(BIN)/python -m pytest tests/unit

test-integration: .venv/.dev
	@$(BIN)/python -m pytest tests/integration -m "not long"

test-long: .venv/.dev
	@$(BIN)/python -m pytest tests/integration -m long

test-chaos: .venv/.dev
	@$(BIN)/python -m pytest tests/chaos

# Chromium is Debian's. Where it is missing and may be installed it is; CI never goes without.
test-browser: .venv/.dev
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		{ echo "Installing Debian's chromium for the browser tests"; apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium; } >/dev/null 2>&1; } || true
	@if command -v chromium >/dev/null; then $(BIN)/python -m pytest tests/browser; \
	elif test -n "$(PAWCAST_CI)"; then echo "error: CI needs a chromium for the browser tests. Fix: apt-get install chromium" >&2; exit 1; \
	else echo "skipped: the browser tests need a chromium. Fix: apt-get install chromium"; fi

check: .venv/.dev ## Lint, types and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python tests/benchmarks/readme.py --check

# The peers' environments, one for each benchmark: tests/benchmarks/peers_NAME.lock goes to var/bench/NAME.
var/bench/%/.installed: tests/benchmarks/peers_%.lock
	@echo "Installing the peers into $(@D) (some gigabytes, once)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip --disable-pip-version-check -q install --no-deps --require-hashes -r $<
	@touch $@

bench-ingest: .venv/.dev var/bench/ingest/.installed ## Ingest beside its peers: make bench-ingest TRAIN=train.zip
	@test -n "$(TRAIN)" || { echo "error: make bench-ingest needs TRAIN. Expected: Kaggle's train.zip. Fix: make bench-ingest TRAIN=train.zip" >&2; exit 2; }
	@$(BIN)/python tests/benchmarks/ingest.py --labelled "$(TRAIN)" --peers var/bench/ingest/bin/python
	@$(MAKE) results

bench-train: .venv/.dev var/bench/train/.installed ## Training beside its peers: make bench-train TRAIN=train.zip
	@test -n "$(TRAIN)" || { echo "error: make bench-train needs TRAIN. Expected: Kaggle's train.zip. Fix: make bench-train TRAIN=train.zip" >&2; exit 2; }
	@$(BIN)/python -m tests.benchmarks.train --labelled "$(TRAIN)" --peers var/bench/train/bin/python $(ARGS)
	@$(MAKE) results

bench-serve: .venv/.dev var/bench/serve/.installed ## The service beside its peers: make bench-serve TEST=test1.zip [STORE=… MODEL=catdog@3]
	@test -n "$(TEST)" || { echo "error: make bench-serve needs TEST. Expected: Kaggle's test1.zip. Fix: make bench-serve TEST=test1.zip" >&2; exit 2; }
	@$(BIN)/python -m tests.benchmarks.serve --images "$(TEST)" --peers var/bench/serve/bin/python $(if $(MODEL),--store "$(or $(STORE),var/store)" --model "$(MODEL)") $(ARGS)
	@$(MAKE) results

bench-endurance: .venv/.dev ## The service's bad hours, 200,000 photos among them: make bench-endurance TEST=test1.zip
	@test -n "$(TEST)" || { echo "error: make bench-endurance needs TEST. Expected: a zip of photos. Fix: make demo, then make bench-endurance TEST=test1.zip" >&2; exit 2; }
	@$(BIN)/python -m tests.benchmarks.endurance --images "$(TEST)" --store "$(or $(STORE),var/demo/store)"
	@$(MAKE) results

bench-gpu: .venv/.dev ## Training and serving on a GPU: make bench-gpu STORE=var/store, after make run
	@test -n "$(STORE)" || { echo "error: make bench-gpu needs STORE. Expected: a folder with a dataset. Fix: make run, then make bench-gpu STORE=var/store" >&2; exit 2; }
	@$(BIN)/python -m tests.benchmarks.gpu --store "$(STORE)" --dataset "$(or $(DATASET),dogs-vs-cats)" $(if $(ONLY),--only $(ONLY))
	@$(MAKE) results

screenshot: .venv/.dev
	@$(BIN)/python -m tests.browser.screenshots $(if $(OUT),"$(OUT)" many,tests/browser)

results: .venv/.runtime ## Renew README's tables from tests/benchmarks/results
	@$(BIN)/python tests/benchmarks/readme.py

clean: ## Remove what the commands above made, the environment included
	rm -rf .venv var predictions .mypy_cache .ruff_cache .pytest_cache

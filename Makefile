# What there is to do here. `make` alone lists it. Every target sets up what it needs in .venv.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first of these that is new enough and can make virtual environments; make PYTHON=... names another.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; done)
BIN := .venv/bin
PACKAGES := ./protos ./services/signpost ./services/feature ./services/notification
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
PROTOS := $(sort $(shell find protos -name '*.proto'))
SERVICES := $(sort $(shell grep -l '^service ' $(PROTOS)))
READY := .venv/.ready

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The wheels are not compiled beforehand: Python compiles what is imported, when it is.
$(READY): requirements/dev.txt $(PACKAGES:%=%/pyproject.toml)
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer that can make virtual environments was found;" \
		"install one (on Debian: python3 and python3-venv) or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "setting up .venv with $(PYTHON), once"
	@$(PYTHON) -m venv .venv
	@$(INSTALL) --no-compile --require-hashes -r requirements/dev.txt
	@$(INSTALL) --no-build-isolation $(PACKAGES:%=-e %)
	@touch $@

.PHONY: setup
setup: $(READY) ## make .venv with everything in it; the other targets do so by themselves

# With job control, Ctrl-C at a terminal goes to the services and not to make, which then ends with their 0.
DEV := $(BIN)/python -m signpost.cli.make_run --data-dir .data --places deploy/data/places.geojsonl.gz
.PHONY: run
run: $(READY) ## both services on real places, until Ctrl-C; data in .data/
	@if [ -t 0 ]; then set -m; $(DEV); else exec $(DEV); fi

# Three at a time on two cores: a third of their time they wait.
.PHONY: test
test: $(READY) ## the tests, in under 4 minutes (ARGS="-k name" chooses)
	@$(BIN)/pytest -n 3 --dist worksteal -m "not long and not soak" $(ARGS)

# pytest's 5: none chosen
.PHONY: test-long
test-long: $(READY) ## the tests that take longer; CI runs them too
	@$(BIN)/pytest -m "long and not soak" $(ARGS) || test $$? -eq 5

.PHONY: coverage
coverage: $(READY) ## branches of the client library that its own tests reach: at least 95 %
	@$(BIN)/pytest -q -n 2 -m "not soak" --cov=signpost.client --cov-branch --cov-report=term-missing:skip-covered \
		--cov-fail-under=95 tests/unit/client tests/behaviour/client $(ARGS)

.PHONY: soak
soak: $(READY) ## ten minutes of cuts, kills and restarts under load
	@$(BIN)/pytest -s --timeout 0 -m soak $(ARGS)

.PHONY: bench
bench: $(READY) ## the benchmarks, each beside its floor (ARGS=log chooses)
	@$(BIN)/python -m tests.bench $(ARGS)

.PHONY: check
check: lint types arrows protos-check ## lint, types, arrows between packages, protos

.PHONY: lint
lint: $(READY) ## ruff: rules and format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

.PHONY: types
types: $(READY) ## mypy --strict over everything that is not generated
	@$(BIN)/mypy services tests

.PHONY: arrows
arrows: $(READY) ## import-linter: who may import whom
	@$(BIN)/lint-imports

.PHONY: format
format: $(READY) ## let ruff format and mend what it can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# $(call generate,DIRECTORY): the stubs of every proto, under it
protoc = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I.
generate = $(protoc) --python_out=$(1) --pyi_out=$(1) $(PROTOS) && \
	$(protoc) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(SERVICES)

# protos/baseline.binpb is the last contract that landed: what `make protos` last accepted.
.PHONY: protos
protos: $(READY) ## after a change of a .proto: refuse what breaks clients, make the stubs and the baseline
	@$(BIN)/buf lint
	@$(BIN)/buf breaking --against protos/baseline.binpb
	@$(call generate,.)
	@$(BIN)/buf build --exclude-source-info --output protos/baseline.binpb

.PHONY: protos-check
protos-check: $(READY) ## buf lint and breaking; stubs and baseline belong to the protos
	@$(BIN)/buf lint
	@$(BIN)/buf breaking --against protos/baseline.binpb
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && $(call generate,"$$made") && \
		$(BIN)/buf build --exclude-source-info --output "$$made/protos/baseline.binpb" && \
		diff -r -x __pycache__ -x __init__.py -x '*.proto' -x pyproject.toml -x py.typed "$$made/protos" protos || \
		{ echo "protos: what is generated is not what the protos say; run make protos" >&2; exit 1; }

# $(call compile,FILE,INPUT): pinned and hashed, one version for every Python from 3.11, without naming an index
compile = $(BIN)/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --strip-extras \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	$(foreach name,signpost signpost-protos signpost-feature-service signpost-notification-service,--no-emit-package $(name)) \
	$(LOCK_ARGS) --output-file requirements/$(1).txt $(2) >/dev/null

# dev.txt first: the others hold what their part needs of it, at the same versions.
.PHONY: lock
lock: $(READY) ## pin what the pyproject.toml files ask for (LOCK_ARGS=--upgrade: the newest)
	@$(call compile,dev,--group dev)
	@$(call compile,build,--group build --constraint requirements/dev.txt)
	@$(call compile,cli,services/signpost/pyproject.toml --extra cli --constraint requirements/dev.txt)
	@$(call compile,feature,services/feature/pyproject.toml --constraint requirements/dev.txt)
	@$(call compile,notification,services/notification/pyproject.toml --constraint requirements/dev.txt)

.PHONY: clean
clean: ## remove what make made: .venv, caches, data
	rm -rf .venv .data .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

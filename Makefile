# Everything runs in .venv, made on first use with uv if present, else with venv and pip.
PYTHON ?= python3
BIN := .venv/bin
PYTEST = $(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder
# Of each proof so many cases; 0 is all of them.
CASES ?= 0
# What runs the product, and what tests, measures and documents it.
PRODUCT := .venv/.product
DEV := .venv/.dev
COMMA := ,

# With it set, every process of a test would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo ui lint test coverage check docs bench calibrate drill prove chaos soak pictures clean

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1	\2/' | expand -t 16

# Compiling all that is installed takes a minute and 200 MB; of the demo's it compiles what it runs.
define install
	@echo "Installing .[$(1)] into .venv"
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) .venv && \
	  uv pip install --quiet $(if $(2),--compile-bytecode) --python $(BIN)/python -c constraints.txt -e '.[$(1)]'; \
	else \
	  $(PYTHON) -m venv .venv && \
	  $(BIN)/python -m pip install --quiet $(if $(2),,--no-compile) --disable-pip-version-check -c constraints.txt -e '.[$(1)]'; \
	fi
	@touch $@
endef

$(PRODUCT): pyproject.toml constraints.txt
	$(call install,demo)

$(DEV): pyproject.toml constraints.txt
	$(call install,demo$(COMMA)dev,compiled)
	@touch $(PRODUCT)

demo: $(PRODUCT) ## Monitor a year of real flights end to end and show what was found
	$(BIN)/mlmon demo

ui: $(PRODUCT) ## Open the Dagster UI on what the demo left
	$(BIN)/mlmon dev

test: $(DEV) ## Run every test but the proofs
	$(PYTEST) -m "not proof"

prove: $(DEV) ## Run the proofs: whole systems, killed, broken and at length; CASES=2 runs two of each
	$(PYTEST) -m proof --cases $(CASES)

coverage: $(DEV) ## Run tests and proofs; print the shares of lines and of branches they took
	$(PYTEST) --cov=mlmon_dagster $(TESTS)
	$(BIN)/python -m tests.branches

lint: $(DEV) ## Format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint ## Format, lint, types, and the quick tests that your change touches, in two minutes
	@files=$$($(BIN)/python -m tests.touched) && echo "$$files" && \
	  $(PYTEST) -m "not slow and not proof" $$files

docs: $(DEV) ## Build the documentation as a site in .mlmon/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(DEV) ## Measure speed as ratios and print a table
	$(BIN)/python -m benchmarks

calibrate: $(DEV) ## Simulate how often 95 % intervals hold the truth
	$(BIN)/python -m benchmarks calibrate
	$(BIN)/python -m benchmarks calibrate versions

drill: $(DEV) ## Break a model of known truth in 35 ways and print what its monitors noticed
	$(BIN)/python -m benchmarks.drill

chaos: $(DEV) ## Kill dispatchers while Slack and the database fail; print what arrived
	$(BIN)/python -W ignore -m tests.chaos

soak: $(DEV) ## Write 5 files a second for ten minutes under the daemon and print what became of them
	$(BIN)/python -W ignore -m tests.soak

pictures: $(DEV) ## Take the pictures of docs/images again, of what the demo left
	$(BIN)/python -W ignore -m tests.pictures

clean: ## Remove what the demo and the tools made, keep .venv
	rm -rf .coverage* .mlmon landing .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Everything runs in .venv, made on first use with uv if present, else with venv and pip.
PYTHON ?= python3
BIN := .venv/bin
PYTEST = $(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder
STAMP := .venv/.installed

# With it set, every process of a test would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo ui test coverage check docs bench calibrate drill prove chaos soak images clean

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1	\2/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) .venv && \
	  uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[demo,dev]'; \
	else \
	  $(PYTHON) -m venv .venv && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev]'; \
	fi
	@touch $(STAMP)

demo: $(STAMP) ## Monitor a year of real flights end to end and show what was found
	$(BIN)/mlmon demo

ui: $(STAMP) ## Open the Dagster UI on what the demo left
	$(BIN)/mlmon dev

test: $(STAMP) ## Run every test but the proofs
	$(PYTEST) -m "not proof"

prove: $(STAMP) ## Run the proofs: whole systems, killed, broken and at length
	$(PYTEST) -m proof

coverage: $(STAMP) ## Run tests and proofs; print the shares of lines and of branches they took
	$(PYTEST) --cov=mlmon_dagster $(TESTS)
	$(BIN)/python -m tests.branches

check: $(STAMP) ## Format, lint, types, tests; CI runs this and the proofs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

docs: $(STAMP) ## Build the documentation as a site in .mlmon/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(STAMP) ## Measure speed as ratios and print a table
	$(BIN)/python -m benchmarks

calibrate: $(STAMP) ## Simulate how often 95 % intervals hold the truth
	$(BIN)/python -m benchmarks calibrate
	$(BIN)/python -m benchmarks calibrate versions

drill: $(STAMP) ## Break a model of known truth in 35 ways and print what its monitors noticed
	$(BIN)/python -m benchmarks.drill

chaos: $(STAMP) ## Kill dispatchers while Slack and the database fail; print what arrived
	$(BIN)/python -W ignore -m tests.chaos

soak: $(STAMP) ## Write 5 files a second for ten minutes under the daemon and print what became of them
	$(BIN)/python -W ignore -m tests.soak

images: $(STAMP) ## Ask REGISTRY for every image of deploy/: tags exist, digests are theirs (WRITE=1 writes them)
	$(BIN)/python -m tests.images --registry '$(REGISTRY)' $(if $(WRITE),--write)

clean: ## Remove what the demo and the tools made, keep .venv
	rm -rf .coverage* .mlmon landing .pytest_cache .mypy_cache .ruff_cache .hypothesis

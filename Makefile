# Each target installs what it needs into the checkout (.venv, .build) and says in one line what it could not find. The
# servers that the tests run come by apt. Caches of uv, Go and npm are used where this user has them, and made nowhere
# but in .build.
# ARGS are handed on: make test ARGS="-k spool", make up ARGS="--config my.toml".

PYTHON ?= python3
BOOTSTRAP := @$(PYTHON) -m tools.bootstrap
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help up demo test lint lock audit bench soak collector clean

help: ## Say what can be made.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## Run all of Postel on this host until Ctrl-C.
	$(BOOTSTRAP) runtime collector
	@exec $(BIN)/postel up $(ARGS)

demo: ## The same with synthetic mail traffic.
	$(BOOTSTRAP) runtime collector
	@exec $(BIN)/postel up --demo $(ARGS)

test: lint ## Lint, then all tests, with the real servers.
	$(BOOTSTRAP) collector system
	@$(BIN)/pytest $(ARGS)

lint: ## Style, types and walls.
	$(BOOTSTRAP) dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

lock: ## Resolve requirements/*.txt anew.
	$(BOOTSTRAP) runtime lock

audit: ## Ask for known faults in dependencies (docs/security.md).
	$(BOOTSTRAP) dev collector
	@$(BIN)/python -m tools.audit $(ARGS)

bench: ## The benchmarks (docs/benchmarks.md).
	$(BOOTSTRAP) dev collector system
	@$(BIN)/pytest -m bench $(ARGS)

soak: ## The tests that take minutes to hours.
	$(BOOTSTRAP) dev collector system
	@$(BIN)/pytest -m soak --timeout 0 $(ARGS)

collector: ## Build the OpenTelemetry Collector, even if it failed lately.
	$(BOOTSTRAP) runtime collector-again

clean: ## Remove everything that the other targets made in the checkout.
	rm -rf .venv .build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

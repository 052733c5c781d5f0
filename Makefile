# make simulate   from nothing to a federated result and its report
# make test       the tests;  make slow  those that start Ray, clusters, servers and benchmarks;  make extra  more of them, not in .ci/run
# make demo-sites a demo cohort for docker compose, with keys and .env: SITES=5 for five, DEMO="demo.patients=40" for fewer
# make docs       the documentation site, in site/, which opens from the folder;  make figures-check  figures older than the code they measure
# make check      style and types;  make clean  removes what the others made
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
SLOW_JOBS ?= 3
SITES ?= 3
DEMO ?=
export FLWR_TELEMETRY_ENABLED ?= 0

.PHONY: simulate demo-sites test slow extra check docs figures-check clean

simulate: .venv/run.stamp
	$(BIN)/python -m fl_rsna.simulate

demo-sites: .venv/run.stamp
	$(BIN)/python scripts/demo_sites.py --sites $(SITES) $(DEMO)

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow and not extra" --durations=12

slow: .venv/dev.stamp
	$(BIN)/python -m pytest -n $(SLOW_JOBS) --dist loadgroup -m "slow and not extra" --durations=12

extra: .venv/dev.stamp
	$(BIN)/python -m pytest -m extra --durations=12

check: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

figures-check: .venv/run.stamp
	$(BIN)/python scripts/figures.py check

clean:
	rm -rf .venv prepared runs evaluations dist site .pytest_cache .mypy_cache .ruff_cache
	find site_data -mindepth 1 ! -name README.md ! -name .gitignore -delete
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/run.stamp: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

.venv/dev.stamp: .venv/run.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# Two commands do all the set-up on Debian or Ubuntu with Python 3.11 or later:
#
#   make run     install what is missing into .venv, and serve on embedded nodes    (make run ARGS="--port 80")
#   make test    install what the tests need, Debian's packages too, and run them   (make test ARGS="-k ring")
#
# and for those who change sfss: make lint, make format, make bench, make bench-node,
# make bench-cluster, make bench-large, make bench-where, make bench-growth, make bench-catalogue,
# make bench-kinds, make bench-watching, make bench-instructions.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: run test lint format bench bench-node bench-cluster bench-large bench-where bench-growth bench-catalogue \
        bench-kinds bench-watching bench-instructions pictures clean

run: $(VENV)/.run
	@exec $(BIN)/sfss $(ARGS)

test: $(VENV)/.test
	tests/install-servers cc
	tests/install-tus-js
	tests/install-browser-js
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.test
	tests/install-servers nginx cc
	$(BIN)/python -m benchmarks.suite $(ARGS)

bench-node: $(VENV)/.test
	tests/install-servers cc
	$(BIN)/python -m benchmarks.node $(ARGS)
	$(BIN)/python -m benchmarks.space

bench-cluster: $(VENV)/.test
	$(BIN)/python -m benchmarks.cluster $(ARGS)

bench-large: $(VENV)/.test
	tests/install-servers nginx curl
	$(BIN)/python -m benchmarks.large $(ARGS)

bench-where: $(VENV)/.test
	tests/install-servers nginx cc
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks.where $(ARGS)

bench-catalogue: $(VENV)/.test
	tests/install-servers cc
	$(BIN)/python -m benchmarks.catalogue $(ARGS)

bench-kinds: $(VENV)/.test
	tests/install-servers cc
	$(BIN)/python -m benchmarks.kinds $(ARGS)

bench-watching: $(VENV)/.test
	tests/install-servers cc
	$(BIN)/python -m benchmarks.watching $(ARGS)

bench-instructions: $(VENV)/.test
	tests/install-servers cc valgrind
	$(BIN)/python -m benchmarks.instructions $(ARGS)

bench-growth: $(VENV)/.test
	tests/install-servers nginx wrk
	$(BIN)/python -m benchmarks.growth $(ARGS)

pictures: $(VENV)/.test
	tests/install-servers pngquant
	$(BIN)/python -m tests.web.browser.pictures $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "sfss needs Python 3.11 or later: name one with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The stamps are as old as the list of packages they were made from, so that a change of it is taken up.
$(VENV)/.run: setup.cfg pyproject.toml | $(VENV)/.python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: setup.cfg pyproject.toml | $(VENV)/.python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.run

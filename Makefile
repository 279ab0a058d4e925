# Two commands are enough: `make demo` trains a small model with two peers, `make test` runs the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-all lint bench proto wheel clean

install: $(INSTALLED)

# Everything with pinned versions; done again only when these files change. torch goes first, by its exact version,
# so that pip takes the build that fits this machine before any other package asks for a newer one.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v < (3, 13) else \
	    "error: Python %d.%d found, 3.10 to 3.12 needed: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[corpus,dev,bench]'
	@touch $@

demo: install
	$(BIN)/python -m examples.run_demo

test: install lint
	$(BIN)/python -m pytest -m 'not heavy' -n 3 --dist worksteal --durations=15

test-all: install lint
	$(BIN)/python -m pytest -n 3

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python -m benchmarks

# after a change of the control API's description
proto: install
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. coordinator/control.proto

wheel: install
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist *.egg-info runs

# make demo: the whole way on generated parts.  make test: lint, types, tests.
# Both set up their own environment in .venv; a machine needs only make and Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
# OpenVINO, ONNX Runtime and the quantisers have thread pools and signal handlers of their own: tests
# that load them run in a process of their own.
RUNTIMES := tests/exporting $(addprefix tests/runtime/,test_runtimes.py test_cpp.py test_without_torch.py)

.PHONY: demo test lint types unit format clean

demo: .venv/ready
	$(BIN)/snl demo --out demo

test: lint types unit

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

unit: .venv/ready
	$(BIN)/pytest $(RUNTIMES:%=--ignore=%)
	$(BIN)/pytest $(RUNTIMES)

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "snl needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,dev]'
	touch .venv/ready

clean:
	rm -rf .venv demo .pytest_cache .mypy_cache .ruff_cache

# make demo: train, evaluate and report on generated parts.  make test: lint, types, tests.
# make long: what make test leaves out (tests/long.txt): kinds of tests that have a shorter one there.
# make hostile: all hostile attempts (tests/hostile), about 20 minutes on two cores.
# make docs: the documentation site in build/site; warnings are errors.
# make dist: the wheel and the sdist, checked.  make release: the wheel at work in fresh environments (6 GB).
# make lowest: the tests with the lowest versions of the dependencies, in build/lowest (6 GB).
# make check: lint, types and the fast tests, in under two minutes.
# All set up their own environment in .venv; a machine needs only make and Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
# OpenVINO, ONNX Runtime and the quantisers have thread pools and signal handlers of their own: tests
# that load them run in processes of their own.
RUNTIMES := tests/exporting $(addprefix tests/runtime/,test_runtimes.py test_cpp.py test_threads.py \
  test_without_torch.py)
# a worker that crashes ends the run; a restarted one may wait for ever
PARALLEL := -n 2 --dist loadfile --max-worker-restart 0
REPORT = -o junit_family=xunit1 --junitxml build

# what users install, without a cluster
EXTRAS := train runtime openvino export video parquet remote client service postgres plots tensorboard
LOWEST := build/lowest/bin/uv pip install --quiet --python build/lowest/bin/python
LOWEST_TESTS := $(addprefix tests/,runtime decision training exporting cli demo data model) \
  $(addprefix tests/service/test_,roles.py serve.py models.py products.py)

.PHONY: demo test check lint types docs unit long fast hostile durations format dist release lowest clean

demo: .venv/ready
	$(BIN)/snl demo --out demo

test: lint types docs unit

check: lint types fast

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

# the variable turns off an announcement of the theme
docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

unit: .venv/ready
	$(BIN)/pytest $(PARALLEL) -m 'not long' $(RUNTIMES:%=--ignore=%)
	$(BIN)/pytest $(PARALLEL) -m 'not long' $(RUNTIMES)

long: .venv/ready
	$(BIN)/pytest $(PARALLEL) -m long

fast: .venv/ready
	$(BIN)/pytest -q $(PARALLEL) -m 'not slow and not long'

hostile: .venv/ready
	$(BIN)/python -m tests.hostile

# measures all tests and chooses those that `make check` leaves out
durations: .venv/ready
	-$(BIN)/pytest $(PARALLEL) $(RUNTIMES:%=--ignore=%) $(REPORT)/durations.xml
	-$(BIN)/pytest $(PARALLEL) $(RUNTIMES) $(REPORT)/durations-runtimes.xml
	$(BIN)/python tests/mark_slow.py build/durations.xml build/durations-runtimes.xml

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "snl needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,docs,dev]'
	touch .venv/ready

dist: .venv/ready
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

release: dist
	$(BIN)/python -m tests.packaging.release dist/*.whl

# a few tests skip or need packages of the extra `dev`, which has no lowest versions to keep
lowest:
	$(PYTHON) -m venv --clear build/lowest
	build/lowest/bin/python -m pip install --quiet uv
	$(LOWEST) --resolution lowest-direct -r pyproject.toml $(EXTRAS:%=--extra %)
	$(LOWEST) pytest pytest-timeout pytest-xdist hypothesis scikit-learn scikit-image
	$(LOWEST) --no-deps --editable .
	build/lowest/bin/pytest -q $(PARALLEL) -m 'not slow and not long' $(LOWEST_TESTS)

clean:
	rm -rf .venv demo build .pytest_cache .mypy_cache .ruff_cache

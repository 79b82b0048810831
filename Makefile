# One entry for everything. Needs Python 3.11 or newer and make; all else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := $(VENV)/.extras
PROTO_FILES := $(sort $(wildcard protos/paceline/protos/*.proto))
PYTEST_ARGS ?=
# Files of tests that run at the same time; 0: one after another, in this process.
PYTEST_JOBS ?= 2

.PHONY: help setup demo test test-slow check docs format lint types layers proto proto-check bench freeze clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(STAMP)  ## make .venv and install paceline into it (again only when what it installs changed)

$(STAMP): pyproject.toml constraints.txt
	@echo "== setup: $(VENV)"
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  v >= (3, 11) or sys.exit(f"paceline needs Python 3.11 or newer, but $(PYTHON) is {v.major}.{v.minor}: make PYTHON=python3.11 ...")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,examples,sim]'
	@touch $@

demo: setup  ## train a CNN on unequal workers under three policies and compare them
	@$(BIN)/python examples/demo.py

# $(1): which tests, as an expression of markers
pytest = $(BIN)/python -m pytest -n $(PYTEST_JOBS) --dist loadfile --no-loadscope-reorder -m "$(1)" $(PYTEST_ARGS)

test: setup check  ## all checks and the quick tests, in less than ten minutes; CI runs test-slow after it
	@echo "== quick tests"
	$(call pytest,not slow)

# Libraries of loggers and adapters, which only the slow tests and those who want them need.
$(EXTRAS): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[tensorboard,wandb,mlflow,pandas,lightning,transformers,fsspec,parquet,docs,ray]' peft playwright kubernetes-validate grafana-foundation-sdk
	@touch $@

test-slow: setup $(EXTRAS)  ## the other tests: faults, soaks, containers, long runs
	@echo "== slow tests"
	$(call pytest,slow)

check: lint types layers proto-check  ## all checks that run nothing

docs: setup $(EXTRAS)  ## make the documentation as a site in build/site; every link is checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

format: setup  ## rewrite the sources as `make check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup
	@echo "== format and lint"
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	@echo "== types"
	$(BIN)/mypy

layers: setup
	@echo "== layers"
	$(BIN)/lint-imports

# $(1): the folder to write into
protoc = $(BIN)/python -m grpc_tools.protoc -Iprotos --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
  --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(PROTO_FILES)

proto: setup  ## generate the wire modules from the .proto files
	$(call protoc,protos)

proto-check: setup
	@echo "== generated wire modules"
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(call protoc,"$$fresh") && \
	mkdir "$$fresh/committed" && cp protos/paceline/protos/*_pb2* "$$fresh/committed/" && \
	diff -r "$$fresh/committed" "$$fresh/paceline/protos" \
	  || { echo "the generated modules differ from the .proto files: run make proto and commit"; exit 1; }

bench: setup  ## run every benchmark; figures go to standard output
	@for name in allocation rounds split savings policies simulation checkpoints loading single page chaos.recovery_times; do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

freeze: setup  ## pin what .venv holds now in constraints.txt
	@{ sed -n '/^#/p' constraints.txt; \
	  $(BIN)/python -m pip freeze --all --exclude pip --exclude paceline --exclude-editable | sed 's/+.*$$//'; } > constraints.new
	@mv constraints.new constraints.txt

clean:  ## remove .venv, caches and build results; runs stay
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

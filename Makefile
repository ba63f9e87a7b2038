# make accept     rehearse the acceptance of every model on this machine, two cases at a time
# make env        only the environment that both use, .venv
# make env-run    the small environment of a host that only runs compiled models: no PyTorch
# make test       the harness's own tests, two at a time
# make hosts-test  a real Ray cluster on this machine, of which a node is killed; a store over S3
# make faults     kills, crowds, full disks and damage at random, a few tries of each
# make zoo        rehearses each model of catalogs/modelzoo.yaml and writes docs/zoo.md; goes on where it stopped
# make lint       ruff, mypy, and which room may import which
# TORCH=cpu       with any of them: take PyTorch's CPU wheels, from PyTorch's own index
# PYTHON=...      the interpreter to use (3.11 or 3.12)

VENV := .venv
BIN := $(VENV)/bin
FIND_PYTHON := for p in "$(PYTHON)" python3 python3.12 python3.11; do \
	[ -n "$$p" ] && "$$p" -c 'import sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	2>/dev/null && { echo "$$p"; exit 0; }; done; exit 1
REQUIREMENTS := requirements.txt $(wildcard requirements/*.txt) pyproject.toml
# Python compiles what it imports, once; pip would compile all of PyTorch.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-compile

# Sizes of the wheels for x86-64: what pip install --dry-run --ignore-installed adds up to.
ifeq ($(TORCH),)
SIZE := 2.9 GB to fetch on x86-64, 2.5 GB of it for CUDA, which no rehearsal uses: TORCH=cpu saves it
else ifeq ($(TORCH),cpu)
SIZE := 0.35 GB to fetch
PIN = $(shell sed -n 's/^\($(1)==[0-9.]*\).*/\1+cpu/p' requirements/build.txt)
WHEELS := --extra-index-url https://download.pytorch.org/whl/cpu $(call PIN,torch) $(call PIN,torchvision)
else
$(error TORCH=$(TORCH) is not known: leave it out, or TORCH=cpu)
endif

.PHONY: accept env env-run test hosts-test faults zoo lint format clean

accept: $(VENV)/installed
	$(BIN)/python -m pytest --rehearsal -n 2 $(ARGS)

env: $(VENV)/installed

env-run: $(VENV)/installed-run

test: $(VENV)/installed
	$(BIN)/python -m pytest tests/selftest -n 2 --dist=worksteal $(ARGS)

hosts-test: $(VENV)/installed
	$(PIP) -r requirements/ray.txt -r requirements/s3-test.txt
	$(BIN)/python -m pytest tests/selftest/test_fanout.py tests/selftest/test_shared_store.py -n 0 $(ARGS)

faults: $(VENV)/installed
	$(BIN)/python -m pytest tests/faults -n 2 --dist=worksteal $(ARGS)

zoo: $(VENV)/installed
	$(BIN)/python benchmarks/zoo.py $(ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/installed: $(REQUIREMENTS) | $(BIN)/python
	@echo 'installing all requirements into $(VENV): $(SIZE)'
	$(PIP) -r requirements.txt $(WHEELS)
	$(PIP) --no-deps -e .
	@touch $@

$(VENV)/installed-run: $(REQUIREMENTS) | $(BIN)/python
	@echo 'installing requirements/run.txt into $(VENV), without PyTorch: 0.11 GB to fetch'
	$(PIP) -r requirements/run.txt
	$(PIP) --no-deps -e .
	@touch $@

$(BIN)/python:
	@python=$$($(FIND_PYTHON)) || { \
		echo "no Python 3.11 or 3.12 with venv found; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
		exit 1; }; \
	echo "using $$($$python --version) ($$python)"; \
	$$python -m venv $(VENV)

clean:
	rm -rf $(VENV) .store runs

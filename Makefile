# make accept   rehearse the acceptance of every model on this machine
# make env      only the environment that both use, .venv
# make test     the harness's own tests, two at a time
# make lint     ruff, mypy, and which room may import which
# PYTHON=...    the interpreter to use (3.11 or 3.12)

VENV := .venv
BIN := $(VENV)/bin
FIND_PYTHON := for p in "$(PYTHON)" python3 python3.12 python3.11; do \
	[ -n "$$p" ] && "$$p" -c 'import sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	2>/dev/null && { echo "$$p"; exit 0; }; done; exit 1
REQUIREMENTS := requirements.txt $(wildcard requirements/*.txt)

.PHONY: accept env test lint format clean

accept: $(VENV)/installed
	$(BIN)/python -m pytest --rehearsal $(ARGS)

env: $(VENV)/installed

test: $(VENV)/installed
	$(BIN)/python -m pytest tests/selftest -n 2 --dist=worksteal $(ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/installed: $(REQUIREMENTS)
	@python=$$($(FIND_PYTHON)) || { \
		echo "no Python 3.11 or 3.12 with venv found; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
		exit 1; }; \
	echo "using $$($$python --version) ($$python)"; \
	$$python -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) .store runs

# make demo   the main job on a bundled real model; ends by naming the files that it wrote
# make test   everything that must hold: lint and check side by side
# make check  pytest alone
# make thorough  pytest with the many cases of which `make test` has examples
# make lint   ruff and mypy alone
# make docs   writes docs/cli.md and the README's transcripts anew
# make clean  removes what the others made

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
JOBS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

.PHONY: demo test check thorough lint docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.stamp-demo
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh "$(OUT)"

# Side by side: mypy alone would leave a core idle for as long as it takes. Tests keep their order (no stealing of work): the emulated chip
# has to be registered before the first backward pass of a process, and the tests that do so come first.
test: $(VENV)/.stamp-test
	@$(MAKE) --no-print-directory -j 2 lint check

check: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -n $(JOBS) --durations=10 $(PYTEST_ARGS)

thorough: $(VENV)/.stamp-test
	@$(MAKE) --no-print-directory check PYTEST_ARGS="-m '' $(PYTEST_ARGS)"

lint: $(VENV)/.stamp-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

docs: $(VENV)/.stamp-demo
	$(BIN)/python scripts/cli_docs.py
	$(BIN)/python scripts/refresh_readme.py

clean:
	rm -rf "$(VENV)" "$(OUT)" build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Sapper needs Python 3.11 or newer; say which with: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv "$(VENV)"
	@touch $@

$(VENV)/.stamp-demo: pyproject.toml $(VENV)/.stamp-venv
	@echo "installing Sapper and what its pages need into $(VENV)"
	@$(PIP) install -e '.[dossier]'
	@touch $@

# PyTorch first and then held where it is, so that nothing that follows replaces it by another build.
$(VENV)/.stamp-test: pyproject.toml scripts/install_torch.py scripts/test-constraints.txt $(VENV)/.stamp-demo
	@echo "installing what the tests need into $(VENV); PyTorch takes a minute or two"
	@$(BIN)/python scripts/install_torch.py
	@$(PIP) install -c scripts/test-constraints.txt -e '.[dossier,dev]'
	@touch $@

# `make book` builds the book, `make test` tests everything; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/installed
RIVALS := _build/rivals/installed
PORT ?= 8000

# One computing thread a process: two run at a time, and sums then repeat to the last digit.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg --nbval-cell-timeout 300

.DEFAULT_GOAL := help
.PHONY: help setup book test serve lint paper bench clean

help: ## List these targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: $(STAMP) ## Make .venv and install what the book and its tests need

$(STAMP): pyproject.toml requirements.txt
	@$(PYTHON) tests/check_python.py pyproject.toml
	@echo "installing into $(VENV): about 2 GB, some minutes"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check --progress-bar off -q -r requirements.txt
	@touch $@

book: setup ## Execute the notebooks that changed and build the pages
	$(PY) -m gsae_book.book

test: setup ## Unit and property tests, the book in its smoke profile, its pages in a browser, nbval
	$(PY) -m gsae_book.book --profile smoke
	$(ONE_THREAD) $(PY) -m pytest -n 2 --dist loadfile tests
	$(ONE_THREAD) TQDM_DISABLE=1 $(PY) -m pytest -n 2 --dist loadfile $(NBVAL) _build/smoke/source/notebooks/*.ipynb
	@$(PY) tests/built_site.py

serve: book ## Show the book at a loopback address (PORT=8000)
	$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

lint: setup ## What pre-commit runs: ruff and stripped notebooks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m nbstripout --verify notebooks/*.ipynb

paper: setup ## Build the book at large sizes, the paper's where it has them, into _build/paper (hours)
	$(PY) -m gsae_book data mnist
	@for name in recovery convergence group_norms signals digits table_1; do $(PY) -m experiments.$$name || exit 1; done
	$(PY) -m gsae_book.book --profile paper

bench: $(STAMP) $(RIVALS) ## Run the benchmarks on an idle machine into results/benchmarks (clustering takes hours)
	$(PY) -m pip install --disable-pip-version-check --progress-bar off -q -e .[bench]
	@for file in benchmarks/*_*.py benchmarks/growth.py; do echo "$$file"; $(PY) "$$file" || exit 1; done

$(RIVALS): benchmarks/requirements.txt
	$(PYTHON) -m venv _build/rivals
	_build/rivals/bin/python -m pip install --disable-pip-version-check --progress-bar off -q -r benchmarks/requirements.txt
	@touch $@

clean: ## Remove what was built (not .venv, not the data)
	rm -rf _build

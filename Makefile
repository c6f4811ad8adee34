# `make book` builds the book, `make test` tests everything; `make help` lists the rest.
# With LOCKED=1 everything is installed in the versions of locks/; without, pip chooses in the ranges of pyproject.toml.
PYTHON ?= python3
LOCKED ?=
PORT ?= 8000
VENV := .venv
PY := $(VENV)/bin/python
LINT := .venv-lint
RIVALS := _build/rivals/installed
SAELENS := _build/rivals/saelens/installed
LOCK := $(if $(LOCKED),locks/$(shell $(PYTHON) -c 'import sys; print("py%d%d.txt" % sys.version_info[:2])'))
SUFFIX := $(if $(LOCKED),-locked)
STAMP := $(VENV)/installed$(SUFFIX)

INSTALL := -m pip install --disable-pip-version-check --progress-bar off -q
CONSTRAINED := $(INSTALL) $(if $(LOCKED),-c $(LOCK))
# The packages of an extra, without the project itself.
EXTRA := $(PYTHON) -c 'import sys, tomllib; print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]]))'

# One computing thread a process: two run at a time, and sums then repeat to the last digit. Tests pass with others, as in
# make test ONE_THREAD=; notebooks are always executed and repeated with one.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
REPEATABLE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PARALLEL := -m pytest -n 2 --dist loadfile
PYTEST := $(ONE_THREAD) $(PY) $(PARALLEL)
# nbval repeats one notebook in TURNS, others the next day; the weekly job repeats all, with TURNS=1.
TURNS ?= 4
REPEATED = $(shell ls notebooks/*.ipynb | awk 'NR % $(TURNS) == '$$(date +%j)' % $(TURNS)')
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg --nbval-cell-timeout 300

.DEFAULT_GOAL := help
.PHONY: help setup book pdf test unit coverage serve lab lint types hooks package lock paper verify faults mutants bench clean

help: ## List these targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: $(STAMP) ## Make .venv and install what the book and its tests need

$(STAMP): pyproject.toml requirements.txt $(LOCK)
	@$(PYTHON) tests/check_python.py pyproject.toml
	@echo "installing into $(VENV): about 2 GB, some minutes"
	$(PYTHON) -m venv $(VENV)
	$(PY) $(CONSTRAINED) -r requirements.txt
	@touch $@

$(VENV)/with-%$(SUFFIX): $(STAMP)
	$(PY) $(CONSTRAINED) -e .[$*]
	@touch $@

book: setup ## Execute the notebooks that changed and build the pages
	$(PY) -m gsae_book.build.book

# Each part runs whatever the one before it found, and the worst exit code is that of all.
test: setup ## Unit and property tests, the book in its smoke profile, its pages in a browser, nbval by turns
	@worst=0; failed=; trap 'exit 130' INT; \
	part() { name=$$1; shift; echo "$$name: $$*"; "$$@" || { code=$$?; failed="$$failed $$name"; \
	    [ $$code -le $$worst ] || worst=$$code; }; }; \
	part book env $(REPEATABLE) $(PY) -m gsae_book.build.book --profile smoke; \
	part tests env $(PYTEST) tests; \
	part nbval env TQDM_DISABLE=1 $(REPEATABLE) $(PY) $(PARALLEL) $(NBVAL) $(addprefix _build/smoke/source/,$(REPEATED)); \
	part pages $(PY) tests/built_site.py; \
	[ -z "$$failed" ] || echo "make test: failed in$$failed"; exit $$worst

unit: setup ## The library's own tests, in a minute or two
	$(PYTEST) -m "not slow" tests/library

coverage: setup ## What of the library its own tests reach, into results/coverage.json
	$(PYTEST) -m "not slow" --cov --cov-report=json:_build/coverage.json tests/library
	$(PY) -m gsae_book.build.coverage _build/coverage.json results/coverage.json

pdf: book ## The whole book as one PDF, _build/book.pdf, printed by Chromium or Chrome
	$(PY) -m gsae_book.build.pdf

serve: book ## Show the book at a loopback address (PORT=8000)
	$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

lab: $(VENV)/with-lab$(SUFFIX) ## Open JupyterLab here, with the environment of the book
	$(PY) -m jupyterlab

lint: $(LINT)/with-lint$(SUFFIX) ## Style, imports, stripped notebooks, workflows: in its own small .venv-lint
	$(LINT)/bin/ruff check .
	$(LINT)/bin/ruff format --check .
	$(LINT)/bin/lint-imports
	$(LINT)/bin/nbstripout --verify notebooks/*.ipynb
	$(LINT)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

$(LINT)/with-%$(SUFFIX): pyproject.toml $(LOCK)
	@$(PYTHON) tests/check_python.py pyproject.toml
	$(PYTHON) -m venv $(LINT)
	$(EXTRA) $* | $(LINT)/bin/python $(CONSTRAINED) -r /dev/stdin
	@touch $@

types: $(VENV)/with-types$(SUFFIX) ## Types, with mypy
	$(PY) -m mypy

hooks: $(LINT)/with-lint$(SUFFIX) $(LINT)/with-dev$(SUFFIX) ## Check each commit as `make lint` does
	$(LINT)/bin/pre-commit install

package: $(LINT)/with-dev$(SUFFIX) ## Build and check what a release is, install its wheel into a new environment, and use it
	rm -rf build _build/package
	$(LINT)/bin/uv build -q --python $(PYTHON) -o _build/package/dist
	$(LINT)/bin/twine check --strict _build/package/dist/*.whl _build/package/dist/*.tar.gz
	$(PYTHON) -m venv _build/package
	_build/package/bin/python $(CONSTRAINED) _build/package/dist/*.whl
	_build/package/bin/python -I tests/use_package.py

lock: $(LINT)/with-dev$(SUFFIX) ## Write locks/ anew, from the newest versions
	@for version in 3.11 3.12 3.13 3.14; do \
	    $(LINT)/bin/uv pip compile pyproject.toml --extra book --extra test --extra lint --extra types --upgrade \
	        --python-version $$version --python-platform linux --no-annotate --custom-compile-command "make lock" \
	        -q -o locks/py$$(echo $$version | tr -d .).txt || exit 1; done

paper: $(VENV)/with-bench$(SUFFIX) ## Build the book at large sizes, the paper's where it has them, into _build/paper (hours)
	$(PY) -m gsae_book data mnist
	$(PY) -m gsae_book data fashion-mnist
	$(PY) $(INSTALL) --no-deps earthlib
	$(PY) -m gsae_book record
	$(PY) -m gsae_book.build.book --profile paper

verify: setup ## Run the canaries of the recorded results anew, and compare (minutes)
	-$(PY) -m gsae_book data mnist
	$(PY) -m gsae_book verify

faults: setup ## Kill commands, start two at once, feed them badly, repeat the notebooks: counted into results (an hour or two)
	PYTHONPATH=.:tests $(PY) -m faults

mutants: setup ## Break the library's mathematics in over a hundred places, one at a time: tests must see each (minutes)
	PYTHONPATH=.:tests $(ONE_THREAD) $(PY) -m mutants

bench: setup $(RIVALS) $(SAELENS) ## Run the benchmarks on an idle machine into results/benchmarks
	@for file in benchmarks/*_*.py benchmarks/growth.py; do echo "$$file"; $(PY) "$$file" || exit 1; done

$(RIVALS): benchmarks/requirements.txt
	$(PYTHON) -m venv _build/rivals
	_build/rivals/bin/python $(INSTALL) -r benchmarks/requirements.txt
	@touch $@

$(SAELENS): benchmarks/saelens.txt | $(RIVALS)
	$(PYTHON) -m venv _build/rivals/saelens
	_build/rivals/saelens/bin/python $(INSTALL) -r benchmarks/saelens.txt
	@touch $@

clean: ## Remove what was built (not .venv, not the data)
	rm -rf _build build

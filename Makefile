# Each target works by itself on a fresh clone: it makes .venv, installs, and fetches the data first. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
DATA   := $(VENV)/.data
# Notebooks or test files for `make test` and `make notebooks`, all if empty; SLOW=1 runs the cells marked `#| slow` as well.
ONLY   ?=
SLOW   ?=
# BARE=1: test what depends on the machine as on one without data and without bf16; BOTH=1: everything, then that, then ruff.
BARE   ?=
BOTH   ?=
# What is installed, to the version; `make pins` renews it. Empty: the newest that settings.ini allows.
PINS   ?= tools/constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help train test notebooks export docs bench lint pins clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s%s\n", $$1, $$2}'

train: $(DATA) ## the main job: a residual network, 3 epochs on all of FashionMNIST, into runs/fashion_mnist
	$(BIN)/slowai_train --data fashion_mnist --model residual --epochs 3 --out runs/fashion_mnist

test: $(DATA) ## every notebook through nbdev_test and every test in tests/; ends with 'N passed, N failed'
	@$(BIN)/python tools/run_tests.py $(if $(SLOW),--slow) $(if $(BARE),--bare) $(if $(BOTH),--both) $(ONLY)

notebooks: $(DATA) ## run the notebooks from top to bottom and save their outputs (SLOW=1: the long runs too; ONLY=nbs/01_conv.ipynb)
	$(BIN)/nbdev_export
	$(BIN)/python tools/run_notebooks.py $(if $(SLOW),--slow) $(ONLY)
	@$(MAKE) --no-print-directory export

export: $(READY) ## what is made from the notebooks: slowai/, README.md, the sidebar, llms.txt; and clean them
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python -c 'from nbdev.quarto import *; refresh_quarto_yml(); nbdev_sidebar.__wrapped__()'
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/llms.py

docs: $(READY) ## build the site into _docs, without Quarto: the pages, the reference, a map of the modules
	$(BIN)/python tools/build_docs.py

bench: $(DATA) ## the side-by-side benchmarks in bench/, one after the other
	@for f in bench/[!_]*.py; do [ -e "$$f" ] || continue; echo "$$f"; $(BIN)/python "$$f" || exit 1; done

lint: $(READY) ## ruff over the package, the notebooks, tools, tests and benchmarks
	$(BIN)/python -m ruff check --config tools/ruff.toml setup.py slowai nbs tools tests $(wildcard bench)

pins: ## renew tools/constraints.txt, the versions that `make` installs (KEEP=1: change only what settings.ini no longer allows)
	@$(venv)
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(BIN)/python tools/pins.py $(if $(KEEP),--keep)

clean: ## remove what make made: .venv, the site, caches; runs/ stays
	rm -rf $(VENV) _docs _proc build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# .venv, unless there is one that works
venv = $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("slowai wants Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12")' || exit 1; \
  $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
  { $(PYTHON) tools/debian.py python3-venv && $(PYTHON) -m venv --clear $(VENV); }

# By the environment, the constraints hold for the isolated build of the package too; pip 25.3 and newer has another name for those.
$(READY): settings.ini setup.py $(PINS)
	@$(venv)
	$(if $(PINS),PIP_CONSTRAINT=$(PINS) PIP_BUILD_CONSTRAINT=$(PINS)) $(BIN)/python -m pip install --use-pep517 -e '.[dev]'
	@touch $@

# Without the data this file is not made, and the next run asks again.
$(DATA): $(READY)
	@$(BIN)/python tools/fetch_data.py $@

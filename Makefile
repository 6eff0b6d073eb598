# Everything runs in .venv, which is made when it is needed. PYTHON chooses its interpreter.
PYTHON ?= python3
# Test processes; each compiles XLA programs, which takes memory.
WORKERS ?= 2

BIN := .venv/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])' 2>/dev/null)
# Versions that were tested together; other interpreters take what setup.cfg allows.
CONSTRAINTS := $(wildcard constraints/py$(VERSION).txt)
# Named by the interpreter's version, so that choosing another one makes .venv anew.
INSTALLED := .venv/installed-py$(VERSION)
SOURCES := setup.py launch semanticfl_jax tests $(wildcard comparisons docs)
# What the site needs besides, installed when it is first built.
DOCS_INSTALLED := .venv/installed-docs-py$(VERSION)
# Notebooks as they are kept, without outputs, and as they were last executed.
NOTEBOOKS := $(wildcard docs/notebooks/*.ipynb)
EXECUTED := $(NOTEBOOKS:docs/notebooks/%=docs/_build/notebooks/%)

.PHONY: help venv demo test lint format docs notebooks wheel installs releasable release lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

venv: $(INSTALLED)  ## make .venv with the package and its tools (PYTHON=python3.12 chooses another Python)

$(INSTALLED): setup.py setup.cfg pyproject.toml $(CONSTRAINTS)
	@test -n "$(VERSION)" || { echo "PYTHON=$(PYTHON) does not run"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS:%=--constraint %) --editable '.[all,dev]'
	@touch $@

demo: $(INSTALLED)  ## train FedAvg and SemanticFL on digits with three seeds, and compare them
	$(BIN)/python -m launch.compare --config=launch/configs/digits.py \
		--algorithms=fedavg,semanticfl --seeds=0,1,2 --workdir=runs/demo

# When a worker dies, xdist waits for ever for its files if it may start another.
test: $(INSTALLED)  ## run all tests (WORKERS=8 uses more processes)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --max-worker-restart=0

lint: $(INSTALLED)  ## check style and types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: $(INSTALLED)  ## repair style where that can be done
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

$(DOCS_INSTALLED): $(INSTALLED) setup.cfg
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS:%=--constraint %) --editable '.[all,docs]'
	@touch $@

docs: $(DOCS_INSTALLED)  ## build the site, docs/_build/html; warnings are errors, no network is used
	$(BIN)/python -m sphinx -b html -q -W --keep-going docs docs/_build/html
	@echo docs/_build/html/index.html

# They share the programs that they compile, and each is executed again only when it, or the
# package, has changed: make -j2 notebooks.
notebooks: $(EXECUTED)  ## execute the notebooks; `make notebooks docs` shows their outputs

$(EXECUTED): docs/_build/notebooks/%.ipynb: docs/notebooks/%.ipynb \
		$(shell find semanticfl_jax -name '*.py') | $(DOCS_INSTALLED)
	@rm -rf docs/_build/run/$* && mkdir -p docs/_build/run/$* $(@D)
	@cp $< docs/_build/run/$*/
	JAX_COMPILATION_CACHE_DIR="$(CURDIR)/docs/_build/xla" $(BIN)/python docs/execute_notebook.py \
		docs/_build/run/$*/$*.ipynb
	@mv docs/_build/run/$*/$*.ipynb $@

wheel: $(INSTALLED)  ## build dist/*.whl and dist/*.tar.gz
	rm -rf build
	$(BIN)/python -m build

installs: $(INSTALLED)  ## install the wheel in new environments, for every Python here, and run the demo there
	$(BIN)/python -m tests.fresh_install

RELEASE := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' semanticfl_jax/__init__.py)

releasable:  ## check that the tree is clean and CHANGELOG.md has this version, which is not tagged yet
	@test -z "$$(git status --porcelain)" || \
		{ echo "the tree is not clean: commit, or stash, what git status lists"; exit 1; }
	@grep -q '^## \[$(RELEASE)\]' CHANGELOG.md || \
		{ echo "CHANGELOG.md has no section [$(RELEASE)], the version in semanticfl_jax/__init__.py"; exit 1; }
	@! sed -n '/^## \[Unreleased\]/,/^## \[[0-9]/p' CHANGELOG.md | grep -q '^- ' || \
		{ echo "CHANGELOG.md has changes under [Unreleased]: move them under the version's own section"; exit 1; }
	@! git rev-parse --quiet --verify 'refs/tags/v$(RELEASE)' > /dev/null || \
		{ echo "v$(RELEASE) is tagged already: raise __version__ in semanticfl_jax/__init__.py"; exit 1; }

release: releasable $(DOCS_INSTALLED)  ## lint, test, docs, wheel, sdist, twine check, then the tag; nothing is pushed
	$(MAKE) lint test docs
	rm -rf dist
	$(MAKE) wheel
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS:%=--constraint %) 'twine>=6'
	$(BIN)/python -m twine check --strict dist/*
	git tag -a 'v$(RELEASE)' -m 'semanticfl_jax $(RELEASE)'
	@echo "tagged v$(RELEASE). To publish: git push origin v$(RELEASE); .venv/bin/python -m twine upload dist/*"

lock: $(DOCS_INSTALLED)  ## record the versions in .venv as tested together
	{ echo "# Versions that were tested together on Python 3.$(VERSION:3%=%); \`make lock\` writes this file."; \
	  $(BIN)/python -m pip freeze --all --exclude-editable --exclude pip; } > constraints/py$(VERSION).txt
	@touch $(INSTALLED) $(DOCS_INSTALLED)

clean:  ## remove .venv and everything built or cached, but no results
	rm -rf .venv build dist docs/_build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

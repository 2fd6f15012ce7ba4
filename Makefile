# Every target makes the virtual environment first, where it is not there yet.
VENV ?= .venv
PYTHON ?= python3
PIP = $(VENV)/bin/pip install --quiet --constraint constraints.txt
# A registry goes before the image names in what `make compile` writes: make compile REGISTRY=...
REGISTRY ?=

.PHONY: help demo test lint format docs compile constraints

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

demo: $(VENV)/laptop  ## see a model forget, and not forget: about six minutes on two cores
	$(VENV)/bin/mixtune demo

test: $(VENV)/dev  ## run all tests
	$(VENV)/bin/pytest --numprocesses auto --dist loadfile

lint: $(VENV)/dev  ## check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/dev  ## mend style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

compile: $(VENV)/dev  ## compile pipelines and components to YAML
	MIXTUNE_REGISTRY=$(REGISTRY) $(VENV)/bin/python pipelines/compile.py

docs: $(VENV)/dev  ## write component READMEs and the tree in ARCHITECTURE.md from the docstrings
	$(VENV)/bin/python docs/write.py

constraints: $(VENV)/dev  ## pin what is installed now
	$(VENV)/bin/pip freeze --exclude-editable | sed -E 's/\+cpu$$//' > constraints.txt

$(VENV)/laptop: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[data,train,evaluate,pipelines]'
	$(PIP) --no-deps llama-index-core  # carries NLTK's punkt_tab, which IFEval's checkers need
	touch $@

$(VENV)/dev: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps llama-index-core
	touch $@

# Every target makes the virtual environment first, where it is not there yet.
VENV ?= .venv
PYTHON ?= python3
# A file of tests stays in one process, the slowest files first (tests/conftest.py); one thread each, as many processes as cores.
TESTS = OMP_NUM_THREADS=1 $(VENV)/bin/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
PIP = $(VENV)/bin/pip install --quiet --constraint constraints.txt
# A registry goes before the image names in what `make compile` writes: make compile REGISTRY=...
REGISTRY ?=
# Of `make images`: the program that builds, another base for all three (without it, each Dockerfile's own), and further
# options, such as a private package index: --secret id=pip,src=pip.conf --secret id=ca,src=ca.crt (docs/cluster.md).
ENGINE ?= docker
BASE_IMAGE ?=
BUILD_OPTIONS ?=
IMAGES = data train evaluate
VERSION = $(shell sed -nE 's/^__version__ = "(.*)"/\1/p' components/mixtune/__init__.py)
image = $(if $(REGISTRY),$(REGISTRY)/)mixtune-python-$(1):$(VERSION)

# An older Python would end in pip's riddles; one that made $(VENV) before counts, too.
define make_venv
@python=$(PYTHON); if test -d $(VENV); then python=$(VENV)/bin/python; fi; \
	$$python -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"mixtune needs Python 3.11 or later; \
	{sys.executable} is {sys.version.split()[0]}. Take $(VENV) away, if it is there, and give another: \
	make $(MAKECMDGOALS) PYTHON=python3.11")'
test -d $(VENV) || $(PYTHON) -m venv $(VENV)
endef

.PHONY: help demo check test lint format docs compile constraints images push sbom $(IMAGES:%=image-%)

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

demo: $(VENV)/laptop  ## see a model forget, and not forget: about five minutes on two cores
	$(VENV)/bin/mixtune demo

check: lint  ## the inner loop, under two minutes on two cores: style, types, all tests that are not slow
	$(TESTS) -m "not slow"

test: $(VENV)/dev  ## run all tests, some ten minutes on two cores
	$(TESTS)

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

images: $(IMAGES:%=image-%)  ## build the three container images: make images REGISTRY=...

$(IMAGES:%=image-%): image-%:
	mkdir -p build/wheels
	DOCKER_BUILDKIT=1 $(ENGINE) build --file images/$*/Dockerfile --tag $(call image,$*) \
		--build-arg VERSION=$(VERSION) --build-arg COMMIT=$$(git rev-parse HEAD) \
		$(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) $(BUILD_OPTIONS) .

push:  ## push them and write their digests to build/images.json: make push REGISTRY=...
	for part in $(IMAGES); do $(ENGINE) push $(call image,$$part) || exit 1; done
	for part in $(IMAGES); do \
		$(ENGINE) image inspect $(call image,$$part) --format \
			"\"mixtune-python-$$part\": \"{{index (split (index .RepoDigests 0) \"@\") 1}}\"" || exit 1; \
	done | paste -sd, | sed 's/.*/{&}/' > build/images.json

sbom: build/cyclonedx  ## write what is in each image as build/sbom/*.json (CycloneDX): make sbom REGISTRY=...
	mkdir -p build/sbom
	for part in $(IMAGES); do \
		$(ENGINE) run --rm --network none --read-only $(call image,$$part) python3 -m pip list --format freeze \
			> build/sbom/$$part.txt && \
		build/cyclonedx/bin/cyclonedx-py requirements --output-reproducible --output-file build/sbom/$$part.json \
			build/sbom/$$part.txt || exit 1; \
	done

build/cyclonedx:  # its dependencies do not go together with ours
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet cyclonedx-bom==7.5.0

constraints: $(VENV)/dev  ## pin what is installed now
	$(VENV)/bin/pip freeze --exclude-editable | sed -E 's/\+cpu$$//' > constraints.txt

$(VENV)/laptop: pyproject.toml constraints.txt
	$(make_venv)
	$(PIP) torch
	$(PIP) --editable '.[data,train,evaluate,pipelines]'
	$(PIP) --no-deps llama-index-core  # carries NLTK's punkt_tab, which IFEval's checkers need
	touch $@

$(VENV)/dev: pyproject.toml constraints.txt
	$(make_venv)
	$(PIP) torch
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps llama-index-core
	$(PIP) --no-deps bfcl-eval  # the Berkeley leaderboard's checker and questions, which tests hold ours against
	$(PIP) --no-deps trl  # chat templates with generation marks, which tests hold ours against
	touch $@

# Two commands for a newcomer: make demo, make test. Everything installs into .venv once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
BUDGET ?= 60

.PHONY: demo fuzz test lint types contracts format train bench torture screenshots clean

$(VENV)/installed: pyproject.toml
	@echo "Installing into $(VENV). The first time this downloads PyTorch, some GB, and takes minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/covidnet-node demo --out demo

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

contracts: $(VENV)/installed-dev
	$(BIN)/lint-imports

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train: $(VENV)/installed-dev
	$(BIN)/covidnet-node train all --data $(DATA) --budget $(BUDGET)

# Coverage-guided fuzzing of receiving, admission, decoding and reports; adds to docs/reliability.md.
fuzz: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m fuzz.run --minutes $(MINUTES) --seed $(SEED)

bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/throughput.py

# Kills the node, its workers and its peers while images stream in; adds a line to the record and
# makes the table in docs/reliability.md anew. WORKER=real has the networks, stand-in has none.
SEED ?= 1
MINUTES ?= 10
WORKER ?= stand-in
torture: $(VENV)/installed-dev
	$(BIN)/python -m torture --seed $(SEED) --minutes $(MINUTES) --worker $(WORKER) $(if $(IMAGES),--images $(IMAGES))

# Needs Orthanc with its DICOMweb plug-in, Chromium and npm; fetches OHIF from the npm registry.
screenshots: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[viewers]'
	$(BIN)/python -m tests.viewers.screenshots docs/pictures $(VENV)/ohif

clean:
	rm -rf $(VENV) demo dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt
# tests start hundreds of processes, each of which would compile torch and the package again
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
TRAINING = tests/engine/test_training.py::test_
NUMERICS = tests/ops --ignore=tests/ops/test_arithmetic.py tests/losses tests/optim \
	tests/models --ignore=tests/models/test_timm.py --ignore=tests/models/test_trial.py \
	tests/test_replicate.py $(TRAINING)one_process_and_two_train_alike

.PHONY: install quickstart test test-numerics test-gpu faults data lint docs benchmark

install: ## with all that the gate needs, by one call of pip
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[test,dev,docs]'
	touch $(VENV)/.installed
	touch $(VENV)/.installed-test $(VENV)/.installed-dev $(VENV)/.installed-docs

quickstart: $(VENV)/.installed ## install, train SwAV on the built-in images, print the verdict
	$(BIN)/python tools/run_distributed.py config=pretrain/swav/quickstart

test: $(VENV)/.installed-test ## install with the test extras, run the tests
	CUDA_VISIBLE_DEVICES= $(PYTEST) -n 2 --dist worksteal $(TESTS)

test-numerics: $(VENV)/.installed-test ## the tests of numbers, as on the oldest CPU that torch runs on
	CUDA_VISIBLE_DEVICES= ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(PYTEST) -n 2 $(NUMERICS)

test-gpu: $(VENV)/.installed-test ## what differs on a GPU, where there is one
	$(PYTEST) tests/test_gpu.py

faults: $(VENV)/.installed-test ## kill runs at 63 random moments; each has to end as an unbroken one
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults.py

data: $(VENV)/.installed ## fetch Fashion-MNIST into data/downloads
	$(BIN)/python tools/fetch_data.py

lint: $(VENV)/.installed-dev ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs ## the site of docs/ in build/site; a warning is an error
	$(BIN)/python -m sphinx -q -E -W --keep-going docs build/site

benchmark: $(VENV)/.installed-benchmark ## speed as ratios against peers, in one table; checkpoints and linear probes
	$(BIN)/python benchmarks/table.py
	$(BIN)/python benchmarks/checkpoint.py
	$(BIN)/python benchmarks/linear_probe.py

$(VENV)/.installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) -e '.[test]'
	touch $@

$(VENV)/.installed-benchmark: $(VENV)/.installed
	$(PIP) -e '.[benchmark]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) -e '.[docs]'
	touch $@

# The environment lives in .venv and holds the versions of constraints.txt. Nothing is installed outside of it.
# Every target is a plain command or two; README.md shows them for machines without make.

PYTHON ?= python3
# Address of a wheel index for torch alone, for example the CPU builds (see docs/dependencies.md). Empty: pip's own default.
TORCH_INDEX ?=
# Number of test processes and further pytest arguments, for example PYTEST_ARGS="-k house".
JOBS ?= 2
PYTEST_ARGS ?=

# Byte code is written also where an image forbids it: without it, every start of PyTorch and MONAI compiles both.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VIEWER := .venv-viewer

.DEFAULT_GOAL := help
.PHONY: help env slicer viewer astra demo test lint format clean distclean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## create .venv and install the tested versions (does nothing when nothing changed)

slicer: $(VENV)/.slicer ## add 3D Slicer's core to .venv, for the tests of plugins/slicer (1 GB)

viewer: $(VIEWER)/.installed ## create .venv-viewer for plugins/viewer (1.1 GB; does nothing when nothing changed)

astra: models/astra.pt ## install Astra's image encoder (MIT, 187 MB) and convert it to models/astra.pt

demo: $(STAMP) ## findings for an example scan with the shipped weights
	$(BIN)/python scripts/demo.py

test: $(STAMP) ## run the whole test suite
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS) tests

lint: $(STAMP) ## check style, format and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy bundle scripts experiments plugins/monailabel plugins/viewer

format: $(STAMP) ## rewrite the code in the project's format
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean: ## remove caches of the tools; data, runs and results stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache build *.egg-info
	find . -path ./$(VENV) -prune -o -path ./$(VIEWER) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv and .venv-viewer as well
	rm -rf $(VENV) $(VIEWER)

# torch comes first and alone: its index may differ from that of everything else. Python writes byte code at the first import.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("make: %s is Python %d.%d; CT Findings needs 3.11 or newer. Name another: make PYTHON=python3.11 env" % (sys.executable, sys.version_info[0], sys.version_info[1]))'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) has no venv module; install it (Debian and Ubuntu: apt-get install python3-venv) and try again" >&2; exit 1; }
	@echo "Installing into $(VENV): a few minutes and 3 GB the first time (more with CUDA)."
	$(PYTHON) -m venv $(VENV)
	@echo "1 of 3: PyTorch"
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@echo "2 of 3: MONAI, transformers and the rest"
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '.[test,dev,label,cluster,archive]'
	@echo "3 of 3: MONAI Label"
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt --no-deps monailabel pydicom-seg
	@touch $@

# Its wheel pins vtk; nothing else of .venv changes. Drawing without a screen also needs libegl1, libgl1 and libxrender1 of the system.
$(VENV)/.slicer: $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[slicer]'
	@touch $@

models/astra.pt: $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[astra]'
	$(BIN)/python scripts/convert_checkpoint.py astra

# trame-slicer pins another slicer-core than the tests of plugins/slicer use. Drawing also needs libegl1 libgl1 libosmesa6 libxt6
# libxrender1 libglu1-mesa of the system.
$(VIEWER)/.installed: plugins/viewer/requirements.txt plugins/client/pyproject.toml
	$(PYTHON) -m venv $(VIEWER)
	$(VIEWER)/bin/python -m pip install -q --no-deps -r plugins/viewer/requirements.txt -e plugins/client
	@touch $@

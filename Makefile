# Everything sets itself up: a virtual environment in .venv, then the command.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check -q
STORE ?= demo-store
export PIP_CONSTRAINT =

.PHONY: demo up down app test test-slow soak check format bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       run attack, detector and purifiers on a built-in data set, with a kill and a resume"
	@echo "make up         start a Prefect server and a worker here, and deploy everything (PORT=4300 for another port)"
	@echo "make down       stop both"
	@echo "make app        build the app as one executable file: dist/image-defender-app"
	@echo "make test       run the tests"
	@echo "make test-slow  run the slow and real-data tests"
	@echo "make soak       ten minutes of kills, corruption and faults, compared with an undisturbed run"
	@echo "make check      lint, types and the import contract"
	@echo "make bench      measure speed, paired with the bare loop and with another library"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "expected Python 3.11 or newer, got $$($(PYTHON) --version)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "expected the module venv: apt-get install python3-venv"; exit 1; }

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): about 6 GB, mostly torch; a few minutes"
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): about 6 GB, mostly torch; a few minutes"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run
	@$(BIN)/python examples/demo.py --store $(STORE)

up: $(VENV)/.run
	@$(BIN)/image-defender up $(if $(PORT),--port $(PORT))

down: $(VENV)/.run
	@$(BIN)/image-defender down

# an environment of its own, with a torch for processors alone: the file is a fifth of the size
APP_VENV ?= .venv-app
APP_PIP = $(APP_VENV)/bin/python -m pip --disable-pip-version-check -q
CPU_TORCH ?= torch==2.13.0+cpu
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
app: packaging/app.spec packaging/requirements.txt
	@$(PYTHON) -m venv $(APP_VENV)
	@echo "installing into $(APP_VENV): about 1.5 GB"
	@$(APP_PIP) install '$(CPU_TORCH)' 2>/dev/null || $(APP_PIP) install '$(CPU_TORCH)' --extra-index-url $(CPU_INDEX)
	@grep -v '^torch' constraints.txt > $(APP_VENV)/constraints.txt
	@$(APP_PIP) install -c $(APP_VENV)/constraints.txt -r packaging/requirements.txt
	$(APP_VENV)/bin/pyinstaller --noconfirm --distpath dist --workpath build/app packaging/app.spec
	@ls -l dist/image-defender-app

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -q

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -q -m slow --timeout 1800

soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak --seconds 420 --images 1200

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	@$(PIP) install --no-deps torchattacks==3.5.1
	$(BIN)/python -m benchmarks

clean:
	rm -rf build dist *.egg-info demo-store .pytest_cache .mypy_cache .ruff_cache

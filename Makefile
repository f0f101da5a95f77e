# make run    set up and run the main job: train, pack, score, verify and report a small model on the bundled text
# make test   set up where needed and run the tests
# make check  lint, format and types, as CI does

PYTHON ?= python3
BIN := .venv/bin

run: .setup-done
	$(BIN)/underpar run quickstart

test: .setup-done
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

check: .setup-done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.setup-done: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"error: Python {v.major}.{v.minor} is too old; make PYTHON=python3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch -c constraints.txt $(TORCH_INDEX)
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	touch .setup-done

# On Linux the default torch wheel is the CUDA build; machines without a GPU can take the small one:
#   make run TORCH_INDEX="--index-url https://download.pytorch.org/whl/cpu"
TORCH_INDEX ?=

.PHONY: run test check

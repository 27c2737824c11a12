# Each target is enough on a machine with only Python 3.11, pip and make. Second runs skip the installation.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo quick test check slow soak bench measure docs clean

demo: $(STAMP)
	$(BIN)/tuner run studies/digits.py --yes

# Everything without a process, a kill or a recording: the loop while you work.
QUICK := $(addprefix tests/,analysis budget design docs house plots report sources)
quick: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow" $(QUICK)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow

MINUTES ?= 30
soak: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tests/crash/soak.py --minutes $(MINUTES)

bench: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/step_loop.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sweep_spread.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/verdict_rates.py

docs: $(STAMP)
	$(BIN)/python -m sphinx -n -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

measure: $(STAMP)
	$(BIN)/python benchmarks/measure.py

$(STAMP): pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'tuner needs Python 3.11 or newer; set PYTHON=')"
	@$(PYTHON) -c "import ensurepip" 2>/dev/null || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e '.[test]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs docs/_build docs/generated .pytest_cache .mypy_cache .ruff_cache

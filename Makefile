# Each target is enough on a machine with only Python 3.11, pip and make. Second runs skip the installation.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo quick test check versions slow soak bench digests measure docs clean

demo: $(STAMP)
	$(BIN)/tuner run studies/digits.py --yes

# Everything without a process, a kill or a recording: the loop while you work.
QUICK := $(addprefix tests/,analysis budget design docs house plots report sources)
quick: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow" $(QUICK)

test: check versions
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The other Pythons of pyproject.toml, where they are installed: everything compiles, and what reads records runs.
# FULL=1 also installs torch and imports what trains.
versions: $(STAMP)
	@for version in 3.12 3.13; do \
	  python$$version -c "" 2>/dev/null || { echo "python$$version: not installed here, not tried"; continue; }; \
	  $(BIN)/python tests/house/other_python.py python$$version $(if $(FULL),--full) || exit 1; \
	done

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

digests: $(STAMP)
	$(BIN)/python benchmarks/digests.py

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

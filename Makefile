# make figures [PROFILE=quick]   every figure, table, video and executed notebook, to figures/quick/
# make check                     quick tests, linter, format, types: three minutes
# make test                      all of that, and the slow tests
# make weights                   the networks of `dfa fit`, trained for hours on hours of speech
# make study [PROFILE=quick]     the user study's page, in a browser, with the videos of a run
# make captures                  the sample captures again
# make clean                     removes what runs left behind, not the committed figures
#
# Each sets up .venv first, from nothing but a Python 3.11 or 3.12; PYTHON=... names one.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: figures check test weights study captures clean

PROFILE ?= quick
PYTHON ?= python3.11 python3.12 python3 python
VENV := .venv
RUN := $(VENV)/bin/python -m

figures: $(VENV)/.figures
	@$(RUN) snakemake --config profile=$(PROFILE)
	@$(RUN) dfa.report figures/$(PROFILE)

# Tests side by side compute on one core each, or they wait for each other's threads.
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(RUN) pytest -n auto --dist worksteal

check: $(VENV)/.test
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) mypy
	@$(SIDE_BY_SIDE) -m 'not slow and not long'

# The slow tests train and run notebooks on all cores, so they run alone.
test: check
	@$(SIDE_BY_SIDE) -m long
	@$(RUN) pytest -m slow

# The networks that `dfa fit` starts from, after a quick run: about four hours on two cores. It
# makes hours of speech and trains on them; stopped, it continues.
weights: $(VENV)/.captures $(VENV)/.figures
	@OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 $(RUN) dfa weights

study: $(VENV)/.study
	@$(RUN) dfa.study $(PROFILE)

captures: $(VENV)/.captures
	@$(RUN) dfa captures

clean:
	rm -rf runs .snakemake figures/smoke* figures/full* figures/quick,*

# One stamp for each set of packages. Tests try everything.
$(VENV)/.figures: EXTRAS := notebooks
$(VENV)/.study: EXTRAS := notebooks,study
$(VENV)/.captures: EXTRAS := studio
$(VENV)/.test: EXTRAS := notebooks,study,syncnet,studio,test

SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
HEADLESS := import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
  print(*project["optional-dependencies"]["headless"])
PIP := $(RUN) pip install --disable-pip-version-check
PIP_FAILED := { echo "pip failed: the whole of what it said is in $(VENV)/pip.log"; exit 1; }

$(VENV)/.figures $(VENV)/.study $(VENV)/.captures $(VENV)/.test: pyproject.toml
	@if [ -L $(VENV) ]; then echo '$(VENV) is a link: remove it, or it is changed where it points'; exit 1; fi
	@if ! $(VENV)/bin/python -c 'import pip; $(SUITABLE)' 2> /dev/null; then \
	  for python in $(PYTHON) none; do $$python -c '$(SUITABLE)' 2> /dev/null && break; done; \
	  if [ $$python = none ]; then \
	    echo 'No Python 3.11 or 3.12 with its venv module: install one (Debian: python3-venv) or name it, PYTHON=...'; \
	    exit 1; \
	  fi; \
	  echo "setting up $(VENV) with $$($$python --version)"; \
	  $$python -m venv --clear $(VENV); \
	fi
	@echo 'installing what pyproject.toml names: some minutes the first time'
	@PYTHONUNBUFFERED=1 $(PIP) --progress-bar off -e '.[$(EXTRAS)]' 2>&1 \
	  | tee $(VENV)/pip.log \
	  | { grep --line-buffered -oE '^(Collecting [^ ]+|Installing collected packages|ERROR.*)' || true; } \
	  || $(PIP_FAILED)
	@# mediapipe's OpenCV wants libGL.so.1, which a bare system lacks; the headless build does not.
	@# Its files go over the other's. The other stays in pip's books, so that pip mends nothing.
	@grep -qs 'headless = True' $(VENV)/lib/python*/site-packages/cv2/version.py \
	  || $(PIP) --no-deps --force-reinstall "$$($(VENV)/bin/python -c '$(HEADLESS)')" \
	    &>> $(VENV)/pip.log || $(PIP_FAILED)
	@touch $@

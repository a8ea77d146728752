# The commands of this repository; `make` alone lists them. Everything is installed into .venv, nothing outside but the
# Debian packages that `make test` and `make bench` name (installed for root, asked for otherwise).
#
#   PYTHON=python3.13 make run      another Python (3.11 or newer)
#   make run ARGS='--upstream redis://10.0.0.1:6379'      further arguments, for run, test, bench, soak and fuzz

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test check bench soak fuzz docker clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
ARGS ?=
SECONDS ?= 60
SEED ?= 1
TARGET ?=
# A bare comma would end an argument of $(call).
, := ,
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input

# $(call environment,NAME,EXTRAS): a virtual environment that works, with the package and these extras in it. Its stamp
# is compared with pyproject.toml, so that a second run installs nothing. A .venv whose Python has gone is made anew.
define environment
@if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
  for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11) ''; do \
    if [ -z "$$python" ]; then \
      echo "Respite needs Python 3.11 or newer, and $(or $(PYTHON),python3) is none:" \
        "install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
    fi; \
    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
  done; \
  if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
    tests/install-debian.sh "$$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" || exit 1; \
  fi; \
  echo "making $(VENV) with $$("$$python" --version)" >&2; \
  "$$python" -m venv --clear $(VENV) || exit 1; \
fi; \
if [ ! $(VENV)/.$(1) -nt pyproject.toml ]; then \
  echo "installing the package with its extras $(2)" >&2; \
  $(PIP) install --editable '.[$(2)]' && touch $(VENV)/.$(1); \
fi
endef

help:  ## list the targets
	@sed -n 's/^\([a-z]*\): .*##\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

run:  ## start the proxy on 127.0.0.1:6380 with conf/respite.toml; without an upstream it brings an embedded Valkey
	$(call environment,run,embedded)
	@exec $(BIN)/python -m proxy run -c conf/respite.toml $(ARGS)

test:  ## install the servers that the tests need where they are missing, and run the tests
	$(call environment,test,dev$(,)embedded)
	@tests/install-servers.sh
	@$(BIN)/python -m pytest --ignore=tests/soak --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

check:  ## ruff, mypy strict, layers, dependencies: their ranges, licences and, with a network, known holes
	$(call environment,test,dev$(,)embedded)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_top_level.py
	@$(BIN)/python -c 'import pip_audit' 2>/dev/null || $(PIP) install --editable '.[audit]' || true
	$(BIN)/python -m tests.audit

bench:  ## Respite beside Redis, twemproxy and HAProxy; then the realistic run
	$(call environment,bench,bench$(,)embedded)
	@bench/install-tools.sh
	$(BIN)/python -m bench.compare $(ARGS)
	$(BIN)/python -m bench.realistic $(ARGS)

soak:  ## the long checks: half an hour of chaos and of load, consistency on each server and mode, every command, all servers
	$(call environment,test,dev$(,)embedded)
	@tests/install-servers.sh
	RESPITE_ALL_SERVERS=1 $(BIN)/python -m pytest tests/soak $(ARGS)
	RESPITE_ALL_SERVERS=1 $(BIN)/python -m pytest tests/e2e -k "redis6 or redis8 or valkey8" $(ARGS)
	RESPITE_ALL_SERVERS=1 $(BIN)/python -m pytest tests -m long $(ARGS)

fuzz:  ## feed every parser what nobody meant: SECONDS= of it together, SEED=, TARGET= one or more names, ARGS=--help
	$(call environment,test,dev$(,)embedded)
	$(BIN)/python -m tests.fuzz $(TARGET) --seconds $(SECONDS) --seed $(SEED) $(ARGS)

docker:  ## build the image respite
	docker build --file docker/Dockerfile --tag respite .

clean:  ## remove the environment and all that was built
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/e2e/node_modules
	find . -name __pycache__ -prune -exec rm -rf {} +

# `make lab` and `make test` are the two to know; both prepare everything they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.prepared

.PHONY: setup system lab scenarios kernel-scenarios test lint kernel fuzz simulate bench clean

setup: $(STAMP)  ## a virtual environment with everything that `make test` needs

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

system: setup  ## the programs that the lab and the tests start
	tools/system-packages

lab: system  ## the active home agent is killed under traffic, on real network namespaces
	netns-lab/run failover

SCENARIOS := failover switchover split-brain restart arbiter handover ike-handover ike-failover \
             interop-strongswan-initiator interop-strongswan-responder load

scenarios: system  ## every scenario of the lab, also the ones that fail
	@for each in $(SCENARIOS); do netns-lab/run $$each || failed="$$failed $$each"; done; \
	test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

kernel-scenarios: system  ## the same with the kernel's dataplane, in User-Mode Linux where it has to be
	@for each in $(SCENARIOS); do netns-lab/run $$each --dataplane kernel || failed="$$failed $$each"; done; \
	test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

test: lint system  ## everything that must hold
	$(BIN)/pytest -q

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

kernel: system  ## what needs IPsec in the kernel, in User-Mode Linux where the host's has none
	$(BIN)/pytest -q -m kernel

fuzz: setup  ## hostile input only
	$(BIN)/pytest -q -m fuzz

SEEDS   := 5000
MINUTES := 10

simulate: setup  ## many redundant sets in simulated time: make simulate SEEDS=5000 MINUTES=10
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --minutes $(MINUTES)

bench: system  ## figures, into bench-out/
	$(BIN)/python bench/run.py

clean: setup
	rm -rf build dist lab-out bench-out .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find mip6ha tests bench netns-lab -name __pycache__ -type d -prune -exec rm -rf {} +

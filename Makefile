# Everything is installed into .venv, and nothing anywhere else.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-letta test-letta-code test-bounds test-docker test-boot torture lint bench docs clean

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s%s\n", $$1, $$2 }' Makefile

# With LETTA_BASE_URL set, it is shown on that server.
# Only the command line says the target, never the environment.
TARGET :=
demo: $(READY) ## show the main job from end to end; TARGET=letta-code: on a real Letta Code
ifeq ($(TARGET),letta-code)
	@program=$$($(PYTHON) tests/letta_code/build.py) \
		&& PATH="$${program%/*}:$$PATH" $(BIN)/promptyoself demo --target letta-code
else
	@$(BIN)/promptyoself demo $(if $(TARGET),--target $(TARGET))
endif

# With a real Letta Code, which is installed outside the tree, once; without it, if there is no index.
test: $(READY) ## everything that a change must pass
	@program=$$($(PYTHON) tests/letta_code/build.py) \
		|| echo "Letta Code can't be installed here, so nothing is tried with it."; \
		$(BIN)/python -m pytest --verbose --numprocesses 2 --dist worksteal \
			$${program:+--letta-code="$$program"}

# The server is installed outside the tree, once; tests/letta_server/build.py says where.
LETTA_PYTHON ?= $(PYTHON)
test-letta: $(READY) ## what is about any Letta, with a real server, which it installs first
	@python=$$($(PYTHON) tests/letta_server/build.py --python $(LETTA_PYTHON)) \
		&& $(BIN)/python -m pytest --verbose --real-letta "$$python" tests/delivery/test_letta_*.py

# Two versions are tried: the pinned one, and the newest on the index.
test-letta-code: $(READY) ## what is about Letta Code, with real App Servers, which it installs first
	@programs=$$($(PYTHON) tests/letta_code/build.py --newest) \
		&& $(BIN)/python -m pytest --verbose --numprocesses 2 --dist worksteal \
			$$(printf -- '--letta-code %s ' $$programs) tests/letta_code

test-bounds: $(READY) ## the lowest and the highest version of each package, in environments of their own
	@$(BIN)/python tests/support/bounds.py

test-docker: $(READY) ## the containers, built and run, with an engine that it fetches first (root, Debian)
	@docker/engine.sh with $(BIN)/python -m pytest --verbose --numprocesses 2 --dist worksteal \
		--engine "docker/engine.sh run" tests/doors/test_containers.py

test-boot: $(READY) ## the service, in a Debian that is started twice (root, mmdebstrap, systemd-nspawn)
	@PYTHON=$(BIN)/python docker/boot.sh

SCALE ?= 20
SEED ?=
torture: $(READY) ## attack the log for an hour or so; SCALE=5 for less, SEED=n to repeat a run
	@program=$$($(PYTHON) tests/letta_code/build.py) \
		&& SCALE=$(SCALE) SEED=$(SEED) LETTA_CODE="$$program" $(BIN)/python tests/support/torture.py

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

PEERS := .venv/peers/.ready
bench: $(READY) $(PEERS) ## measure
	@$(BIN)/python benchmarks/run.py

# Other schedulers, to be measured against. Without them the rest is measured all the same.
$(PEERS): benchmarks/requirements.txt | $(READY)
	@echo "Installing what is compared with into .venv/peers ..."
	@$(PYTHON) -m venv .venv/peers
	@.venv/peers/bin/python -m pip install --quiet --no-deps --requirement $< && touch $@ \
		|| echo "That failed; the table will say so."

docs: $(READY) ## make what is generated: pages of docs/ and .env.example
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/make_picture.py

clean: ## remove what was generated; never var/
	rm -rf .venv build dist *.egg-info .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find promptyoself tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.13")'
	@echo "Installing into .venv; this takes a minute the first time ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

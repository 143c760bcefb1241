# How to build, try, test and measure the project. A fresh machine needs a Rust toolchain, a C linker and Python 3.11
# or newer; everything else goes into .venv, target and dist. `make` alone says what there is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# What the wheel is made of. A stamp newer than all of it means that there is nothing to build.
SOURCES := Cargo.toml $(wildcard Cargo.lock) pyproject.toml $(wildcard README.md LICENSE) \
  $(shell find src python -type f -not -path '*/__pycache__/*' -not -name '*.so')

# cargo asks this interpreter what to link against when the Python side is on.
export PYO3_PYTHON := $(abspath $(BIN)/python)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# One step after the other, also under `make -j`: cargo uses every core by itself, and a log is read from top to bottom.
.NOTPARALLEL:
.PHONY: help demo test bench beside simulate collide mutants fuzz wheel lint clean lint-python lint-rust test-rust test-python tools

help:
	@echo "make demo      build the package, install it into .venv and run it on real input"
	@echo "make test      every check and every test, Rust and Python"
	@echo "make lint      only the checks: formats, lints, types"
	@echo "make bench     measure the speed beside a plain dict and beside other caches; BENCH=--quick for a look"
	@echo "make beside    the last table of that alone: a get and a put here, in lru_cache, cachetools, diskcache, Redis"
	@echo "make simulate  run clusters in a bad world; SEEDS=1000000 for many of them"
	@echo "make collide   Rust tests and seeds of the simulator where a hash of a key has three bits"
	@echo "make mutants   remove one rule after the other: does anybody notice? MUTANTS='--by test' takes minutes"
	@echo "make fuzz      feed nodes and decoders what a fuzzer makes up; needs nightly Rust and cargo-fuzz"
	@echo "make wheel     build the release wheel into dist"
	@echo "make clean     remove everything that was built, .venv included"
	@echo "Another Python than python3:  make clean demo PYTHON=python3.12"

demo: $(VENV)/installed
	@$(BIN)/python -m distributed_consistent_cache demo

test: lint test-rust test-python
	@echo "== all checks and tests passed"
	@cat $(VENV)/left-out

# The same extension without statistics, to measure what they cost.
WITHOUT_STATISTICS := target/without-statistics/release/libdistributed_consistent_cache

bench: $(VENV)/installed
	@cargo build --quiet --release --no-default-features --features python --target-dir target/without-statistics
	@for end in so dylib; do if [ -e "$(WITHOUT_STATISTICS).$$end" ]; then \
	  cp -f "$(WITHOUT_STATISTICS).$$end" target/without-statistics/_core.abi3.so; fi; done
	@WITHOUT_STATISTICS=target/without-statistics/_core.abi3.so $(BIN)/python benches/bench.py $(BENCH)
	@$(BIN)/python benches/holds.py
	@$(MAKE) --no-print-directory beside

# What it is measured beside has an environment of its own: none of that is needed to build or to test.
BESIDE := target/beside

beside: $(VENV)/installed $(BESIDE)/made
	@$(BESIDE)/bin/python -m pip --quiet --disable-pip-version-check install --force-reinstall --no-deps dist/*.whl
	@$(BESIDE)/bin/python benches/beside.py $(if $(findstring --quick,$(BENCH)),--quick)

# Seeds in `make test`: half a minute on two cores.
SEEDS_TESTED := 20000

simulate: $(VENV)/installed
	@$(BIN)/python -m distributed_consistent_cache simulate --seeds $(or $(SEEDS),10000) --first-seed $(or $(FIRST_SEED),0)

# Keys that share a hash are rare; here nearly all do. A build of its own, which takes a minute or two. Tests with tens of
# thousands of keys are left out: what looks for one of them looks at thousands. So are those of the order in which keys were
# used, which is that of their hashes.
COLLIDING := clocks:: expiry:: lattice:: mistakes:: moves:: names:: node_memory:: noticed:: operations:: packing:: signing:: \
  simulation:: snapshot:: ties:: typed_values:: values:: walks::

collide: tools
	@echo "== cargo test: Rust tests where keys collide"
	@cargo test --quiet --test tests_rs --features few-hashes -- $(COLLIDING) \
	  --skip a_hundred_thousand --skip a_cache_that_is_closed_while_it_is_restored --skip order_of_use \
	  --skip what_was_used_most_recently
	@echo "== simulator: $(or $(SEEDS),1000) seeds where keys collide"
	@cargo run --quiet --profile simulation --features few-hashes --example simulate -- \
	  $(or $(FIRST_SEED),0) $(or $(SEEDS),1000)

# The whole list: an hour or two on two cores, most of it for the simulator.
mutants: $(VENV)/dev-tools
	@$(BIN)/python tests_rs/mutants.py $(MUTANTS)

# How long each fuzz target runs, in seconds, and which are run.
SECONDS_EACH ?= 60
FUZZ_TARGETS ?= node_operations values pickles snapshots served

fuzz:
	@rustc +nightly --version >/dev/null 2>&1 || { \
	  echo "Fuzzing needs the nightly toolchain: rustup toolchain install nightly" >&2; exit 1; }
	@cargo fuzz --version >/dev/null 2>&1 || { \
	  echo "Fuzzing needs cargo-fuzz: cargo install cargo-fuzz" >&2; exit 1; }
	@$(PYTHON) fuzz/seeds.py
	@for target in $(FUZZ_TARGETS); do \
	  echo "== cargo fuzz: $$target, $(SECONDS_EACH) s"; \
	  words=fuzz/dictionaries/$$target.txt; \
	  cargo +nightly fuzz run $(FUZZ_WITH) $$target -- -max_len=4096 -timeout=5 -max_total_time=$(SECONDS_EACH) \
	    -verbosity=0 -print_final_stats=1 $$(test -e $$words && echo -dict=$$words) || exit 1; \
	done

# It is for systems with a C library as new as here, or newer: docs/building.md.
wheel: dist/.built
	@ls dist/*.whl

lint: lint-python lint-rust

lint-python: $(VENV)/dev-tools
	@echo "== ruff: lints"
	@$(BIN)/ruff check --quiet .
	@echo "== ruff: format"
	@$(BIN)/ruff format --quiet --check --diff .
	@echo "== mypy: types of the package and the benches"
	@$(BIN)/mypy
	@echo "== mutants: each still applies"
	@$(BIN)/python tests_rs/mutants.py --list >/dev/null

lint-rust: $(VENV)/build-tools
	@echo "== rustfmt: format"
	@cargo fmt --check
	@echo "== clippy: the crate"
	@cargo clippy --quiet --all-targets -- -D warnings
	@echo "== clippy: the crate with its Python side"
	@cargo clippy --quiet --all-targets --features python -- -D warnings

test-rust: tools
	@if cargo nextest --version >/dev/null 2>&1; then \
	  echo "== cargo nextest: Rust tests"; \
	  cargo nextest run --status-level slow; \
	else \
	  echo "== cargo test: Rust tests (cargo-nextest would run them faster, and is not installed)"; \
	  cargo test --quiet --lib --tests; \
	fi
	@echo "== cargo test: examples in the Rust documentation"
	@cargo test --quiet --doc

test-python: $(VENV)/installed $(VENV)/dev-tools
	@echo "== stubtest: _core.pyi tells the truth about the native module"
	@$(BIN)/python -m mypy.stubtest distributed_consistent_cache._core
	@echo "== pytest: Python tests"
	@LEFT_OUT=$(VENV)/left-out $(BIN)/python -m pytest
	@echo "== simulator: $(SEEDS_TESTED) seeds"
	@$(BIN)/python -m distributed_consistent_cache simulate --seeds $(SEEDS_TESTED)

clean:
	rm -rf target fuzz/target dist $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find python tests_py benches -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- what the targets above stand on: each stamp is made once and again when what it depends on has changed

tools:
	@command -v cargo >/dev/null || { \
	  echo "cargo is not on PATH. Install Rust with rustup, then try again." >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { \
	  echo "$(PYTHON) is not on PATH. Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is too old. Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }

$(VENV)/made: | tools
	@echo "== .venv: a virtual environment with $$($(PYTHON) --version)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@# Dependency groups came with pip 25.1.
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/build-tools: $(VENV)/made pyproject.toml
	@echo "== .venv: the tools that build the wheel"
	@$(PIP) install --group build
	@touch $@

$(VENV)/dev-tools: $(VENV)/build-tools
	@echo "== .venv: the tools that test and check"
	@$(PIP) install --group dev
	@touch $@

$(BESIDE)/made: pyproject.toml | tools
	@echo "== $(BESIDE): other caches, to measure beside"
	@rm -rf $(BESIDE)
	@$(PYTHON) -m venv $(BESIDE)
	@$(BESIDE)/bin/python -m pip --quiet --disable-pip-version-check install --upgrade 'pip>=25.1'
	@$(BESIDE)/bin/python -m pip --quiet --disable-pip-version-check install --group beside
	@# A server, if the machine has none and there is one for it; else the table says that there was none.
	@command -v valkey-server >/dev/null || command -v redis-server >/dev/null || \
	  $(BESIDE)/bin/python -m pip --quiet --disable-pip-version-check install --group beside-server || true
	@touch $@

dist/.built: $(VENV)/build-tools $(SOURCES)
	@echo "== maturin: the release wheel (the first time takes a few minutes)"
	@rm -rf dist
	@# cargo shows its progress to a person and keeps quiet in a log.
	@quiet=--quiet; if [ -t 2 ]; then quiet=; fi; \
	$(BIN)/maturin build $$quiet --release --out dist --interpreter $(BIN)/python
	@touch $@

$(VENV)/installed: dist/.built
	@echo "== .venv: the wheel is installed"
	@$(PIP) install --force-reinstall --no-deps dist/*.whl
	@touch $@

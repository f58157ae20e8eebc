# The developer's door is CI's door: .ci/run calls these targets.
#
#   make demo        train, convert, verify, run in real time and measure; writes demo/report.html
#   make test        the tests, in two processes; minutes
#   make test-long   those of whole walks: README's commands, studies, deployments, older runtimes; minutes
#   make fuzz        FUZZ_INPUTS (100,000) hostile inputs for all that the edge reads; minutes
#   make smoke-study a whole study in minutes, too short to learn anything; into build/quarl-smoke
#   make check       lint, formatting and types
#   make virtual-pi  the edge in a folder that stands for a Raspberry Pi 4; needs Debian 12 and qemu-user-static
#   make bench       the benchmarks that take minutes, into results/
#   make sb3         models that Stable-Baselines3 trains now, imported; installs it and PyTorch, which takes gigabytes
#   make recipes     every recipe of the policies in examples/policies/, into there and results/recipes/
#   make algorithms  every algorithm on the reference tasks, hours to days, into results/; RUNS is the folder for runs
#   make results     docs/RESULTS.md and docs/actorq-scaling.md from results/
#
# Each makes .venv first if it is missing or older than setup.py, and uses it again if not.

PYTHON ?= python3
RUNS ?= $(HOME)/tfqrl-runs
FUZZ_INPUTS ?= 100000
VENV := .venv
BIN := $(VENV)/bin
SOURCES := edge converters tfqrl tests benchmarks scripts setup.py

.PHONY: demo test test-long smoke-study fuzz check bench sb3 recipes algorithms results virtual-pi clean

demo: $(VENV)/train
	$(BIN)/tfqrl demo --out demo

test: $(VENV)/test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not long"

test-long: $(VENV)/test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long

smoke-study: $(VENV)/test
	rm -rf build/quarl-smoke
	$(BIN)/tfqrl study studies/quarl-smoke.yaml --out build/quarl-smoke

fuzz: $(VENV)/test
	FUZZ_INPUTS=$(FUZZ_INPUTS) $(BIN)/python -m pytest tests/fuzz

check: $(VENV)/test
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

bench: $(VENV)/bench
	$(BIN)/python benchmarks/edge_latency.py --json results/edge_latency.json
	$(BIN)/python benchmarks/loop_jitter.py --json results/loop_jitter.json
	$(BIN)/python benchmarks/rollout.py --json results/rollout.json
	$(BIN)/python benchmarks/conversion.py --json results/conversion.json
	$(BIN)/python benchmarks/template.py --json results/template.json
	$(BIN)/python benchmarks/training_speed.py --json results/training_speed.json
	$(BIN)/python benchmarks/bayesian_noise.py --json results/bayesian_noise.json
	$(BIN)/python benchmarks/compression_cost.py --json results/compression_cost.json
	$(BIN)/python benchmarks/actorq_actors.py --json results/actorq_actors.json
	$(BIN)/python benchmarks/actorq_replay.py --json results/actorq_replay.json
	$(BIN)/python benchmarks/actorq_learner.py --json results/actorq_learner.json
	$(BIN)/python benchmarks/actorq.py --json results/actorq.json
	$(BIN)/python benchmarks/actorq_faults.py --json results/actorq_faults.json

sb3: $(VENV)/test $(VENV)/bench
	$(BIN)/python -m pytest tests/sb3

recipes: $(VENV)/bench
	for run in examples/policies/*/run; do \
	    $(BIN)/tfqrl convert $$run --recipe all --episodes 100 --margin 2% --force \
	        --out $${run%/run} --json results/recipes/$$(basename $${run%/run}).json || exit 1; \
	done
	for recipe in float32 dynamic-int8 int8 int8-full; do \
	    $(BIN)/tfqrl evaluate examples/policies/HalfCheetah-v5/run examples/policies/HalfCheetah-v5/$$recipe.tflite \
	        --episodes 200 --seed 3000000 --json results/evaluations/HalfCheetah-v5-$$recipe.json || [ $$? -eq 1 ] || exit 1; \
	done

algorithms: $(VENV)/bench
	$(BIN)/python benchmarks/reference_runs.py --runs $(RUNS) --jobs 2

results: $(VENV)/train
	$(BIN)/python benchmarks/results_page.py

virtual-pi: $(VENV)/test
	$(BIN)/python scripts/virtual_pi.py
	$(BIN)/python -m pytest tests/virtual_pi
	cat build/virtual-pi/agreement.txt

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# One stamp for each set of packages: the extra of the same name in setup.py.
$(VENV)/train $(VENV)/test $(VENV)/bench: $(VENV)/%: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
# SBX brings a nightly build of TensorFlow Probability, whose files lie where the release's do: one has to be whole.
	nightly=$$($(BIN)/python -m pip list --format freeze | grep ^tfp-nightly==); test -z "$$nightly" || \
	    $(BIN)/python -m pip install --quiet --force-reinstall --no-deps "$$nightly"
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "tfqrl needs Python 3.10 or newer; give one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# `make env` builds .venv from the lock; every other target uses it and builds it first where it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: env lock demo demo-driving weights picture figures bench test test-slow lint format clean

env: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch .venv/ready

# Write down the exact versions of this environment.
lock:
	$(BIN)/pip freeze --exclude-editable | sed "s/+cpu$$//" > requirements.lock

demo: env
	$(BIN)/worldline build pseudo_labels

# A procedural street along a trajectory that nobody drove, with the world model that comes with the package.
demo-driving: env
	$(BIN)/worldline build driving_augmentation name=demo_driving "trajectories=[lane_change_left:3.5]"

# The world model and the detector of the package, trained anew (about half an hour of one core, and as much to film the streets).
weights: env
	$(BIN)/worldline build train_world_model "trajectories=[lane_change_left:3.5]" generate.train_street_video.steps=2000 generate.train_street_video.threads=1
	$(BIN)/python docs/write_weights.py worldline-data

# The picture of the README, from the demo's report (needs chromium).
picture: demo
	$(BIN)/python docs/take_picture.py worldline-data/reports docs/images/report.jpg

# What the demo measures of itself, as a page.
figures: demo
	$(BIN)/python docs/write_figures.py worldline-data pseudo_labels

# Measure everything (see docs/benchmarks.md for how long it takes) and write the page; run again to go on where it stopped.
BENCHES := catalog splat reconstruct pose labels driving

bench: env
	mkdir -p worldline-bench
	-for name in $(BENCHES); do $(BIN)/worldline bench $$name --json worldline-bench/$$name.json; done
	$(BIN)/python docs/write_benchmarks.py $(BENCHES:%=worldline-bench/%.json)

test: env
	$(BIN)/python -m pytest

test-slow: env
	$(BIN)/python -m pytest -m slow

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv worldline-data

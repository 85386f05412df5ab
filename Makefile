# Thin: a target makes the checkout ready, which is quick where it is, and runs one command.
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-down test test-long audit faults bench docs pictures lint lint-only

# Not for the demo: what it says to type next has to work in the user's own shell.
test test-long audit faults bench docs pictures lint lint-only: export PATH := $(CURDIR)/.venv/bin:$(PATH)

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "make %-10s %s\n", $$1, $$2 }'

setup: ## the .venv, with the tests and the linters in it
	@tools/bootstrap.sh setup

demo: ## a throwaway box, provisioned over real ssh, with a notebook running on it
	@tools/bootstrap.sh demo
	@.venv/bin/roost demo

demo-down: ## remove all that the demo made
	@tools/bootstrap.sh demo
	@.venv/bin/roost demo --down --purge

test: ## every gate, and every test but the long ones
	@tools/bootstrap.sh test
	@$(MAKE) --no-print-directory lint-only
	pytest -n 3 --no-loadscope-reorder -m "not long"

test-long: ## the tests that take many minutes: faults by the dozen, the far end of versions
	@tools/bootstrap.sh test
	pytest -n 2 --no-loadscope-reorder -m long

audit: ## what outside auditors say of a provisioned box: ssh-audit, lynis, systemd-analyze
	@tools/bootstrap.sh test
	pytest tests/integration/test_roles_audit.py

faults: ## an hour: a run cut off after every task, connections at random points, tunnels
	@tools/bootstrap.sh test
	pytest --log-cli-level info tests/integration/test_roles_faults.py
	FAULT_ROUNDS=100 pytest --timeout 3600 tests/integration/test_cut_connections.py
	python bench/tunnels.py faults --rounds 10

bench: ## re-runs beside pyinfra and plain Ansible, tunnels beside autossh; BENCH_QUICK=1: in brief
	@tools/bootstrap.sh bench
	python bench/reruns.py --json .cache/reruns.json
	in=$${BENCH_QUICK:+.cache}; in=$${in:-docs/pictures}; \
	.cache/bench-peers/bin/python bench/plot.py .cache/reruns.json $$in/reruns.svg $$in/reruns.png
	python bench/tunnels.py recovery
	python bench/tunnels.py throughput

docs: ## the documentation site, in site/
	@tools/bootstrap.sh setup
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

pictures: ## docs/pictures, anew: what the program shows today
	@tools/bootstrap.sh test
	PYTHONPATH=tests/integration python tools/pictures.py

lint: ## the gates alone
	@tools/bootstrap.sh lint
	@$(MAKE) --no-print-directory lint-only

lint-only:
	ruff check
	ruff format --check
	mypy
	lint-imports
	yamllint .
	ansible-lint
	shellcheck tools/*.sh src/roost/*/*.sh packages/*/tools/*.sh

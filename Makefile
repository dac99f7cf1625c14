# Muster. A newcomer types `make demo` or `make test`; everything they need is installed by name from Debian and the language's registries.
SHELL := /bin/bash
CARGO ?= cargo

.PHONY: help demo test chaos build lint deny parts parts-down bench bench-million clean

help: ## What there is to make
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## The tour: a repository, a daemon, two commits, two runs, everything taken down again
	@tests/parts/tools.sh install
	$(CARGO) build --release --locked
	target/release/muster demo

test: lint parts ## Everything that must hold; starts MariaDB, MySQL 8 and Kafka for it
	$(CARGO) test --workspace --locked

chaos: parts ## The whole kill matrix with outages of 20 s, and ten times as many simulated histories
	$(CARGO) test --locked --test it -- --ignored --test-threads=1 chaos::
	MUSTER_SEEDS=0..15000 $(CARGO) test --locked --lib -- simulation

build: ## An optimised binary at target/release/muster
	@tests/parts/tools.sh install
	$(CARGO) build --release --locked

lint: ## Format and clippy
	@tests/parts/tools.sh install
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

deny: ## Licences, banned crates and sources (needs: cargo install --locked cargo-deny)
	$(CARGO) deny check bans licenses sources

parts: ## Installs and starts the servers that tests need
	@tests/parts/all.sh up

parts-down: ## Stops them
	@tests/parts/all.sh down

bench: ## The programs behind docs/benchmarks.md
	@benches/run.sh

bench-million: ## A million virtual users in one process: four minutes, 16 GiB of memory, as root
	$(CARGO) build --release --locked -p muster-bench --bin bench-million
	target/release/bench-million

clean: parts-down ## Removes what was built
	$(CARGO) clean

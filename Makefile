# Everything is run from here; `make` alone lists the targets.

# scripts/setup puts both programs there, unless the caller names others.
NATS_SERVER ?= $(CURDIR)/.tools/bin/nats-server
ANVIL ?= $(CURDIR)/.tools/bin/anvil
export NATS_SERVER ANVIL

# The demo follows this node; without it, a local development chain.
RPC_URL ?=
BLOCKS ?= 8
export RPC_URL BLOCKS

# The fault test: how long, on one broker or three, and the seed that a failure printed. For `make fuzz`: how long each
# target runs.
SECONDS ?= 120
BROKERS ?= 1
SEED ?=

# How much `make bench` measures.
PROFILE ?= quick

DEMO_PACKAGES := push0-ingester push0-dispatcher push0-collector push0-watchdog push0-gateway push0-cli push0-prover-miden

.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-cluster check manifests bench chaos fuzz clean-state

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## put nats-server and anvil into .tools/bin (nothing to do when they are there)
	@scripts/setup

build: ## build the services, without the zkVMs' SDKs
	cargo build --release --locked

demo: setup ## prove real blocks: BLOCKS=8, RPC_URL=... to follow a node instead of a local chain
	cargo build --release --locked $(addprefix -p ,$(DEMO_PACKAGES))
	@deploy/demo/run

# The last line is `N passed, N failed` over all tests.
test: setup ## run every test against real servers
	scripts/check-layout --self-test
	# With the tests, so that both are built with the same features, once.
	cargo build --release --locked --workspace --bins --tests
	@echo "a minute of faults on one broker and on three, each of which ends with one line of JSON"
	$${CARGO_TARGET_DIR:-target}/release/push0-loadtest chaos --seconds 60
	$${CARGO_TARGET_DIR:-target}/release/push0-loadtest chaos --seconds 60 --brokers 3
	scripts/run-tests

test-cluster: setup ## run the scenarios and the attacks on three brokers with three copies of everything
	cargo build --release --locked --workspace --bins --tests
	PUSH0_TEST_BROKERS=3 scripts/run-tests --test scenarios --test hostile --test examples

check: ## format, lints, layout rules, documentation
	cargo fmt --all --check
	scripts/check-layout
	scripts/check-manifests
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	# As a user builds it, but with the workspace's versions.
	cp Cargo.lock examples/adapter-rust/Cargo.lock
	cargo clippy --release --offline --manifest-path examples/adapter-rust/Cargo.toml \
	    --target-dir $${CARGO_TARGET_DIR:-target} -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --release --workspace --locked

manifests: ## check what deployments are made of: k8s, images, compose, alerts, the broker's users
	@scripts/check-manifests

bench: setup ## measure everything, a quarter of an hour on two idle cores: PROFILE=full for three hours
	cargo build --release --locked --workspace --exclude push0-prover-miden --bins
	$${CARGO_TARGET_DIR:-target}/release/push0-loadtest all --profile $(PROFILE)
	@echo "target/bench/report.html has the tables and plots"

chaos: setup ## kill and cut things under load and check the promises: SECONDS=120, BROKERS=3, SEED=... to repeat a run
	cargo run --release --locked -p push0-loadtest -- chaos --seconds $(SECONDS) --brokers $(BROKERS) $(if $(SEED),--seed $(SEED))

fuzz: ## feed made-up bytes to the decoders of messages and sign-ins: SECONDS=30 for each (nightly compiler, cargo-fuzz)
	@scripts/fuzz $(SECONDS)

clean-state: ## remove what demos and runs left in .push0
	rm -rf .push0

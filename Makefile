# make demo   the whole pipeline over the venue simulator, with a dashboard
# make test   everything (what .ci/run calls)
# make bench  figures, each beside its reference, into BENCHMARKS.md (peers: scripts/setup.sh peers first)
# make help   this list

.PHONY: demo test lint bench setup help
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
	$(CARGO) bench -p tests --bench figures

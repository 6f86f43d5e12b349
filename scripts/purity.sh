#!/usr/bin/env bash
# Every stage library compiles without its shell: no server, no sockets, no clock.
set -euo pipefail
cd "$(dirname "$0")/.."
for stage in ingest aggregate strategy risk executor ledger gateway; do
  cargo check --quiet -p "$stage" --lib --no-default-features
  echo "pure: $stage"
done

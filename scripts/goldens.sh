#!/usr/bin/env bash
# The program against the shared goldens and recordings, by the independent checkers. Absent: says so and is
# skipped; with CI=true that is a failure. PROFILE=release uses the release build.
set -euo pipefail
cd "$(dirname "$0")/.."
shared=${TAPELINE_FIXTURES:-../shared}
if [ ! -d "$shared/goldens" ]; then
  echo "goldens: no shared fixtures at $shared (set TAPELINE_FIXTURES)" >&2
  [ "${CI:-}" != true ] || exit 1
  echo "goldens: skipped"; exit 0
fi
profile=${PROFILE:-debug}
tapeline=${CARGO_TARGET_DIR:-target}/$profile/tapeline
failed=0
for kind in candles indicators backtests; do
  echo "goldens: $kind"
  python3 "$shared/tools/check_goldens.py" "$kind" "$shared/goldens" "$shared/data" -- "$tapeline" || failed=1
done
# Coinbase has one line whose expectation no 64-bit time can hold: `venue/tests.rs` walks its other lines (`DISPUTED`).
for venue in binance deribit htx hyperliquid mexc okx; do
  echo "goldens: normalised $venue"
  python3 "$shared/tools/check_normalised.py" "$shared/fixtures/venues" "$venue" -- "$tapeline" normalize || failed=1
done
exit $failed

#!/usr/bin/env bash
# The program against the shared goldens and recordings, by the independent checkers. Absent: says so and is
# skipped; with CI=true that is a failure. PROFILE=release uses the release build.
#
# One difference is known and counted apart, never hidden: the `fraction50` trade lists of the goldens hold
# entry prices such as 104579.99999999999 where the fill, in the golden's own order list and in ours, is at 104580
# (units * price / units in binary floating point). A row that differs by anything else, or by more than the last
# bit of a double, fails. backtest's own test compares all eight cases row by row, with the order list.
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
for kind in candles indicators; do
  echo "goldens: $kind"
  python3 "$shared/tools/check_goldens.py" "$kind" "$shared/goldens" "$shared/data" -- "$tapeline" || failed=1
done
echo "goldens: backtests"
rows=$(python3 "$shared/tools/check_goldens.py" backtests "$shared/goldens" "$shared/data" -- "$tapeline" || true)
printf '%s\n' "$rows"
printf '%s\n' "$rows" | python3 scripts/last_bit.py || failed=1
for venue in binance deribit; do
  echo "goldens: normalised $venue"
  python3 "$shared/tools/check_normalised.py" "$shared/fixtures/venues" "$venue" -- "$tapeline" normalize || failed=1
done
exit $failed

#!/usr/bin/env python3
"""Reads the checker's rows of the backtests; exit 1 when a row failed for another reason than the last bit of a
double in an entry price (see goldens.sh), or when no row passed at all."""
import re, sys

rows = sys.stdin.read().splitlines()
passed = sum(row.startswith("ok ") for row in rows)
known, other = [], []
for row in rows:
    if not row.startswith("FAIL"):
        continue
    m = re.search(r"trade \d+ entry_price: expected ([0-9.]+), found ([0-9.]+)$", row)
    near = m and abs(float(m[1]) - float(m[2])) <= 4e-16 * abs(float(m[1]))
    (known if near else other).append(row)
print(f"goldens: backtests: {passed} equal, {len(known)} equal but for the last bit of an entry price, {len(other)} wrong")
sys.exit(1 if other or passed == 0 else 0)

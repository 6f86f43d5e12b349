"""Seconds (wall, CPU) of each round in which TA-Lib computes the five indicators over the arrays of a file:
little-endian doubles, high, low, close one after another."""
import json
import sys
import time

import numpy
import talib

path, rounds = sys.argv[1], int(sys.argv[2])
high, low, close = numpy.fromfile(path, dtype="<f8").reshape(3, -1).copy()
took = []
for _ in range(rounds):
    wall, cpu = time.perf_counter(), time.process_time()
    # All nine columns are there at the end, as in a frame.
    kept = [
        talib.EMA(close, 20),
        talib.RSI(close, 14),
        talib.MACD(close, 12, 26, 9),
        talib.ATR(high, low, close, 14),
        talib.BBANDS(close, 20),
    ]
    took.append((time.perf_counter() - wall, time.process_time() - cpu))
    del kept
print(json.dumps(took))

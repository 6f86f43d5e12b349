"""A strategy in another language: closes that rise three times in a row are a wish to be long, falling ones short.

    pip install nats-py msgpack
    NATS_URL=nats://127.0.0.1:4222 NATS_USER=external NATS_PASSWORD=... python3 external_strategy.py [NAME]

It may say `signal.ext.<name>.<venue>.<symbol>` and nothing else. Numbers are decimal text, so they stay exact.
"""
import asyncio, os, sys
import msgpack, nats


async def main(name):
    env = os.environ.get
    bus = await nats.connect(env("NATS_URL", "nats://127.0.0.1:4222"), user=env("NATS_USER"),
                             password=env("NATS_PASSWORD"), inbox_prefix=b"_INBOX_external")
    stored, newest, closes = bus.jetstream(), {}, {}
    candles = await bus.subscribe("candle.*.*.1m.*")  # candle.<partition>.<venue>.<timeframe>.<symbol>
    await bus.flush()
    print("listening", flush=True)
    async for message in candles.messages:
        candle, (_, _, venue, _, symbol) = msgpack.unpackb(message.data), message.subject.split(".")
        # A plain subscription also sees what a writer publishes twice; an older bar is passed over.
        if candle["open_ns"] <= newest.get((venue, symbol), -1):
            continue
        newest[venue, symbol] = candle["open_ns"]
        last = closes[venue, symbol] = (closes.get((venue, symbol), []) + [float(candle["close"])])[-4:]
        steps = [b - a for a, b in zip(last, last[1:])]
        side = "long" if min(steps, default=0) > 0 else "short" if max(steps, default=0) < 0 else None
        if side is None or len(steps) < 3 or not candle["complete"]:
            continue
        signal = dict(v=1, origin="ext", strategy=name, venue=candle["venue"], symbol=candle["symbol"],
                      timeframe=candle["tf"], side=side, strength="1", confidence="0.5", ts_ns=candle["close_ns"],
                      valid_until_ns=candle["close_ns"] + 120_000_000_000, reason=f"closes {last}", cause=candle["cause"])
        await stored.publish(f"signal.ext.{name}.{venue}.{symbol}", msgpack.packb(signal))


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "three_in_a_row"))

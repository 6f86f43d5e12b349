//! In the library: the wire form, folding into candles, indicators, decoding of a venue's trade.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;

use aggregate::candle::{Columns, Folder, Plan};
use aggregate::config::Config as AggregateConfig;
use aggregate::core::{AggregateCore, In};
use aggregate::indicator::{Ohlcv, Set};
use anyhow::{Context, ensure};
use ingest::event::{Event, Frame};
use ingest::pack::Packer;
use schemas::core::{Core, Listen, Place};
use schemas::raw::{PACK_MAX, Trades};
use schemas::{Fact, Nanos, Scale, Side, Timeframe};

use crate::market::{SCALE, packs, ticks};
use crate::method::{Aim, ROUNDS, Report, Took, took};

const SIX: [&str; 6] = ["1s", "1m", "5m", "15m", "1h", "1d"];

/// A trade as decimal text by row: the form that was not chosen.
#[derive(serde::Serialize, serde::Deserialize)]
struct TextTrade {
    ts_ns: i64,
    recv_ns: i64,
    id: u64,
    price: schemas::Price,
    size: schemas::Qty,
    side: Side,
}

/// The wire form of a pack: columns of mantissas, beside rows of decimal text; there and back.
pub fn wire(report: &mut Report) -> anyhow::Result<()> {
    const N: usize = 200_000;
    let all = packs("BTCUSDT", &ticks(0, N), PACK_MAX);
    let (mut columns, mut texts) = (Vec::new(), Vec::new());
    let (mut column_bytes, mut text_bytes) = (0usize, 0usize);
    for _ in 0..ROUNDS {
        column_bytes = 0;
        columns.push(took(&[], || {
            for pack in &all {
                let bytes = pack.encode();
                column_bytes += bytes.len();
                black_box(Trades::decode(&bytes)?.checked()?);
            }
            Ok(())
        })?);
        text_bytes = 0;
        texts.push(took(&[], || {
            for pack in &all {
                let list: Vec<TextTrade> = pack
                    .iter()
                    .map(|t| TextTrade {
                        ts_ns: t.ts.0,
                        recv_ns: t.recv.0,
                        id: t.id,
                        price: t.price.price(pack.scale),
                        size: t.size.qty(pack.scale),
                        side: t.side,
                    })
                    .collect();
                let bytes = schemas::wire::encode(&list);
                text_bytes += bytes.len();
                let back: Vec<TextTrade> = schemas::wire::decode(&bytes)?;
                black_box(back);
            }
            Ok(())
        })?);
    }
    let beside = "rows of decimal text";
    report.rate(
        "Library",
        "pack of 256 to bytes and back, mantissa columns",
        N,
        "ticks/s",
        &columns,
        Some((beside, &texts)),
        None,
    );
    let each = |bytes: usize| bytes as f64 / N as f64;
    let reference = Some((beside, each(text_bytes)));
    report.value("Library", "bytes a tick, mantissa columns", each(column_bytes), "bytes", reference, None);
    Ok(())
}

/// The folder over columns, and the core over bytes; beside them the simplest loop that only keeps one candle per
/// bucket of one timeframe.
pub fn candles(report: &mut Report) -> anyhow::Result<()> {
    const N: usize = 2_000_000;
    let timeframes: Vec<Timeframe> = SIX.iter().map(|t| t.parse()).collect::<Result<_, _>>()?;
    for (symbols, aim) in [(1usize, 100e6), (50, 75e6)] {
        let each: Vec<Vec<Trades>> =
            (0..symbols).map(|s| packs(&format!("S{s}"), &ticks(s, N / symbols), PACK_MAX)).collect();
        // Interleaved as a venue sends them: a pack of each symbol in turn.
        let mut tape: Vec<&Trades> = Vec::new();
        for i in 0..each[0].len() {
            tape.extend(each.iter().map(|packs| &packs[i]));
        }
        let names: BTreeMap<&str, usize> = each.iter().enumerate().map(|(i, p)| (p[0].symbol.as_str(), i)).collect();
        let order: Vec<usize> = tape.iter().map(|p| names[p.symbol.as_str()]).collect();
        let plan = Arc::new(Plan::new(&timeframes, &[], 0, 64).map_err(anyhow::Error::msg)?);
        let (mut folded, mut bound) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            folded.push(took(&[], || {
                let mut folders: Vec<Folder> = (0..symbols).map(|_| Folder::new(plan.clone(), Vec::new())).collect();
                let mut events = Vec::new();
                let mut closed = 0usize;
                for (pack, at) in tape.iter().zip(&order) {
                    folders[*at].fold(Columns::of(pack), &mut events)?;
                    closed += events.len();
                    events.clear();
                }
                ensure!(black_box(closed) > 0, "nothing closed");
                Ok(())
            })?);
            bound.push(took(&[], || {
                black_box(bare_loop(&tape));
                Ok(())
            })?);
        }
        let what = format!("candles of six timeframes from decoded ticks, {symbols} symbol(s)");
        let beside = Some(("bare loop, one timeframe", &bound[..]));
        report.rate("Library", what, N, "ticks/s", &folded, beside, Some(Aim::AtLeast(aim)));
    }

    let encoded: Vec<(String, Vec<u8>)> =
        packs("BTCUSDT", &ticks(0, N), PACK_MAX).iter().map(|p| (p.subject(), p.encode())).collect();
    let mut config = AggregateConfig::load(None)?;
    config.timeframes = timeframes;
    config.indicator_timeframes = Vec::new();
    config.preview_timeframes = Vec::new();
    let mut whole = Vec::new();
    for _ in 0..ROUNDS {
        whole.push(took(&[], || {
            let mut core = AggregateCore::new(&config)?;
            let mut out = Vec::new();
            for (i, (subject, payload)) in encoded.iter().enumerate() {
                let input = In::hear(subject, payload)?.context("a trade pack")?;
                core.handle(&Place::new("RAW_BINANCE", i as u64 + 1), input, &mut out)?;
                black_box(&out);
                out.clear();
            }
            Ok(())
        })?);
    }
    report.rate("Library", "decode packs of 256 and run the aggregate core", N, "ticks/s", &whole, None, None);
    Ok(())
}

/// A candle of one timeframe and nothing else: what the machine could do at best.
fn bare_loop(tape: &[&Trades]) -> i64 {
    let mut check = 0i64;
    for pack in tape {
        let (mut bucket, mut open, mut high, mut low, mut close, mut volume) = (i64::MIN, 0, 0, 0, 0, 0i64);
        for i in 0..pack.len() {
            let of = pack.ts_ns[i] / 1_000_000_000;
            let price = pack.price[i];
            if of != bucket {
                check = check.wrapping_add(open ^ high ^ low ^ close ^ volume);
                (bucket, open, high, low, volume) = (of, price, price, price, 0);
            }
            high = high.max(price);
            low = low.min(price);
            close = price;
            volume += pack.size[i];
        }
        check = check.wrapping_add(open ^ high ^ low ^ close ^ volume);
    }
    check
}

/// EMA 20, RSI 14, MACD, ATR 14 and Bollinger bands over a million candles: bar by bar, as columns, and as a polars
/// frame; beside them TA-Lib over the same arrays, where it is installed (`scripts/setup.sh peers`).
pub fn indicators(report: &mut Report) -> anyhow::Result<()> {
    const N: usize = 1_000_000;
    let names: Vec<String> = [
        "ema.ema_20",
        "rsi.rsi_14",
        "macd.macd",
        "macd.signal",
        "macd.hist",
        "atr.atr_14",
        "bbands.upper",
        "bbands.middle",
        "bbands.lower",
    ]
    .into_iter()
    .filter(|name| aggregate::indicator::REGISTRY.iter().any(|e| e.outputs.contains(name)))
    .map(str::to_owned)
    .collect();
    ensure!(names.len() == 9, "the five indicators have other names: {names:?}");
    let bars: Vec<Ohlcv> = ticks(0, N)
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let close = t.price.0 as f64 / 100.0;
            let spread = 0.01 + (t.size.0 % 37) as f64 / 100.0;
            Ohlcv {
                open_ns: i as i64 * 60_000_000_000,
                open: close - 0.01,
                high: close + spread,
                low: close - spread,
                close,
                volume: t.size.0 as f64,
            }
        })
        .collect();
    let frame = aggregate::frames::frame(&bars, "1m".parse()?)?.collect()?;
    let talib = talib(&bars);
    let (mut stream, mut columns, mut frames) = (Vec::new(), Vec::new(), Vec::new());
    let mut room = Vec::new();
    for _ in 0..ROUNDS {
        stream.push(took(&[], || {
            let mut set = Set::new(Some(&names), 60)?;
            for bar in &bars {
                set.update(bar);
            }
            black_box(set.values().count());
            Ok(())
        })?);
        columns.push(took(&[], || {
            let mut set = Set::new(Some(&names), 60)?;
            set.run_into(&bars, &mut room);
            black_box(&room);
            Ok(())
        })?);
        frames.push(took(&[], || {
            let out = aggregate::frames::indicator_frame(&frame, Some(&names), "1m".parse()?)?.collect()?;
            black_box(out.height());
            Ok(())
        })?);
    }
    let beside: Option<(&str, &[Took])> = match &talib {
        Ok(list) => Some(("TA-Lib, the same arrays", list)),
        Err(why) => {
            report.skip("TA-Lib", format!("{why:#}"));
            None
        }
    };
    let (rows, section) = ("rows/s", "Indicators");
    let aim = Some(Aim::AtLeast(80e6));
    report.rate(section, "five indicators, streaming, bar by bar", N, rows, &stream, beside, aim);
    report.rate(
        section,
        "five indicators, the same kernels into columns that are used again",
        N,
        rows,
        &columns,
        beside,
        aim,
    );
    let aim = beside.map(|_| Aim::RatioAtLeast(1.0));
    report.rate(section, "five indicators, polars frame in and out", N, rows, &frames, beside, aim);
    Ok(())
}

/// Seconds that TA-Lib takes for the five indicators over these bars.
fn talib(bars: &[Ohlcv]) -> anyhow::Result<Vec<Took>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let file = tempfile::NamedTempFile::new()?;
    let column = |pick: fn(&Ohlcv) -> f64| bars.iter().flat_map(move |b| pick(b).to_le_bytes()).collect::<Vec<u8>>();
    let bytes = [column(|b| b.high), column(|b| b.low), column(|b| b.close)].concat();
    std::fs::write(file.path(), bytes)?;
    let said = Command::new("python3")
        .arg(root.join("tests/benches/figures/peer_talib.py"))
        .arg(file.path())
        .arg(ROUNDS.to_string())
        .env("PYTHONPATH", root.join(".tapeline/peers"))
        .output()
        .context("run python3")?;
    ensure!(said.status.success(), "not installed (scripts/setup.sh peers)");
    let rounds: Vec<(f64, f64)> = serde_json::from_slice(&said.stdout).context("read its seconds")?;
    Ok(rounds.into_iter().map(|(wall_s, cpu_s)| Took { wall_s, cpu_s }).collect())
}

/// One trade frame of Binance to the bytes of a stored fact, alone and in packs of 32; beside it serde_json reading
/// the same text into a struct.
pub fn decode(report: &mut Report) -> anyhow::Result<()> {
    const N: usize = 400_000;
    #[derive(serde::Deserialize)]
    #[allow(dead_code)]
    struct Plain<'a> {
        e: &'a str,
        #[serde(rename = "E")]
        event_ms: i64,
        s: &'a str,
        t: u64,
        p: &'a str,
        q: &'a str,
        #[serde(rename = "T")]
        trade_ms: i64,
        m: bool,
    }
    let frames: Vec<String> = ticks(0, N)
        .iter()
        .map(|t| {
            let ms = t.ts.0 / 1_000_000;
            format!(
                r#"{{"e":"trade","E":{ms},"s":"BTCUSDT","t":{},"p":"{}.{:02}000000","q":"0.{:05}000","T":{ms},"m":{},"M":true}}"#,
                t.id,
                t.price.0 / 100,
                t.price.0 % 100,
                t.size.0,
                t.side == Side::Sell
            )
        })
        .collect();
    let (mut alone, mut packed, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    let (venue, market) = ingest::venue::by_id("binance").context("no such venue")?;
    let run = |pack: usize| {
        let mut packer = Packer::new("binance", 16, pack, false);
        packer.instrument("BTCUSDT", Scale { ..SCALE });
        let (mut events, mut facts): (Vec<Event>, _) = (Vec::new(), Vec::new());
        let mut bytes = 0usize;
        for (i, frame) in frames.iter().enumerate() {
            let recv = Nanos(i as i64);
            venue.decode(market, Frame::Text(frame), &mut events);
            for event in events.drain(..) {
                packer.take(recv, &event, &mut facts);
            }
            if (i + 1) % pack == 0 {
                packer.flush(&mut facts);
            }
            for fact in facts.drain(..) {
                bytes += black_box(fact.encode()).len();
                packer.reuse(fact);
            }
        }
        ensure!(bytes > N, "no bytes");
        Ok(())
    };
    for _ in 0..ROUNDS {
        alone.push(took(&[], || run(1))?);
        packed.push(took(&[], || run(32))?);
        plain.push(took(&[], || {
            for frame in &frames {
                black_box(serde_json::from_str::<Plain>(frame)?);
            }
            Ok(())
        })?);
    }
    let ns = |list: &[Took]| crate::method::median(list.iter().map(|t| t.wall_s * 1e9 / N as f64).collect());
    let beside = Some(("serde_json into a struct", ns(&plain)));
    for (what, list) in [("alone", &alone), ("in packs of 32", &packed)] {
        let what = format!("a Binance trade from JSON to stored-ready bytes, {what}");
        report.value("Library", what, ns(list), "ns", beside, Some(Aim::AtMost(300.0)));
    }
    Ok(())
}

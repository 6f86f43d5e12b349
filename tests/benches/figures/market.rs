//! The ticks that every figure is about.

use schemas::raw::{Trade, Trades};
use schemas::subject::{PARTITIONS, partition};
use schemas::{Instrument, InstrumentKind, Nanos, PriceM, QtyM, Scale, Side, fixtures};

pub const SCALE: Scale = Scale { price: 2, qty: 5 };
pub const START_NS: i64 = 1_700_000_000_000_000_000;

/// Ticks that look like a busy market: a hundred a second, a walk of a cent, both sides. The generator is a linear one, written
/// down so that every machine folds the same ticks.
pub fn ticks(symbol: usize, count: usize) -> Vec<Trade> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64.wrapping_add(symbol as u64);
    let mut price = 6_000_000i64;
    (0..count)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let dice = state >> 33;
            price += (dice % 3) as i64 - 1;
            let ts = Nanos(START_NS + i as i64 * 10_000_000);
            let side = if dice & 8 == 0 { Side::Buy } else { Side::Sell };
            Trade { ts, recv: ts, id: i as u64 + 1, price: PriceM(price), size: QtyM(1 + (dice % 1000) as i64), side }
        })
        .collect()
}

pub fn packs(symbol: &str, ticks: &[Trade], size: usize) -> Vec<Trades> {
    let p = partition("binance", symbol, PARTITIONS);
    ticks
        .chunks(size)
        .map(|chunk| {
            let mut pack = Trades::new(p, "binance", symbol, SCALE);
            chunk.iter().for_each(|t| pack.push(*t));
            pack
        })
        .collect()
}

/// What the desk knows of the market that is traded.
pub fn instrument() -> anyhow::Result<Instrument> {
    let listed = fixtures::instrument("binance", "BTCUSDT", InstrumentKind::Perpetual, "0.01", "0.00001");
    Ok(Instrument { min_notional: "5".parse()?, ..listed })
}

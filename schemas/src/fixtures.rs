//! Where tests and benches find the shared fixtures, and the instrument that they trade; nothing else uses this.

use std::path::PathBuf;

use crate::fixed::Scale;
use crate::instrument::{Instrument, InstrumentKind, SizeUnit, Terms};
use crate::num::{Notional, Price, Qty};
use crate::wire::Version;

/// The folder with `fixtures/`, `data/`, `goldens/`: `TAPELINE_FIXTURES`, else `../shared` beside the checkout.
/// `None` (after saying so) where it is absent; with `CI=true` its absence is a failure.
///
/// # Panics
/// With `CI=true` and no such folder.
pub fn root() -> Option<PathBuf> {
    let place = match std::env::var_os("TAPELINE_FIXTURES") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    if place.join("goldens").is_dir() {
        return Some(place);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "the shared fixtures are absent and CI=true");
    eprintln!("skipped: no shared fixtures (set TAPELINE_FIXTURES)");
    None
}

/// A linear instrument quoted in USDT, in coins, without a smallest order; `tick` and `lot` are decimal text and give
/// the digits too.
///
/// # Panics
/// Where one of them is no number.
pub fn instrument(venue: &str, symbol: &str, kind: InstrumentKind, tick: &str, lot: &str) -> Instrument {
    let digits = |step: &str| step.split_once('.').map_or(0, |(_, fraction)| fraction.len() as u8);
    Instrument {
        v: Version,
        venue: venue.to_owned(),
        symbol: symbol.to_owned(),
        base: symbol.strip_suffix("USDT").unwrap_or(symbol).to_owned(),
        quote: "USDT".to_owned(),
        kind,
        size_unit: SizeUnit::Base,
        contract_size: Qty::new(1.into()),
        inverse: false,
        tick: tick.parse::<Price>().expect("a tick"),
        lot: lot.parse::<Qty>().expect("a lot"),
        min_notional: Notional::ZERO,
        scale: Scale { price: digits(tick), qty: digits(lot) },
        trading: true,
        terms: Terms::default(),
    }
}

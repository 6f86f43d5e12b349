//! What the frames of both of Coinbase's APIs have in common.

use schemas::instrument::SizeUnit;
use schemas::{Decimal, Nanos, Side};
use serde::Deserialize;

use crate::status::State;
use crate::text::{Quoted, rfc3339};

pub(super) fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|e| e.to_string())
}

/// A side that the venue names; Exchange writes it small, Advanced large.
pub(super) fn side(word: &str) -> Result<Side, String> {
    match word {
        "buy" | "BUY" => Ok(Side::Buy),
        "sell" | "SELL" => Ok(Side::Sell),
        other => Err(format!("side `{other}`")),
    }
}

/// The aggressor's side of a trade. Both APIs name the maker's: a recorded sweep prints rising prices under SELL
/// (`ws_adv_market_trades`), and in the recording of 2021 the `side` of all 95 tickers, which is the taker's, is the
/// other one than that of the match with the same id.
pub(super) fn taker(maker: &str) -> Result<Side, String> {
    side(maker).map(Side::opposite)
}

/// A time; `None` is the zero of the venue's clock (0001-01-01), which it sends where it knows none.
pub(super) fn time(text: &str) -> Result<Option<Nanos>, String> {
    if text.starts_with("0001-01-01T00:00:00") {
        return Ok(None);
    }
    rfc3339(text).map(Some)
}

/// Sizes are coins; futures of the derivatives exchange (`BIT-28JUN24-CDE`) count contracts.
pub(super) fn unit(product: &str) -> SizeUnit {
    if product.ends_with("-CDE") { SizeUnit::Contracts } else { SizeUnit::Base }
}

/// What a product's state is. Words other than `online` are the documentation's, as by REST: no message has one.
pub(super) fn state(word: &str) -> Result<State, String> {
    match word {
        "online" => Ok(State::Online),
        // Open to the venue itself alone.
        "internal" => Ok(State::Restricted),
        "offline" | "delisted" => Ok(State::Offline),
        other => Err(format!("status `{other}`")),
    }
}

/// A level of a book. A size below zero is no size: the venue has sent `0.-10000` where it was off by a little.
pub(super) fn level(price: Quoted, size: Quoted) -> Result<(Decimal, Decimal), String> {
    if size.0 < Decimal::ZERO {
        return Err(format!("level {} has size {}", price.0, size.0));
    }
    Ok((price.0, size.0))
}

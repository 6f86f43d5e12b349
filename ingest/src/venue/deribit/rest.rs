//! Deribit REST: the same methods as on the socket, asked with GET.

use std::collections::BTreeSet;

use schemas::fixed::Scale;
use schemas::instrument::{InstrumentKind, SizeUnit};
use schemas::wire::Version;
use schemas::{Instrument, Notional, Price, Qty};
use serde::Deserialize;

use super::decode::{TradeRow, parse, size_unit};
use crate::event::{Event, Trade};
use crate::text::Bare;
use crate::venue::{Request, digits};

/// Up to 1000 trades of an instrument after a trade sequence.
pub fn trades_path(instrument: &str, after: u64) -> String {
    let start = after + 1;
    format!(
        "/api/v2/public/get_last_trades_by_instrument?instrument_name={instrument}&start_seq={start}&count=1000&sorting=asc"
    )
}

/// The trades of such an answer, oldest first.
pub fn trades(body: &str) -> Result<Vec<Trade>, String> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        result: Page<'a>,
    }
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        trades: Vec<TradeRow<'a>>,
    }
    let answer: Answer = parse(body)?;
    let mut trades = Vec::with_capacity(answer.result.trades.len());
    for row in answer.result.trades {
        if let Event::Trade(trade) = row.event()? {
            trades.push(trade);
        }
    }
    trades.sort_by_key(|t| t.id);
    Ok(trades)
}

/// One request a settlement currency: the coin, or USDC and the like behind the `_` of linear contracts.
pub fn instrument_requests(symbols: &[String]) -> Vec<Request> {
    let currencies: BTreeSet<&str> = symbols
        .iter()
        .map(|s| {
            let pair = s.split('-').next().unwrap_or(s);
            pair.split_once('_').map_or(pair, |(_, quote)| quote)
        })
        .collect();
    let path = |currency: &str| format!("/api/v2/public/get_instruments?currency={currency}&expired=false");
    currencies.into_iter().map(|currency| Request { path: path(currency) }).collect()
}

#[derive(Deserialize)]
struct Row {
    instrument_name: String,
    kind: String,
    base_currency: String,
    quote_currency: String,
    settlement_period: Option<String>,
    settlement_currency: Option<String>,
    /// `reversed` or `linear`; absent before 2022.
    future_type: Option<String>,
    contract_size: Option<Bare>,
    tick_size: Bare,
    min_trade_amount: Bare,
    is_active: bool,
}

/// The instruments of a `get_instruments` answer. Kinds that are not known here are left out and named.
pub fn instruments(venue: &str, body: &str) -> Result<(Vec<Instrument>, Vec<String>), String> {
    #[derive(Deserialize)]
    struct Answer {
        result: Vec<Row>,
    }
    let answer: Answer = parse(body)?;
    let (mut known, mut left_out) = (Vec::new(), Vec::new());
    for row in answer.result {
        match instrument(venue, &row) {
            Ok(instrument) => known.push(instrument),
            Err(why) => left_out.push(format!("{}: {why}", row.instrument_name)),
        }
    }
    Ok((known, left_out))
}

fn instrument(venue: &str, row: &Row) -> Result<Instrument, String> {
    let kind = match (row.kind.as_str(), row.settlement_period.as_deref()) {
        ("future", Some("perpetual")) => InstrumentKind::Perpetual,
        ("future", _) => InstrumentKind::Future,
        ("option", _) => InstrumentKind::Option,
        ("spot", _) => InstrumentKind::Spot,
        ("future_combo" | "option_combo", _) => InstrumentKind::Combo,
        (other, _) => return Err(format!("kind `{other}`")),
    };
    let size_unit = size_unit(&row.instrument_name);
    let inverse = match (kind, row.future_type.as_deref()) {
        (InstrumentKind::Spot, _) => false,
        (_, Some("linear")) => false,
        (_, Some("reversed")) => true,
        (_, Some(other)) => return Err(format!("future type `{other}`")),
        // Options, and futures as the venue described them before 2022: settled in the coin unless the contract
        // says a currency of its own.
        (_, None) => match &row.settlement_currency {
            Some(settled) => *settled == row.base_currency,
            None => size_unit == SizeUnit::QuoteUsd || row.quote_currency != "USDC",
        },
    };
    let (tick, lot) = (row.tick_size.0, row.min_trade_amount.0);
    Ok(Instrument {
        v: Version,
        venue: venue.to_owned(),
        symbol: row.instrument_name.clone(),
        base: row.base_currency.clone(),
        quote: row.quote_currency.clone(),
        kind,
        size_unit,
        contract_size: Qty::new(row.contract_size.map_or(1.into(), |n| n.0)),
        inverse,
        tick: Price::new(tick),
        lot: Qty::new(lot),
        min_notional: Notional::ZERO,
        scale: Scale { price: digits(tick), qty: digits(lot) },
        trading: row.is_active,
    })
}

//! OKX REST: paths and answers of the public calls that a feed needs.
//!
//! `{"code":"0","msg":"","data":[...]}`; another code is a refusal, whatever the HTTP status says.

use std::borrow::Cow;
use std::collections::BTreeSet;

use schemas::fixed::Scale;
use schemas::instrument::{InstrumentKind, OptionRight, SizeUnit, Terms};
use schemas::raw::BookAction;
use schemas::wire::Version;
use schemas::{Instrument, Notional, Price, Qty, Timeframe};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::decode::{TradeRow, candle, maybe_stamp, parse, size_unit};
use super::depth::BookRow;
use crate::event::{Bar, Book, Trade};
use crate::text::{MaybeQuoted, decimal};
use crate::venue::{Bucket, HistoryPage, REST, Request, digits};

/// The venue counts each endpoint for itself.
const BOOKS: &str = "books";
const TRADES: &str = "history-trades";
const CANDLES: &str = "history-candles";

pub const BUCKETS: &[Bucket] = &const {
    [
        Bucket::new(REST),
        Bucket::new(BOOKS),
        Bucket::new(TRADES),
        Bucket::new(CANDLES),
        Bucket::new(crate::venue::CONNECT),
    ]
};

/// Levels of each side of a book: as many as the channel keeps.
const BOOK_LEVELS: u32 = 400;
/// Rows of one page of trades and of candles, from general knowledge.
const TRADES_MAX: u64 = 100;
const CANDLES_MAX: u32 = 100;

#[derive(Deserialize)]
struct Answer<'a> {
    code: &'a str,
    #[serde(borrow, default)]
    msg: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The rows of an answer that went well.
fn rows<'a, T: Deserialize<'a>>(body: &'a str) -> Result<Vec<T>, String> {
    let answer: Answer = parse(body)?;
    match (answer.code, answer.data) {
        ("0", Some(data)) => parse(data.get()),
        ("0", None) => Err("an answer without data".to_owned()),
        (code, _) => Err(format!("code {code} {}", answer.msg)),
    }
}

/// The book, with its place in the channel's sequence.
pub fn book_request(symbol: &str) -> Request {
    Request::get(format!("/api/v5/market/books?instId={symbol}&sz={BOOK_LEVELS}&source=0")).bucket(BOOKS)
}

/// Such a book; `symbol` is the asker's.
pub fn book(symbol: &str, body: &str) -> Result<Book, String> {
    match rows::<BookRow>(body)?.into_iter().next() {
        Some(row) => row.book(symbol, BookAction::Snapshot, false),
        None => Err("an answer without a book".to_owned()),
    }
}

/// The page of single fills that begins behind a trade. The venue counts pages back from an id: asked for those before the
/// id that stands one page further on, it gives just these.
pub fn trades_after(symbol: &str, after: u64) -> Request {
    let bound = after.saturating_add(TRADES_MAX + 1);
    Request::get(format!("/api/v5/market/history-trades?instId={symbol}&type=1&after={bound}&limit={TRADES_MAX}"))
        .bucket(TRADES)
}

/// The trades of such an answer, oldest first.
pub fn trades(body: &str) -> Result<Vec<Trade>, String> {
    let mut trades = Vec::new();
    for row in rows::<TradeRow>(body)? {
        let (trade, _) = row.trade()?;
        trades.push(Trade { backfill: true, ..trade });
    }
    trades.sort_by_key(|t| t.id);
    Ok(trades)
}

/// The venue's name of a candle's width. From six hours on the plain names begin at 16:00 UTC.
fn width(timeframe: Timeframe) -> Option<&'static str> {
    Some(match timeframe.to_string().as_str() {
        "1m" => "1m",
        "3m" => "3m",
        "5m" => "5m",
        "15m" => "15m",
        "30m" => "30m",
        "1h" => "1H",
        "2h" => "2H",
        "4h" => "4H",
        "6h" => "6Hutc",
        "12h" => "12Hutc",
        "1d" => "1Dutc",
        _ => return None,
    })
}

/// `history-candles`: those before a time, newest first.
pub fn history_request(page: HistoryPage<'_>) -> Option<Request> {
    let width = width(page.timeframe)?;
    let (symbol, before, limit) = (page.symbol, page.before.as_ms(), page.limit.min(CANDLES_MAX));
    let path = format!("/api/v5/market/history-candles?instId={symbol}&bar={width}&after={before}&limit={limit}");
    Some(Request::get(path).bucket(CANDLES))
}

/// The candles of such an answer, turned round.
pub fn history(page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String> {
    let interval = page.timeframe.to_string();
    rows::<Vec<&str>>(body)?.iter().rev().map(|row| candle(page.symbol, &interval, row)).collect()
}

/// The venue's name of the kind of an instrument, which its symbol tells.
pub(super) fn inst_type(symbol: &str) -> &'static str {
    let parts: Vec<&str> = symbol.split('-').collect();
    match parts[..] {
        [_, _] => "SPOT",
        [_, _, "SWAP"] => "SWAP",
        [_, _, _] => "FUTURES",
        _ => "OPTION",
    }
}

/// One request a kind; options are asked for by family.
pub fn instrument_requests(symbols: &[String]) -> Vec<Request> {
    let family = |symbol: &String| symbol.splitn(3, '-').take(2).collect::<Vec<_>>().join("-");
    let queries: BTreeSet<String> = symbols
        .iter()
        .map(|symbol| match inst_type(symbol) {
            "OPTION" => format!("OPTION&instFamily={}", family(symbol)),
            kind => kind.to_owned(),
        })
        .collect();
    queries.iter().map(|q| Request::get(format!("/api/v5/public/instruments?instType={q}"))).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    inst_id: &'a str,
    inst_type: &'a str,
    base_ccy: &'a str,
    quote_ccy: &'a str,
    settle_ccy: &'a str,
    /// `BTC-USD`: what a contract is on.
    uly: &'a str,
    ct_type: &'a str,
    ct_val: MaybeQuoted,
    ct_mult: MaybeQuoted,
    exp_time: Option<&'a str>,
    stk: MaybeQuoted,
    opt_type: &'a str,
    tick_sz: &'a str,
    lot_sz: &'a str,
    state: &'a str,
}

/// The instruments of an answer. Kinds and states that are not known here are left out and named.
pub fn instruments(venue: &str, body: &str) -> Result<(Vec<Instrument>, Vec<String>), String> {
    let (mut known, mut left_out) = (Vec::new(), Vec::new());
    for row in rows::<Row>(body)? {
        match instrument(venue, &row) {
            Ok(instrument) => known.push(instrument),
            Err(why) => left_out.push(format!("{}: {why}", row.inst_id)),
        }
    }
    Ok((known, left_out))
}

fn instrument(venue: &str, row: &Row) -> Result<Instrument, String> {
    let kind = match row.inst_type {
        "SPOT" => InstrumentKind::Spot,
        "SWAP" => InstrumentKind::Perpetual,
        "FUTURES" => InstrumentKind::Future,
        "OPTION" => InstrumentKind::Option,
        other => return Err(format!("kind `{other}`")),
    };
    let trading = match row.state {
        "live" => true,
        "suspend" | "preopen" | "test" | "expired" => false,
        other => return Err(format!("state `{other}`")),
    };
    let inverse = match (row.ct_type, kind) {
        ("inverse", _) => true,
        ("linear", _) => false,
        // An option is settled in the coin, but its contract counts coins.
        ("", InstrumentKind::Spot | InstrumentKind::Option) => false,
        (other, _) => return Err(format!("contract type `{other}`")),
    };
    let right = match row.opt_type {
        "" => None,
        "C" => Some(OptionRight::Call),
        "P" => Some(OptionRight::Put),
        other => return Err(format!("option type `{other}`")),
    };
    let (base, quote) = match kind {
        InstrumentKind::Spot => (row.base_ccy, row.quote_ccy),
        _ => row.uly.split_once('-').ok_or(format!("underlying `{}`", row.uly))?,
    };
    let size_unit = size_unit(row.inst_id);
    let contract_size = match size_unit {
        SizeUnit::Base => 1.into(),
        SizeUnit::Contracts | SizeUnit::QuoteUsd => match (row.ct_val.0, row.ct_mult.0) {
            (Some(value), Some(times)) => value * times,
            _ => return Err("no contract value".to_owned()),
        },
    };
    // Instruments before their opening may have no steps yet.
    let step = |text: &str| decimal(text).map_err(|_| format!("step `{text}`"));
    let (tick, lot) = (step(row.tick_sz)?, step(row.lot_sz)?);
    Ok(Instrument {
        v: Version,
        venue: venue.to_owned(),
        symbol: row.inst_id.to_owned(),
        base: base.to_owned(),
        quote: quote.to_owned(),
        kind,
        size_unit,
        contract_size: Qty::new(contract_size.normalize()),
        inverse,
        tick: Price::new(tick),
        lot: Qty::new(lot),
        min_notional: Notional::ZERO,
        scale: Scale { price: digits(tick), qty: digits(lot) },
        trading,
        terms: Terms {
            settle: row.settle_ccy.to_owned(),
            expiry_ns: maybe_stamp(row.exp_time)?.map(|at| at.0),
            strike: row.stk.0.map(Price::new),
            right,
            status: row.state.to_owned(),
            ..Terms::default()
        },
    }
    .named())
}

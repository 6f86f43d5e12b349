//! The objects of both APIs as text: times, levels, trades, tickers, candles, products.

use schemas::num::civil_day;
use serde_json::{Value, json};

use super::Api;
use crate::book::Side;
use crate::floor::Floor;
use crate::history::Bar;
use crate::instrument::Spec;
use crate::market::Trade;

/// What stands where the venue was off by a little (recorded at Exchange).
pub const BAD_SIZE: &str = "0.-10000";

/// RFC 3339 with the digits that count, as Go prints it; cut to whole microseconds where `micros`.
pub fn time(ns: i64, micros: bool) -> String {
    let (seconds, part) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let (year, month, day) = civil_day(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    let digits = if micros { format!("{:06}", part / 1_000) } else { format!("{part:09}") };
    let digits = digits.trim_end_matches('0');
    if !digits.is_empty() {
        text.push('.');
        text.push_str(digits);
    }
    text.push('Z');
    text
}

/// Without zeros behind the last digit that counts.
pub fn plain(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

fn size(spec: &Spec, lots: i64) -> String {
    plain(&spec.size.text(lots)).to_owned()
}

/// A side as each API names it.
fn word(api: Api, side: Side) -> &'static str {
    match api {
        Api::Advanced => side.upper(),
        Api::Exchange => side.lower(),
    }
}

/// A change of levels, or all of them.
pub struct Levels<'a> {
    pub bids: &'a [(i64, i64)],
    pub asks: &'a [(i64, i64)],
    pub at_ns: i64,
    pub snapshot: bool,
    /// One level has a size that is no number.
    pub bad: bool,
    /// The time is one that tells nothing.
    pub no_time: bool,
}

/// One event of `l2_data`. Levels come in no order; those of a snapshot that nobody touched lately have a time of 1970.
pub fn l2_event(spec: &Spec, l: &Levels) -> String {
    let mut rows: Vec<(bool, i64, i64, usize)> = Vec::new();
    for (bid, half) in [(true, l.bids), (false, l.asks)] {
        rows.extend(half.iter().enumerate().map(|(depth, (price, qty))| (bid, *price, *qty, depth)));
    }
    if l.snapshot {
        rows.sort_by_key(|(_, price, ..)| (*price as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    let row = |(n, (bid, price, qty, depth)): (usize, &(bool, i64, i64, usize))| {
        let at_ns = if l.no_time || (l.snapshot && *depth > 10) { 0 } else { l.at_ns };
        let size = if l.bad && n == 0 { BAD_SIZE.to_owned() } else { size(spec, *qty) };
        let (side, price, at) = (if *bid { "bid" } else { "offer" }, spec.price.text(*price), time(at_ns, true));
        let price = plain(&price);
        format!(r#"{{"side":"{side}","event_time":"{at}","price_level":"{price}","new_quantity":"{size}"}}"#)
    };
    let kind = if l.snapshot { "snapshot" } else { "update" };
    let rows: Vec<String> = rows.iter().enumerate().map(row).collect();
    format!(r#"{{"type":"{kind}","product_id":"{}","updates":[{}]}}"#, spec.symbol, rows.join(","))
}

/// `snapshot` or `l2update` of Exchange.
pub fn exchange_book(spec: &Spec, l: &Levels) -> String {
    let mut bad = l.bad;
    let mut text = |qty: i64| if std::mem::take(&mut bad) { BAD_SIZE.to_owned() } else { spec.size.text(qty) };
    if l.snapshot {
        let mut half = |rows: &[(i64, i64)]| {
            let rows: Vec<String> =
                rows.iter().map(|(p, q)| format!(r#"["{}","{}"]"#, spec.price.text(*p), text(*q))).collect();
            rows.join(",")
        };
        let (bids, asks) = (half(l.bids), half(l.asks));
        return format!(r#"{{"type":"snapshot","product_id":"{}","asks":[{asks}],"bids":[{bids}]}}"#, spec.symbol);
    }
    let mut changes = Vec::new();
    for (side, half) in [("buy", l.bids), ("sell", l.asks)] {
        changes.extend(half.iter().map(|(p, q)| format!(r#"["{side}","{}","{}"]"#, spec.price.text(*p), text(*q))));
    }
    let at = if l.no_time { "0001-01-01T00:00:00.000000Z".to_owned() } else { time(l.at_ns, true) };
    format!(r#"{{"type":"l2update","product_id":"{}","changes":[{}],"time":"{at}"}}"#, spec.symbol, changes.join(","))
}

/// A row of `market_trades` and of Advanced's REST. The side is the maker's.
pub fn advanced_trade(spec: &Spec, t: &Trade) -> String {
    format!(
        r#"{{"product_id":"{}","trade_id":"{}","price":"{}","size":"{}","time":"{}","side":"{}"}}"#,
        spec.symbol,
        t.id,
        plain(&spec.price.text(t.price)),
        size(spec, t.qty),
        time(t.time_ns, true),
        word(Api::Advanced, t.taker.other()),
    )
}

/// `match` or `last_match`. The side is the maker's.
pub fn exchange_match(spec: &Spec, t: &Trade, kind: &str) -> String {
    format!(
        r#"{{"type":"{kind}","trade_id":{},"maker_order_id":"00000000-0000-0000-0000-{:012x}","taker_order_id":"00000000-0000-0000-0001-{:012x}","side":"{}","size":"{}","price":"{}","product_id":"{}","sequence":{},"time":"{}"}}"#,
        t.id,
        t.id,
        t.aggregate,
        word(Api::Exchange, t.taker.other()),
        spec.size.text(t.qty),
        spec.price.text(t.price),
        spec.symbol,
        t.id * 3,
        time(t.time_ns, true),
    )
}

/// A row of Exchange's REST trades.
pub fn exchange_trade(spec: &Spec, t: &Trade) -> String {
    format!(
        r#"{{"time":"{}","trade_id":{},"price":"{}","size":"{}","side":"{}"}}"#,
        time(t.time_ns, true),
        t.id,
        spec.price.text(t.price),
        spec.size.text(t.qty),
        word(Api::Exchange, t.taker.other()),
    )
}

fn touch(floor: &Floor, i: usize, side: Side) -> (String, String) {
    let l = floor.market.listing(i);
    let (price, qty) = l.book.touch(side).unwrap_or_default();
    (plain(&l.spec.price.text(price)).to_owned(), size(&l.spec, qty))
}

/// A row of `ticker` (with the touch) and `ticker_batch` (without).
pub fn advanced_ticker(floor: &Floor, i: usize, with_touch: bool) -> String {
    let l = floor.market.listing(i);
    let day = floor.history[i].day(floor.now_ms()).unwrap_or_default();
    let last = l.last.map_or(0, |t| t.price);
    let price = |ticks: i64| plain(&l.spec.price.text(ticks)).to_owned();
    let mut row = json!({
        "type": "ticker",
        "product_id": l.spec.symbol,
        "price": price(last),
        "volume_24_h": size(&l.spec, day.volume),
        "low_24_h": price(day.low),
        "high_24_h": price(day.high),
        "low_52_w": price(day.low),
        "high_52_w": price(day.high),
        "price_percent_chg_24_h": "0",
    });
    if with_touch {
        for (side, name) in [(Side::Buy, "bid"), (Side::Sell, "ask")] {
            let (price, size) = touch(floor, i, side);
            row[format!("best_{name}")] = json!(price);
            row[format!("best_{name}_quantity")] = json!(size);
        }
    }
    row.to_string()
}

/// Exchange's ticker of a trade: its side is the taker's.
pub fn exchange_ticker(floor: &Floor, i: usize, t: &Trade) -> String {
    let l = floor.market.listing(i);
    let day = floor.history[i].day(floor.now_ms()).unwrap_or_default();
    let price = |ticks: i64| l.spec.price.text(ticks);
    let (bid, bid_size) = touch(floor, i, Side::Buy);
    let (ask, ask_size) = touch(floor, i, Side::Sell);
    json!({
        "type": "ticker",
        "sequence": t.id * 3,
        "product_id": l.spec.symbol,
        "price": price(t.price),
        "open_24h": price(day.open),
        "volume_24h": l.spec.size.text(day.volume),
        "low_24h": price(day.low),
        "high_24h": price(day.high),
        "volume_30d": l.spec.size.text(day.volume),
        "best_bid": bid,
        "best_bid_size": bid_size,
        "best_ask": ask,
        "best_ask_size": ask_size,
        "side": t.taker.lower(),
        "time": time(t.time_ns, true),
        "trade_id": t.id,
        "last_size": l.spec.size.text(t.qty),
    })
    .to_string()
}

/// A candle of Advanced; with its product on the socket.
pub fn candle(spec: &Spec, bar: &Bar, with_product: bool) -> Value {
    let price = |ticks: i64| plain(&spec.price.text(ticks)).to_owned();
    let mut row = json!({
        "start": (bar.open_ms / 1000).to_string(),
        "high": price(bar.high),
        "low": price(bar.low),
        "open": price(bar.open),
        "close": price(bar.close),
        "volume": size(spec, bar.volume),
    });
    if with_product {
        row["product_id"] = json!(spec.symbol);
    }
    row
}

/// A candle of Exchange: bare numbers.
pub fn candle_row(spec: &Spec, bar: &Bar) -> String {
    let price = |ticks: i64| spec.price.number(ticks);
    format!(
        "[{},{},{},{},{},{}]",
        bar.open_ms / 1000,
        price(bar.low),
        price(bar.high),
        price(bar.open),
        price(bar.close),
        spec.size.number(bar.volume)
    )
}

/// A product of Exchange's REST and of its channel `status`.
pub fn exchange_product(spec: &Spec, online: bool) -> Value {
    json!({
        "id": spec.symbol,
        "base_currency": spec.base,
        "quote_currency": spec.quote,
        "base_min_size": plain(&spec.size.step_text()),
        "base_max_size": "10000",
        "quote_increment": plain(&spec.price.step_text()),
        "base_increment": plain(&spec.size.step_text()),
        "display_name": format!("{}/{}", spec.base, spec.quote),
        "min_market_funds": spec.min_notional.to_string(),
        "max_market_funds": "1000000",
        "margin_enabled": false,
        "post_only": false,
        "limit_only": false,
        "cancel_only": false,
        "trading_disabled": false,
        "status": state(online),
        "status_message": if online { "" } else { "maintenance" },
    })
}

/// A product of Advanced's REST.
pub fn advanced_product(floor: &Floor, i: usize) -> Value {
    let l = floor.market.listing(i);
    let spec = &l.spec;
    json!({
        "product_id": spec.symbol,
        "price": plain(&spec.price.text(l.last.map_or(0, |t| t.price))),
        "base_increment": plain(&spec.size.step_text()),
        "quote_increment": plain(&spec.price.step_text()),
        "price_increment": plain(&spec.price.step_text()),
        "quote_min_size": spec.min_notional.to_string(),
        "quote_max_size": "150000000",
        "base_min_size": plain(&spec.size.step_text()),
        "base_max_size": "10000",
        "base_name": spec.base,
        "quote_name": spec.quote,
        "watched": false,
        "is_disabled": false,
        "new": false,
        "status": "online",
        "cancel_only": false,
        "limit_only": false,
        "post_only": false,
        "trading_disabled": false,
        "auction_mode": false,
        "product_type": "SPOT",
        "quote_currency_id": spec.quote,
        "base_currency_id": spec.base,
        "view_only": false,
        "display_name": spec.symbol,
        "product_venue": "CBE",
    })
}

fn state(online: bool) -> &'static str {
    if online { "online" } else { "offline" }
}

/// A product of Advanced's channel `status`.
pub fn status_row(spec: &Spec, online: bool) -> Value {
    json!({
        "product_type": "SPOT",
        "id": spec.symbol,
        "base_currency": spec.base,
        "quote_currency": spec.quote,
        "base_increment": plain(&spec.size.step_text()),
        "quote_increment": plain(&spec.price.step_text()),
        "display_name": format!("{}/{}", spec.base, spec.quote),
        "status": state(online),
        "status_message": if online { "" } else { "maintenance" },
        "min_market_funds": spec.min_notional.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_digits_that_count() {
        assert_eq!(time(1_790_735_994_189_540_000, true), "2026-09-30T02:39:54.18954Z");
        assert_eq!(time(1_790_735_994_348_924_289, false), "2026-09-30T02:39:54.348924289Z");
        assert_eq!(time(0, true), "1970-01-01T00:00:00Z");
        assert_eq!((plain("0.09605730"), plain("100"), plain("2.00")), ("0.0960573", "100", "2"));
    }
}

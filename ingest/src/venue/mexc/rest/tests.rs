//! Against the recorded REST bodies.

use schemas::instrument::SizeUnit;
use schemas::{Decimal, Nanos, Side};

use super::super::Mexc;
use super::*;
use crate::venue::Venue;

fn number(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn malformed(events: &[Event]) -> &str {
    match events {
        [Event::Malformed(reason)] => reason,
        other => panic!("{other:?}"),
    }
}

fn answers(path: &str) -> Vec<String> {
    let Some(root) = schemas::fixtures::root() else { return Vec::new() };
    let text = std::fs::read_to_string(root.join("fixtures/venues/mexc/rest_examples.jsonl")).unwrap();
    let rows: Vec<Box<serde_json::value::RawValue>> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    #[derive(serde::Deserialize)]
    struct Row<'a> {
        path: String,
        #[serde(borrow)]
        response: &'a serde_json::value::RawValue,
    }
    let of = |raw: &serde_json::value::RawValue| {
        let row: Row = serde_json::from_str(raw.get()).unwrap();
        (row.path == path).then(|| row.response.get().to_owned())
    };
    let found: Vec<String> = rows.iter().filter_map(|raw| of(raw)).collect();
    assert!(!found.is_empty(), "{path}");
    found
}

fn market(kind: Kind) -> crate::venue::Market {
    Mexc.markets()[if kind == Kind::Spot { 0 } else { 1 }]
}

#[test]
fn the_recorded_instruments_are_read_with_their_terms() {
    for body in answers("/api/v3/exchangeInfo") {
        let (list, left) = Mexc.decode_instruments(market(Kind::Spot), &body).unwrap();
        assert!(left.is_empty(), "{left:?}");
        let pair = &list[0];
        assert_eq!(
            (pair.symbol.as_str(), pair.terms.canonical.as_str(), pair.trading),
            ("BROCKUSDT", "BROCK/USDT", true)
        );
        assert_eq!(
            (pair.tick.to_string(), pair.lot.to_string(), pair.min_notional.to_string()),
            ("0.00001".into(), "0.01".into(), "1".into())
        );
    }
    // The first answer is for one contract, which comes without a list.
    for (body, symbols) in answers("/api/v1/contract/detail").iter().zip([1, 2]) {
        let (list, left) = Mexc.decode_instruments(market(Kind::Contract), body).unwrap();
        assert!(left.is_empty() && list.len() == symbols, "{left:?} {list:?}");
        let btc = &list[0];
        assert_eq!(
            (btc.venue.as_str(), btc.symbol.as_str(), btc.terms.canonical.as_str()),
            ("mexc-contract", "BTC_USDT", "BTC/USDT:USDT")
        );
        assert_eq!((btc.size_unit, btc.inverse, btc.trading), (SizeUnit::Contracts, false, true));
        assert_eq!(
            (btc.contract_size.to_string(), btc.tick.to_string(), btc.lot.to_string()),
            ("0.0001".into(), "0.5".into(), "1".into())
        );
    }
}

#[test]
fn instruments_of_an_unknown_kind_or_state_are_left_out_and_named() {
    let Some(body) = answers("/api/v1/contract/detail").into_iter().next() else { return };
    let read = |body: &str| Mexc.decode_instruments(market(Kind::Contract), body).unwrap();
    assert_eq!(read(&body.replace(r#""state":0"#, r#""state":9"#)).1, ["BTC_USDT: state 9"]);
    assert_eq!(read(&body.replace(r#""state":0"#, r#""state":0,"futureType":2"#)).1, ["BTC_USDT: future type 2"]);
    assert!(!read(&body.replace(r#""state":0"#, r#""state":4"#)).0[0].trading);
    assert!(!read(&body.replace(r#""apiAllowed":true"#, r#""apiAllowed":false"#)).0[0].trading);
    let inverse = read(
        &body
            .replace(r#""settleCoin":"USDT""#, r#""settleCoin":"BTC""#)
            .replace(r#""quoteCoin":"USDT""#, r#""quoteCoin":"USD""#),
    );
    assert_eq!((inverse.0[0].inverse, inverse.0[0].terms.canonical.as_str()), (true, "BTC/USD:BTC"));
    let refused =
        Mexc.decode_instruments(market(Kind::Contract), r#"{"success":false,"code":510,"message":"Too frequent"}"#);
    assert_eq!(refused.unwrap_err(), "refused with 510 Too frequent");
    let Some(body) = answers("/api/v3/exchangeInfo").into_iter().next() else { return };
    let (_, left) =
        Mexc.decode_instruments(market(Kind::Spot), &body.replace(r#""status":"1""#, r#""status":"OPEN""#)).unwrap();
    assert_eq!(left, ["BROCKUSDT: status `OPEN`"]);
}

#[test]
fn the_recorded_book_answers_are_snapshots() {
    let Some(root) = schemas::fixtures::root() else { return };
    let text = std::fs::read_to_string(root.join("fixtures/venues/mexc/rest_contract_depth.jsonl")).unwrap();
    let books: Vec<_> = text.lines().map(|body| snapshot(Kind::Contract, body).unwrap()).collect();
    assert_eq!(books.iter().map(|b| b.seq_last).collect::<Vec<_>>(), [Some(3_094_693_618), Some(5_216_820_883)]);
    assert_eq!(books[0].asks[0], (number("29625"), number("630")));
    assert_eq!((books[0].ts, books[0].seq_first), (Some(Nanos(1_654_326_901_060_000_000)), None));
    let spot = snapshot(Kind::Spot, &answers("/api/v3/depth")[0]).unwrap();
    assert_eq!((spot.seq_last, spot.bids[0], spot.partial), (Some(1_112_416), (number("15"), number("49999")), false));
    let mut out = Vec::new();
    Mexc.decode_snapshot(market(Kind::Contract), r#"{"success":false,"code":510,"message":"Too frequent"}"#, &mut out);
    assert_eq!(malformed(&out), "refused with 510 Too frequent");
}

#[test]
fn the_recorded_trades_come_oldest_first_and_without_ids() {
    let Some(body) = answers("/api/v3/trades").into_iter().next() else { return };
    let spot = trades(Kind::Spot, "ETHUSDT", &body).unwrap();
    let shown: Vec<_> =
        spot.iter().map(|t| (t.ts.as_ms(), t.side, t.size.to_string(), t.venue_id.is_some(), t.backfill)).collect();
    assert_eq!(
        shown,
        [
            (1_737_623_988_876, Side::Sell, "0.09293".to_owned(), false, true),
            (1_737_623_988_881, Side::Buy, "0.04757".to_owned(), false, true)
        ]
    );
    let body = &answers("/api/v1/contract/deals/ETH_USDT")[0];
    let deals = trades(Kind::Contract, "ETH_USDT", body).unwrap();
    let shown: Vec<_> = deals.iter().map(|t| (t.ts.as_ms(), t.side, t.size.to_string())).collect();
    assert_eq!(
        shown,
        [(1_609_831_234_759, Side::Sell, "15".to_owned()), (1_609_831_235_985, Side::Buy, "18".to_owned())]
    );
    let wrong = r#"[{"id":null,"price":"1","qty":"1","time":1,"tradeType":"SWAP"}]"#;
    assert_eq!(trades(Kind::Spot, "X", wrong).unwrap_err(), "trade type `SWAP`");
}

fn page<'a>(symbol: &'a str, timeframe: &str, before_ms: i64, limit: u32) -> HistoryPage<'a> {
    HistoryPage { symbol, timeframe: timeframe.parse().unwrap(), before: Nanos::from_ms(before_ms), limit }
}

#[test]
fn a_page_of_candles_is_asked_for_from_both_ends_and_3_minutes_are_not_to_be_had() {
    let path = |kind: Kind, page: HistoryPage<'_>| Mexc.history_request(market(kind), page).map(|r| r.path);
    assert_eq!(
        path(Kind::Spot, page("BTCUSDT", "1h", 7_200_000, 3)).unwrap(),
        "/api/v3/klines?symbol=BTCUSDT&interval=60m&startTime=-3600000&endTime=7199999&limit=3"
    );
    assert_eq!(
        path(Kind::Contract, page("BTC_USDT", "4h", 1_654_084_800_000, 2)).unwrap(),
        "/api/v1/contract/kline/BTC_USDT?interval=Hour4&start=1654056000&end=1654084799"
    );
    assert_eq!(path(Kind::Spot, page("BTCUSDT", "3m", 7_200_000, 3)), None);
    assert_eq!(path(Kind::Contract, page("BTC_USDT", "3m", 7_200_000, 3)), None);
}

#[test]
fn candles_of_both_markets_are_read_and_the_open_one_is_told() {
    let Some(body) = answers("/api/v3/klines").into_iter().next() else { return };
    let read =
        |before_ms: i64| Mexc.decode_history(market(Kind::Spot), page("BTCUSDT", "1m", before_ms, 10), &body).unwrap();
    let bars = read(1_640_804_940_000);
    let bar = &bars[0];
    assert_eq!((bar.open_ts.as_ms(), bar.close_ts.map(|t| t.as_ms())), (1_640_804_880_000, Some(1_640_804_940_000)));
    assert_eq!([bar.open, bar.high, bar.low, bar.close], ["47482.36", "47482.36", "47416.57", "47436.1"].map(number));
    assert_eq!((bar.volume_base, bar.volume_quote), (Some(number("3.550717")), Some(number("168387.3"))));
    assert_eq!((bar.closed, read(1_640_804_939_999)[0].closed), (Some(true), Some(false)));

    // No answer of contract's was recorded; this is the form that its documentation shows.
    let columns = r#"{"success":true,"code":0,"data":{"time":[1761876000,1761876900],"open":[109620.6,109057.0],
        "close":[109057.0,109358.4],"high":[109685.6,109474.8],"low":[109013.6,109057.0],"vol":[10.0,20.0],"amount":[5.5,6.5],"realOpen":[1,1]}}"#;
    let bars =
        Mexc.decode_history(market(Kind::Contract), page("BTC_USDT", "15m", 1_761_877_800_000, 10), columns).unwrap();
    assert_eq!(bars.iter().map(|b| b.open_ts.as_ms()).collect::<Vec<_>>(), [1_761_876_000_000, 1_761_876_900_000]);
    assert_eq!(
        [bars[0].open, bars[0].high, bars[0].low, bars[0].close],
        ["109620.6", "109685.6", "109013.6", "109057"].map(number)
    );
    assert_eq!(
        (bars[1].volume, bars[1].volume_quote, bars[1].volume_base),
        (Some(number("20")), Some(number("6.5")), None)
    );
    let short = columns.replace("[10.0,20.0]", "[10.0]");
    let refused = Mexc.decode_history(market(Kind::Contract), page("BTC_USDT", "15m", 1, 10), &short);
    assert_eq!(refused.unwrap_err(), "columns of unequal length");
}

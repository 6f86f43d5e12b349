use super::*;
use crate::venue::coinbase::tests::{example, fixture};

fn page(symbol: &str, timeframe: &str, before_s: i64, limit: u32) -> HistoryPage<'static> {
    let symbol = Box::leak(symbol.to_owned().into_boxed_str());
    HistoryPage { symbol, timeframe: timeframe.parse().unwrap(), before: Nanos(before_s * Nanos::PER_SECOND), limit }
}

#[test]
fn the_recorded_lists_of_products_are_read_whole() {
    let Some(body) = fixture("rest_ex_products.json") else { return };
    let (list, left) = instruments(Api::Exchange, "coinbase-exchange", &body).unwrap();
    assert_eq!((list.len(), left.len()), (20, 0), "{left:?}");
    let btc = list.iter().find(|i| i.symbol == "BTC-USDC").unwrap();
    assert_eq!((btc.terms.canonical.as_str(), btc.terms.status.as_str(), btc.trading), ("BTC/USDC", "online", true));
    assert_eq!((btc.tick.to_string(), btc.lot.to_string()), ("0.01".to_owned(), "0.00000001".to_owned()));

    let body = fixture("rest_adv_product.jsonl").unwrap();
    let (list, left) = instruments(Api::Advanced, "coinbase", &body).unwrap();
    assert!(left.is_empty(), "{left:?}");
    let [btc] = &list[..] else { panic!("{list:?}") };
    assert_eq!((btc.symbol.as_str(), btc.terms.canonical.as_str()), ("BTC-USD", "BTC/USD"));
    assert_eq!((btc.scale.price, btc.scale.qty, btc.min_notional.to_string()), (2, 8, "1".to_owned()));
}

#[test]
fn a_product_of_an_unknown_kind_or_state_is_left_out_and_named() {
    let Some(body) = example("/api/v3/brokerage/market/products") else { return };
    let (list, left) = instruments(Api::Advanced, "coinbase", &body).unwrap();
    assert!(list.is_empty());
    assert_eq!(left, ["BTC-USD: product type `UNKNOWN_PRODUCT_TYPE`"]);
    let future = body.replace("UNKNOWN_PRODUCT_TYPE", "FUTURE");
    let (_, left) = instruments(Api::Advanced, "coinbase", &future).unwrap();
    assert_eq!(left, ["BTC-USD: expiry type `UNKNOWN_CONTRACT_EXPIRY_TYPE`"]);
    let odd = body.replace("UNKNOWN_PRODUCT_TYPE", "SPOT").replace(r#""status":"online""#, r#""status":"asleep""#);
    assert_eq!(instruments(Api::Advanced, "coinbase", &odd).unwrap().1, ["BTC-USD: status `asleep`"]);
}

#[test]
fn a_future_of_the_derivatives_exchange_counts_contracts_and_a_perpetual_coins() {
    let Some(body) = example("/api/v3/brokerage/market/products") else { return };
    let body = body
        .replace("UNKNOWN_PRODUCT_TYPE", "FUTURE")
        .replace(r#""contract_root_unit":"1""#, r#""contract_root_unit":"BTC""#);
    let read = |body: &str| {
        let (list, left) = instruments(Api::Advanced, "coinbase", body).unwrap();
        assert!(left.is_empty(), "{left:?}");
        list.into_iter().next().unwrap()
    };
    let dated = read(
        &body
            .replace(r#""product_id":"BTC-USD""#, r#""product_id":"BIT-28JUN24-CDE""#)
            .replace("UNKNOWN_CONTRACT_EXPIRY_TYPE", "EXPIRING")
            .replace(r#""contract_expiry":"1727686200""#, r#""contract_expiry":"2024-06-28T15:00:00Z""#),
    );
    assert_eq!((dated.size_unit, dated.contract_size.to_string()), (SizeUnit::Contracts, "0.1".to_owned()));
    assert_eq!(dated.terms.canonical, "BTC/USD:USD-240628");
    let perpetual = read(
        &body
            .replace(r#""product_id":"BTC-USD""#, r#""product_id":"BTC-PERP-INTX""#)
            .replace("UNKNOWN_CONTRACT_EXPIRY_TYPE", "PERPETUAL"),
    );
    assert_eq!((perpetual.size_unit, perpetual.contract_size.to_string()), (SizeUnit::Base, "1".to_owned()));
    assert_eq!(perpetual.terms.canonical, "BTC/USD:USD");
    assert!(!perpetual.trading, "the example may only be cancelled in");
}

#[test]
fn a_book_by_rest_is_read_with_its_sequence_and_no_symbol() {
    let Some(body) = fixture("rest_ex_book.jsonl") else { return };
    let Event::Book(book) = book(Api::Exchange, &body).unwrap() else { panic!() };
    assert_eq!((book.symbol.as_str(), book.seq_last, book.bids.len(), book.asks.len()), ("", Some(406_959_136), 5, 5));
    assert_eq!((book.bids[1].0.to_string(), book.bids[1].1.to_string()), ("0.1134".into(), "20606.7".into()));
    let body = r#"{"pricebook":{"product_id":"BTC-USD","bids":[{"price":"1.5","size":"2"}],"asks":[],"time":"2026-09-30T02:39:54Z"}}"#;
    let Event::Book(book) = super::book(Api::Advanced, body).unwrap() else { panic!() };
    assert_eq!((book.symbol.as_str(), book.ts), ("BTC-USD", Some(Nanos(1_790_735_994_000_000_000))));
}

#[test]
fn trades_by_rest_are_flipped_marked_as_history_and_oldest_first() {
    let Some(body) = example("/api/v3/brokerage/market/products/ETH-USDT/ticker") else { return };
    let rows = trades(Api::Advanced, "BTC-USD", &body).unwrap();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.id, row.side, row.backfill), (22_350_501, schemas::Side::Sell, true));
    assert_eq!(row.ts, Nanos(1_622_455_199_000_000_000));
    let body = r#"[{"time":"2026-01-01T00:00:01.5Z","trade_id":9,"price":"2","size":"1","side":"sell"},
                   {"time":"2026-01-01T00:00:01Z","trade_id":8,"price":"1.5","size":"1","side":"buy"}]"#;
    let rows = trades(Api::Exchange, "BTC-USD", body).unwrap();
    let said: Vec<_> = rows.iter().map(|t| (t.id, t.side, t.symbol.as_str())).collect();
    assert_eq!(said, [(8, schemas::Side::Sell, "BTC-USD"), (9, schemas::Side::Buy, "BTC-USD")]);
    assert!(trades(Api::Exchange, "X", &body.replace("buy", "both")).unwrap_err().contains("trade 8 has side `both`"));
}

#[test]
fn a_hole_is_asked_for_from_its_lower_end() {
    assert_eq!(trades_after("BTC-USD", 41).path, "/products/BTC-USD/trades?limit=1000&after=1042");
    let since = Nanos(1_700_000_000_900_000_000);
    assert_eq!(
        trades_since("BTC-USD", since).path,
        "/api/v3/brokerage/market/products/BTC-USD/ticker?limit=1000&start=1700000000"
    );
}

#[test]
fn candles_come_newest_first_and_leave_oldest_first() {
    let Some(body) = example("/api/v3/brokerage/market/products/ETH-USDT/candles") else { return };
    let bars = history(Api::Advanced, page("ETH-USDT", "5m", 1_639_508_350, 10), &body).unwrap();
    let [bar] = &bars[..] else { panic!("{bars:?}") };
    assert_eq!((bar.open_ts.0, bar.closed), (1_639_508_050_000_000_000, Some(true)));
    let body = "[[120,1,4,2,3,10.5],[60,0.5,3,1,2,7],[180,1,1,1,1,1]]";
    let bars = history(Api::Exchange, page("X", "1m", 180, 10), body).unwrap();
    let said: Vec<_> =
        bars.iter().map(|b| (b.open_ts.0 / Nanos::PER_SECOND, b.low.to_string(), b.high.to_string())).collect();
    assert_eq!(said, [(60, "0.5".into(), "3".into()), (120, "1".into(), "4".into())]);
    assert_eq!(bars[1].volume_base.unwrap().to_string(), "10.5");
}

#[test]
fn a_page_of_candles_ends_before_its_time_and_keeps_to_the_venues_most() {
    let path = |api, timeframe: &str, before, limit| {
        history_request(api, page("BTC-USD", timeframe, before, limit)).map(|r| r.path)
    };
    assert_eq!(
        path(Api::Exchange, "1m", 6000, 3).unwrap(),
        "/products/BTC-USD/candles?granularity=60&start=5820&end=5940"
    );
    assert_eq!(
        path(Api::Advanced, "1h", 7201, 2).unwrap(),
        "/api/v3/brokerage/market/products/BTC-USD/candles?granularity=ONE_HOUR&start=3600&end=7200&limit=2"
    );
    assert!(path(Api::Exchange, "1m", 60_000, 9999).unwrap().contains("start=42000&end=59940"));
    assert_eq!(path(Api::Exchange, "3m", 6000, 3), None);
    assert_eq!(path(Api::Exchange, "30m", 6000, 3), None);
    assert!(path(Api::Advanced, "30m", 6000, 3).is_some());
}

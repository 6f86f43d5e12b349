use std::collections::BTreeMap;

use super::*;

fn read(file: &str) -> Option<String> {
    let path = schemas::fixtures::root()?.join("fixtures/venues/htx").join(file);
    Some(std::fs::read_to_string(path).unwrap())
}

/// The body of a recorded call.
fn example(path: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Row<'a> {
        path: String,
        #[serde(borrow)]
        response: &'a RawValue,
    }
    let text = read("rest_examples.jsonl")?;
    let rows: Vec<Row> = text.lines().map(|line| parse(line).unwrap()).collect();
    Some(rows.iter().find(|row| row.path == path).unwrap().response.get().to_owned())
}

fn listed(kind: Kind, file: &str) -> Option<BTreeMap<String, Instrument>> {
    let (known, left_out) = instruments(kind, "htx", &read(file)?).unwrap();
    assert!(left_out.is_empty(), "{left_out:?}");
    Some(known.into_iter().map(|i| (i.symbol.clone(), i)).collect())
}

#[test]
fn the_recorded_spot_list_is_read_whole() {
    let Some(list) = listed(Kind::Spot, "rest_spot_common_symbols.json") else { return };
    let btc = &list["btcusdt"];
    assert_eq!((btc.tick.to_string(), btc.lot.to_string()), ("0.01".into(), "0.000001".into()));
    assert_eq!((btc.min_notional.to_string(), btc.trading, btc.kind), ("5".into(), true, InstrumentKind::Spot));
    assert_eq!((btc.terms.canonical.as_str(), btc.terms.status.as_str()), ("BTC/USDT", "online"));
    assert_eq!((list["trioeth"].scale.price, list.len()), (10, 10));
}

#[test]
fn the_recorded_open_interest_is_contracts_counted_once() {
    let Some(text) = read("rest_swap_open_interest.jsonl") else { return };
    let told: Vec<Vec<String>> = text
        .lines()
        .map(|line| {
            let mut out = Vec::new();
            open_interest(line, &mut out).unwrap();
            out.iter().map(|event| format!("{event:?}")).collect()
        })
        .collect();
    assert_eq!(
        told,
        [
            [
                r#"OpenInterest { symbol: "EOS-USD", size: 119125, coins: Some(945962.042404510442309219), ts: Nanos(1654346524275000000) }"#,
                r#"OpenInterest { symbol: "MANA-USD", size: 6629, coins: Some(68665.837994613631655272), ts: Nanos(1654346524275000000) }"#,
            ],
            [
                r#"OpenInterest { symbol: "MANA-USDT", size: 288491, coins: Some(2884910), ts: Nanos(1654346577824000000) }"#,
                r#"OpenInterest { symbol: "NKN-USDT", size: 270380, coins: Some(2703800), ts: Nanos(1654346577824000000) }"#,
            ],
        ]
    );
    // Doubled, as what was traded is, 119125 or 288491 contracts could not be.
    let mut out = Vec::new();
    assert!(
        open_interest(r#"{"status":"error","err_code":1030,"err_msg":"x","ts":1}"#, &mut out).is_err()
            && out.is_empty()
    );
}

#[test]
fn the_recorded_contract_lists_are_read_whole() {
    let Some(linear) = listed(Kind::Linear, "rest_linear_swap_contract_info.json") else { return };
    let btc = &linear["BTC-USDT"];
    assert_eq!(
        (btc.contract_size.to_string(), btc.tick.to_string(), btc.lot.to_string()),
        ("0.001".into(), "0.1".into(), "1".into())
    );
    assert_eq!((btc.inverse, btc.size_unit, btc.terms.settle.as_str()), (false, SizeUnit::Contracts, "USDT"));
    assert_eq!(btc.terms.canonical, "BTC/USDT:USDT");
    assert_eq!((linear["BTT-USDT"].tick.to_string(), linear["BTT-USDT"].scale.price), ("0.00000001".into(), 8));
    let inverse = listed(Kind::Inverse, "rest_inverse_swap_contract_info.json").unwrap();
    let btc = &inverse["BTC-USD"];
    assert_eq!((btc.contract_size.to_string(), btc.inverse, btc.kind), ("100".into(), true, InstrumentKind::Perpetual));
    assert_eq!((btc.terms.canonical.as_str(), btc.terms.status.as_str()), ("BTC/USD:BTC", "listed"));
    // Dated inverse contracts are described in the same words.
    let dated = listed(Kind::Inverse, "rest_dm_contract_info.json").unwrap();
    let week = &dated["BTC210723"];
    assert_eq!((week.kind, week.terms.expiry_ns), (InstrumentKind::Future, Some(1_627_027_200_000_000_000)));
    assert_eq!(week.terms.canonical, "BTC/USD:BTC-210723");
}

#[test]
fn an_instrument_of_an_unknown_kind_or_state_is_left_out_and_named() {
    let pair = |state: &str, trading: &str| {
        format!(
            r#"{{"status":"ok","data":[{{"symbol":"ab","base-currency":"a","quote-currency":"b","price-precision":2,"amount-precision":3,"state":"{state}","api-trading":"{trading}"}}]}}"#
        )
    };
    let contract = |kind: &str, status: u8| {
        format!(
            r#"{{"status":"ok","data":[{{"symbol":"A","contract_code":"A-USDT","contract_size":1,"price_tick":0.1,"contract_type":"{kind}","contract_status":{status},"delivery_time":""}}]}}"#
        )
    };
    let left_out = |kind, body: &str| instruments(kind, "htx", body).unwrap().1;
    assert_eq!(left_out(Kind::Spot, &pair("asleep", "enabled")), ["ab: state `asleep`"]);
    assert_eq!(left_out(Kind::Spot, &pair("online", "perhaps")), ["ab: api-trading `perhaps`"]);
    assert_eq!(left_out(Kind::Linear, &contract("forever", 1)), ["A-USDT: contract type `forever`"]);
    assert_eq!(left_out(Kind::Linear, &contract("swap", 77)), ["A-USDT: contract status 77"]);
    assert_eq!(left_out(Kind::Linear, &contract("quarter", 1)), ["A-USDT: a dated contract without its delivery time"]);
    let (known, _) = instruments(Kind::Spot, "htx", &pair("suspend", "enabled")).unwrap();
    assert!(!known[0].trading);
}

#[test]
fn a_refusal_is_told_in_the_venues_words() {
    for body in [
        r#"{"status":"error","err-code":"invalid-parameter","err-msg":"invalid symbol","ts":1}"#,
        r#"{"status":"error","err_code":1030,"err_msg":"invalid symbol","ts":1}"#,
    ] {
        let why = instruments(Kind::Spot, "htx", body).unwrap_err();
        assert!(why.starts_with("status `error`: ") && why.ends_with(" invalid symbol"), "{why}");
    }
    assert!(instruments(Kind::Spot, "htx", r#"{"status":"ok"}"#).unwrap_err().contains("without data"));
}

#[test]
fn the_recorded_candles_are_oldest_first_and_only_the_closed_ones_are_closed() {
    let Some(body) = example("/market/history/kline") else { return };
    let page = |before: i64, limit| HistoryPage {
        symbol: "btcusdt",
        timeframe: "5m".parse().unwrap(),
        before: Nanos(before * Nanos::PER_SECOND),
        limit,
    };
    let bars = history(Kind::Spot, page(1_629_769_300, 200), &body).unwrap();
    let told: Vec<_> = bars.iter().map(|b| (b.open_ts.as_ms() / 1000, b.close.to_string(), b.closed)).collect();
    assert_eq!(told, [(1_629_768_900, "49056.37".into(), Some(true)), (1_629_769_200, "49025.51".into(), Some(false))]);
    assert_eq!(bars[0].volume_quote.unwrap().to_string(), "1505870.732227976");
    assert_eq!(history(Kind::Spot, page(1_629_769_200, 200), &body).unwrap().len(), 1, "opened before");
    assert_eq!(history(Kind::Spot, page(1_629_769_300, 1), &body).unwrap()[0].open_ts, bars[1].open_ts, "the newest");
    let off = HistoryPage { timeframe: "4h".parse().unwrap(), ..page(1_629_769_300, 1) };
    assert!(history(Kind::Spot, off, &body).unwrap_err().contains("a candle of 4h that opens at"));
    for (width, asked) in [("4h", Some("/market/history/kline?symbol=btcusdt&period=4hour&size=2000")), ("3m", None)] {
        let page = HistoryPage { timeframe: width.parse().unwrap(), ..page(0, 1) };
        assert_eq!(history_request(Kind::Spot, page).map(|r| r.path).as_deref(), asked);
    }
}

#[test]
fn the_recorded_trades_over_rest_are_read_and_sorted() {
    let Some(body) = example("/linear-swap-ex/market/history/trade") else { return };
    let rows = trades(Kind::Linear, "BTC-USDT", &body).unwrap();
    let [Event::Trade(t)] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((t.id, t.size.to_string(), t.price.to_string()), (1_314_767_870_000, "1".into(), "13081.3".into()));
    assert!(t.backfill);
    // Spot's answer has the same form; its ids are those of the stream, under another name.
    let spot = r#"{"ch":"market.btcusdt.trade.detail","status":"ok","ts":1629792192037,"data":[{"id":136107843051,"ts":1629792191928,"data":[{"id":1.361078430513484e+26,"ts":1629792191928,"trade-id":102517374388,"amount":0.028416,"price":49806,"direction":"buy"},{"id":1.361078430513484e+26,"ts":1629792191928,"trade-id":102517374387,"amount":0.025794,"price":49806,"direction":"buy"}]}]}"#;
    let rows = trades(Kind::Spot, "btcusdt", spot).unwrap();
    let ids: Vec<u64> = rows.iter().map(|r| if let Event::Trade(t) = r { t.id } else { 0 }).collect();
    assert_eq!(ids, [102_517_374_387, 102_517_374_388]);
}

#[test]
fn the_recorded_books_over_rest_are_snapshots() {
    let Some(body) = read("rest_spot_depth.jsonl") else { return };
    for (kind, body) in [
        (Kind::Spot, body.lines().next().unwrap().to_owned()),
        (Kind::Inverse, read("rest_swap_depth.jsonl").unwrap().lines().nth(1).unwrap().to_owned()),
    ] {
        let mut out = Vec::new();
        crate::venue::htx::decode::decode(kind, crate::event::Frame::Text(&body), &mut out);
        let [Event::Book(book)] = &out[..] else { panic!("{out:?}") };
        assert_eq!((book.bids.len(), book.asks.len(), book.partial), (5, 5, false));
    }
}

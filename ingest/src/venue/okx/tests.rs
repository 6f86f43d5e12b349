//! OKX against its recordings: checksums, ids, REST bodies, private messages, words that are not known.

use std::io::Read;
use std::path::PathBuf;

use flate2::read::MultiGzDecoder;
use proptest::prelude::*;
use schemas::instrument::{InstrumentKind, OptionRight, SizeUnit};
use schemas::{Decimal, Instrument, Nanos, Side};
use serde_json::Value;

use super::{Okx, decode, rest};
use crate::book::{Levels, Outcome, Rule, Sync, View};
use crate::event::{Book, Control, Event, Frame};
use crate::venue::{HistoryPage, Venue};

fn events(frame: &str) -> Vec<Event> {
    let mut out = Vec::new();
    decode::decode(Frame::Text(frame), &mut out);
    out
}

fn folder() -> Option<PathBuf> {
    schemas::fixtures::root().map(|root| root.join("fixtures/venues/okx"))
}

/// The whole recording of 2022: `<seconds>: <frame>`, between lines about the connection.
fn recording() -> Option<Vec<Event>> {
    let path = schemas::fixtures::root()?.join("data/ws_raw/multi/OKX.ws.1.0.gz");
    let mut text = String::new();
    MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let frames = text.lines().filter(|line| line.as_bytes().first().is_some_and(u8::is_ascii_digit));
    Some(frames.filter_map(|line| line.split_once(": ")).flat_map(|(_, frame)| events(frame)).collect())
}

fn books(events: impl IntoIterator<Item = Event>) -> Vec<Book> {
    let book = |event| if let Event::Book(book) = event { Some(book) } else { None };
    events.into_iter().filter_map(book).collect()
}

/// A book as a session keeps it; the error is the checksum that does not agree.
struct Kept {
    sync: Sync,
    view: View,
    compared: u32,
}

impl Default for Kept {
    fn default() -> Self {
        Self { sync: Sync::new(Rule::Linked, 10), view: View::new(0, 50_000), compared: 0 }
    }
}

impl Kept {
    fn take(&mut self, book: Book) -> Result<(), String> {
        let mut said = Vec::new();
        assert_eq!(self.sync.take(book, &mut said), Outcome::Applied);
        for book in said {
            let sum = book.checksum;
            self.view.take(book).map_err(|crossed| format!("{crossed:?}"))?;
            if let Some(sum) = sum {
                self.view.disagrees(sum).map_or(Ok(()), Err)?;
                self.compared += 1;
            }
        }
        Ok(())
    }
}

#[test]
fn every_recorded_checksum_verifies() {
    let Some(all) = recording() else { return };
    let mut kept: std::collections::BTreeMap<_, Kept> = Default::default();
    for book in books(all) {
        kept.entry(book.symbol.clone()).or_default().take(book).unwrap();
    }
    let compared: Vec<_> = kept.iter().map(|(symbol, kept)| (symbol.as_str(), kept.compared)).collect();
    assert_eq!(compared, [("BTC-USD-220527", 99), ("BTC-USDT", 98), ("UNI-USD-SWAP", 93)]);
}

#[test]
fn a_change_that_was_lost_or_damaged_fails_the_checksum() {
    let Some(all) = recording() else { return };
    let all: Vec<Book> = books(all).into_iter().filter(|b| b.symbol == "BTC-USDT").collect();
    // Whatever single change is lost: it shows, unless it touched only what the later ones set anew or none covers.
    let mut noticed = 0;
    for lost in 1..all.len() - 1 {
        let mut kept = Kept::default();
        let rest = all.iter().enumerate().filter(|(n, _)| *n != lost).map(|(_, book)| kept.take(book.clone()));
        noticed += usize::from(rest.filter(Result::is_err).count() > 0);
    }
    assert!(noticed > 80, "only {noticed} of {} losses were noticed", all.len() - 2);
    let mut kept = Kept::default();
    kept.take(all[0].clone()).unwrap();
    let mut damaged = all[1].clone();
    damaged.asks[0].1 += Decimal::new(1, 8);
    assert!(kept.take(damaged).unwrap_err().starts_with("checksum "));
}

#[test]
fn a_checksum_of_zero_is_none() {
    let Some(folder) = folder() else { return };
    let text = std::fs::read_to_string(folder.join("ws_books_2026.jsonl")).unwrap();
    let all = books(text.lines().flat_map(events));
    assert_eq!(all.iter().map(|book| book.checksum).collect::<Vec<_>>(), [None; 3]);
    let price = |action: &str, sum: i32| {
        let frame = format!(
            r#"{{"arg":{{"channel":"books","instId":"X-Y"}},"action":"{action}","data":[{{"asks":[["5.10","1","0","1"]],"bids":[],"ts":"1","checksum":{sum},"seqId":1,"prevSeqId":-1}}]}}"#
        );
        books(events(&frame))[0].asks[0].0.to_string()
    };
    // A change keeps the digits that were sent only beside a checksum.
    assert_eq!([price("update", 0), price("update", -7), price("snapshot", 0)], ["5.1", "5.10", "5.10"]);
}

#[test]
fn the_present_form_chains_behind_a_snapshot_from_rest() {
    let Some(folder) = folder() else { return };
    let text = std::fs::read_to_string(folder.join("ws_books_2026.jsonl")).unwrap();
    let all = books(text.lines().flat_map(events));
    let mut snapshot = rest::book("BTC-USDT-SWAP", include_str!("tests/book.json")).unwrap();
    snapshot.seq_last = all[0].seq_prev;
    let (mut sync, mut levels, mut out) = (Sync::new(Rule::Linked, 10), Levels::default(), Vec::new());
    for book in all {
        assert_eq!(sync.take(book, &mut out), Outcome::Held);
    }
    assert_eq!(sync.take(snapshot, &mut out), Outcome::Applied);
    out.iter().for_each(|book| levels.apply(book));
    assert_eq!((out.len(), sync.sequence(), sync.breaks), (4, Some(342_177_342_909), 0));
    let best = levels.bids().next().unwrap();
    assert_eq!((best.0.to_string(), best.1.to_string()), ("84099.5".into(), "1811.71".into()));
}

#[test]
fn recorded_trade_ids_rise_by_one() {
    let Some(all) = recording() else { return };
    let mut ids: std::collections::BTreeMap<_, Vec<u64>> = Default::default();
    for event in all {
        if let Event::Trade(trade) = event {
            ids.entry(trade.symbol).or_default().push(trade.id);
        }
    }
    let count: Vec<_> = ids.iter().map(|(symbol, ids)| (symbol.as_str(), ids.len())).collect();
    assert_eq!(count, [("BTC-USD-220527", 4), ("BTC-USDT", 69), ("UNI-USD-SWAP", 1)]);
    for (symbol, ids) in ids {
        assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{symbol}: {ids:?}");
    }
}

proptest! {
    #[test]
    fn a_time_is_its_milliseconds_and_nothing_but_digits(ms in 0i64..9_000_000_000_000, junk in "[+ -]?[0-9]{0,3}[a-z. -]") {
        prop_assert_eq!(decode::stamp(&ms.to_string()), Ok(Nanos::from_ms(ms)));
        prop_assert!(decode::stamp(&junk).is_err());
        let signed = format!("+{ms}");
        prop_assert!(decode::stamp(&signed).is_err());
    }
}

#[test]
fn a_row_of_several_fills_uses_up_their_ids() {
    let said = events(
        r#"{"arg":{"channel":"trades","instId":"X-Y"},"data":[{"instId":"X-Y","tradeId":"12","px":"1","sz":"3","side":"buy","ts":"1740394561686","count":"3","source":"0","seqId":7}]}"#,
    );
    let ids: Vec<_> = said
        .iter()
        .map(|event| match event {
            Event::Ignored { trade: Some((symbol, id)), .. } => (false, symbol.as_str(), *id),
            Event::Trade(trade) => (true, trade.symbol.as_str(), trade.id),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, [(false, "X-Y", 10), (false, "X-Y", 11), (true, "X-Y", 12)]);
}

fn instruments(file: &str) -> Option<(Vec<Instrument>, Vec<String>)> {
    let body = std::fs::read_to_string(folder()?.join(file)).unwrap();
    Some(Okx.decode_instruments(Okx.markets()[0], &body).unwrap())
}

#[test]
fn the_recorded_instruments_have_their_terms() {
    let Some((spot, left)) = instruments("rest_instruments_SPOT.json") else { return };
    assert!(left.is_empty(), "{left:?}");
    let btc = spot.iter().find(|i| i.symbol == "BTC-USDT").unwrap();
    assert_eq!(
        (btc.kind, btc.size_unit, btc.terms.canonical.as_str()),
        (InstrumentKind::Spot, SizeUnit::Base, "BTC/USDT")
    );
    assert_eq!((btc.tick.to_string(), btc.lot.to_string()), ("0.1".into(), "0.00000001".into()));

    let row = |file: &str, symbol: &str| {
        let (list, left) = instruments(file).unwrap();
        assert!(left.is_empty(), "{left:?}");
        let i = list.into_iter().find(|i| i.symbol == symbol).unwrap();
        let (expiry, strike) = (i.terms.expiry_ns, i.terms.strike.map(|s| s.to_string()));
        assert_eq!((i.size_unit, i.trading, i.terms.status.as_str()), (SizeUnit::Contracts, true, "live"));
        (i.terms.canonical, i.kind, i.inverse, i.contract_size.to_string(), expiry, strike, i.terms.right)
    };
    use InstrumentKind::{Future, Option as Opt, Perpetual};
    let perpetual = |name: &str, inverse: bool, size: &str| {
        (name.to_owned(), Perpetual, inverse, size.to_owned(), None, None, None)
    };
    assert_eq!(row("rest_instruments_SWAP.json", "UNI-USD-SWAP"), perpetual("UNI/USD:UNI", true, "10"));
    assert_eq!(row("rest_instruments_SWAP.json", "BTC-USD-SWAP"), perpetual("BTC/USD:BTC", true, "100"));
    assert_eq!(row("rest_instruments_2026.jsonl", "BTC-USDT-SWAP"), perpetual("BTC/USDT:USDT", false, "0.01"));
    assert_eq!(
        row("rest_instruments_FUTURES.json", "BTC-USD-220520"),
        ("BTC/USD:BTC-220520".into(), Future, true, "100".into(), Some(1_653_033_600_000_000_000), None, None)
    );
    // An option's contract is a tenth of a coin: ctVal 1 x ctMult 0.1.
    assert_eq!(
        row("rest_instruments_OPTION_BTC-USD.json", "BTC-USD-220514-22000-P"),
        (
            "BTC/USD:BTC-220514-22000-P".into(),
            Opt,
            false,
            "0.1".into(),
            Some(1_652_515_200_000_000_000),
            Some("22000".into()),
            Some(OptionRight::Put)
        )
    );
    let (eth, left) = instruments("rest_instruments_OPTION_ETH-USD.json").unwrap();
    assert!(!eth.is_empty() && left.is_empty());
}

#[test]
fn an_instrument_of_an_unknown_kind_or_state_is_left_out_and_named() {
    let Some(folder) = folder() else { return };
    let body = std::fs::read_to_string(folder.join("rest_instruments_2026.jsonl")).unwrap();
    for (from, to, why) in [
        (r#""instType":"SWAP""#, r#""instType":"EVENTS""#, "kind `EVENTS`"),
        (r#""state":"live""#, r#""state":"rebase""#, "state `rebase`"),
        (r#""ctType":"linear""#, r#""ctType":"quanto""#, "contract type `quanto`"),
        (r#""tickSz":"0.1""#, r#""tickSz":"""#, "step ``"),
    ] {
        assert!(body.contains(from), "{from}");
        let (known, left) = Okx.decode_instruments(Okx.markets()[0], &body.replace(from, to)).unwrap();
        assert_eq!((known.len(), left), (0, vec![format!("BTC-USDT-SWAP: {why}")]));
    }
    let refused = Okx.decode_instruments(Okx.markets()[0], r#"{"code":"50011","msg":"Too Many Requests","data":[]}"#);
    assert_eq!(refused.unwrap_err(), "code 50011 Too Many Requests");
}

#[test]
fn instruments_are_asked_for_by_kind_and_options_by_family() {
    let symbols =
        ["BTC-USDT", "ETH-USDT", "BTC-USDT-SWAP", "BTC-USD-261225", "BTC-USD-261225-50000-C", "BTC-USD-261225-60000-C"];
    let requests = rest::instrument_requests(&symbols.map(str::to_owned));
    let paths: Vec<_> = requests.iter().map(|r| r.path.rsplit_once("instType=").unwrap().1).collect();
    assert_eq!(paths, ["FUTURES", "OPTION&instFamily=BTC-USD", "SPOT", "SWAP"]);
}

/// The recorded answer of a path.
fn example(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(folder()?.join("rest_examples.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.into_iter().find(|row| row["path"] == path).map(|row| row["response"].to_string())
}

#[test]
fn recent_trades_are_read_oldest_first_as_backfill() {
    for path in ["/api/v5/market/history-trades", "/api/v5/market/trades"] {
        let Some(body) = example(path) else { return };
        let trades = rest::trades(&body).unwrap();
        let ids: Vec<_> = trades.iter().map(|t| (t.id, t.backfill, t.side)).collect();
        assert_eq!(ids, [(242_720_719, true, Side::Sell), (242_720_720, true, Side::Sell)]);
    }
    let request = rest::trades_after("BTC-USDT", 41);
    assert_eq!(request.path, "/api/v5/market/history-trades?instId=BTC-USDT&type=1&after=142&limit=100");
}

#[test]
fn history_is_read_oldest_first() {
    let Some(body) = example("/api/v5/market/history-candles") else { return };
    let page = |symbol, timeframe: &str| HistoryPage {
        symbol,
        timeframe: timeframe.parse().unwrap(),
        before: Nanos(1_700_000_000_000_000_000),
        limit: 200,
    };
    let bars = Okx.decode_history(Okx.markets()[0], page("X-Y-SWAP", "3m"), &body).unwrap();
    let closes: Vec<_> = bars.iter().map(|b| (b.close.to_string(), b.closed, b.interval.as_str())).collect();
    assert_eq!(closes, [("3.72".into(), Some(false), "3m"), ("3.708".into(), Some(false), "3m")]);
    let (base, contracts) = (bars[0].volume_base.unwrap(), bars[0].volume.unwrap());
    assert_eq!((base.to_string(), contracts.to_string()), ("67632347.24399722".into(), "24912403".into()));
    let path = |timeframe| Okx.history_request(Okx.markets()[0], page("BTC-USDT", timeframe)).map(|r| r.path);
    assert_eq!(
        path("4h").unwrap(),
        "/api/v5/market/history-candles?instId=BTC-USDT&bar=4H&after=1700000000000&limit=100"
    );
    assert!(path("1d").unwrap().contains("bar=1Dutc"));
    assert_eq!(path("10m"), None);
}

#[test]
fn a_rest_book_has_its_place_in_the_sequence_where_the_venue_tells_it() {
    let Some(folder) = folder() else { return };
    for body in std::fs::read_to_string(folder.join("rest_books.jsonl")).unwrap().lines() {
        let book = rest::book("BTC-USDT", body).unwrap();
        assert_eq!((book.bids.len(), book.asks.len(), book.seq_last), (3, 3, None));
    }
    assert_eq!(rest::book("X-Y", include_str!("tests/book.json")).unwrap().seq_last, Some(1));
    assert_eq!(rest::book("X-Y", r#"{"code":"0","msg":"","data":[]}"#).unwrap_err(), "an answer without a book");
}

#[test]
fn private_messages_say_orders_fills_and_balances() {
    let Some(folder) = folder() else { return };
    let kinds = |file: &str| -> Vec<String> {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let kind = |event| match event {
            Event::Order(o) => format!("order {} {}", o.client_order_id, o.status),
            Event::Fill(f) => format!("fill {} paid {} {}", f.trade_id, f.fee, f.fee_asset.unwrap_or_default()),
            Event::Balance { asset, free, locked, .. } => format!("{asset} {free} {locked}"),
            Event::Other(name) => format!("other {name}"),
            other => panic!("{other:?}"),
        };
        text.lines().flat_map(events).map(kind).collect()
    };
    // Inside a fee that was paid is positive.
    assert_eq!(
        kinds("ws_private_orders.jsonl"),
        [
            "order  filled",
            "fill 242589207 paid 0.02522168 USDT",
            "order  filled",
            "order  live",
            "order fm000500000025 filled",
            "fill 1413632420 paid 0.001680388 USDT"
        ]
    );
    assert_eq!(kinds("ws_private_account.jsonl"), ["USDT 4734.371190691436 158.57998"]);
    assert_eq!(kinds("ws_private_fills.jsonl"), ["other fills"]);
    assert_eq!(kinds("ws_private_positions.jsonl"), ["other positions"]);
}

#[test]
fn a_fill_whose_own_fee_is_not_told_is_not_guessed() {
    let Some(folder) = folder() else { return };
    let text = std::fs::read_to_string(folder.join("ws_private_orders.lgpl.jsonl")).unwrap();
    assert!(matches!(&events(&text)[..], [Event::Order(_), Event::Fill(_)]));
    // One of several fills, and only the sum of their fees.
    let partly = text.replace(r#""accFillSz":"0.03""#, r#""accFillSz":"0.05""#);
    let said = events(&partly);
    let why = "fill 1518905529 of order 2497956918703120384 without its fee";
    assert_eq!(said.last(), Some(&Event::Malformed(why.to_owned())));
}

#[test]
fn what_the_venue_says_of_the_connection() {
    let one = |frame: &str| events(frame).remove(0);
    let ack = |id: &str| Event::Control(Control::Ack { id: id.to_owned() });
    assert_eq!(one("pong"), Event::Control(Control::Pong));
    assert_eq!(
        one(r#"{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a"}"#),
        ack("books:BTC-USDT")
    );
    assert_eq!(one(r#"{"event":"subscribe","arg":{"channel":"status"}}"#), ack("status"));
    assert_eq!(
        one(r#"{"event":"unsubscribe","arg":{"channel":"liquidation-orders","instType":"SWAP"}}"#),
        ack("unsubscribe liquidation-orders:SWAP")
    );
    assert_eq!(one(r#"{"id":"7","op":"order","data":[{"sCode":"0"}],"code":"0","msg":""}"#), ack("7"));
    let error = |id: &str, code: i64, frame: &str| match one(frame) {
        Event::Error { code: found, id: Some(of), .. } => assert_eq!((found, of.as_str()), (Some(code), id)),
        other => panic!("{other:?}"),
    };
    error(
        "candle1m:BTC-USD-SWAP",
        60018,
        r#"{"event":"error","id":"3","msg":"Wrong URL or channel:candle1m,instId:BTC-USD-SWAP doesn't exist. Please use the correct URL, channel and parameters referring to API document.","code":"60018","connId":"2b5dc6ac"}"#,
    );
    error("3", 60012, r#"{"event":"error","id":"3","msg":"Illegal request","code":"60012"}"#);
    assert_eq!(
        one(r#"{"event":"notice","code":"64008","msg":"soon","connId":"a"}"#),
        Event::Control(Control::ServerShutdown)
    );
    assert_eq!(
        one(r#"{"event":"channel-conn-count","channel":"orders","connCount":"2","connId":"a"}"#),
        Event::Other("channel-conn-count".into())
    );
}

#[test]
fn an_unknown_word_is_not_guessed() {
    let reason = |frame: &str| match &events(frame)[..] {
        [Event::Malformed(reason)] => reason.clone(),
        other => panic!("{other:?}"),
    };
    let data =
        |channel: &str, rest: &str| reason(&format!(r#"{{"arg":{{"channel":"{channel}","instId":"X-Y"}},{rest}}}"#));
    let trade = r#""data":[{"instId":"X-Y","tradeId":"9","px":"1","sz":"1","side":"up","ts":"1"}]"#;
    assert_eq!(data("trades", trade), "trade 9 has side `up`");
    assert_eq!(data("books", r#""action":"patch","data":[]"#), "book message with action `patch`");
    assert_eq!(data("gossip", r#""data":[]"#), "unknown channel `gossip`");
    assert_eq!(data("candle7m", r#""data":[]"#), "unknown channel `candle7m`");
    assert_eq!(data("candle1m", r#""data":[["1","1","1","1","1","1","1","1","2"]]"#), "candle with confirm `2`");
    assert_eq!(data("candle1m", r#""data":[["1","1","1"]]"#), "candle of 3 values");
    assert_eq!(reason(r#"{"event":"gossip"}"#), "unknown event `gossip`");
    assert_eq!(reason(r#"{"op":"pray","id":"1","code":"0"}"#), "answer to an unknown request `pray`");
    assert_eq!(reason(r#"{"answer":42}"#), "neither channel data nor an answer");
    let Some(folder) = folder() else { return };
    let order = std::fs::read_to_string(folder.join("ws_private_orders.jsonl")).unwrap();
    let order = order.lines().next().unwrap().replace(r#""state":"filled""#, r#""state":"lost""#);
    assert_eq!(reason(&order), "order 452197707845865472 has state `lost`");
}

//! Descriptions: the examples, what is refused, a built-in venue described, and described venues at work.

use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use schemas::Nanos;

use super::keys::Problems;
use super::message::About;
use super::*;
use crate::event::{Control, Event, Frame};
use crate::venue::{HistoryPage, Venue, by_id};

#[cfg(feature = "stage")]
mod live;
mod polling;
mod rows;

pub const BINANCE: &str = include_str!("../../examples/venues/binance-spot.toml");
const KRAKEN: &str = include_str!("../../examples/venues/kraken.toml");
const BITSTAMP: &str = include_str!("../../examples/venues/bitstamp-rest.toml");
const DAILY: &str = include_str!("../../examples/venues/daily-csv.toml");
const EXAMPLES: [(&str, &str); 4] = [
    ("binance-spot.toml", BINANCE),
    ("kraken.toml", KRAKEN),
    ("bitstamp-rest.toml", BITSTAMP),
    ("daily-csv.toml", DAILY),
];

fn parse(text: &str) -> Arc<Description> {
    let description = Description::parse("x.toml", text);
    Arc::new(description.unwrap_or_else(|problems| panic!("{}", together(problems))))
}

fn example_file(name: &str) -> BufReader<std::fs::File> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/venues").join(name);
    BufReader::new(std::fs::File::open(path).unwrap())
}

#[test]
fn every_example_is_a_description_and_together_they_name_every_key() {
    let manual: String = EXAMPLES.iter().map(|(_, text)| *text).collect();
    let says = |key: &str| manual.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|word| word == key);
    for (file, text) in EXAMPLES {
        let table: toml::Table = text.parse().unwrap();
        let problems = Problems::new(file);
        let read = Description::read_all(&table, text, &problems);
        let missing: Vec<&str> = problems.known.borrow().iter().copied().filter(|key| !says(key)).collect();
        assert!(missing.is_empty(), "{file}: the manual does not name {missing:?}");
        let wrong = problems.into_vec();
        assert!(read.is_some() && wrong.is_empty(), "{}", together(wrong));
    }
}

#[test]
fn the_samples_of_the_examples_are_understood_whole() {
    let kraken = sample::check(&parse(KRAKEN), "", "", example_file("kraken.synthetic.jsonl")).unwrap();
    assert_eq!((kraken.lines, kraken.wrong), (12, 0), "{:?}", kraken.first_wrong);
    let count = |report: &sample::Report, kind: &str, symbol: &str| report.events[kind].get(symbol).copied();
    assert_eq!(count(&kraken, "trade", "BTCUSD"), Some(3));
    assert_eq!(count(&kraken, "book", "BTCUSD"), Some(2));
    assert_eq!(count(&kraken, "bar", "BTCUSD"), Some(1));
    assert_eq!(count(&kraken, "ticker", "BTCUSD"), Some(1));
    assert_eq!(count(&kraken, "error", ""), Some(1));
    assert!(kraken.messages.iter().all(|m| m.lines > 0), "{:?}", kraken.messages);

    let daily = sample::check(&parse(DAILY), "", "", example_file("daily.synthetic.csv")).unwrap();
    assert_eq!((daily.lines, daily.wrong), (8, 0), "{:?}", daily.first_wrong);
    assert_eq!((count(&daily, "bar", "EURUSD-X"), count(&daily, "bar", "GOLD-X")), (Some(4), Some(3)));
    // Gold had no Friday; the weekend is none.
    assert_eq!((count(&daily, "gap", "EURUSD-X"), count(&daily, "gap", "GOLD-X")), (None, Some(1)));
}

#[test]
fn a_frame_of_the_crypto_example_says_exact_numbers_under_our_name() {
    let mut out = Vec::new();
    let frame = r#"{"channel":"trade","type":"snapshot","data":[{"symbol":"BTC/USD","side":"buy","price":100.20,"qty":1e-7,"trade_id":12,"timestamp":"2030-01-01T00:00:02.500000001Z"}]}"#;
    parse(KRAKEN).decode(frame, About::default(), &mut out);
    let [Event::Trade(trade)] = &out[..] else { panic!("{out:?}") };
    let numbers = (trade.price.to_string(), trade.size.to_string(), trade.ts.0 % 1_000_000_000);
    assert_eq!(numbers, ("100.2".into(), "0.0000001".into(), 500_000_001));
    assert_eq!((trade.symbol.as_str(), trade.id, trade.backfill), ("BTCUSD", 12, true));
}

/// A small description that is right, to be made wrong.
const SMALL: &str = r#"
name = "Small"
trade_ids = "rising"
[connect]
url = "wss://example.com"
rest = "https://example.com"
[subscribe]
message = '{"op":"sub","args":[{topics}],"id":{id}}'
unsubscribe = '{"op":"unsub","args":[{topics}],"id":{id}}'
topics_per_message = 10
answer = "id"
[[channel]]
name = "trades"
topic = "trade.{symbol}"
carries = "trades"
[book]
rule = "chain"
[[message]]
kind = "ack"
when = { "op" = "ok" }
id = "id"
[[message]]
kind = "trade"
when = { "ch" = { starts = "trade." } }
list = "data[*]"
symbol = "s"
price = "p"
size = "q"
id = "i"
side = { at = "d", buy = "b", sell = "s" }
time = { at = "t", unit = "ms" }
"#;

/// Changes of [`SMALL`], and what is said of each: `key: what stands there -> what is put there ! part of the reason`.
const WRONG: &str = r#"
trade_ids: trade_ids = "rising" -> nothing ! consecutive, rising, unordered or none
trade_ids: trade_ids = "rising" -> trade_ids = "random" ! `random` stands there; allowed is consecutive
nam: name = "Small" -> nam = "Small" ! is unknown here; there are: backfill, book, channel
size_unit: name = "Small" -> size_unit = 7 ! `7` stands there; allowed is base, quote_usd, contracts
connect.url: url = "wss://example.com" -> url = "http://example.com" ! does not begin with wss:// or ws://
connect.url: url = "wss://example.com" -> nothing ! is absent; channels with a `topic` need it
subscribe.topics_per_message: topics_per_message = 10 -> topics_per_message = 0 ! `0` stands there; allowed is a whole number in 1..=10000
subscribe.message: [{topics}],"id":{id}}'\nun -> [{topic}],"id":{id}}'\nun ! topics_per_message must be 1
subscribe.message: [{topics}],"id":{id}}'\nun -> [{topics},"id":{id}}'\nun ! no JSON
subscribe.message: [{topics}],"id":{id}}'\nun -> [{topics}]}'\nun ! has no {id}
subscribe.message: [{topics}],"id":{id}}'\nun -> [{everything}],"id":{id}}'\nun ! {everything} is unknown; there are: {id}
subscribe.answer: answer = "id" -> answer = "maybe" ! allowed is id, topic, nothing
channel[1].topic: topic = "trade.{symbol}" -> topic = "trade.{pair}" ! {pair} is unknown; there are: {symbol}, {lower}, {upper}
channel[1].topic: topic = "trade.{symbol}" -> nothing ! or `get`, a path that is polled
channel[1].get: topic = "trade.{symbol}" -> get = "trades"\nevery_ms = 1000 ! a path that begins with /
channel[1].every_ms: topic = "trade.{symbol}" -> get = "/trades" ! is absent
channel[1].carries: carries = "trades" -> carries = "all" ! `all` stands there; allowed is trades, book, other
channel[1].name: name = "trades" -> name = "history" ! cannot be backfill, history, snapshot
book.get: rule = "chain" -> rule = "first_last" ! starts from a snapshot by REST
book.get: rule = "chain" -> rule = "chain"\nget = "/b" ! comes on the channel itself
book.rule: rule = "chain" -> rule = "guess" ! first_last, previous_last, chain, asked, linked, counted, unnumbered, whole
book.depth: rule = "chain" -> rule = "chain"\ndepth = -1 ! 1..=100000
message[1].kind: kind = "ack" -> kind = "nod" ! allowed is trade, quote, book, bar, ticker, ack
subscribe.answer: kind = "ack"\nwhen = { "op" = "ok" }\nid = "id" -> kind = "heartbeat" ! no [[message]] has kind = "ack"
message[1].when.o..p: when = { "op" = "ok" } -> when = { "o..p" = "ok" } ! is no path
message[1].when.op: when = { "op" = "ok" } -> when = { "op" = { like = "o" } } ! { exists = true }
message[1].when.op[*]: when = { "op" = "ok" } -> when = { "op[*]" = "ok" } ! without [*]
message[2].list: list = "data[*]" -> list = "data" ! `data` stands for one value; allowed is a path with [*]
message[2].price: price = "p" -> price = "p[*]" ! stands for many values
message[2].price: price = "p" -> nothing ! is absent; it is needed: the price's path
message[2].bid: price = "p" -> price = "p"\nbid = "b" ! is unknown here
message[2].id: id = "i" -> nothing ! because trade_ids is not "none"
message[2].symbol: symbol = "s" -> nothing ! tells its symbol nowhere else
message[2].symbol.case: symbol = "s" -> symbol = { at = "s", case = "title" } ! allowed is upper, lower
message[2].side.buy: buy = "b",  -> nothing ! the venue's word for it
message[2].side.buy: buy = "b",  -> buy = 0.5,  ! `0.5` stands there; allowed are texts
message[2].time.unit: unit = "ms" -> unit = "minutes" ! `minutes` stands there; allowed is s, ms, us, ns, magnitude, rfc3339
message[2].time.form: unit = "ms" -> form = "%Q" ! is no form of a time
message[2].time.unit: unit = "ms" -> nothing ! is absent
ping: [book] -> [ping]\nevery_ms = 1000\nmessage = "p"\n[book] ! no [[message]] has kind = "pong"
backfill.get: [book] -> [backfill]\nget = "/t?from={since}"\n[book] ! {since} is unknown; there are: {symbol}, {lower}, {upper}, {after}, {next}
history.widths.1y: [book] -> [history]\nget = "/t"\nwidths = { "1y" = "1y" }\n[book] ! is not a timeframe
symbols.B: [book] -> [symbols]\nA = "x"\nB = "x"\n[book] ! the venue's name of A already
instrument.tick: [book] -> [instrument]\ntick = 0.1\n[book] ! a decimal in quotes
files.format: [book] -> [files]\nformat = "xls"\n[book] ! `xls` stands there; allowed is csv, ndjson
files.delimiter: [book] -> [files]\nformat = "csv"\ndelimiter = "||"\n[book] ! one ASCII character
files.calendar.closed_days: [book] -> [files]\nformat = "csv"\n[files.calendar]\nclosed_days = ["sunday"]\n[book] ! `sunday` stands there
files.calendar.closed_dates: [book] -> [files]\nformat = "csv"\n[files.calendar]\nclosed_dates = ["2024-02-30"]\n[book] ! dates such as
limits.messages_per_s: [book] -> [limits]\nmessages_per_s = "5"\n[book] ! a whole number
"#;

#[test]
fn what_is_wrong_is_told_with_its_key_what_stands_there_and_what_is_allowed() {
    parse(SMALL);
    let parts = |line: &'static str| {
        let (key, rest) = line.split_once(": ")?;
        let (change, why) = rest.split_once(" ! ")?;
        let (old, new) = change.split_once(" -> ")?;
        let new = if new == "nothing" { "" } else { new };
        Some((key, old.replace("\\n", "\n"), new.replace("\\n", "\n"), why))
    };
    let cases: Vec<_> = WRONG.trim().lines().map(|line| parts(line).expect(line)).collect();
    assert_eq!(cases.len(), 49);
    for (key, old, new, why) in cases {
        let text = SMALL.replacen(&old, &new, 1);
        assert_ne!(text, SMALL, "{old}");
        let Err(problems) = Description::parse("x.toml", &text) else { panic!("{old} -> {new} is accepted") };
        let found = problems.iter().any(|p| p.key == key && p.why.contains(why) && p.file == "x.toml");
        assert!(found, "{old} -> {new}: expected {key}: ..{why}.., found {problems:#?}");
    }
    let broken = Description::parse("x.toml", "name = ").unwrap_err();
    assert_eq!(broken[0].key, "(syntax)");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = SMALL
        .replace("price = \"p\"", "")
        .replace("carries = \"trades\"", "carries = \"x\"")
        .replace("unit = \"ms\"", "");
    let problems = Description::parse("x.toml", &text).unwrap_err();
    let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["channel[1].carries", "message[2].price", "message[2].time.unit"]);
    assert!(together(problems).to_string().lines().count() == 3);
}

#[test]
fn what_a_frame_says_wrong_is_told_with_the_message_and_its_place() {
    let reason = |frame: &str| {
        let mut out = Vec::new();
        parse(SMALL).decode(frame, About::default(), &mut out);
        match out.pop() {
            Some(Event::Malformed(why)) => why,
            other => panic!("{frame}: {other:?}"),
        }
    };
    let row = |row: &str| reason(&format!(r#"{{"ch":"trade.X","data":[{row}]}}"#));
    assert_eq!(row(r#"{"s":"X","p":"1","q":"1","i":1,"d":"b"}"#), "message[2] (trade): nothing at `t`");
    assert_eq!(
        row(r#"{"s":"X","p":"one","q":"1","i":1,"d":"b","t":1}"#),
        "message[2] (trade): \"one\" at `p` is no number"
    );
    assert_eq!(
        row(r#"{"s":"X","p":"1","q":"1","i":1,"d":"up","t":1}"#),
        "message[2] (trade): \"up\" at `d` is no side: buy is \"b\", sell is \"s\""
    );
    assert_eq!(row(r#"{"s":"X","p":"1","q":"0","i":1,"d":"b","t":1}"#), "message[2] (trade): a trade of size 0");
    let good = r#"{"s":"X","p":"1","q":"1","i":1,"d":"b","t":1}"#;
    assert_eq!(row(&format!("{good},{{}}")), "message[2] (trade): 1 of 2 rows: nothing at `s`");
    assert_eq!(reason(r#"{"ch":"trade.X"}"#), "message[2] (trade): no list at `data[*]`");
    assert_eq!(reason(r#"{"x":1}"#), "none of the 2 [[message]] tables is of this: an object of x");
    assert!(reason("{").starts_with("no JSON: "));
}

#[test]
fn trades_without_ids_are_told_apart_by_what_they_say_and_their_count() {
    let text = SMALL
        .replace("\"rising\"", "\"none\"")
        .replace("id = \"i\"", "")
        .replace("{ at = \"d\", buy = \"b\", sell = \"s\" }", "{ sign_of = \"q\" }");
    let mut out = Vec::new();
    let row = r#"{"s":"X","p":"1","q":-2,"t":1}"#;
    let frame = format!(r#"{{"ch":"trade.X","data":[{row},{row},{}]}}"#, row.replace('X', "Y"));
    parse(&text).decode(&frame, About::default(), &mut out);
    let said: Vec<(String, String)> = out
        .iter()
        .map(|event| match event {
            Event::Trade(t) => (t.venue_id.as_ref().unwrap().to_string(), format!("{} {}", t.size, t.side.as_str())),
            other => panic!("{other:?}"),
        })
        .collect();
    let want = ["1000000-1-2-sell", "1000000-1-2-sell-2", "1000000-1-2-sell"];
    assert_eq!(said, want.map(|id| (id.to_owned(), "2 sell".to_owned())));
}

/// Lines of fixtures that the description does not speak of, and how many there are of each.
fn beside(events: &[Event], line: &str) -> bool {
    let aggregate = events.iter().any(|e| matches!(e, Event::Trade(t) if t.aggregate.is_some()));
    aggregate || line.contains("!ticker@arr")
}

#[test]
fn a_built_in_venue_that_is_described_says_the_same_of_every_recorded_frame() {
    let Some(root) = schemas::fixtures::root() else { return };
    let folder = root.join("fixtures/venues/binance");
    let (venue, market) = by_id("binance").unwrap();
    let description = parse(BINANCE);
    let (mut same, mut left_out, mut trades, mut quotes) = (0, 0, 0, 0);
    let whole =
        ["trade", "bookTicker", "depth", "kline", "24hrTicker", "24hrMiniTicker", "partialDepth", "serverShutdown"];
    let files = whole.map(|name| format!("ws_spot_{name}.jsonl")).into_iter();
    let sequences = ["blzeth_2021", "btcusdt_2024", "nknusdt_2021"].map(|name| format!("seq_spot_{name}.jsonl"));
    for file in files.chain(sequences) {
        let text = std::fs::read_to_string(folder.join(&file)).unwrap();
        for (n, line) in text.lines().enumerate() {
            let (mut want, mut got) = (Vec::new(), Vec::new());
            venue.decode(market, Frame::Text(line), &mut want);
            if beside(&want, line) {
                left_out += 1;
                continue;
            }
            description.decode(line, About::default(), &mut got);
            assert_eq!(got, want, "{file}:{}", n + 1);
            same += 1;
            trades += want.iter().filter(|e| matches!(e, Event::Trade(_))).count();
            quotes += want.iter().filter(|e| matches!(e, Event::Bbo(_))).count();
        }
    }
    assert_eq!((same, left_out, trades, quotes), (1753, 2, 231, 1214));
}

#[test]
fn answers_of_a_described_venue_are_read_as_the_built_in_one_reads_them() {
    let description = parse(BINANCE);
    let say = |frame: &str| {
        let mut out = Vec::new();
        description.decode(frame, About::default(), &mut out);
        out
    };
    assert_eq!(say(r#"{"result":null,"id":3}"#), [Event::Control(Control::Ack { id: "3".into() })]);
    let (venue, market) = by_id("binance").unwrap();
    for frame in [
        r#"{"error":{"code":2,"msg":"Invalid request: unknown variant"},"id":7}"#,
        r#"{"code":-1121,"msg":"Invalid symbol."}"#,
    ] {
        let mut want = Vec::new();
        venue.decode(market, Frame::Text(frame), &mut want);
        assert_eq!(say(frame), want, "{frame}");
    }
    let described = register("described-history", "x.toml", BINANCE).unwrap();
    let page = HistoryPage {
        symbol: "BTCUSDT",
        timeframe: "3m".parse().unwrap(),
        before: Nanos::from_ms(1_700_000_100_000),
        limit: 2,
    };
    let (own, theirs) = (described as &dyn Venue, (venue, market));
    let body = r#"[[1699999920000,"1.0","3","0.5","2","10",1700000099999,"20",5,"1","2","0"],[1700000100000,"2","2","2","2","1",1700000279999,"2",1,"1","2","0"]]"#;
    let got = own.decode_history(described.market(), page, body).unwrap();
    let mut want = theirs.0.decode_history(theirs.1, page, body).unwrap();
    want.retain(|bar| bar.open_ts < page.before);
    want.iter_mut().for_each(|bar| bar.closed = None);
    assert_eq!(got, want);
    let path = own.history_request(described.market(), page).unwrap().path;
    assert_eq!(path, "/api/v3/klines?symbol=BTCUSDT&interval=3m&endTime=1700000100000&limit=2");
}

#[test]
fn a_registered_description_is_found_like_a_built_in_venue() {
    let first = register("kraken-found", "kraken.toml", KRAKEN).unwrap();
    let again = register("kraken-found", "kraken.toml", KRAKEN).unwrap();
    assert!(std::ptr::eq(first, again), "the same text again is the same venue");
    let (venue, market) = by_id("kraken-found").unwrap();
    assert_eq!(
        (venue.id(), market.id, venue.book_rule(market)),
        ("kraken-found", "kraken-found", crate::book::Rule::Unnumbered)
    );
    assert!(venue.check_channel(market, "tradez").unwrap_err().contains("trades, book, ticker, candles"));
    let stated = venue.stated_instruments(market, &["BTCUSD".into(), "SOLUSD".into()]).unwrap();
    assert_eq!((stated[0].tick.to_string().as_str(), stated[0].terms.canonical.as_str()), ("0.1", "BTC/USD"));
    assert_eq!(
        (stated[1].base.as_str(), stated[1].quote.as_str(), stated[1].tick.to_string().as_str()),
        ("SOLUSD", "USD", "0")
    );
    let other = register("kraken-found", "x.toml", SMALL).unwrap();
    assert_eq!(registered("kraken-found").map(|d| &d.description.digest), Some(&other.description.digest));
    let why = together(register("binance", "x.toml", SMALL).unwrap_err()).to_string();
    assert!(why.contains("built-in venue"), "{why}");
    assert!(by_id("nobody").is_none());
}

proptest! {
    #[test]
    fn no_frame_makes_a_description_panic_and_none_is_lost(frame in ".{0,60}", text in r#"\{"ch":"trade\.X","data":\[[\[\]\{\}":,spqidt0-9.-]{0,40}\]\}"#) {
        for frame in [frame, text] {
            let mut out = Vec::new();
            parse(SMALL).decode(&frame, About::default(), &mut out);
            prop_assert!(!out.is_empty() || frame.contains("[]"), "{}", frame);
        }
    }
}

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

#[test]
fn what_is_wrong_is_told_with_its_key_what_stands_there_and_what_is_allowed() {
    parse(SMALL);
    for (old, new, key, why) in [
        ("trade_ids = \"rising\"", "", "trade_ids", "consecutive, rising, unordered or none"),
        (
            "trade_ids = \"rising\"",
            "trade_ids = \"random\"",
            "trade_ids",
            "`random` stands there; allowed is consecutive",
        ),
        ("name = \"Small\"", "nam = \"Small\"", "nam", "is unknown here; there are: backfill, book, channel"),
        ("name = \"Small\"", "size_unit = 7", "size_unit", "`7` stands there; allowed is base, quote_usd, contracts"),
        (
            "url = \"wss://example.com\"",
            "url = \"http://example.com\"",
            "connect.url",
            "does not begin with wss:// or ws://",
        ),
        ("url = \"wss://example.com\"", "", "connect.url", "is absent; channels with a `topic` need it"),
        (
            "topics_per_message = 10",
            "topics_per_message = 0",
            "subscribe.topics_per_message",
            "`0` stands there; allowed is a whole number in 1..=10000",
        ),
        (
            "[{topics}],\"id\":{id}}'\nun",
            "[{topic}],\"id\":{id}}'\nun",
            "subscribe.message",
            "topics_per_message must be 1",
        ),
        ("[{topics}],\"id\":{id}}'\nun", "[{topics},\"id\":{id}}'\nun", "subscribe.message", "no JSON"),
        ("[{topics}],\"id\":{id}}'\nun", "[{topics}]}'\nun", "subscribe.message", "has no {id}"),
        (
            "[{topics}],\"id\":{id}}'\nun",
            "[{everything}],\"id\":{id}}'\nun",
            "subscribe.message",
            "{everything} is unknown; there are: {id}",
        ),
        ("answer = \"id\"", "answer = \"maybe\"", "subscribe.answer", "allowed is id, topic, nothing"),
        (
            "topic = \"trade.{symbol}\"",
            "topic = \"trade.{pair}\"",
            "channel[1].topic",
            "{pair} is unknown; there are: {symbol}, {lower}, {upper}",
        ),
        ("topic = \"trade.{symbol}\"", "", "channel[1].topic", "or `get`, a path that is polled"),
        (
            "topic = \"trade.{symbol}\"",
            "get = \"trades\"\nevery_ms = 1000",
            "channel[1].get",
            "a path that begins with /",
        ),
        ("topic = \"trade.{symbol}\"", "get = \"/trades\"", "channel[1].every_ms", "is absent"),
        (
            "carries = \"trades\"",
            "carries = \"all\"",
            "channel[1].carries",
            "`all` stands there; allowed is trades, book, other",
        ),
        ("name = \"trades\"", "name = \"history\"", "channel[1].name", "cannot be backfill, history, snapshot"),
        ("rule = \"chain\"", "rule = \"first_last\"", "book.get", "starts from a snapshot by REST"),
        ("rule = \"chain\"", "rule = \"chain\"\nget = \"/b\"", "book.get", "comes on the channel itself"),
        (
            "rule = \"chain\"",
            "rule = \"guess\"",
            "book.rule",
            "first_last, previous_last, chain, asked, linked, counted, unnumbered, whole",
        ),
        ("rule = \"chain\"", "rule = \"chain\"\ndepth = -1", "book.depth", "1..=100000"),
        ("kind = \"ack\"", "kind = \"nod\"", "message[1].kind", "allowed is trade, quote, book, bar, ticker, ack"),
        (
            "kind = \"ack\"\nwhen = { \"op\" = \"ok\" }\nid = \"id\"",
            "kind = \"heartbeat\"",
            "subscribe.answer",
            "no [[message]] has kind = \"ack\"",
        ),
        ("when = { \"op\" = \"ok\" }", "when = { \"o..p\" = \"ok\" }", "message[1].when.o..p", "is no path"),
        (
            "when = { \"op\" = \"ok\" }",
            "when = { \"op\" = { like = \"o\" } }",
            "message[1].when.op",
            "{ exists = true }",
        ),
        ("when = { \"op\" = \"ok\" }", "when = { \"op[*]\" = \"ok\" }", "message[1].when.op[*]", "without [*]"),
        (
            "list = \"data[*]\"",
            "list = \"data\"",
            "message[2].list",
            "`data` stands for one value; allowed is a path with [*]",
        ),
        ("price = \"p\"", "price = \"p[*]\"", "message[2].price", "stands for many values"),
        ("price = \"p\"", "", "message[2].price", "is absent; it is needed: the price's path"),
        ("price = \"p\"", "price = \"p\"\nbid = \"b\"", "message[2].bid", "is unknown here"),
        ("id = \"i\"", "", "message[2].id", "because trade_ids is not \"none\""),
        ("symbol = \"s\"", "", "message[2].symbol", "tells its symbol nowhere else"),
        (
            "symbol = \"s\"",
            "symbol = { at = \"s\", case = \"title\" }",
            "message[2].symbol.case",
            "allowed is upper, lower",
        ),
        ("buy = \"b\", ", "", "message[2].side.buy", "the venue's word for it"),
        ("buy = \"b\", ", "buy = 0.5, ", "message[2].side.buy", "`0.5` stands there; allowed are texts"),
        (
            "unit = \"ms\"",
            "unit = \"minutes\"",
            "message[2].time.unit",
            "`minutes` stands there; allowed is s, ms, us, ns, magnitude, rfc3339",
        ),
        ("unit = \"ms\"", "form = \"%Q\"", "message[2].time.form", "is no form of a time"),
        ("unit = \"ms\"", "", "message[2].time.unit", "is absent"),
        ("[book]", "[ping]\nevery_ms = 1000\nmessage = \"p\"\n[book]", "ping", "no [[message]] has kind = \"pong\""),
        (
            "[book]",
            "[backfill]\nget = \"/t?from={since}\"\n[book]",
            "backfill.get",
            "{since} is unknown; there are: {symbol}, {lower}, {upper}, {after}, {next}",
        ),
        (
            "[book]",
            "[history]\nget = \"/t\"\nwidths = { \"1y\" = \"1y\" }\n[book]",
            "history.widths.1y",
            "is not a timeframe",
        ),
        ("[book]", "[symbols]\nA = \"x\"\nB = \"x\"\n[book]", "symbols.B", "the venue's name of A already"),
        ("[book]", "[instrument]\ntick = 0.1\n[book]", "instrument.tick", "a decimal in quotes"),
        ("[book]", "[files]\nformat = \"xls\"\n[book]", "files.format", "`xls` stands there; allowed is csv, ndjson"),
        ("[book]", "[files]\nformat = \"csv\"\ndelimiter = \"||\"\n[book]", "files.delimiter", "one ASCII character"),
        (
            "[book]",
            "[files]\nformat = \"csv\"\n[files.calendar]\nclosed_days = [\"sunday\"]\n[book]",
            "files.calendar.closed_days",
            "`sunday` stands there",
        ),
        (
            "[book]",
            "[files]\nformat = \"csv\"\n[files.calendar]\nclosed_dates = [\"2024-02-30\"]\n[book]",
            "files.calendar.closed_dates",
            "dates such as",
        ),
        ("[book]", "[limits]\nmessages_per_s = \"5\"\n[book]", "limits.messages_per_s", "a whole number"),
    ] {
        let text = SMALL.replacen(old, new, 1);
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

mod rows {
    //! Files of rows through the player.

    use schemas::raw::Raw;

    use super::*;
    use crate::config::Config;
    use crate::recording::{Form, Options, Player, Rows, Tape};

    fn play(id: &str, description: &str, files: &[(&str, &str)]) -> Vec<Raw> {
        let described = register(id, "x.toml", description).unwrap();
        let form = Form::Described(Rows(described));
        let mut tape =
            Tape::new(form, 1 << 20, files.iter().map(|(symbol, text)| (symbol.to_string(), text.as_bytes())));
        let limits = Config::load(None).unwrap().session;
        let options = Options {
            partitions: 4,
            ticks_max: 256,
            aggregates: false,
            frames_per_flush: 1000,
            clock_period_ms: 60_000,
            lateness_ms: 0,
            flush_open: false,
            limits,
        };
        let mut player = Player::new(id, by_id(id), options);
        let mut out = Vec::new();
        while let Some(entry) = tape.next_entry().unwrap() {
            player.take(entry, &mut out);
        }
        player.finish("test", &mut out);
        out
    }

    fn show(facts: &[Raw]) -> Vec<String> {
        let day = |ns: i64| ns as f64 / Nanos::PER_DAY as f64;
        facts
            .iter()
            .flat_map(|fact| match fact {
                Raw::Bars(pack) => pack
                    .items
                    .iter()
                    .map(|b| {
                        format!(
                            "{} {} {}..{} known {} {}",
                            pack.symbol,
                            day(b.open_ts_ns),
                            b.open,
                            b.close,
                            day(b.ts_ns),
                            b.closed
                        )
                    })
                    .collect(),
                Raw::Trades(pack) => {
                    pack.iter().map(|t| format!("{} trade {} {}", pack.symbol, t.id, t.ts.0)).collect()
                }
                Raw::Gap(gap) => vec![format!("{} gap {}..{}", gap.symbol, day(gap.from_ns), day(gap.to_ns.unwrap()))],
                Raw::Dead(dead) => vec![format!("dead {}", dead.reason)],
                _ => vec![],
            })
            .collect()
    }

    const MINI: &str = r#"
trade_ids = "none"
[files]
format = "csv"
delimiter = ";"
skip_lines = 1
[files.calendar]
closed_days = ["sat", "sun"]
[[message]]
kind = "bar"
width = "1d"
open_time = { at = "Day", form = "%d.%m.%Y" }
open = "O"
high = "H"
low = "L"
close = "C"
"#;

    #[test]
    fn daily_candles_become_bars_known_at_their_close_and_a_missing_day_is_told() {
        // 1970-01-01 is a Thursday; the 6th is a Tuesday, and missing.
        let file = "made up\nDay;O;H;L;C\n01.01.1970;1;2;0.5;1.5\n02.01.1970;\"1.5\";2;1;1.75\n05.01.1970;2;2;2;2\n07.01.1970;2;3;2;3\n";
        let said = show(&play("eod-rows", MINI, &[("X", file)]));
        assert_eq!(
            said,
            [
                "X 0 1..1.5 known 1 true",
                "X 1 1.5..1.75 known 2 true",
                "X 4 2..2 known 5 true",
                "X gap 5..6",
                "X 6 2..3 known 7 true"
            ]
        );
    }

    #[test]
    fn a_row_that_cannot_be_is_a_dead_letter_and_the_others_count() {
        let file = "made up\nDay;O;H;L;C\n02.01.1970;1;2;1;3\n02.01.1970;1;2;1\n02.01.1970;1;2;1;2\n01.01.1970;1;2;1;2\n02.01.1970;1;2;1;2\n";
        let mut said = show(&play("eod-wrong", MINI, &[("X", file)]));
        said.sort();
        assert_eq!(
            said,
            [
                "X 1 1..2 known 2 true",
                "dead 4 cells, the header has 5",
                "dead open 1 and close 3 are not within low 1 and high 2",
                "dead the bar does not open after the one before it",
                "dead the bar does not open after the one before it",
            ]
        );
    }

    #[test]
    fn lines_of_json_give_trades_of_several_symbols_in_order_and_once() {
        let text = r#"
trade_ids = "rising"
[files]
format = "ndjson"
[[message]]
kind = "trade"
symbol = "sym"
price = "px"
size = "sz"
id = "n"
side = { at = "taker", buy = "B", sell = "S" }
time = { at = "at", unit = "us" }
"#;
        let row =
            |sym: &str, n: u64, at: i64| format!(r#"{{"sym":"{sym}","px":1.5,"sz":2,"n":{n},"taker":"S","at":{at}}}"#);
        let file = [row("A", 1, 5), row("B", 9, 6), row("A", 2, 7), row("A", 2, 7), row("A", 3, 6)].join("\n");
        let mut said = show(&play("json-rows", text, &[("", &file)]));
        said.sort();
        let late = "dead the row is older than the one before it: files are read in the order of time";
        assert_eq!(said, ["A trade 1 5000", "A trade 2 7000", "B trade 9 6000", late]);
    }
}

#[cfg(feature = "stage")]
mod live {
    //! Described venues over real links against the stand-in.

    use simulator::VenueId;

    use super::*;
    use crate::venue::chaos::{Chaos, Trial, trials};

    const SYMBOL: &str = "BTCUSDT";

    fn trial(id: &'static str, channels: &'static [&'static str]) -> Trial {
        let options = |options: &mut simulator::Options| options.flow.rate = 100.0;
        Trial { options, ..Trial::of(id, VenueId::BinanceSpot, &[SYMBOL], &[SYMBOL], channels) }
    }

    #[tokio::test]
    async fn a_described_venue_follows_books_and_fills_the_hole_of_a_cut_by_rest() {
        register("described-live", "x.toml", BINANCE).unwrap();
        let seen = trials::cut(trial("described-live", &["trades", "quotes", "book", "candles"])).await;
        assert!(seen.others["bbo"] > 0, "{:?}", seen.others);
        assert_eq!(seen.dead, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_polled_venue_gives_every_trade_once_without_a_socket() {
        let text = BINANCE
            .replace("topic = \"{lower}@trade\"", "get = \"/api/v3/trades?symbol={symbol}&limit=1000\"\nevery_ms = 200")
            .replace("channel = \"backfill\"", "channel = \"trades\"");
        register("polled-live", "x.toml", &text).unwrap();
        let trades = &["trades"];
        let mut chaos = Chaos::following(trial("polled-live", trades).trades(trades)).await;
        for _ in 0..3 {
            chaos.trades(SYMBOL, 10).await;
        }
        let seen = chaos.ends_well().await;
        assert_eq!(seen.links[0].0, "connected");
        assert_eq!((seen.gaps.len(), seen.dead.len(), seen.lost()), (0, 0, 0), "{:?} {:?}", seen.gaps, seen.dead);
    }
}

mod polling {
    //! The polled session against a script.

    use super::*;
    use crate::config::Config;
    use crate::session::{Action, HttpAnswer, Plan, Session, Tail};

    fn session(covers_ms: i64, stored: Option<u64>) -> Box<dyn Session> {
        let covers = if covers_ms > 0 { format!("covers_ms = {covers_ms}") } else { String::new() };
        let text = BITSTAMP.replace("covers_ms = 60000", &covers);
        let id = format!("polling-{covers_ms}");
        let described = register(&id, "x.toml", &text).unwrap();
        let mut limits = Config::load(None).unwrap().session;
        limits.request_spacing_ms = 1;
        let tail = |id: u64| Tail { id, ts: Nanos::from_ms(1000), venue_ids: vec![] };
        let plan = Plan {
            endpoints: described.endpoints(described.market(), false),
            symbols: vec!["BTCUSD".into()],
            channels: vec!["trades".into()],
            limits,
            last_trades: stored.map(|id| ("BTCUSD".to_owned(), tail(id))).into_iter().collect(),
        };
        described.sessions(described.market(), &plan).remove(0)
    }

    fn page(ids: &[u64]) -> String {
        let row = |id: &u64| format!(r#"{{"date":"{}","tid":"{id}","price":"1","type":"0","amount":"2"}}"#, 100 + id);
        format!("[{}]", ids.iter().map(row).collect::<Vec<_>>().join(","))
    }

    /// Answers the request that is due at `at_ms` 50 ms later.
    fn poll(session: &mut dyn Session, at_ms: i64, status: u16, body: &str) -> Vec<String> {
        let mut out = Vec::new();
        session.on_timer(Nanos::from_ms(at_ms), &mut out);
        let Some(id) = out.iter().find_map(|a| if let Action::Fetch { id, .. } = a { Some(*id) } else { None }) else {
            panic!("nothing is asked at {at_ms}: {out:?}, next {:?}", session.next_timer());
        };
        let answer =
            HttpAnswer { status, retry_after_s: (status == 429).then_some(7), used: None, body: body.to_owned() };
        let mut said = Vec::new();
        session.on_http(Nanos::from_ms(at_ms + 50), id, Ok(answer), &mut said);
        said.iter()
            .map(|action| match action {
                Action::Emit { event: Event::Trade(t), .. } => format!("trade {}", t.id),
                Action::Gap(gap) => format!("gap {} {}", gap.channel, gap.reason),
                Action::Dead { reason } => format!("dead {reason}"),
                Action::Warn(what) => format!("warn {what}"),
                Action::Reconnect { reason, .. } => format!("reconnect {reason}"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    /// Opened just before its first request is due.
    fn opened(covers_ms: i64, stored: Option<u64>) -> Box<dyn Session> {
        let mut session = session(covers_ms, stored);
        let mut out = Vec::new();
        session.on_open(Nanos::from_ms(0), &mut out);
        let [Action::Fetch { id, request }] = &out[..] else { panic!("{out:?}") };
        assert_eq!(request.path, "/api/v2/transactions/btcusd/?time=minute");
        // An answer of transport: the next is due a period later.
        session.on_http(Nanos::from_ms(5), *id, Err("refused".into()), &mut out);
        assert!(!session.is_whole());
        session
    }

    /// Told as it begins and as it ends.
    const BEHIND: &str = "gap trade what the venue still has of its trades does not reach back to ours";

    #[test]
    fn pages_overlap_and_each_trade_leaves_once_in_order() {
        let mut s = opened(0, None);
        assert_eq!(poll(&mut *s, 10_000, 200, &page(&[3, 2, 1])), ["trade 1", "trade 2", "trade 3"]);
        assert!(s.is_whole());
        assert_eq!(s.heard(), Some(Nanos::from_ms(10_000)), "complete up to when it was asked, not when it came");
        assert_eq!(poll(&mut *s, 20_000, 200, &page(&[5, 4, 3])), ["trade 4", "trade 5"]);
        assert_eq!(poll(&mut *s, 30_000, 200, &page(&[])), Vec::<String>::new());
        assert_eq!(poll(&mut *s, 40_000, 200, &page(&[9])), [BEHIND, BEHIND, "trade 9"]);
    }

    #[test]
    fn a_page_that_covers_the_time_since_the_last_needs_no_overlap() {
        let mut s = opened(60_000, None);
        assert_eq!(poll(&mut *s, 10_000, 200, &page(&[3])), ["trade 3"]);
        assert_eq!(poll(&mut *s, 20_000, 200, &page(&[9])), ["trade 9"]);
    }

    #[test]
    fn behind_a_restart_the_first_page_must_reach_back_to_what_is_stored() {
        assert_eq!(poll(&mut *opened(60_001, Some(2)), 10_000, 200, &page(&[3, 2])), ["trade 3"]);
        assert_eq!(
            poll(&mut *opened(60_001, Some(2)), 10_000, 200, &page(&[4, 5])),
            [BEHIND, BEHIND, "trade 4", "trade 5"]
        );
    }

    #[test]
    fn a_429_is_obeyed_a_wrong_body_is_kept_and_three_failures_end_the_connection() {
        let mut s = opened(60_002, None);
        assert_eq!(poll(&mut *s, 10_000, 429, ""), ["warn the venue asks for quiet: status 429 for 7 s"]);
        assert_eq!(s.next_timer(), Some(Nanos::from_ms(20_000)));
        assert_eq!(poll(&mut *s, 20_000, 200, &page(&[3])), ["trade 3"]);
        let dead = poll(&mut *s, 30_000, 200, r#"[{"tid":"x"}]"#);
        assert!(dead[0].starts_with("dead trades: message[2] (trade): nothing at `price`: [{"), "{dead:?}");
        assert!(dead[1].starts_with("warn poll trades of BTCUSD"), "{dead:?}");
        assert_eq!(s.heard(), Some(Nanos::from_ms(20_000)), "what was not understood is not complete");
        let refused = r#"{"response_code":"400.002","response_explanation":"slow down"}"#;
        assert_eq!(poll(&mut *s, 40_000, 200, refused), ["warn poll trades of BTCUSD: the venue refused: slow down"]);
        let last = poll(&mut *s, 50_000, 500, "no");
        assert_eq!(last[1], "reconnect 3 requests failed one after the other: status 500: no");
    }
}

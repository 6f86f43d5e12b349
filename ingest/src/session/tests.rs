//! Sessions against scripts: what happens to them, and what they ask for. The bench serves every venue's scripts.

use expect_test::{Expect, expect};
use schemas::raw::BookAction;

use super::*;
use crate::config::Config;
use crate::venue;

/// A session under a script. Time is in milliseconds.
pub(crate) struct Bench {
    session: Box<dyn Session>,
    now: Nanos,
    log: String,
}

pub(crate) fn plan(id: &str, symbols: &[&str], channels: &[&str], last: &[(&str, u64)]) -> Plan {
    let (found, market) = venue::by_id(id).unwrap();
    let config = Config::load(None).unwrap();
    let pace = config.venues.get(id).cloned().unwrap_or_default().pace(found);
    let mut limits = config.session;
    limits.held_max = 5;
    limits.backfill_tries_max = 2;
    let endpoints = found.endpoints(market, false);
    Plan {
        endpoints,
        symbols: symbols.iter().map(|s| s.to_string()).collect(),
        channels: channels.iter().map(|s| s.to_string()).collect(),
        limits,
        pace,
        last_trades: last
            .iter()
            .map(|(s, id)| (s.to_string(), Tail { id: *id, ts: Nanos::from_ms(1), venue_ids: Vec::new() }))
            .collect(),
    }
}

impl Bench {
    pub(crate) fn new(id: &str, plan: &Plan) -> Self {
        let (found, market) = venue::by_id(id).unwrap();
        let mut sessions = found.sessions(market, plan);
        assert_eq!(sessions.len(), 1);
        Self { session: sessions.remove(0), now: Nanos::from_ms(1000), log: String::new() }
    }

    pub(crate) fn act(mut self, what: &str, call: impl FnOnce(&mut dyn Session, Nanos, &mut Vec<Action>)) -> Self {
        let mut out = Vec::new();
        call(&mut *self.session, self.now, &mut out);
        self.log += &format!("{what}{}\n", if self.session.is_whole() { " (whole)" } else { "" });
        for action in out {
            self.log += &format!("  {}\n", show(&action));
        }
        self
    }
    pub(crate) fn open(self) -> Self {
        self.act("open", |s, now, out| s.on_open(now, out))
    }
    pub(crate) fn close(self) -> Self {
        self.act("close", |s, now, out| s.on_closed(now, "cut", out))
    }
    pub(crate) fn frame(self, name: &str, frame: &str) -> Self {
        let frame = frame.to_owned();
        self.act(name, move |s, now, out| s.on_frame(now, Frame::Text(&frame), out))
    }
    pub(crate) fn binary(self, name: &str, frame: &[u8]) -> Self {
        let frame = frame.to_vec();
        self.act(name, move |s, now, out| s.on_frame(now, Frame::Binary(&frame), out))
    }
    /// An operator's wish, which is granted.
    pub(crate) fn command(self, name: &str, command: Command) -> Self {
        self.act(name, move |s, now, out| s.on_command(now, &command, out).expect("a wish that can be met"))
    }
    pub(crate) fn http(self, id: u64, status: u16, body: &str) -> Self {
        let answer =
            Ok(HttpAnswer { status, retry_after_s: (status == 429).then_some(7), used: None, body: body.to_owned() });
        self.act(&format!("http {id} {status}"), move |s, now, out| s.on_http(now, id, answer, out))
    }
    /// Lets time pass up to `ms`, timers included.
    pub(crate) fn until(mut self, ms: i64) -> Self {
        let end = Nanos::from_ms(ms);
        for _ in 0..1000 {
            let Some(due) = self.session.next_timer().filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            let at = self.now.as_ms();
            self = self.act(&format!("timer {at}"), |s, now, out| s.on_timer(now, out));
        }
        self.now = end;
        self
    }
    /// What was said up to here; the rest of the script is compared by itself. For scripts that begin alike.
    pub(crate) fn said(mut self, expected: &str) -> Self {
        assert_eq!(std::mem::take(&mut self.log), expected);
        self
    }
    pub(crate) fn end(self, expected: Expect) {
        expected.assert_eq(&self.log);
    }
}

fn show(action: &Action) -> String {
    match action {
        Action::Send(text) => format!("send {text}"),
        Action::Fetch { id, request } => format!("fetch {id} {} {}", request.path, request.body).trim_end().to_owned(),
        Action::Emit { event: Event::Trade(t), .. } => {
            let named = t.venue_id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
            let past = if t.backfill && t.venue_id.is_some() { " from the past" } else { "" };
            format!("trade {} {}{named}{past}", t.symbol, t.id)
        }
        Action::Emit { event: Event::Book(b), .. } => {
            let kind = if b.action == BookAction::Snapshot { "snapshot" } else { "update" };
            // What is not numbered is told apart by its time.
            let place = b.seq_last.map(|n| n.to_string()).or(b.ts.map(|ts| format!("at {}", ts.as_ms())));
            format!("book {} {kind} {}", b.symbol, place.unwrap_or_default())
        }
        Action::Emit { event, .. } => format!("{event:?}"),
        Action::Aside { event, .. } => format!("aside {event:?}"),
        Action::Status(status) => format!("STATUS {status}"),
        Action::Gap(m) => format!(
            "GAP {} {} {}..{}: {}",
            m.symbol,
            m.channel,
            m.from.as_ms(),
            m.to.map_or(String::new(), |t| t.as_ms().to_string()),
            m.reason
        ),
        Action::Dead { reason } => format!("DEAD {reason}"),
        Action::Reconnect { reason, planned, after_ms } => {
            format!("RECONNECT{} after {after_ms} ms: {reason}", if *planned { " as planned" } else { "" })
        }
        Action::Stale(is) => format!("stale {is}"),
        Action::Warn(what) => format!("warn {what}"),
    }
}

fn trade(id: u64) -> String {
    format!(r#"{{"e":"trade","E":{id},"s":"BTCUSDT","t":{id},"p":"1","q":"1","T":{id},"m":true}}"#)
}

fn depth(first: u64, last: u64) -> String {
    format!(r#"{{"e":"depthUpdate","E":{last},"s":"BTCUSDT","U":{first},"u":{last},"b":[],"a":[]}}"#)
}

fn history(ids: &[u64]) -> String {
    let rows = ids.iter().map(|id| format!(r#"{{"id":{id},"price":"1","qty":"1","time":{id},"isBuyerMaker":true}}"#));
    format!("[{}]", rows.collect::<Vec<_>>().join(","))
}

const ACK: &str = r#"{"result":null,"id":1}"#;

#[test]
fn binance_subscribes_once_and_is_whole_when_it_is_acknowledged() {
    Bench::new("binance", &plan("binance", &["BTCUSDT"], &["{}@trade", "{}@bookTicker"], &[]))
        .open()
        .frame("trade 7", &trade(7))
        .frame("ack", ACK)
        .frame("trade 8", &trade(8))
        .frame("trade 8 again", &trade(8))
        .end(expect![[r#"
            open
              send {"id":1,"method":"SUBSCRIBE","params":["btcusdt@trade","btcusdt@bookTicker"]}
            trade 7
              trade BTCUSDT 7
            ack (whole)
            trade 8 (whole)
              trade BTCUSDT 8
            trade 8 again (whole)
        "#]]);
}

#[test]
fn many_streams_are_subscribed_in_batches_within_the_rate() {
    let symbols: Vec<String> = (0..250).map(|n| format!("S{n}")).collect();
    let symbols: Vec<&str> = symbols.iter().map(String::as_str).collect();
    let plan = plan("binance", &symbols, &["{}@trade"], &[]);
    let mut session = venue::by_id("binance").unwrap().0.sessions(venue::by_id("binance").unwrap().1, &plan).remove(0);
    let (mut out, mut sent) = (Vec::new(), Vec::new());
    let mut now = Nanos::from_ms(0);
    session.on_open(now, &mut out);
    while now < Nanos::from_ms(3000) {
        sent.extend(out.drain(..).filter(|a| matches!(a, Action::Send(_))).map(|_| now.as_ms()));
        now = session.next_timer().unwrap();
        session.on_timer(now, &mut out);
    }
    assert_eq!(sent, [0, 300, 600]);
}

#[test]
fn more_streams_than_a_connection_may_carry_are_cut_into_several() {
    let symbols: Vec<String> = (0..700).map(|n| format!("S{n}")).collect();
    let symbols: Vec<&str> = symbols.iter().map(String::as_str).collect();
    let (found, market) = venue::by_id("binance").unwrap();
    let plan = plan("binance", &symbols, &["{}@trade", "{}@bookTicker"], &[]);
    let names: Vec<_> = found.sessions(market, &plan).iter().map(|s| s.name()).collect();
    assert_eq!(names, ["stream-0", "stream-1"]);
}

#[test]
fn usdm_streams_go_to_the_paths_that_carry_them() {
    let (found, market) = venue::by_id("binance-usdm").unwrap();
    let plan = plan("binance-usdm", &["BTCUSDT"], &["{}@trade", "{}@markPrice@1s", "!forceOrder@arr"], &[]);
    let urls: Vec<_> = found.sessions(market, &plan).iter().map(|s| s.url()).collect();
    assert_eq!(urls, ["wss://fstream.binance.com/public/stream", "wss://fstream.binance.com/market/stream"]);
}

#[test]
fn a_book_starts_from_the_snapshot_and_a_gap_makes_it_start_again() {
    Bench::new("binance", &plan("binance", &["BTCUSDT"], &["{}@depth@100ms"], &[]))
        .open()
        .frame("ack", ACK)
        .frame("100-105", &depth(100, 105))
        .frame("106-107", &depth(106, 107))
        .until(1100)
        .http(2, 200, r#"{"lastUpdateId":103,"bids":[],"asks":[]}"#)
        .frame("110-112 (108 is missing)", &depth(110, 112))
        .until(1300)
        .frame("113-114", &depth(113, 114))
        .http(3, 200, r#"{"lastUpdateId":90,"bids":[],"asks":[]}"#)
        .until(2500)
        .http(4, 200, r#"{"lastUpdateId":113,"bids":[],"asks":[]}"#)
        .end(expect![[r#"
            open
              send {"id":1,"method":"SUBSCRIBE","params":["btcusdt@depth@100ms"]}
            ack (whole)
            100-105 (whole)
              fetch 2 /api/v3/depth?symbol=BTCUSDT&limit=1000
            106-107 (whole)
            http 2 200 (whole)
              book BTCUSDT snapshot 103
              book BTCUSDT update 105
              book BTCUSDT update 107
            110-112 (108 is missing) (whole)
              GAP BTCUSDT book 112..: book sequence 110 after 107
            timer 1250 (whole)
              fetch 3 /api/v3/depth?symbol=BTCUSDT&limit=1000
            113-114 (whole)
            http 3 200 (whole)
            timer 2300 (whole)
              fetch 4 /api/v3/depth?symbol=BTCUSDT&limit=1000
            http 4 200 (whole)
              GAP BTCUSDT book 112..114: book sequence 110 after 107
              book BTCUSDT snapshot 113
              book BTCUSDT update 114
        "#]]);
}

#[test]
fn trades_missed_while_the_connection_was_down_are_fetched_before_the_new_ones_leave() {
    Bench::new("binance", &plan("binance", &["BTCUSDT"], &["{}@trade"], &[]))
        .open()
        .frame("ack", ACK)
        .frame("trade 5", &trade(5))
        .close()
        .open()
        .until(1300)
        .frame("ack", r#"{"result":null,"id":2}"#)
        .frame("trade 9", &trade(9))
        .until(1600)
        .http(3, 200, &history(&[6, 7, 8, 9]))
        .frame("trade 10", &trade(10))
        .end(expect![[r#"
            open
              send {"id":1,"method":"SUBSCRIBE","params":["btcusdt@trade"]}
            ack (whole)
            trade 5 (whole)
              trade BTCUSDT 5
            close
              GAP BTCUSDT link 5..: cut
            open
            timer 1300
              send {"id":2,"method":"SUBSCRIBE","params":["btcusdt@trade"]}
            ack
              fetch 3 /api/v3/historicalTrades?symbol=BTCUSDT&fromId=6&limit=1000
            trade 9
              GAP BTCUSDT link 5..9: cut
            http 3 200 (whole)
              trade BTCUSDT 6
              trade BTCUSDT 7
              trade BTCUSDT 8
              trade BTCUSDT 9
            trade 10 (whole)
              trade BTCUSDT 10
        "#]]);
}

#[test]
fn a_hole_that_the_venue_cannot_fill_is_a_gap_and_the_feed_goes_on() {
    Bench::new("binance", &plan("binance", &["BTCUSDT"], &["{}@trade"], &[("BTCUSDT", 3)]))
        .open()
        .frame("ack", ACK)
        .frame("trade 9", &trade(9))
        .http(2, 500, "down")
        .until(1300)
        .http(3, 200, &history(&[4, 7]))
        .until(1600)
        .http(4, 200, "[]")
        .frame("trade 10", &trade(10))
        .end(expect![[r#"
            open
              send {"id":1,"method":"SUBSCRIBE","params":["btcusdt@trade"]}
            ack
              fetch 2 /api/v3/historicalTrades?symbol=BTCUSDT&fromId=4&limit=1000
            trade 9
            http 2 500
              warn backfill BTCUSDT: status 500: down
            timer 1250
              fetch 3 /api/v3/historicalTrades?symbol=BTCUSDT&fromId=4&limit=1000
            http 3 200
              trade BTCUSDT 4
              GAP BTCUSDT trade 4..7: trade 7 after 4
              trade BTCUSDT 7
            timer 1500
              fetch 4 /api/v3/historicalTrades?symbol=BTCUSDT&fromId=8&limit=1000
            http 4 200 (whole)
              warn backfill BTCUSDT: the venue does not have the trades between
              GAP BTCUSDT trade 7..9: trade 9 after 7
              trade BTCUSDT 9
            trade 10 (whole)
              trade BTCUSDT 10
        "#]]);
}

#[test]
fn over_the_budget_everything_waits_as_long_as_the_venue_says() {
    Bench::new("binance", &plan("binance", &["BTCUSDT"], &["{}@depth"], &[]))
        .open()
        .frame("ack", ACK)
        .frame("1-2", &depth(1, 2))
        .http(2, 429, "")
        .until(8500)
        .end(expect![[r#"
            open
              send {"id":1,"method":"SUBSCRIBE","params":["btcusdt@depth"]}
            ack (whole)
            1-2 (whole)
              fetch 2 /api/v3/depth?symbol=BTCUSDT&limit=1000
            http 2 429 (whole)
              warn the venue asks for quiet: status 429 for 7 s
            timer 8000 (whole)
              fetch 3 /api/v3/depth?symbol=BTCUSDT&limit=1000
        "#]]);
}

#[test]
fn a_connection_that_brings_no_data_is_given_up_even_if_it_answers() {
    Bench::new("binance", &plan("binance", &["BTCUSDT"], &["{}@trade"], &[]))
        .open()
        .frame("ack", ACK)
        .until(20_000)
        .frame("trade 1", &trade(1))
        .until(40_000)
        .frame("control", r#"{"result":[],"id":9}"#)
        .until(60_000)
        .end(expect![[r#"
            open
              send {"id":1,"method":"SUBSCRIBE","params":["btcusdt@trade"]}
            ack (whole)
            trade 1 (whole)
              trade BTCUSDT 1
            timer 35000 (whole)
              stale true
            control (whole)
            timer 50000 (whole)
              RECONNECT after 0 ms: idle: no market data for 30000 ms
        "#]]);
}

#[test]
fn an_unanswered_subscription_a_shutdown_and_the_lifetime_end_the_connection() {
    let plan = plan("binance", &["BTCUSDT"], &["{}@trade"], &[]);
    Bench::new("binance", &plan).open().until(15_000).end(expect![[r#"
        open
          send {"id":1,"method":"SUBSCRIBE","params":["btcusdt@trade"]}
        timer 11000
          RECONNECT after 0 ms: no answer to a request for 10000 ms
    "#]]);
    Bench::new("binance", &plan).frame("shutdown", r#"{"e":"serverShutdown","E":1770123456789}"#).end(expect![[r#"
        shutdown
          RECONNECT as planned after 0 ms: the venue shuts this server down
    "#]]);
    let mut short = plan.clone();
    short.limits.lifetime_ms = 5000;
    Bench::new("binance", &short).open().frame("ack", ACK).until(7000).end(expect![[r#"
        open
          send {"id":1,"method":"SUBSCRIBE","params":["btcusdt@trade"]}
        ack (whole)
        timer 6000 (whole)
          RECONNECT as planned after 0 ms: renewed after 5000 ms
    "#]]);
}

#[test]
fn what_is_not_understood_is_dead_and_the_session_goes_on() {
    Bench::new("binance", &plan("binance", &["BTCUSDT"], &["{}@trade"], &[]))
        .open()
        .frame("nonsense", r#"{"e":"neverHeardOf"}"#)
        .frame("no json", "<html>")
        .frame("trade 1", &trade(1))
        .end(expect![[r#"
            open
              send {"id":1,"method":"SUBSCRIBE","params":["btcusdt@trade"]}
            nonsense
              DEAD unknown event `neverHeardOf`
            no json
              DEAD expected value at line 1 column 1
            trade 1
              trade BTCUSDT 1
        "#]]);
}

fn deribit_trade(seq: u64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"trades.BTC-PERPETUAL.100ms","data":[{{"trade_seq":{seq},"trade_id":"x{seq}","timestamp":{seq},"price":1.5,"amount":10,"direction":"buy","instrument_name":"BTC-PERPETUAL"}}]}}}}"#
    )
}

fn deribit_book(kind: &str, id: u64, prev: Option<u64>) -> String {
    let prev = prev.map_or(String::new(), |p| format!(r#","prev_change_id":{p}"#));
    format!(
        r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"book.BTC-PERPETUAL.100ms","data":{{"type":"{kind}","timestamp":{id},"instrument_name":"BTC-PERPETUAL","change_id":{id}{prev},"bids":[],"asks":[]}}}}}}"#
    )
}

#[test]
fn deribit_answers_test_requests_at_once_and_notices_channels_that_were_left_out() {
    Bench::new("deribit", &plan("deribit", &["BTC-PERPETUAL"], &["trades.{}.raw", "quote.{}"], &[]))
        .open()
        .frame("test request", r#"{"params":{"type":"test_request"},"method":"heartbeat","jsonrpc":"2.0"}"#)
        .frame("heartbeat is set", r#"{"jsonrpc":"2.0","id":1,"result":"ok"}"#)
        .until(1400)
        .frame("test answer", r#"{"jsonrpc":"2.0","id":3,"result":{"version":"1.2.26"}}"#)
        .frame("subscribed", r#"{"jsonrpc":"2.0","id":2,"result":["quote.BTC-PERPETUAL"]}"#)
        .end(expect![[r#"
            open
              send {"id":1,"jsonrpc":"2.0","method":"public/set_heartbeat","params":{"interval":30}}
            test request
              send {"id":3,"jsonrpc":"2.0","method":"public/test","params":{}}
            heartbeat is set
            timer 1350
              send {"id":2,"jsonrpc":"2.0","method":"public/subscribe","params":{"channels":["trades.BTC-PERPETUAL.raw","quote.BTC-PERPETUAL"]}}
            test answer
            subscribed (whole)
              warn the venue did not subscribe trades.BTC-PERPETUAL.raw
              GAP BTC-PERPETUAL trade 1400..: the venue did not subscribe trades.BTC-PERPETUAL.raw
        "#]]);
}

#[test]
fn a_broken_chain_resubscribes_that_instrument_only() {
    Bench::new("deribit", &plan("deribit", &["BTC-PERPETUAL", "ETH-PERPETUAL"], &["book.{}.100ms", "quote.{}"], &[]))
        .open()
        .until(1400)
        .frame("snapshot", &deribit_book("snapshot", 10, None))
        .frame("change", &deribit_book("change", 12, Some(10)))
        .frame("broken", &deribit_book("change", 20, Some(15)))
        .until(2200)
        .frame("snapshot", &deribit_book("snapshot", 30, None))
        .end(expect![[r#"
            open
              send {"id":1,"jsonrpc":"2.0","method":"public/set_heartbeat","params":{"interval":30}}
            timer 1350
              send {"id":2,"jsonrpc":"2.0","method":"public/subscribe","params":{"channels":["book.BTC-PERPETUAL.100ms","quote.BTC-PERPETUAL","book.ETH-PERPETUAL.100ms","quote.ETH-PERPETUAL"]}}
            snapshot
              book BTC-PERPETUAL snapshot 10
            change
              book BTC-PERPETUAL update 12
            broken
              GAP BTC-PERPETUAL book 20..: book sequence 15 after 12
            timer 1700
              send {"id":3,"jsonrpc":"2.0","method":"public/unsubscribe","params":{"channels":["book.BTC-PERPETUAL.100ms"]}}
            timer 2050
              send {"id":4,"jsonrpc":"2.0","method":"public/subscribe","params":{"channels":["book.BTC-PERPETUAL.100ms"]}}
            snapshot
              GAP BTC-PERPETUAL book 20..30: book sequence 15 after 12
              book BTC-PERPETUAL snapshot 30
        "#]]);
}

#[test]
fn deribit_fills_a_hole_by_trade_sequence_and_without_credits_it_pauses() {
    let page = r#"{"jsonrpc":"2.0","result":{"trades":[{"trade_seq":6,"trade_id":"a","timestamp":6,"price":1,"amount":10,"direction":"sell","instrument_name":"BTC-PERPETUAL"}],"has_more":false}}"#;
    Bench::new("deribit", &plan("deribit", &["BTC-PERPETUAL"], &["trades.{}.100ms"], &[]))
        .open()
        .frame("trade 5", &deribit_trade(5))
        .frame("trade 7", &deribit_trade(7))
        .http(3, 200, page)
        .frame("no credits", r#"{"jsonrpc":"2.0","id":1,"error":{"code":10028,"message":"too_many_requests","data":null}}"#)
        .end(expect![[r#"
            open
              send {"id":1,"jsonrpc":"2.0","method":"public/set_heartbeat","params":{"interval":30}}
            trade 5
              trade BTC-PERPETUAL 5 (x5)
            trade 7
              fetch 3 /api/v2/public/get_last_trades_by_instrument?instrument_name=BTC-PERPETUAL&start_seq=6&count=1000&sorting=asc
            http 3 200
              trade BTC-PERPETUAL 6 (a) from the past
              trade BTC-PERPETUAL 7 (x7)
            no credits
              RECONNECT after 10000 ms: error 10028 too_many_requests
        "#]]);
}

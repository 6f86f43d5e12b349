//! Tests as text: a tape of steps in, the journal out.
//!
//! Steps stand on their own lines or between `|`. Each step is one second behind the one before it; `@N` sets the
//! time to N seconds.
//! ```text
//! order buy 10 BTC [limit=99] [trigger=95] [kind=stop|take] [stop=90] [take=120] [reduce] [post] [ioc|fok]
//! cancel o1            state halted|reducing|active
//! trade 100 x5 [sell]  quote 99x1 101x2      book asks=101x1,102x5 bids=99x1   update asks=101x0
//! ticker mark=100 rate=0.0001 next=60         clock        gap
//! open 100             candle 100 110 90 105
//! ```
//! Orders are called o1, o2, ... as they are given; protective ones p1, p2, ... as they appear.

use std::collections::BTreeMap;

use schemas::desk::{Cancel, DeskState, Order, OrderKind, Protect, TimeInForce, TradingState};
use schemas::market::{Candle, ClosedBy};
use schemas::raw::{
    BookAction, BookUpdate, Books, Clock, Gap, Quote, Quotes, Raw, TickerUpdate, Tickers, Trade, Trades,
};
use schemas::{
    Cause, Core, Fact, Instrument, InstrumentKind, Listen, Nanos, Place, Price, Qty, Scale, Side, Speak, Version,
    fixtures, subject,
};

use crate::config::Config;
use crate::core::{ExecutorCore, In, Out};
use crate::venue::ExecVenue;

pub const VENUE: &str = "binance-usdm";
const SCALE: Scale = Scale { price: 2, qty: 3 };
const SECOND: i64 = Nanos::PER_SECOND;

/// The configuration of most tests: no latency, no slippage, round fees.
pub fn config(model: &str) -> Config {
    let mut config = Config::load(None).unwrap();
    config.fill.model = model.to_owned();
    config.fill.latency_ns = 0;
    config.fill.candle_timeframe = "1s".parse().unwrap();
    config.fees.venues.clear();
    config.fees.maker_bps = "0".parse().unwrap();
    config.fees.taker_bps = "10".parse().unwrap();
    config
}

pub fn instrument() -> Instrument {
    Instrument { scale: SCALE, ..fixtures::instrument(VENUE, "BTC", InstrumentKind::Perpetual, "0.5", "0.001") }
}

/// An order from its text; id `o1`, time 0.
pub fn order(text: &str) -> Order {
    let words: Vec<&str> = text.split_whitespace().collect();
    let value = |key: &str| words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('=')?.parse::<Price>().ok());
    let has = |word: &str| words.contains(&word);
    let kind = match (has("kind=stop"), has("kind=take"), value("limit")) {
        (true, _, _) => OrderKind::Stop,
        (_, true, _) => OrderKind::TakeProfit,
        (_, _, Some(_)) => OrderKind::Limit,
        _ => OrderKind::Market,
    };
    let (stop_loss, take_profit) = (value("stop"), value("take"));
    Order {
        v: Version,
        account: "main".into(),
        id: "o1".into(),
        venue: VENUE.into(),
        symbol: words[2].into(),
        side: if words[0] == "buy" { Side::Buy } else { Side::Sell },
        kind,
        qty: words[1].parse().unwrap(),
        limit: value("limit"),
        trigger: value("trigger"),
        reduce_only: has("reduce"),
        post_only: has("post"),
        time_in_force: match (has("ioc"), has("fok")) {
            (true, _) => TimeInForce::Ioc,
            (_, true) => TimeInForce::Fok,
            _ => TimeInForce::Gtc,
        },
        protect: (stop_loss.is_some() || take_profit.is_some()).then_some(Protect { stop_loss, take_profit }),
        parent: None,
        strategies: vec!["ema".into()],
        ts_ns: 0,
        reason: "test".into(),
        cause: Cause::default(),
    }
}

/// A core with its tape: what was heard last, and names for ids.
pub struct Tape {
    pub core: ExecutorCore,
    now_ns: i64,
    seq: u64,
    orders: u32,
    names: BTreeMap<String, String>,
    log: String,
    /// Everything said.
    pub said: Vec<Out>,
}

impl Tape {
    pub fn new(config: &Config) -> Self {
        Self::of(ExecutorCore::new("main", config))
    }
    pub fn at_venue(config: &Config, venue: Box<dyn ExecVenue + Send>) -> Self {
        Self::of(ExecutorCore::at_venue("main", config, venue))
    }
    fn of(core: ExecutorCore) -> Self {
        let mut tape =
            Self { core, now_ns: 0, seq: 0, orders: 0, names: BTreeMap::new(), log: String::new(), said: Vec::new() };
        tape.hear(In::Instrument(instrument()));
        tape
    }

    pub fn play(&mut self, text: &str) -> &mut Self {
        for step in text.split(['|', '\n']).map(str::trim).filter(|s| !s.is_empty()) {
            self.now_ns += SECOND;
            let (step, at) = step.split_once('@').map_or((step, None), |(s, at)| (s.trim(), Some(at.trim())));
            if let Some(at) = at {
                self.now_ns = schemas::fixed::mantissa_at(at.parse().unwrap(), 9).unwrap();
            }
            let input = self.input(step);
            self.hear(input);
        }
        self
    }
    pub fn log(&self) -> &str {
        &self.log
    }

    /// The core is saved and a fresh one goes on from what was saved.
    pub fn restart(&mut self, config: &Config) {
        let saved = self.core.save();
        self.core = ExecutorCore::new("main", config);
        self.core.restore(&saved).unwrap();
    }

    pub fn input(&mut self, step: &str) -> In {
        let (head, rest) = step.split_once(' ').unwrap_or((step, ""));
        let ts_ns = self.now_ns;
        let p = subject::partition(VENUE, "BTC", subject::PARTITIONS);
        let words: Vec<&str> = rest.split_whitespace().collect();
        let value = |key: &str| words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        match head {
            "order" => {
                self.orders += 1;
                let id = format!("o{}", self.orders);
                self.names.insert(id.clone(), id.clone());
                In::Order(Box::new(Order { id, ts_ns, ..order(rest) }))
            }
            "cancel" => In::Cancel(Cancel {
                v: Version,
                account: "main".into(),
                id: rest.into(),
                venue: VENUE.into(),
                symbol: "BTC".into(),
                ts_ns,
                reason: "asked".into(),
                cause: Cause::default(),
            }),
            "state" => {
                let state = match rest {
                    "halted" => TradingState::Halted,
                    "reducing" => TradingState::Reducing,
                    _ => TradingState::Active,
                };
                let account = "main".into();
                In::State(DeskState {
                    v: Version,
                    account,
                    state,
                    flatten: false,
                    by: "operator".into(),
                    reason: "test".into(),
                    ts_ns,
                    cause: None,
                })
            }
            "trade" => {
                let mut pack = Trades::new(p, VENUE, "BTC", SCALE);
                let size = words[1].trim_start_matches('x');
                let side = if words.get(2) == Some(&"sell") { Side::Sell } else { Side::Buy };
                let (ts, price, size) = (
                    Nanos(ts_ns),
                    SCALE.price_m(words[0].parse().unwrap()).unwrap(),
                    SCALE.qty_m(size.parse().unwrap()).unwrap(),
                );
                pack.push(Trade { ts, recv: ts, id: self.seq, price, size, side });
                In::Trades(pack)
            }
            "quote" => {
                let mut pack = Quotes::new(p, VENUE, "BTC", SCALE);
                let level = |text: &str| {
                    let (price, size) = text.split_once('x')?;
                    Some((SCALE.price_m(price.parse().unwrap())?, SCALE.qty_m(size.parse().unwrap())?))
                };
                pack.push(Quote { ts: Nanos(ts_ns), recv: Nanos(ts_ns), bid: level(words[0]), ask: level(words[1]) });
                In::Quotes(pack)
            }
            "book" | "update" => {
                let levels = |key: &str| {
                    let levels = value(key).unwrap_or("").split(',').filter_map(|l| l.split_once('x'));
                    levels
                        .map(|(p, q)| {
                            (SCALE.price_m(p.parse().unwrap()).unwrap().0, SCALE.qty_m(q.parse().unwrap()).unwrap().0)
                        })
                        .collect()
                };
                let action = if head == "book" { BookAction::Snapshot } else { BookAction::Update };
                let (bids, asks) = (levels("bids"), levels("asks"));
                let mut pack = Books::new(p, VENUE, "BTC", SCALE);
                pack.items.push(BookUpdate {
                    ts_ns,
                    recv_ns: ts_ns,
                    action,
                    seq_first: None,
                    seq_last: None,
                    seq_prev: None,
                    bids,
                    asks,
                });
                In::Books(pack)
            }
            "ticker" => {
                let mut pack = Tickers::new(p, VENUE, "BTC", SCALE);
                pack.items.push(TickerUpdate {
                    ts_ns,
                    mark: value("mark").map(|v| v.parse().unwrap()),
                    funding_rate: value("rate").map(|v| v.parse().unwrap()),
                    next_funding_ns: value("next").map(|v| v.parse::<i64>().unwrap() * SECOND),
                    ..TickerUpdate::default()
                });
                In::Tickers(pack)
            }
            "clock" => In::Clock(Clock { v: Version, venue: VENUE.into(), p, watermark_ns: ts_ns, wall_ns: ts_ns }),
            "gap" => In::Gap(Gap {
                v: Version,
                venue: VENUE.into(),
                symbol: "BTC".into(),
                p,
                channel: "book".into(),
                from_ns: ts_ns,
                to_ns: None,
                reason: "test".into(),
            }),
            // A candle opens at its step's time and lasts a second.
            "open" => candle(p, ts_ns, [words[0]; 4], ClosedBy::Open),
            "candle" => candle(p, ts_ns, [words[0], words[1], words[2], words[3]], ClosedBy::Trade),
            other => panic!("no step `{other}`"),
        }
    }

    pub fn hear(&mut self, input: In) {
        self.seq += 1;
        let mut out = Vec::new();
        self.core.handle(&Place::new("DESK_main", self.seq), input, &mut out).unwrap();
        for fact in out {
            let line = self.line(&fact);
            self.log.push_str(&line);
            self.log.push('\n');
            // What is said can be read again by whoever hears it.
            if let Out::Fill(fill) = &fact {
                assert_eq!(&schemas::exec::Fill::decode(&fact.payload()).unwrap(), fill);
            }
            self.said.push(fact);
        }
    }

    fn name(&mut self, id: &str) -> String {
        let next = format!("p{}", self.names.values().filter(|n| n.starts_with('p')).count() + 1);
        self.names.entry(id.to_owned()).or_insert(next).clone()
    }

    fn line(&mut self, fact: &Out) -> String {
        let end = |reason: &str| if reason.is_empty() { String::new() } else { format!(": {reason}") };
        match fact {
            Out::Sending(f) => {
                let o = &f.order;
                let price = o.limit.or(o.trigger).map_or(String::new(), |p| format!(" {p}"));
                let kind = format!("{:?}", o.kind).to_lowercase();
                let parent = o.parent.as_ref().map_or(String::new(), |p| format!(" for {p}"));
                format!("sending {} {} {} {kind}{price}{parent}", self.name(&o.id), o.side.as_str(), o.qty)
            }
            Out::Cancelling(f) => format!("cancelling {}{}", self.name(&f.id), end(&f.reason)),
            Out::Ack(f) => format!("ack {}", self.name(&f.id)),
            Out::Fill(f) => {
                let who = format!("{:?}", f.liquidity).to_lowercase();
                format!(
                    "fill {} {} {}@{} {who} fee {} left {}: {}",
                    self.name(&f.id),
                    f.n,
                    f.qty,
                    f.price,
                    f.fee,
                    f.left,
                    f.why
                )
            }
            Out::Reject(f) => format!("reject {} {}", self.name(&f.id), f.code),
            Out::Done(f) => format!("done {} {:?} {}{}", self.name(&f.id), f.state, f.filled, end(&f.reason)),
            Out::Funding(f) => format!("funding {} at {} on {}: {}", f.rate, f.mark, f.held, f.amount),
        }
    }
}

fn candle(p: u32, open_ns: i64, prices: [&str; 4], closed_by: ClosedBy) -> In {
    let [open, high, low, close] = prices.map(|text| text.parse::<Price>().unwrap());
    In::Candle(Box::new(Candle {
        v: Version,
        venue: VENUE.into(),
        symbol: "BTC".into(),
        p,
        tf: "1s".into(),
        open_ns,
        close_ns: open_ns + SECOND,
        open,
        high,
        low,
        close,
        volume: Qty::ZERO,
        buy_volume: Qty::ZERO,
        quote_volume: Default::default(),
        trades: 0,
        buy_trades: 0,
        first_id: None,
        last_id: None,
        closed_by,
        complete: true,
        filled: false,
        cause: Cause::default(),
    }))
}

/// Plays a tape under the usual configuration of a model and compares the journal.
pub fn check(model: &str, tape: &str, expected: expect_test::Expect) {
    check_with(&config(model), tape, expected);
}
pub fn check_with(config: &Config, tape: &str, expected: expect_test::Expect) {
    config.check().unwrap();
    let mut t = Tape::new(config);
    expected.assert_eq(t.play(tape).log());
}

/// Everything that the core hears stands under the subject that its fact names.
#[test]
fn the_core_hears_its_facts_by_their_subjects_and_passes_over_the_rest() {
    let mut tape = Tape::new(&config("book"));
    let steps = "trade 100 x1 | quote 99x1 101x1 | book asks=101x1 | ticker mark=100 | clock | gap";
    for step in steps.split('|') {
        let (subject, payload) = match tape.input(step.trim()) {
            In::Trades(f) => (f.subject(), f.encode()),
            In::Quotes(f) => (f.subject(), f.encode()),
            In::Books(f) => (f.subject(), f.encode()),
            In::Tickers(f) => (f.subject(), f.encode()),
            In::Clock(f) => (f.subject(), f.encode()),
            In::Gap(f) => (f.subject(), f.encode()),
            _ => continue,
        };
        assert!(In::hear(&subject, &payload).unwrap().is_some(), "{subject}");
        assert!(Raw::hear(&subject, &payload).unwrap().is_some(), "{subject}");
    }
    let In::State(state) = tape.input("state halted") else { panic!("no state") };
    let key = format!("$KV.cfg.{}", subject::stream::desk_state_key("main"));
    assert_eq!(In::hear(&key, &state.encode()).unwrap(), Some(In::State(state.clone())));
    assert_eq!(In::hear(&state.subject(), &state.encode()).unwrap(), Some(In::State(state)));
    assert!(matches!(In::hear(&instrument().subject(), &instrument().encode()).unwrap(), Some(In::Instrument(_))));
    for other in [
        "signal.3.ema.binance.BTC",
        "raw.0.binance.dead",
        "position.main.binance.BTC",
        "$KV.cfg.other",
        "fill.main.x.y",
        "",
    ] {
        assert_eq!(In::hear(other, b"").unwrap(), None, "{other}");
    }
    assert!(In::hear("order.main.binance.BTC", b"junk").is_err());
}

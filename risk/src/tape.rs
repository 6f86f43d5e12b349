//! A desk as text, for tests: words in, orders out.
//!
//! Steps are separated by `|`. Times are event times; the tape starts at second 1 000 000 with the instruments BTC, ETH
//! (perpetuals, lot 0.001, tick 0.1) and SPOT known.
//!
//! ```text
//! mark BTC 100             a trade at 100, now
//! quote BTC 99 101         best bid and ask
//! candle BTC 100           a closed candle
//! vote ema long            a signal on BTC; further words: ETH, 0.5 (strength), stop=90 take=120 valid=60s
//!                          age=5s ext again (the same signal delivered once more) tf=5m
//!                          gap_bars=2 (so many bars behind it were not seen whole)
//! fill [0.4] [at 99]       fills all orders on their way (or that much of the first), at the last mark
//! fee 1                    what the next fills cost
//! ack | reject | done      all orders on their way: taken; rejected; ended unfilled
//! outside sell 1 at 90     a fill of a protective order of the executor's
//! funding BTC -3           a payment
//! wait 5s                  clock facts, each second at most
//! silence 5s               the wall clock goes on, the watermark stands
//! gap BTC 5s               trades were missing for the last 5 s; `gap BTC open` and `gap BTC closed`
//! operator halted flatten  an operator's word; `echo halted` the mirror of our own
//! show intents positions account
//! ```

use std::fmt::Write as _;

use expect_test::Expect;
use schemas::desk::{DeskState, Order, TradingState};
use schemas::exec::{Ack, Done, DoneState, Fill, Funding, Liquidity, Reject};
use schemas::raw::{Clock, Gap};
use schemas::signal::{Signal, Stance};
use schemas::{
    Cause, Core, Fraction, Instrument, InstrumentKind, Notional, Place, Price, Qty, Scale, Side, Version, fixtures,
};

use crate::config::Config;
use crate::core::{In, Out, RiskCore, Seen, Tick};

const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_000_000 * SECOND;

pub fn instrument(symbol: &str) -> Instrument {
    let kind = if symbol == "SPOT" { InstrumentKind::Spot } else { InstrumentKind::Perpetual };
    Instrument { scale: Scale::default(), ..fixtures::instrument("binance", symbol, kind, "0.1", "0.001") }
}

pub fn signal(strategy: &str, symbol: &str, side: Stance, ts_ns: i64) -> Signal {
    Signal {
        v: Version,
        origin: "3".into(),
        strategy: strategy.into(),
        venue: "binance".into(),
        symbol: symbol.into(),
        timeframe: "1m".into(),
        side,
        strength: Fraction::ONE,
        confidence: Fraction::ZERO,
        ts_ns,
        valid_until_ns: ts_ns + 3_600 * SECOND,
        reason: String::new(),
        stop_loss: None,
        take_profit: None,
        gap_bars: 0,
        cause: Cause { stream: "AGG".into(), seq: ts_ns as u64, index: 0 },
    }
}

/// A core with a tape before it.
pub struct Desk {
    pub core: RiskCore,
    pub seq: u64,
    now_ns: i64,
    wall_ns: i64,
    orders: Vec<Order>,
    fills: u32,
    fee: Notional,
    last_signal: Option<Signal>,
    last_price: std::collections::BTreeMap<String, Price>,
    gap_from: i64,
    held: std::collections::BTreeMap<String, Qty>,
    show: Vec<String>,
    pub text: String,
    /// Everything said, in bytes.
    pub said: Vec<u8>,
}

pub fn config(settings: &str) -> Config {
    let text = format!("[risk]\n{settings}\n");
    Config::load(Some(&schemas::config::UserFile { name: "test".into(), text })).unwrap()
}

/// The tape under the default configuration.
pub fn check(tape: &str, expected: Expect) {
    check_with("", tape, expected);
}

/// The tape under the default configuration with `settings` over it.
pub fn check_with(settings: &str, tape: &str, expected: Expect) {
    expected.assert_eq(&Desk::run(settings, tape).text);
}

impl Desk {
    pub fn run(settings: &str, tape: &str) -> Self {
        let mut desk = Self::new(settings);
        tape.split('|').for_each(|step| desk.step(step.trim()));
        desk
    }

    pub fn new(settings: &str) -> Self {
        let core = RiskCore::new("main", &config(settings)).unwrap();
        let mut desk = Self {
            core,
            seq: 0,
            now_ns: START,
            wall_ns: START,
            orders: vec![],
            fills: 0,
            fee: Notional::ZERO,
            last_signal: None,
            last_price: Default::default(),
            gap_from: 0,
            held: Default::default(),
            show: vec![],
            text: String::new(),
            said: vec![],
        };
        for symbol in ["BTC", "ETH", "SPOT"] {
            desk.hear(In::Instrument(Box::new(instrument(symbol))));
        }
        desk
    }

    /// One fact; what follows is noted.
    pub fn hear(&mut self, input: In) {
        self.seq += 1;
        let mut out = Vec::new();
        self.core.handle(&Place::new("DESK_main", self.seq), input, &mut out).unwrap();
        for fact in out {
            use schemas::Speak;
            self.said.extend(fact.subject().bytes());
            self.said.extend(fact.payload());
            self.note(&fact);
        }
    }

    fn note(&mut self, fact: &Out) {
        let shows = |what: &str| self.show.iter().any(|s| s == what);
        match fact {
            Out::Order(o) => {
                let mut line = format!("order {} {} {}", o.side.as_str(), o.qty, o.symbol);
                let price = |line: &mut String, name: &str, price: Option<Price>| {
                    if let Some(price) = price {
                        write!(line, " {name} {price}").unwrap();
                    }
                };
                price(&mut line, "limit", o.limit);
                let protect = o.protect.unwrap_or_default();
                price(&mut line, "stop", protect.stop_loss);
                price(&mut line, "take", protect.take_profit);
                if o.reduce_only {
                    line += " reduce-only";
                }
                writeln!(self.text, "{line}").unwrap();
                self.orders.push((**o).clone());
            }
            Out::Cancel(c) => writeln!(self.text, "cancel {}: {}", c.symbol, c.reason).unwrap(),
            Out::Refusal(r) => {
                writeln!(
                    self.text,
                    "refused {} {} {}: {} {} (allowed {})",
                    r.side.as_str(),
                    r.qty,
                    r.symbol,
                    r.limit,
                    r.number,
                    r.bound
                )
                .unwrap();
            }
            Out::State(s) => {
                let flatten = if s.flatten { ", closing everything" } else { "" };
                let state = format!("{:?}", s.state).to_uppercase();
                writeln!(self.text, "{state} by {}{flatten}: {}", s.by, s.reason).unwrap();
            }
            Out::Intent(i) if shows("intents") => {
                let side = i.side.map_or("none".to_owned(), |side| format!("{side:?}").to_lowercase());
                writeln!(
                    self.text,
                    "intent {side} target {} held {} working {}: {} ({})",
                    i.target, i.held, i.working, i.outcome, i.reason
                )
                .unwrap();
                for vote in &i.votes {
                    let counts = if vote.counted { "" } else { " not counted" };
                    let note = if vote.note.is_empty() { String::new() } else { format!(": {}", vote.note) };
                    let side = format!("{:?}", vote.side).to_lowercase();
                    writeln!(self.text, "  {} {side} weight {}{counts}{note}", vote.strategy, vote.weight).unwrap();
                }
            }
            Out::Position(p) if shows("positions") => {
                let entry = p.entry.map_or("-".to_owned(), |entry| entry.to_string());
                let unrealised = p.unrealised.map_or("-".to_owned(), |u| u.to_string());
                writeln!(
                    self.text,
                    "position {} {} at {entry}, realised {}, unrealised {unrealised}, fees {}, funding {}",
                    p.symbol, p.held, p.realised, p.fees, p.funding
                )
                .unwrap();
            }
            Out::Account(a) if shows("account") => {
                writeln!(self.text, "account cash {} equity {} unrealised {} realised {} fees {} day {} peak {} drawdown {} gross {} net {}", a.cash, a.equity, a.unrealised, a.realised, a.fees, a.day_start_equity, a.peak_equity, a.drawdown, a.gross, a.net).unwrap();
            }
            Out::Intent(_) | Out::Position(_) | Out::Account(_) => {}
        }
    }

    pub fn step(&mut self, step: &str) {
        let words: Vec<&str> = step.split_whitespace().collect();
        match words[..] {
            [] => {}
            ["mark", symbol, price] => self.tick(symbol, Seen::Trade(price.parse().unwrap())),
            ["candle", symbol, price] => self.tick(symbol, Seen::Candle(price.parse().unwrap())),
            ["quote", symbol, bid, ask] => {
                self.last_price.insert(symbol.to_owned(), bid.parse().unwrap());
                self.tick(symbol, Seen::Quote { bid: bid.parse().ok(), ask: ask.parse().ok() });
            }
            ["vote", strategy, side, ref more @ ..] => self.vote(strategy, side, more),
            ["fill", ref more @ ..] => self.fill(more),
            ["fee", fee] => self.fee = fee.parse().unwrap(),
            ["ack"] => self.ack(),
            ["reject"] => self.end(|o, ts_ns| {
                In::Reject(Reject {
                    v: Version,
                    account: o.account,
                    id: o.id,
                    venue: o.venue,
                    symbol: o.symbol,
                    code: "no".into(),
                    reason: String::new(),
                    ts_ns,
                    cause: Cause::default(),
                })
            }),
            ["done"] => self.end(|o, ts_ns| {
                In::Done(Done {
                    v: Version,
                    account: o.account,
                    id: o.id,
                    venue: o.venue,
                    symbol: o.symbol,
                    state: DoneState::Cancelled,
                    filled: Qty::ZERO,
                    reason: String::new(),
                    ts_ns,
                    cause: Cause::default(),
                })
            }),
            ["outside", side, qty, "at", price] => {
                let mut order = crate::limit::testing::sound().order;
                self.fills += 1;
                order.id = format!("protective{}", self.fills);
                order.side = if side == "buy" { Side::Buy } else { Side::Sell };
                order.reduce_only = true;
                self.hear_fill(&order, qty.parse().unwrap(), Qty::ZERO, price.parse().unwrap());
            }
            ["funding", symbol, amount] => self.hear(In::Funding(Funding {
                v: Version,
                account: "main".into(),
                venue: "binance".into(),
                symbol: symbol.into(),
                held: Qty::ZERO,
                mark: Price::ZERO,
                rate: Price::ZERO,
                amount: amount.parse().unwrap(),
                ts_ns: self.now_ns,
                cause: Cause::default(),
            })),
            ["wait", time] => {
                let mut left = ns(time);
                while left > 0 {
                    let step = left.min(SECOND);
                    left -= step;
                    self.now_ns += step;
                    self.wall_ns += step;
                    self.clock();
                }
            }
            ["silence", time] => {
                self.wall_ns += ns(time);
                self.clock();
            }
            ["gap", symbol, "open"] => {
                self.gap_from = self.now_ns;
                self.gap(symbol, self.now_ns, None);
            }
            ["gap", symbol, "closed"] => self.gap(symbol, self.gap_from, Some(self.now_ns)),
            ["gap", symbol, time] => self.gap(symbol, self.now_ns - ns(time), Some(self.now_ns)),
            ["operator", state, ref more @ ..] => self.state(state, more.contains(&"flatten"), None),
            ["echo", state] => self.state(state, false, Some(Cause::default())),
            ["show", ref what @ ..] => self.show = what.iter().map(|w| (*w).to_owned()).collect(),
            _ => panic!("step `{step}`"),
        }
    }

    fn tick(&mut self, symbol: &str, seen: Seen) {
        if let Seen::Trade(price) | Seen::Candle(price) = seen {
            self.last_price.insert(symbol.to_owned(), price);
        }
        let tick = Tick { venue: "binance".into(), symbol: symbol.into(), ts_ns: self.now_ns, seen };
        self.hear(In::Tick(tick));
    }

    fn vote(&mut self, strategy: &str, side: &str, more: &[&str]) {
        let side = match side {
            "long" => Stance::Long,
            "flat" => Stance::Flat,
            "short" => Stance::Short,
            other => panic!("side {other}"),
        };
        let mut s = signal(strategy, "BTC", side, self.now_ns);
        // Two signals of one instant follow from different inputs.
        s.cause.index = (self.seq % 1_000) as u16;
        for word in more {
            match word.split_once('=').unwrap_or((word, "")) {
                ("stop", price) => s.stop_loss = price.parse().ok(),
                ("take", price) => s.take_profit = price.parse().ok(),
                ("valid", time) => s.valid_until_ns = s.ts_ns + ns(time),
                ("age", time) => s.ts_ns -= ns(time),
                ("tf", tf) => s.timeframe = tf.into(),
                ("gap_bars", bars) => s.gap_bars = bars.parse().unwrap(),
                ("ext", _) => s.origin = "ext".into(),
                ("again", _) => s = self.last_signal.clone().unwrap_or(s),
                (number, _) if number.starts_with(|c: char| c.is_ascii_digit()) => {
                    s.strength = Fraction::new(number.parse().unwrap()).unwrap()
                }
                (symbol, _) => s.symbol = symbol.into(),
            }
        }
        self.last_signal = Some(s.clone());
        self.hear(In::Signal(Box::new(s)));
    }

    /// Orders that the core still has on their way, oldest first.
    fn working(&mut self) -> Vec<Order> {
        let ids: Vec<String> = self.core.working().map(str::to_owned).collect();
        self.orders.retain(|order| ids.contains(&order.id));
        self.orders.clone()
    }

    fn fill(&mut self, words: &[&str]) {
        let (part, at) = match words {
            [] => (None, None),
            ["at", price] => (None, Some(price)),
            [part] => (Some(part), None),
            [part, "at", price] => (Some(part), Some(price)),
            other => panic!("fill {other:?}"),
        };
        for order in self.working() {
            let price = match at {
                Some(price) => price.parse().unwrap(),
                None => self.last_price.get(&order.symbol).copied().unwrap_or("100".parse().unwrap()),
            };
            let qty = part.map_or(order.qty, |q| q.parse().unwrap());
            self.hear_fill(&order, qty, order.qty - qty, price);
            if part.is_some() {
                if let Some(first) = self.orders.iter_mut().find(|o| o.id == order.id) {
                    first.qty -= qty;
                }
                break;
            }
        }
    }

    fn hear_fill(&mut self, order: &Order, qty: Qty, left: Qty, price: Price) {
        self.fills += 1;
        let signed = if order.side == Side::Buy { qty } else { -qty };
        *self.held.entry(order.symbol.clone()).or_default() += signed;
        self.hear(In::Fill(Box::new(Fill {
            v: Version,
            account: "main".into(),
            id: order.id.clone(),
            n: self.fills,
            venue: order.venue.clone(),
            symbol: order.symbol.clone(),
            side: order.side,
            price,
            qty,
            fee: self.fee,
            liquidity: Liquidity::Taker,
            reduce_only: order.reduce_only,
            left,
            why: String::new(),
            ts_ns: self.now_ns,
            cause: Cause::default(),
        })));
    }

    /// The signed sum of all fills that the tape made.
    pub fn held_by_fills(&self, symbol: &str) -> Qty {
        self.held.get(symbol).copied().unwrap_or_default()
    }

    fn ack(&mut self) {
        for o in self.working() {
            let ack = Ack {
                v: Version,
                account: o.account,
                id: o.id.clone(),
                venue: o.venue,
                symbol: o.symbol,
                venue_order_id: o.id,
                ts_ns: self.now_ns,
                cause: Cause::default(),
            };
            self.hear(In::Ack(ack));
        }
    }

    fn end(&mut self, fact: impl Fn(Order, i64) -> In) {
        for order in self.working() {
            let input = fact(order, self.now_ns);
            self.hear(input);
        }
    }

    fn clock(&mut self) {
        self.hear(In::Clock(Clock {
            v: Version,
            venue: "binance".into(),
            p: 0,
            watermark_ns: self.now_ns,
            wall_ns: self.wall_ns,
        }));
    }

    fn gap(&mut self, symbol: &str, from_ns: i64, to_ns: Option<i64>) {
        self.hear(In::Gap(Gap {
            v: Version,
            venue: "binance".into(),
            symbol: symbol.into(),
            p: 0,
            channel: "trade".into(),
            from_ns,
            to_ns,
            reason: String::new(),
        }));
    }

    fn state(&mut self, state: &str, flatten: bool, cause: Option<Cause>) {
        let state = match state {
            "active" => TradingState::Active,
            "reducing" => TradingState::Reducing,
            "halted" => TradingState::Halted,
            other => panic!("state {other}"),
        };
        self.hear(In::State(DeskState {
            v: Version,
            account: "main".into(),
            state,
            flatten,
            by: "operator".into(),
            reason: String::new(),
            ts_ns: self.now_ns,
            cause,
        }));
    }
}

/// `5s`, `2m`, `200ms`.
fn ns(text: &str) -> i64 {
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    let number: i64 = digits.parse().unwrap();
    match &text[digits.len()..] {
        "ms" => number * 1_000_000,
        "s" => number * SECOND,
        "m" => number * 60 * SECOND,
        "h" => number * 3_600 * SECOND,
        other => panic!("unit {other}"),
    }
}

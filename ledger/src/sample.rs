//! A made-up day of facts for tests: one account that trades two instruments, a strategy, a model.

use std::collections::BTreeMap;

use schemas::desk::{AccountFact, Cancel, Order, OrderKind, PositionFact, Protect, TradingState};
use schemas::exec::{Ack, Done, DoneState, Fill, Liquidity, Reject, Sending};
use schemas::llm::{LlmAttempt, LlmCoin, LlmCoinVerdict, LlmPrompt, LlmReply, LlmUsage, LlmVerdict};
use schemas::market::{Candle, ClosedBy, Indicators};
use schemas::signal::{Signal, Stance};
use schemas::wire::{Fact, Version};
use schemas::{Cause, Decimal, Fraction, Notional, Place, Price, Qty, Side};

/// A fact as a stream holds it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub stream: String,
    pub seq: u64,
    pub subject: String,
    pub payload: Vec<u8>,
}

pub(crate) type Streams = BTreeMap<String, Vec<Stored>>;

/// One order of all facts that keeps each stream's own; `choices` say which stream comes next.
pub(crate) fn merged(streams: &Streams, choices: &[u8]) -> Vec<Stored> {
    let mut left: Vec<&[Stored]> = streams.values().map(Vec::as_slice).collect();
    let mut all = Vec::new();
    let mut choices = choices.iter();
    loop {
        left.retain(|facts| !facts.is_empty());
        if left.is_empty() {
            return all;
        }
        let at = choices.next().map_or(0, |&c| c as usize % left.len());
        all.push(left[at][0].clone());
        left[at] = &left[at][1..];
    }
}

/// A small generator of numbers that does not change with a library's version.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

struct Day {
    dice: Dice,
    streams: Streams,
}

impl Day {
    fn store<F: Fact>(&mut self, stream: &str, fact: &F) -> Cause {
        let facts = self.streams.entry(stream.to_owned()).or_default();
        let seq = facts.len() as u64 + 1;
        let stored = Stored { stream: stream.to_owned(), seq, subject: fact.subject(), payload: fact.encode() };
        facts.push(stored);
        Place::new(stream, seq).cause(0)
    }
}

const VENUE: &str = "binance";
const SYMBOLS: [&str; 2] = ["BTCUSDT", "ETHUSDT"];
const MINUTE: i64 = 60_000_000_000;

#[derive(Clone, Copy, Default)]
struct Held {
    qty: Decimal,
    entry: Decimal,
    since_ns: Option<i64>,
    realised: Decimal,
    fees: Decimal,
}

/// Facts of 40 minutes; equal seeds give equal days.
pub(crate) fn day(seed: u64) -> Streams {
    let mut day = Day { dice: Dice(seed), streams: Streams::new() };
    let mut held = [Held::default(); 2];
    for minute in 0..40 {
        let ts_ns = (minute + 1) * MINUTE;
        let at = day.dice.below(2) as usize;
        let price = Decimal::new(100_00 + day.dice.below(900) as i64, 2);
        let candle = candle(&mut day, SYMBOLS[at], ts_ns, price);
        let signal = signal(&mut day, SYMBOLS[at], ts_ns, candle);
        if minute % 10 == 3 {
            conversation(&mut day, SYMBOLS[at], ts_ns, price);
        }
        order(&mut day, &mut held[at], SYMBOLS[at], ts_ns, price, signal);
    }
    // Everything is closed at the end, so that sums can be compared.
    for (at, held) in held.iter_mut().enumerate() {
        if !held.qty.is_zero() {
            let side = if held.qty.is_sign_positive() { Side::Sell } else { Side::Buy };
            let qty = held.qty.abs();
            execute(&mut day, held, SYMBOLS[at], 50 * MINUTE, Decimal::ONE_HUNDRED, side, qty, Cause::default());
        }
    }
    day.streams
}

fn candle(day: &mut Day, symbol: &str, ts_ns: i64, price: Decimal) -> Cause {
    let price = Price::new(price);
    let complete = day.dice.below(5) > 0;
    let fact = Candle {
        v: Version,
        venue: VENUE.into(),
        symbol: symbol.into(),
        p: 0,
        tf: "1m".into(),
        open_ns: ts_ns - MINUTE,
        close_ns: ts_ns,
        open: price,
        high: price,
        low: price,
        close: price,
        volume: Qty::new(Decimal::new(day.dice.below(1000) as i64, 3)),
        buy_volume: Qty::ZERO,
        quote_volume: Notional::new(Decimal::new(day.dice.below(1000) as i64, 1)),
        trades: 3,
        buy_trades: 0,
        first_id: Some(1),
        last_id: Some(3),
        closed_by: ClosedBy::Clock,
        complete,
        filled: false,
        cause: Place::new("RAW_BINANCE", ts_ns as u64).cause(0),
    };
    let cause = day.store("AGG_BINANCE_0", &fact);
    let values = BTreeMap::from([("ema.ema_9".to_owned(), 0.1 + 0.2), ("rsi.rsi_14".to_owned(), 1e-7)]);
    let indicators = Indicators {
        v: Version,
        venue: VENUE.into(),
        symbol: symbol.into(),
        p: 0,
        tf: "1m".into(),
        open_ns: fact.open_ns,
        close_ns: fact.close_ns,
        close: fact.close,
        complete,
        values,
        gaps: BTreeMap::new(),
        cause: fact.cause,
    };
    day.store("AGG_BINANCE_0", &indicators);
    cause
}

fn signal(day: &mut Day, symbol: &str, ts_ns: i64, cause: Cause) -> Cause {
    let fact = Signal {
        v: Version,
        origin: "0".into(),
        strategy: "ema_cross".into(),
        venue: VENUE.into(),
        symbol: symbol.into(),
        timeframe: "1m".into(),
        side: [Stance::Long, Stance::Flat, Stance::Short][day.dice.below(3) as usize],
        strength: Fraction::clamped(Decimal::new(day.dice.below(100) as i64, 2)),
        confidence: Fraction::ONE,
        ts_ns,
        valid_until_ns: ts_ns + MINUTE,
        reason: "crossed\0 it's \"over\"".into(),
        stop_loss: None,
        take_profit: Some(Price::new(Decimal::new(12345, 2))),
        gap_bars: 0,
        cause,
    };
    day.store("SIG_BINANCE_0", &fact)
}

fn conversation(day: &mut Day, symbol: &str, ts_ns: i64, price: Decimal) {
    let (trader, cycle) = ("owl".to_owned(), format!("owl-{}", ts_ns / 1_000_000));
    let coins = vec![LlmCoin {
        coin: symbol[..3].into(),
        venue: VENUE.into(),
        symbol: symbol.into(),
        timeframe: "1m".into(),
        close: Price::new(price),
        gap_bars: 0,
    }];
    let prompt = LlmPrompt {
        v: Version,
        trader: trader.clone(),
        cycle: cycle.clone(),
        as_of_ns: ts_ns,
        valid_until_ns: ts_ns + MINUTE,
        template: "t1".into(),
        request_hash: "00ff".into(),
        system: "You trade.".into(),
        user: "What now?".into(),
        coins: coins.clone(),
        cause: Cause::default(),
    };
    let asked = day.store("LLMP_owl", &prompt);
    if day.dice.below(4) == 0 {
        return;
    }
    let attempt = LlmAttempt {
        kind: "ask".into(),
        status: Some(200),
        finish_reason: Some("stop".into()),
        content: Some("{\"decisions\":[]}\0".into()),
        reasoning: None,
        refusal: None,
        error: None,
        usage: LlmUsage { prompt_tokens: Some(10 + day.dice.below(9)), ..LlmUsage::default() },
        latency_ms: day.dice.below(900),
    };
    let reply = LlmReply {
        v: Version,
        trader: trader.clone(),
        cycle: cycle.clone(),
        as_of_ns: ts_ns,
        valid_until_ns: ts_ns + MINUTE,
        request_hash: "00ff".into(),
        model: "m".into(),
        coins,
        wall_ns: ts_ns + 5,
        attempts: vec![attempt.clone(), LlmAttempt { kind: "repair".into(), ..attempt }],
        cause: asked,
    };
    let replied = day.store("LLMR_owl", &reply);
    let verdict = LlmVerdict {
        v: Version,
        trader,
        cycle,
        as_of_ns: ts_ns,
        verdict: if day.dice.below(2) == 0 { "decided" } else { "no_decision" }.into(),
        code: Some("V01".into()),
        repaired: true,
        coins: vec![LlmCoinVerdict {
            coin: symbol[..3].into(),
            venue: VENUE.into(),
            symbol: symbol.into(),
            verdict: "hold".into(),
            code: None,
            detail: String::new(),
        }],
        summary: "held".into(),
        cause: replied,
    };
    day.store("SIG_LLM_owl", &verdict);
}

fn order(day: &mut Day, held: &mut Held, symbol: &str, ts_ns: i64, price: Decimal, cause: Cause) {
    let side = if day.dice.below(2) == 0 { Side::Buy } else { Side::Sell };
    let qty = Decimal::new(1 + day.dice.below(30) as i64, 1);
    execute(day, held, symbol, ts_ns, price, side, qty, cause);
}

#[allow(clippy::too_many_arguments)] // one order in one line, in a test
fn execute(
    day: &mut Day,
    held: &mut Held,
    symbol: &str,
    ts_ns: i64,
    price: Decimal,
    side: Side,
    qty: Decimal,
    cause: Cause,
) {
    let id = format!("order{symbol}{ts_ns}");
    let account = "main".to_owned();
    let order = Order {
        v: Version,
        account: account.clone(),
        id: id.clone(),
        venue: VENUE.into(),
        symbol: symbol.into(),
        side,
        kind: OrderKind::Market,
        qty: Qty::new(qty),
        limit: None,
        trigger: None,
        reduce_only: false,
        post_only: false,
        time_in_force: Default::default(),
        protect: Some(Protect { stop_loss: Some(Price::new(price)), take_profit: None }),
        parent: None,
        strategies: vec!["ema_cross".into()],
        ts_ns,
        reason: "majority long".into(),
        cause,
    };
    let ordered = day.store("RISK_main", &order);
    if day.dice.below(6) == 0 {
        let venue = VENUE.into();
        let symbol = symbol.into();
        let reason = "too late".to_owned();
        let cancel = Cancel { v: Version, account, id, venue, symbol, ts_ns, reason, cause: ordered.clone() };
        day.store("RISK_main", &cancel);
    }
    let closing = ts_ns > 45 * MINUTE;
    let sending = Sending { v: Version, order: order.clone(), ts_ns: ts_ns + 1, cause: ordered };
    let sent = day.store("EXEC_main", &sending);
    if !closing && day.dice.below(8) == 0 {
        let reject = Reject {
            v: Version,
            account: order.account,
            id: order.id,
            venue: order.venue,
            symbol: order.symbol,
            code: "halted".into(),
            reason: "the account is halted".into(),
            ts_ns: ts_ns + 2,
            cause: sent,
        };
        day.store("EXEC_main", &reject);
        return;
    }
    let ack = Ack {
        v: Version,
        account: order.account.clone(),
        id: order.id.clone(),
        venue: order.venue.clone(),
        symbol: order.symbol.clone(),
        venue_order_id: order.id.clone(),
        ts_ns: ts_ns + 2,
        cause: sent,
    };
    let acked = day.store("EXEC_main", &ack);
    let first = if closing || day.dice.below(2) == 0 { qty } else { qty / Decimal::TWO };
    let mut left = qty;
    for (n, part) in [first, qty - first].into_iter().filter(|part| !part.is_zero()).enumerate() {
        left -= part;
        let fee = (price * part * Decimal::new(5, 4)).round_dp(8);
        let fill = Fill {
            v: Version,
            account: order.account.clone(),
            id: order.id.clone(),
            n: n as u32 + 1,
            venue: order.venue.clone(),
            symbol: order.symbol.clone(),
            side,
            price: Price::new(price),
            qty: Qty::new(part),
            fee: Notional::new(fee),
            liquidity: Liquidity::Taker,
            reduce_only: false,
            left: Qty::new(left),
            why: "next trade".into(),
            ts_ns: ts_ns + 3 + n as i64,
            cause: acked.clone(),
        };
        let filled = day.store("EXEC_main", &fill);
        held.apply(&fill, fee);
        position(day, held, symbol, fill.ts_ns, filled);
    }
    let done = Done {
        v: Version,
        account: order.account,
        id: order.id,
        venue: order.venue,
        symbol: order.symbol,
        state: if left.is_zero() { DoneState::Filled } else { DoneState::Cancelled },
        filled: Qty::new(qty - left),
        reason: "all filled".into(),
        ts_ns: ts_ns + 9,
        cause: acked,
    };
    day.store("EXEC_main", &done);
}

fn sign(d: Decimal) -> Decimal {
    Decimal::from(Qty::new(d).signum())
}

impl Held {
    fn apply(&mut self, fill: &Fill, fee: Decimal) {
        let (price, signed) = (fill.price.get(), fill.qty.get() * fill.side.sign());
        let was = self.qty;
        self.qty += signed;
        self.fees += fee;
        let against = (was.is_sign_positive() != signed.is_sign_positive()) && !was.is_zero();
        if against {
            let closed = was.abs().min(signed.abs()) * sign(was);
            self.realised += (price - self.entry) * closed;
        }
        if was.is_zero() || (against && sign(self.qty) == -sign(was)) {
            self.entry = price;
            self.since_ns = Some(fill.ts_ns);
        }
        if self.qty.is_zero() {
            self.since_ns = None;
        }
    }
}

fn position(day: &mut Day, held: &Held, symbol: &str, ts_ns: i64, cause: Cause) {
    let fact = PositionFact {
        v: Version,
        account: "main".into(),
        venue: VENUE.into(),
        symbol: symbol.into(),
        ts_ns,
        held: Qty::new(held.qty),
        entry: held.since_ns.map(|_| Price::new(held.entry)),
        since_ns: held.since_ns,
        realised: Notional::new(held.realised),
        fees: Notional::new(held.fees),
        funding: Notional::ZERO,
        mark: Some(Price::new(held.entry)),
        unrealised: Some(Notional::ZERO),
        cause: cause.clone(),
    };
    day.store("RISK_main", &fact);
    let money = Notional::new(Decimal::new(100_000 + day.dice.below(100) as i64, 1));
    let account = AccountFact {
        v: Version,
        account: "main".into(),
        ts_ns,
        mode: "paper".into(),
        cash: money,
        equity: money,
        unrealised: Notional::ZERO,
        realised: fact.realised,
        fees: fact.fees,
        funding: Notional::ZERO,
        day_start_equity: money,
        peak_equity: money,
        drawdown: Fraction::ZERO,
        gross: money,
        net: money,
        state: TradingState::Active,
        cause,
    };
    day.store("RISK_main", &account);
}

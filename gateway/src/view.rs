//! What the pipeline looks like now: a fold over facts, asked by REST and told to channels. Pure: the shell
//! brings the facts and takes the updates away.

use std::collections::{BTreeMap, VecDeque};

use schemas::desk::{AccountFact, DeskState, Intent, Order, PositionFact, Refusal};
use schemas::exec::{Ack, Done, Fill, Reject};
use schemas::fixed::{PriceM, QtyM};
use schemas::llm::{LlmPrompt, LlmReply, LlmVerdict};
use schemas::market::{Candle, Indicators};
use schemas::raw::Raw;
use schemas::signal::Signal;
use schemas::subject::{Tokens, escape};
use schemas::{Fact, Instrument, Price, Qty, WireError};
use serde::Serialize;
use serde_json::{Value, json};

use crate::channel::Policy;
use crate::config::History;

/// One message for the clients of a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    pub channel: String,
    /// Apart inside a `latest` channel; empty where the channel is one thing.
    pub key: String,
    pub policy: Policy,
    pub data: Value,
}

/// The newest of everything a venue tells about an instrument.
#[derive(Clone, Debug, Default, Serialize, PartialEq)]
pub struct Ticker {
    pub venue: String,
    pub symbol: String,
    pub last: Option<Price>,
    pub last_size: Option<Qty>,
    pub last_side: Option<&'static str>,
    pub bid: Option<Price>,
    pub bid_size: Option<Qty>,
    pub ask: Option<Price>,
    pub ask_size: Option<Qty>,
    pub mark: Option<Price>,
    pub index: Option<Price>,
    pub funding_rate: Option<Price>,
    pub open_interest: Option<Qty>,
    /// First price since this gateway began to listen, for a change column.
    pub first: Option<Price>,
    /// Event time of the newest of these.
    pub ts_ns: i64,
}

/// An order with what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct OrderRow {
    #[serde(flatten)]
    pub order: Order,
    /// `sent`, `working`, `filled`, `cancelled`, `expired`, `rejected`.
    pub status: &'static str,
    pub filled: Qty,
    /// Why it ended, where it did.
    pub note: String,
}

/// One cycle of an LLM strategy.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Conversation {
    pub trader: String,
    pub cycle: String,
    pub prompt: Option<LlmPrompt>,
    pub reply: Option<LlmReply>,
    pub verdict: Option<LlmVerdict>,
}

/// The fold. Every collection has the bound of `History`.
#[derive(Debug)]
pub struct View {
    account_name: String,
    bounds: History,
    tickers: BTreeMap<(String, String), Ticker>,
    instruments: BTreeMap<(String, String), Instrument>,
    last_trade_id: BTreeMap<(String, String), u64>,
    positions: BTreeMap<(String, String), PositionFact>,
    account: Option<AccountFact>,
    state: Option<DeskState>,
    equity: VecDeque<(i64, AccountFact)>,
    orders: VecDeque<OrderRow>,
    fills: VecDeque<Fill>,
    signals: VecDeque<Signal>,
    intents: VecDeque<Intent>,
    refusals: VecDeque<Refusal>,
    conversations: VecDeque<Conversation>,
}

impl View {
    pub fn new(account: &str, bounds: History) -> Self {
        Self {
            account_name: account.to_owned(),
            bounds,
            tickers: BTreeMap::new(),
            instruments: BTreeMap::new(),
            last_trade_id: BTreeMap::new(),
            positions: BTreeMap::new(),
            account: None,
            state: None,
            equity: VecDeque::new(),
            orders: VecDeque::new(),
            fills: VecDeque::new(),
            signals: VecDeque::new(),
            intents: VecDeque::new(),
            refusals: VecDeque::new(),
            conversations: VecDeque::new(),
        }
    }

    /// Folds one fact; what clients should be told is appended to `out`. Unknown subjects are passed over.
    pub fn hear(&mut self, subject: &str, payload: &[u8], out: &mut Vec<Update>) -> Result<(), WireError> {
        let tokens = Tokens::of(subject);
        match tokens.head() {
            "raw" => {
                if let Some(raw) = Raw::hear(subject, payload)? {
                    self.raw(raw, out);
                }
            }
            "candle" | "preview" => {
                let candle = Candle::decode(payload)?;
                let channel = format!("candle.{}.{}.{}", candle.venue, escape(&candle.symbol), candle.tf);
                out.push(latest(channel, "", candle_json(&candle)));
            }
            "indicator" => {
                let i = Indicators::decode(payload)?;
                out.push(latest(format!("indicator.{}.{}.{}", i.venue, escape(&i.symbol), i.tf), "", to_json(&i)));
            }
            "signal" => {
                let signal = Signal::decode(payload)?;
                out.push(log("signals".into(), to_json(&signal)));
                keep(&mut self.signals, signal, self.bounds.rows_max);
            }
            "llm" => self.llm(tokens.get(2), payload)?,
            "$KV" if tokens.get(1) == "instruments" => {
                let instrument = Instrument::decode(payload)?;
                self.instruments.insert((instrument.venue.clone(), instrument.symbol.clone()), instrument);
            }
            head => self.desk(head, payload, out)?,
        }
        Ok(())
    }

    fn raw(&mut self, raw: Raw, out: &mut Vec<Update>) {
        match raw {
            Raw::Trades(pack) => {
                let key = (pack.venue.clone(), pack.symbol.clone());
                // A plain subscriber also sees what a stream refused as a duplicate: ids tell.
                let seen = self.last_trade_id.entry(key.clone()).or_default();
                let fresh: Vec<_> = pack.iter().filter(|t| t.id > *seen).collect();
                let Some(last) = fresh.last().copied() else { return };
                *seen = last.id;
                let ticks: Vec<Value> = fresh
                    .iter()
                    .map(|t| json!({"id": t.id, "ts_ns": t.ts.0, "price": t.price.price(pack.scale), "size": t.size.qty(pack.scale), "side": t.side}))
                    .collect();
                let ticker = self.tickers.entry(key).or_default();
                ticker.last = Some(last.price.price(pack.scale));
                ticker.first = ticker.first.or(ticker.last);
                ticker.last_size = Some(last.size.qty(pack.scale));
                ticker.last_side = Some(last.side.as_str());
                ticker.ts_ns = ticker.ts_ns.max(last.ts.0);
                out.push(log(format!("trades.{}.{}", pack.venue, escape(&pack.symbol)), Value::Array(ticks)));
                self.tell_ticker(&pack.venue, &pack.symbol, out);
            }
            Raw::Quotes(pack) => {
                let Some(q) = pack.iter().last() else { return };
                let ticker = self.tickers.entry((pack.venue.clone(), pack.symbol.clone())).or_default();
                let side =
                    |s: Option<(PriceM, QtyM)>| (s.map(|x| x.0.price(pack.scale)), s.map(|x| x.1.qty(pack.scale)));
                (ticker.bid, ticker.bid_size) = side(q.bid);
                (ticker.ask, ticker.ask_size) = side(q.ask);
                ticker.ts_ns = ticker.ts_ns.max(q.ts.0);
                self.tell_ticker(&pack.venue, &pack.symbol, out);
            }
            Raw::Tickers(pack) => {
                let ticker = self.tickers.entry((pack.venue.clone(), pack.symbol.clone())).or_default();
                for t in &pack.items {
                    ticker.last = t.last.or(ticker.last);
                    ticker.first = ticker.first.or(ticker.last);
                    ticker.bid = t.bid.or(ticker.bid);
                    ticker.ask = t.ask.or(ticker.ask);
                    ticker.mark = t.mark.or(ticker.mark);
                    ticker.index = t.index.or(ticker.index);
                    ticker.funding_rate = t.funding_rate.or(ticker.funding_rate);
                    ticker.open_interest = t.open_interest.or(ticker.open_interest);
                    ticker.ts_ns = ticker.ts_ns.max(t.ts_ns);
                }
                self.tell_ticker(&pack.venue, &pack.symbol, out);
            }
            Raw::Books(_)
            | Raw::Bars(_)
            | Raw::Liquidations(_)
            | Raw::Clock(_)
            | Raw::Gap(_)
            | Raw::Link(_)
            | Raw::Dead(_) => {}
        }
    }

    fn tell_ticker(&mut self, venue: &str, symbol: &str, out: &mut Vec<Update>) {
        if let Some(ticker) = self.tickers.get_mut(&(venue.to_owned(), symbol.to_owned())) {
            ticker.venue = venue.to_owned();
            ticker.symbol = symbol.to_owned();
            out.push(latest(format!("ticker.{venue}.{}", escape(symbol)), "", to_json(ticker)));
        }
    }

    fn llm(&mut self, part: &str, payload: &[u8]) -> Result<(), WireError> {
        match part {
            "prompt" => {
                let prompt = LlmPrompt::decode(payload)?;
                let row = self.conversation(&prompt.trader, &prompt.cycle);
                row.prompt = Some(prompt);
            }
            "reply" => {
                let reply = LlmReply::decode(payload)?;
                let row = self.conversation(&reply.trader, &reply.cycle);
                row.reply = Some(reply);
            }
            "verdict" => {
                let verdict = LlmVerdict::decode(payload)?;
                let row = self.conversation(&verdict.trader, &verdict.cycle);
                row.verdict = Some(verdict);
            }
            _ => {}
        }
        Ok(())
    }

    /// The cycle's row, made when it is new; the oldest goes when there are too many.
    fn conversation(&mut self, trader: &str, cycle: &str) -> &mut Conversation {
        let at = self.conversations.iter().position(|c| c.trader == trader && c.cycle == cycle);
        let at = at.unwrap_or_else(|| {
            keep(
                &mut self.conversations,
                Conversation { trader: trader.to_owned(), cycle: cycle.to_owned(), ..Default::default() },
                self.bounds.rows_max,
            );
            self.conversations.len() - 1
        });
        &mut self.conversations[at]
    }

    fn desk(&mut self, head: &str, payload: &[u8], out: &mut Vec<Update>) -> Result<(), WireError> {
        match head {
            "position" => {
                let fact = PositionFact::decode(payload)?;
                if fact.account == self.account_name {
                    let key = format!("{}.{}", fact.venue, fact.symbol);
                    out.push(latest(format!("positions.{}", escape(&fact.account)), &key, to_json(&fact)));
                    self.positions.insert((fact.venue.clone(), fact.symbol.clone()), fact);
                }
            }
            "account" => {
                let fact = AccountFact::decode(payload)?;
                if fact.account == self.account_name {
                    out.push(latest(format!("account.{}", escape(&fact.account)), "", to_json(&fact)));
                    keep(&mut self.equity, (fact.ts_ns, fact.clone()), self.bounds.equity_points_max);
                    self.account = Some(fact);
                }
            }
            "state" => {
                let fact = DeskState::decode(payload)?;
                if fact.account == self.account_name {
                    self.state = Some(fact);
                }
            }
            "intent" => {
                let fact = Intent::decode(payload)?;
                out.push(log(format!("intents.{}", escape(&fact.account)), to_json(&fact)));
                keep(&mut self.intents, fact, self.bounds.rows_max);
            }
            "refusal" => keep(&mut self.refusals, Refusal::decode(payload)?, self.bounds.rows_max),
            "order" => {
                let order = Order::decode(payload)?;
                self.add_order(order, out);
            }
            "sending" => {
                let sending = schemas::exec::Sending::decode(payload)?;
                if self.orders.iter().all(|row| row.order.id != sending.order.id) {
                    self.add_order(sending.order, out);
                }
            }
            "ack" => {
                let ack = Ack::decode(payload)?;
                self.change_order(&ack.id, out, |row| row.status = "working");
            }
            "reject" => {
                let reject = Reject::decode(payload)?;
                self.change_order(&reject.id, out, |row| {
                    row.status = "rejected";
                    row.note = reject.reason.clone();
                });
            }
            "done" => {
                let done = Done::decode(payload)?;
                self.change_order(&done.id, out, |row| {
                    row.status = match done.state {
                        schemas::exec::DoneState::Filled => "filled",
                        schemas::exec::DoneState::Cancelled => "cancelled",
                        schemas::exec::DoneState::Expired => "expired",
                    };
                    row.filled = done.filled;
                    row.note = done.reason.clone();
                });
            }
            "fill" => {
                let fill = Fill::decode(payload)?;
                if fill.account == self.account_name {
                    self.change_order(&fill.id.clone(), out, |row| row.filled += fill.qty);
                    out.push(log(format!("fills.{}", escape(&fill.account)), to_json(&fill)));
                    keep(&mut self.fills, fill, self.bounds.rows_max);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add_order(&mut self, order: Order, out: &mut Vec<Update>) {
        if order.account != self.account_name {
            return;
        }
        let row = OrderRow { order, status: "sent", filled: Qty::ZERO, note: String::new() };
        out.push(log(format!("orders.{}", escape(&self.account_name)), to_json(&row)));
        keep(&mut self.orders, row, self.bounds.rows_max);
    }

    fn change_order(&mut self, id: &str, out: &mut Vec<Update>, change: impl FnOnce(&mut OrderRow)) {
        // Newest first: what changes is nearly always young.
        if let Some(row) = self.orders.iter_mut().rev().find(|row| row.order.id == id) {
            change(row);
            out.push(log(format!("orders.{}", escape(&self.account_name)), to_json(row)));
        }
    }

    // What REST asks. Lists are newest first.

    pub fn positions(&self) -> Vec<&PositionFact> {
        self.positions.values().collect()
    }
    pub fn account(&self) -> Option<&AccountFact> {
        self.account.as_ref()
    }
    pub fn state(&self) -> Option<&DeskState> {
        self.state.as_ref()
    }
    pub fn equity(&self, from_ns: i64) -> Vec<Value> {
        let points = self.equity.iter().filter(|(ts, _)| *ts >= from_ns);
        points.map(|(ts, a)| json!({"ts_ns": ts, "equity": a.equity, "cash": a.cash, "drawdown": a.drawdown})).collect()
    }
    pub fn orders(&self, limit: usize) -> Vec<&OrderRow> {
        self.orders.iter().rev().take(limit).collect()
    }
    pub fn fills(&self, limit: usize) -> Vec<&Fill> {
        self.fills.iter().rev().take(limit).collect()
    }
    pub fn signals(&self, strategy: Option<&str>, limit: usize) -> Vec<&Signal> {
        self.signals.iter().rev().filter(|s| strategy.is_none_or(|name| s.strategy == name)).take(limit).collect()
    }
    pub fn intents(&self, limit: usize) -> Vec<&Intent> {
        self.intents.iter().rev().take(limit).collect()
    }
    pub fn refusals(&self, limit: usize) -> Vec<&Refusal> {
        self.refusals.iter().rev().take(limit).collect()
    }
    pub fn conversations(&self, limit: usize) -> Vec<&Conversation> {
        self.conversations.iter().rev().take(limit).collect()
    }
    pub fn tickers(&self) -> Vec<&Ticker> {
        self.tickers.values().collect()
    }
    pub fn instruments(&self) -> Vec<&Instrument> {
        self.instruments.values().collect()
    }

    /// What a new subscriber of a channel is shown first.
    pub fn snapshot(&self, channel: &str) -> Vec<(String, Value)> {
        let tokens = Tokens::of(channel);
        match tokens.head() {
            "ticker" => {
                let found =
                    self.tickers.values().find(|t| t.venue == tokens.get(1) && escape(&t.symbol) == tokens.get(2));
                found.map(|t| (String::new(), to_json(t))).into_iter().collect()
            }
            "positions" => self.positions.values().map(|p| (format!("{}.{}", p.venue, p.symbol), to_json(p))).collect(),
            "account" => self.account.as_ref().map(|a| (String::new(), to_json(a))).into_iter().collect(),
            _ => Vec::new(),
        }
    }
}

/// A candle for charts: the fact plus `vwap`.
pub fn candle_json(candle: &Candle) -> Value {
    let mut value = to_json(candle);
    value["vwap"] = json!(candle.vwap());
    value
}

fn to_json(fact: &impl Serialize) -> Value {
    serde_json::to_value(fact).expect("Invariant: a fact serialises")
}
fn latest(channel: String, key: &str, data: Value) -> Update {
    Update { channel, key: key.to_owned(), policy: Policy::Latest, data }
}
fn log(channel: String, data: Value) -> Update {
    Update { channel, key: String::new(), policy: Policy::Log, data }
}
fn keep<T>(list: &mut VecDeque<T>, item: T, max: usize) {
    if list.len() >= max {
        list.pop_front();
    }
    list.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::raw::{Trade, Trades};
    use schemas::{Cause, Nanos, Scale, Side, Version};

    fn view() -> View {
        View::new("main", crate::config::Config::load(None).unwrap().history)
    }

    fn trade_pack(ids: &[u64]) -> Trades {
        let mut pack = Trades::new(3, "binance", "BTCUSDT", Scale { price: 2, qty: 3 });
        for id in ids {
            pack.push(Trade {
                ts: Nanos(*id as i64),
                recv: Nanos(0),
                id: *id,
                price: PriceM(6_000_010),
                size: QtyM(1),
                side: Side::Buy,
            });
        }
        pack
    }

    fn hear(view: &mut View, fact: &impl Fact) -> Vec<Update> {
        let mut out = Vec::new();
        view.hear(&fact.subject(), &fact.encode(), &mut out).unwrap();
        out
    }

    #[test]
    fn a_trade_that_a_stream_refused_as_a_duplicate_is_shown_once() {
        let mut view = view();
        assert_eq!(hear(&mut view, &trade_pack(&[1, 2])).len(), 2);
        assert_eq!(hear(&mut view, &trade_pack(&[1, 2])), vec![]);
        let out = hear(&mut view, &trade_pack(&[2, 3]));
        assert_eq!(out[0].channel, "trades.binance.BTCUSDT");
        assert_eq!(out[0].data.as_array().unwrap().len(), 1);
        assert_eq!(out[1].data["last"], "60000.1");
    }

    #[test]
    fn an_order_shows_what_became_of_it() {
        let mut view = view();
        let cause = Cause { stream: "DESK_main".into(), seq: 1, index: 0 };
        let order = Order {
            v: Version,
            account: "main".into(),
            id: "a".into(),
            venue: "binance".into(),
            symbol: "X".into(),
            side: Side::Buy,
            kind: schemas::desk::OrderKind::Market,
            qty: "2".parse().unwrap(),
            limit: None,
            trigger: None,
            reduce_only: false,
            post_only: false,
            time_in_force: Default::default(),
            protect: None,
            parent: None,
            strategies: vec![],
            ts_ns: 1,
            reason: String::new(),
            cause: cause.clone(),
        };
        hear(&mut view, &order);
        let fill = Fill {
            v: Version,
            account: "main".into(),
            id: "a".into(),
            n: 1,
            venue: "binance".into(),
            symbol: "X".into(),
            side: Side::Buy,
            price: "5".parse().unwrap(),
            qty: "2".parse().unwrap(),
            fee: Default::default(),
            liquidity: schemas::exec::Liquidity::Taker,
            reduce_only: false,
            left: Qty::ZERO,
            why: "next trade".into(),
            ts_ns: 2,
            cause: cause.clone(),
        };
        hear(&mut view, &fill);
        let done = Done {
            v: Version,
            account: "main".into(),
            id: "a".into(),
            venue: "binance".into(),
            symbol: "X".into(),
            state: schemas::exec::DoneState::Filled,
            filled: "2".parse().unwrap(),
            reason: String::new(),
            ts_ns: 2,
            cause,
        };
        hear(&mut view, &done);
        assert_eq!((view.orders(9)[0].status, view.orders(9)[0].filled.to_string().as_str()), ("filled", "2"));
        assert_eq!(view.fills(9).len(), 1);
    }

    #[test]
    fn rows_are_bounded() {
        let mut view = view();
        for id in 1..=3_000 {
            view.conversation("t", &id.to_string());
        }
        assert_eq!(view.conversations(9_999).len(), view.bounds.rows_max);
    }
}

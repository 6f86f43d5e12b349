//! The pure fold of one stream: facts in, changes of rows out. The same facts give the same rows, whatever other
//! streams did before.

use schemas::desk::{AccountFact, Cancel, Order, PositionFact};
use schemas::exec::{Ack, Done, Fill, Reject, Sending};
use schemas::llm::{LlmPrompt, LlmReply, LlmVerdict};
use schemas::market::{Candle, Indicators};
use schemas::signal::Signal;
use schemas::subject::Tokens;
use schemas::wire::{self, Fact, WireError};
use schemas::{Cause, Place, Timeframe};
use serde::{Deserialize, Serialize};

use crate::row::{Change, Value};
use crate::schema::{
    ACCOUNT_SNAPSHOTS, AI_CONVERSATIONS, FILLS, MARKET_DATA, ORDERS, POSITIONS, SIGNALS, SYSTEM_CONFIG, TRADES,
};
use crate::trip::{Executions, Holdings};

/// Folds the facts of one stream.
#[derive(Clone, Debug)]
pub struct Fold {
    stream: std::sync::Arc<str>,
    timeframes: Vec<Timeframe>,
    state: State,
    changed: bool,
}

/// What a stream's fold has to remember between two facts; stored beside its cursor.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct State {
    holdings: Holdings,
    executions: Executions,
    /// Questions asked so far, in a trader's prompt stream.
    prompts: u64,
}

impl Fold {
    /// `timeframes`: those of which candles become `market_data`.
    pub fn new(stream: &str, timeframes: &[Timeframe]) -> Self {
        Self { stream: stream.into(), timeframes: timeframes.to_vec(), state: State::default(), changed: false }
    }

    /// Does the ledger read this stream? Raw ticks, sequencers and buckets are not its business.
    pub fn reads(stream: &str) -> bool {
        ["AGG_", "SIG_", "LLMP_", "LLMR_", "RISK_", "EXEC_"].iter().any(|prefix| stream.starts_with(prefix))
    }

    /// Continues behind a stored cursor.
    pub fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        self.state = wire::decode(state)?;
        Ok(())
    }

    /// The state when it changed since the last call.
    pub fn take_state(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.changed).then(|| wire::encode(&self.state))
    }

    /// Appends what the fact at `seq` changes; facts that no table shows change nothing.
    pub fn hear(&mut self, seq: u64, subject: &str, payload: &[u8], out: &mut Vec<Change>) -> Result<(), WireError> {
        let tokens = Tokens::of(subject);
        match tokens.head() {
            "candle" if self.shows(tokens.get(3)) => out.push(candle(&Candle::decode(payload)?)),
            "indicator" if self.shows(tokens.get(3)) => out.push(indicators(&Indicators::decode(payload)?)),
            "signal" => out.push(signal(&self.place(seq), &Signal::decode(payload)?.checked(subject)?)),
            "llm" => match tokens.get(2) {
                "prompt" => {
                    let prompt = LlmPrompt::decode(payload)?;
                    self.state.prompts += 1;
                    self.changed = true;
                    out.push(asked(&prompt, self.state.prompts));
                }
                "reply" => out.push(replied(&LlmReply::decode(payload)?)),
                "verdict" => out.push(judged(&LlmVerdict::decode(payload)?)),
                _ => {}
            },
            "order" => out.push(order(&Order::decode(payload)?).once("state", "ordered")),
            "cancel" => {
                let Cancel { account, id, ts_ns, reason, .. } = Cancel::decode(payload)?;
                let change = of_order(&account, &id).once("state", "ordered");
                out.push(change.keep("cancel_asked_ns", ts_ns).keep("cancel_reason", reason));
            }
            "position" => {
                let fact = PositionFact::decode(payload)?;
                self.changed = true;
                out.push(position(&fact));
                out.extend(self.state.holdings.hear(&fact));
            }
            "account" => out.push(account(&self.place(seq), &AccountFact::decode(payload)?)),
            "sending" => {
                let Sending { order: sent, ts_ns, .. } = Sending::decode(payload)?;
                let change = order(&sent).replace("state", "sending").replace("sent_ns", ts_ns);
                out.push(change.replace("left_qty", sent.qty));
            }
            "ack" => {
                let Ack { account, id, venue_order_id, ts_ns, .. } = Ack::decode(payload)?;
                let change = of_order(&account, &id).replace("state", "acked").replace("acked_ns", ts_ns);
                out.push(change.replace("venue_order_id", venue_order_id));
            }
            "fill" => {
                let fact = Fill::decode(payload)?;
                self.changed = true;
                let state = if fact.left.is_zero() { "filled" } else { "partly_filled" };
                let of_order = of_order(&fact.account, &fact.id);
                out.push(of_order.replace("state", state).replace("left_qty", fact.left));
                let (n, changes) = self.state.executions.hear(&fact);
                out.push(fill(&fact, n));
                out.extend(changes);
            }
            "reject" => {
                let Reject { account, id, code, reason, ts_ns, .. } = Reject::decode(payload)?;
                let change = of_order(&account, &id).replace("state", "rejected").replace("ended_ns", ts_ns);
                out.push(change.replace("end_code", code).replace("end_reason", reason));
            }
            "done" => {
                let Done { account, id, state, filled, reason, ts_ns, .. } = Done::decode(payload)?;
                let change = of_order(&account, &id).replace("state", word(&state)).replace("ended_ns", ts_ns);
                out.push(change.replace("filled_qty", filled).replace("end_reason", reason));
            }
            _ => {}
        }
        Ok(())
    }

    fn shows(&self, timeframe: &str) -> bool {
        timeframe.parse().is_ok_and(|tf: Timeframe| self.timeframes.contains(&tf))
    }

    fn place(&self, seq: u64) -> Place {
        Place { stream: self.stream.clone(), seq }
    }
}

/// The newest value of a key in KV `cfg`; `payload` is MessagePack, JSON or text, empty when the key was deleted.
pub fn config_entry(key: &str, payload: &[u8], revision: u64, written_wall_ns: i64) -> Change {
    let value = if payload.is_empty() {
        Value::Null
    } else if let Ok(value) = serde_json::from_slice::<serde_json::Value>(payload) {
        Value::json(&value)
    } else if let Ok(value @ serde_json::Value::Object(_)) = wire::decode::<serde_json::Value>(payload) {
        Value::json(&value)
    } else {
        Value::json(String::from_utf8_lossy(payload).as_ref())
    };
    let change = Change::new(&SYSTEM_CONFIG).key("key", key).replace("value", value);
    change.replace("revision", revision).replace("written_wall_ns", written_wall_ns)
}

/// The one word that a closed list's member is on the wire.
fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => unreachable!("Invariant: a member of a closed list is a word, not {other:?}"),
    }
}

fn cause(cause: &Cause) -> String {
    cause.to_string()
}

fn candle(c: &Candle) -> Change {
    of_candle(&c.venue, &c.symbol, &c.tf, c.open_ns)
        .keep("close_ns", c.close_ns)
        .keep("open", c.open)
        .keep("high", c.high)
        .keep("low", c.low)
        .keep("close", c.close)
        .keep("volume", c.volume)
        .keep("buy_volume", c.buy_volume)
        .keep("quote_volume", c.quote_volume)
        .keep("trades", c.trades)
        .keep("buy_trades", c.buy_trades)
        .keep("closed_by", word(&c.closed_by))
        .keep("complete", c.complete)
        .keep("filled", c.filled)
        .keep("cause", cause(&c.cause))
}

fn indicators(i: &Indicators) -> Change {
    of_candle(&i.venue, &i.symbol, &i.tf, i.open_ns).keep("indicators", Value::json(&i.values))
}

fn of_candle(venue: &str, symbol: &str, tf: &str, open_ns: i64) -> Change {
    Change::new(&MARKET_DATA).key("venue", venue).key("symbol", symbol).key("timeframe", tf).key("open_ns", open_ns)
}

fn signal(place: &Place, s: &Signal) -> Change {
    Change::new(&SIGNALS)
        .key("stream", place.stream.as_ref())
        .key("seq", place.seq)
        .keep("origin", s.origin.as_str())
        .keep("strategy", s.strategy.as_str())
        .keep("venue", s.venue.as_str())
        .keep("symbol", s.symbol.as_str())
        .keep("timeframe", s.timeframe.as_str())
        .keep("side", word(&s.side))
        .keep("strength", s.strength)
        .keep("confidence", s.confidence)
        .keep("ts_ns", s.ts_ns)
        .keep("valid_until_ns", s.valid_until_ns)
        .keep("stop_loss", s.stop_loss)
        .keep("take_profit", s.take_profit)
        .keep("reason", s.reason.as_str())
        .keep("cause", cause(&s.cause))
        .keep("gap_bars", s.gap_bars)
}

fn conversation(trader: &str, cycle: &str) -> Change {
    Change::new(&AI_CONVERSATIONS).key("trader", trader).key("cycle", cycle)
}

fn asked(p: &LlmPrompt, invocation: u64) -> Change {
    conversation(&p.trader, &p.cycle)
        .keep("invocation", invocation)
        .keep("as_of_ns", p.as_of_ns)
        .keep("valid_until_ns", p.valid_until_ns)
        .keep("template", p.template.as_str())
        .keep("request_hash", p.request_hash.as_str())
        .keep("coins", Value::json(&p.coins))
        .keep("system_prompt", p.system.as_str())
        .keep("prompt", p.user.as_str())
}

fn replied(r: &LlmReply) -> Change {
    let last = r.attempts.last();
    let latency_ms: u64 = r.attempts.iter().map(|a| a.latency_ms).sum();
    let tokens = |of: fn(&schemas::llm::LlmUsage) -> Option<u64>| {
        let counted: Vec<u64> = r.attempts.iter().filter_map(|a| of(&a.usage)).collect();
        (!counted.is_empty()).then(|| counted.iter().sum::<u64>())
    };
    conversation(&r.trader, &r.cycle)
        .keep("as_of_ns", r.as_of_ns)
        .keep("valid_until_ns", r.valid_until_ns)
        .keep("request_hash", r.request_hash.as_str())
        .keep("coins", Value::json(&r.coins))
        .keep("model", r.model.as_str())
        .keep("response", last.and_then(|a| a.content.clone()))
        .keep("attempts", Value::json(&r.attempts))
        .keep("latency_ms", latency_ms)
        .keep("prompt_tokens", tokens(|u| u.prompt_tokens))
        .keep("completion_tokens", tokens(|u| u.completion_tokens))
        .keep("replied_wall_ns", r.wall_ns)
}

fn judged(v: &LlmVerdict) -> Change {
    conversation(&v.trader, &v.cycle)
        .keep("as_of_ns", v.as_of_ns)
        .keep("verdict", v.verdict.as_str())
        .keep("code", v.code.clone())
        .keep("repaired", v.repaired)
        .keep("decision", Value::json(&v.coins))
        .keep("summary", v.summary.as_str())
}

fn of_order(account: &str, id: &str) -> Change {
    Change::new(&ORDERS).key("account", account).key("id", id)
}

/// Risk's order and the executor's copy of it say the same.
fn order(o: &Order) -> Change {
    let protect = o.protect.unwrap_or_default();
    of_order(&o.account, &o.id)
        .keep("venue", o.venue.as_str())
        .keep("symbol", o.symbol.as_str())
        .keep("side", o.side.as_str())
        .keep("kind", word(&o.kind))
        .keep("qty", o.qty)
        .keep("limit_price", o.limit)
        .keep("trigger_price", o.trigger)
        .keep("reduce_only", o.reduce_only)
        .keep("post_only", o.post_only)
        .keep("time_in_force", word(&o.time_in_force))
        .keep("stop_loss", protect.stop_loss)
        .keep("take_profit", protect.take_profit)
        .keep("parent", o.parent.clone())
        .keep("strategies", Value::json(&o.strategies))
        .keep("ordered_ns", o.ts_ns)
        .keep("reason", o.reason.as_str())
        .keep("cause", cause(&o.cause))
}

fn fill(f: &Fill, trade_n: u64) -> Change {
    Change::new(&FILLS)
        .key("account", f.account.as_str())
        .key("order_id", f.id.as_str())
        .key("n", f.n)
        .keep("trade_n", trade_n)
        .keep("venue", f.venue.as_str())
        .keep("symbol", f.symbol.as_str())
        .keep("side", f.side.as_str())
        .keep("price", f.price)
        .keep("qty", f.qty)
        .keep("fee", f.fee)
        .keep("liquidity", word(&f.liquidity))
        .keep("reduce_only", f.reduce_only)
        .keep("left_qty", f.left)
        .keep("why", f.why.as_str())
        .keep("ts_ns", f.ts_ns)
        .keep("cause", cause(&f.cause))
}

fn position(p: &PositionFact) -> Change {
    Change::new(&POSITIONS)
        .key("account", p.account.as_str())
        .key("venue", p.venue.as_str())
        .key("symbol", p.symbol.as_str())
        .replace("held", p.held)
        .replace("entry_price", p.entry)
        .replace("since_ns", p.since_ns)
        .replace("realised", p.realised)
        .replace("fees", p.fees)
        .replace("funding", p.funding)
        .replace("mark", p.mark)
        .replace("unrealised", p.unrealised)
        .replace("ts_ns", p.ts_ns)
        .replace("cause", cause(&p.cause))
}

fn account(place: &Place, a: &AccountFact) -> Change {
    Change::new(&ACCOUNT_SNAPSHOTS)
        .key("stream", place.stream.as_ref())
        .key("seq", place.seq)
        .keep("account", a.account.as_str())
        .keep("ts_ns", a.ts_ns)
        .keep("mode", a.mode.as_str())
        .keep("cash", a.cash)
        .keep("equity", a.equity)
        .keep("unrealised", a.unrealised)
        .keep("realised", a.realised)
        .keep("fees", a.fees)
        .keep("funding", a.funding)
        .keep("day_start_equity", a.day_start_equity)
        .keep("peak_equity", a.peak_equity)
        .keep("drawdown", a.drawdown)
        .keep("gross", a.gross)
        .keep("net", a.net)
        .keep("state", word(&a.state))
        .keep("cause", cause(&a.cause))
}

/// The first change of a trade's row from either side: its key.
pub(crate) fn of_trade(account: &str, venue: &str, symbol: &str, n: u64) -> Change {
    Change::new(&TRADES).key("account", account).key("venue", venue).key("symbol", symbol).key("n", n)
}

#[cfg(test)]
mod tests;

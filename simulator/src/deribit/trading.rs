//! Orders in Deribit's words, and their pushes.

use rust_decimal::Decimal;
use schemas::num::parse_decimal;
use serde_json::{Value, json};

use super::methods::{instrument, text, user_channels};
use super::{Deribit, RpcError, data};
use crate::book::Side;
use crate::floor::{self, Floor};
use crate::hub::ClientId;
use crate::instrument::Spec;
use crate::orders::{Ask, FillRow, Life, Order, Refusal, State, Trigger, Update};

/// A decimal of ours as a JSON float.
fn number(value: Decimal) -> Value {
    let text = value.normalize().to_string();
    serde_json::from_str(&if text.contains('.') { text } else { format!("{text}.0") }).unwrap_or(Value::Null)
}

fn float(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// An amount or price in the request, as its decimal text on the grid.
fn units(params: &Value, key: &str, grid: crate::instrument::Grid) -> Result<Option<i64>, RpcError> {
    let text = match &params[key] {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err(RpcError::param(key, "must be a number")),
    };
    let positive = parse_decimal(&text).is_ok_and(|v| v > Decimal::ZERO);
    match grid.units(&text).filter(|_| positive) {
        Some(units) => Ok(Some(units)),
        None => Err(RpcError::param(key, &format!("must be a positive multiple of {}", grid.step_text()))),
    }
}

pub fn id_text(spec: &Spec, id: u64) -> String {
    let prefix = if spec.inverse && spec.base == "BTC" { "" } else { &format!("{}-", data::currency(spec)) };
    format!("{prefix}{id}")
}

fn id_of(params: &Value) -> Result<u64, RpcError> {
    let text = text(params, "order_id")?;
    text.rsplit('-').next().and_then(|n| n.parse().ok()).ok_or_else(|| RpcError::new(10004, "order_not_found"))
}

fn order_json(spec: &Spec, o: &Order) -> Value {
    let state = match o.state {
        State::Untriggered => "untriggered",
        State::Open => "open",
        State::Filled => "filled",
        State::Cancelled | State::Expired => "cancelled",
        State::Rejected => "rejected",
    };
    let average = if o.filled == 0 {
        float("0.0")
    } else {
        let ticks = Decimal::from_i128_with_scale(o.price_lots, 0) / Decimal::from(o.filled);
        number((ticks * Decimal::new(spec.price.m, spec.price.s)).round_dp(8))
    };
    let lots = |n: i64| float(&spec.size.number(n));
    let contracts = match spec.inverse {
        true => o.ask.qty * spec.size.m / spec.contract_size,
        false => o.ask.qty,
    };
    let mut out = json!({
        "order_id": id_text(spec, o.id), "instrument_name": spec.symbol, "direction": o.ask.side.lower(),
        "order_type": o.ask.type_word, "time_in_force": o.ask.life_word, "order_state": state,
        "price": o.ask.limit.map_or(json!("market_price"), |p| float(&spec.price.number(p))),
        "amount": lots(o.ask.qty), "filled_amount": lots(o.filled), "contracts": float(&format!("{contracts}.0")),
        "average_price": average, "label": o.ask.client, "post_only": o.ask.post_only,
        "reject_post_only": false, "reduce_only": o.ask.reduce_only, "risk_reducing": o.ask.reduce_only,
        "replaced": o.replaced, "web": false, "api": true, "mmp": false, "is_liquidation": false, "user_id": 1,
        "creation_timestamp": o.created_ns / 1_000_000, "last_update_timestamp": o.updated_ns / 1_000_000,
    });
    if o.state == State::Cancelled {
        out["cancel_reason"] = json!("user_request");
    }
    if let Some(t) = o.ask.trigger {
        out["trigger"] = json!("last_price");
        out["trigger_price"] = float(&spec.price.number(t.price));
        out["triggered"] = json!(o.state != State::Untriggered);
    }
    out
}

fn trade_json(floor: &Floor, o: &Order, f: &FillRow) -> Value {
    let l = floor.market.listing(o.ask.instrument);
    let spec = &l.spec;
    let prefix = if spec.inverse && spec.base == "BTC" { String::new() } else { format!("{}-", data::currency(spec)) };
    json!({
        "trade_id": format!("{prefix}{}", f.trade), "trade_seq": f.trade, "instrument_name": spec.symbol,
        "order_id": id_text(spec, o.id), "order_type": o.ask.type_word, "label": o.ask.client,
        "direction": o.ask.side.lower(), "price": float(&spec.price.number(f.price)),
        "amount": float(&spec.size.number(f.qty)), "fee": number(f.fee), "fee_currency": f.fee_coin,
        "liquidity": if f.maker { "M" } else { "T" }, "timestamp": f.time_ns / 1_000_000, "state": "filled",
        "index_price": float(&data::float(l.index(), 2)), "mark_price": float(&data::float(l.mark(), 2)),
        "profit_loss": number(f.profit), "tick_direction": 0, "post_only": o.ask.post_only,
        "reduce_only": o.ask.reduce_only, "self_trade": false, "matching_id": null, "mmp": false, "api": true,
    })
}

fn refusal(refusal: Refusal) -> RpcError {
    match refusal {
        Refusal::Funds => RpcError::new(10009, "not_enough_funds"),
        Refusal::WouldTake => RpcError::new(11054, "post_only_reject"),
        Refusal::TooManyOpen => RpcError::new(10047, "matching_engine_queue_full"),
        Refusal::ReduceOnly | Refusal::Duplicate | Refusal::NoLiquidity | Refusal::FillOrKill => {
            RpcError::new(11030, "other_reject")
        }
    }
}

impl Deribit {
    /// Remembers what the followers of the account are to hear; sent before or after the answer.
    pub(super) fn push(&mut self, floor: &mut Floor, update: &Update) {
        let o = update.order();
        let i = o.ask.instrument;
        if o.state.closed() {
            self.owners.remove(&o.id);
        }
        let order = order_json(&floor.market.listing(i).spec, o);
        let trades: Vec<Value> = match update {
            Update::Filled(o, fill) => vec![trade_json(floor, o, fill)],
            _ => Vec::new(),
        };
        if !trades.is_empty() {
            for channel in user_channels("trades", floor, i) {
                self.pushes.push((channel, json!(trades)));
            }
        }
        for channel in user_channels("orders", floor, i) {
            let data = if channel.ends_with(".raw") { order.clone() } else { json!([order]) };
            self.pushes.push((channel, data));
        }
        for channel in user_channels("changes", floor, i) {
            let name = &floor.market.listing(i).spec.symbol;
            self.pushes.push((
                channel,
                json!({ "instrument_name": name, "orders": [order], "trades": trades, "positions": [] }),
            ));
        }
    }

    pub(super) fn order(
        &mut self,
        floor: &mut Floor,
        client: Option<ClientId>,
        params: &Value,
        side: Side,
    ) -> Result<Value, RpcError> {
        let i = instrument(floor, params)?;
        let listing = floor.market.listing(i);
        let spec = listing.spec.clone();
        let word = params["type"].as_str().unwrap_or("limit");
        let trigger_price = units(params, "trigger_price", spec.price)?;
        let (limited, rising) = match word {
            "limit" => (true, None),
            "market" | "market_limit" => (false, None),
            "stop_limit" => (true, Some(side == Side::Buy)),
            "stop_market" => (false, Some(side == Side::Buy)),
            "take_limit" => (true, Some(side == Side::Sell)),
            "take_market" => (false, Some(side == Side::Sell)),
            _ => return Err(RpcError::param("type", "unknown order type")),
        };
        let mut limit = match limited {
            true => {
                Some(units(params, "price", spec.price)?.ok_or_else(|| RpcError::param("price", "value required"))?)
            }
            false => None,
        };
        let trigger = match (rising, trigger_price) {
            (Some(rising), Some(price)) => Some(Trigger { price, rising }),
            (Some(_), None) => return Err(RpcError::param("trigger_price", "value required")),
            (None, _) => None,
        };
        let qty = match (units(params, "amount", spec.size)?, params["contracts"].as_f64()) {
            (Some(qty), _) => qty,
            (None, Some(contracts)) if contracts >= 1.0 => match spec.inverse {
                true => contracts as i64 * spec.contract_size / spec.size.m,
                false => contracts as i64,
            },
            (None, _) => return Err(RpcError::param("amount", "amount or contracts required")),
        };
        let life_word = params["time_in_force"].as_str().unwrap_or("good_til_cancelled");
        let life = match life_word {
            "good_til_cancelled" | "good_til_day" if limited => Life::UntilCancelled,
            "good_til_cancelled" | "good_til_day" => Life::ImmediateOrCancel,
            "immediate_or_cancel" => Life::ImmediateOrCancel,
            "fill_or_kill" => Life::FillOrKill,
            _ => return Err(RpcError::param("time_in_force", "unknown time in force")),
        };
        let client_id = params["label"].as_str().unwrap_or("");
        if client_id.len() > 64 {
            return Err(RpcError::param("label", "max 64 characters"));
        }
        let post_only = params["post_only"].as_bool().unwrap_or(false);
        let reject = params["reject_post_only"].as_bool().unwrap_or(false);
        if post_only && !reject && trigger.is_none() && limit.is_some_and(|p| listing.book.crosses(side, p)) {
            // Post-only without reject_post_only moves the order just off the touch, in silence.
            limit = listing.book.best(side.other()).map(|touch| if side == Side::Buy { touch - 1 } else { touch + 1 });
        }
        let ask = Ask {
            instrument: i,
            side,
            type_word: word.to_owned(),
            life_word: life_word.to_owned(),
            life,
            limit,
            trigger,
            qty,
            client: client_id.to_owned(),
            post_only,
            reduce_only: params["reduce_only"].as_bool().unwrap_or(false),
        };
        let id = floor::place(self, floor, ask).map_err(refusal)?;
        let Some(order) = floor.desk.order(id) else { return Err(RpcError::new(11030, "other_reject")) };
        if let (Some(client), false) = (client, order.state.closed()) {
            self.owners.insert(id, client);
        }
        let trades: Vec<Value> = order.fills.iter().map(|f| trade_json(floor, order, f)).collect();
        Ok(json!({ "order": order_json(&spec, order), "trades": trades }))
    }

    pub(super) fn edit(&mut self, floor: &mut Floor, params: &Value) -> Result<Value, RpcError> {
        let id = id_of(params)?;
        let order = floor.desk.order(id).ok_or_else(|| RpcError::new(10004, "order_not_found"))?;
        if order.state.closed() {
            return Err(RpcError::new(11044, "not_open_order"));
        }
        let spec = floor.market.listing(order.ask.instrument).spec.clone();
        let fills = order.fills.len();
        let qty = units(params, "amount", spec.size)?.unwrap_or(order.ask.qty);
        let limit = units(params, "price", spec.price)?;
        let mut events = Vec::new();
        let update = floor.desk.edit(&mut floor.market, id, qty, limit, &mut events);
        let Some(update) = update else { return Err(RpcError::param("amount", "must be above the filled amount")) };
        crate::floor::Protocol::update(self, floor, &update);
        floor::run(self, floor, events);
        let Some(order) = floor.desk.order(id) else { return Err(RpcError::new(10004, "order_not_found")) };
        let trades: Vec<Value> = order.fills.iter().skip(fills).map(|f| trade_json(floor, order, f)).collect();
        Ok(json!({ "order": order_json(&spec, order), "trades": trades }))
    }

    pub(super) fn cancel(&mut self, floor: &mut Floor, params: &Value) -> Result<Value, RpcError> {
        let id = id_of(params)?;
        let order = floor.desk.order(id).ok_or_else(|| RpcError::new(10004, "order_not_found"))?;
        if order.state.closed() {
            return Err(RpcError::new(11044, "not_open_order"));
        }
        floor::cancel(self, floor, id);
        order_state(floor, params)
    }

    /// All open orders, those of an instrument or those with a label; the answer is how many.
    pub(super) fn cancel_some(&mut self, floor: &mut Floor, params: &Value) -> Result<Value, RpcError> {
        let i = if params["instrument_name"].is_string() { Some(instrument(floor, params)?) } else { None };
        let label = params["label"].as_str();
        let fits = |o: &&Order| i.is_none_or(|i| o.ask.instrument == i) && label.is_none_or(|l| o.ask.client == l);
        let ids: Vec<u64> = floor.desk.open().filter(fits).map(|o| o.id).collect();
        for id in &ids {
            floor::cancel(self, floor, *id);
        }
        Ok(json!(ids.len()))
    }
}

pub fn order_state(floor: &Floor, params: &Value) -> Result<Value, RpcError> {
    let order = floor.desk.order(id_of(params)?).ok_or_else(|| RpcError::new(10004, "order_not_found"))?;
    Ok(order_json(&floor.market.listing(order.ask.instrument).spec, order))
}

pub fn open_orders(floor: &Floor, i: Option<usize>) -> Value {
    let mine = floor.desk.open().filter(|o| i.is_none_or(|i| o.ask.instrument == i));
    mine.map(|o| order_json(&floor.market.listing(o.ask.instrument).spec, o)).collect()
}

pub fn positions(floor: &Floor) -> Value {
    let row = |(i, l): (usize, &crate::market::Listing)| {
        let position = floor.desk.position(i);
        let tick = Decimal::new(l.spec.price.m, l.spec.price.s);
        let direction = match position.lots {
            0 => "zero",
            n if n > 0 => "buy",
            _ => "sell",
        };
        json!({
            "instrument_name": l.spec.symbol, "kind": "future", "direction": direction,
            "size": float(&l.spec.size.number(position.lots)), "average_price": number((position.entry * tick).round_dp(8)),
            "mark_price": float(&data::float(l.mark(), 2)), "index_price": float(&data::float(l.index(), 2)),
        })
    };
    floor.market.listings().iter().enumerate().map(row).collect()
}

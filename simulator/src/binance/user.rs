//! User data: execution reports of the spot market, order and account updates of the futures.

use rust_decimal::Decimal;

use super::trading::{status, words};
use super::{Binance, Purpose};
use crate::floor::Floor;
use crate::instrument::{Spec, decimal_text};
use crate::orders::{FillRow, Order, State, Update, settlement, size};

/// A decimal with eight digits, as balances are printed.
pub fn eight(value: Decimal) -> String {
    format!("{:.8}", value.round_dp(8))
}

impl Binance {
    /// Tells everybody who follows the account what happened to an order.
    pub(super) fn push(&mut self, floor: &mut Floor, update: &Update) {
        self.next_execution += 1;
        let spec = floor.market.listing(update.order().ask.instrument).spec.clone();
        let events: Vec<(&str, String)> = if self.futures() {
            futures_events(floor, &spec, update)
        } else {
            spot_events(floor, &spec, update, self.next_execution)
        };
        for (name, event) in events {
            self.user_event(floor, name, &event);
        }
    }

    fn user_event(&mut self, floor: &mut Floor, name: &str, event: &str) {
        for (client, session) in &self.sessions {
            let wanted = session.wanted.is_empty() || session.wanted.iter().any(|w| w == name);
            match (session.purpose, session.user, &session.listen_key) {
                (Purpose::Api, Some(_), _) if floor.faults.take("unwrapped_events", "").is_some() => {
                    floor.hub.text(*client, event.to_owned());
                }
                (Purpose::Api, Some(id), _) => {
                    floor.hub.text(*client, format!(r#"{{"subscriptionId":{id},"event":{event}}}"#));
                }
                (Purpose::User, _, Some(key)) if wanted => {
                    let text = match session.manner.combined {
                        true => format!(r#"{{"stream":"{key}","data":{event}}}"#),
                        false => event.to_owned(),
                    };
                    floor.hub.text(*client, text);
                }
                _ => {}
            }
        }
    }

    pub(super) fn expire_listen_keys(&mut self, floor: &mut Floor) {
        let at = floor.now_ms();
        for key in std::mem::take(&mut self.listen_keys).into_keys() {
            let event = format!(r#"{{"e":"listenKeyExpired","E":{at},"listenKey":"{key}"}}"#);
            self.user_event(floor, "listenKeyExpired", &event);
        }
        for session in self.sessions.values_mut() {
            session.listen_key = None;
        }
    }

    pub(super) fn terminate_user_streams(&mut self, floor: &mut Floor) {
        let event = format!(r#"{{"e":"eventStreamTerminated","E":{}}}"#, floor.now_ms());
        self.user_event(floor, "eventStreamTerminated", &event);
        for session in self.sessions.values_mut() {
            session.user = None;
        }
    }
}

fn execution(update: &Update) -> &'static str {
    match update {
        Update::New(_) | Update::Triggered(_) => "NEW",
        Update::Filled(..) => "TRADE",
        Update::Cancelled(_) => "CANCELED",
        Update::Expired(_) => "EXPIRED",
        Update::Amended(_) => "REPLACED",
    }
}

/// What an order's last fill was; zeros where the update is none.
fn last(update: &Update) -> Option<&FillRow> {
    match update {
        Update::Filled(_, fill) => Some(fill),
        _ => None,
    }
}

fn spot_events(floor: &Floor, spec: &Spec, update: &Update, execution_id: u64) -> Vec<(&'static str, String)> {
    let order = update.order();
    let words = words(spec, order);
    let (at, fill) = (order.updated_ns / 1_000_000, last(update));
    let zero = spec.size.text(0);
    let (client, original) = match update {
        // The id of the cancel request stands in `c`, the order's own in `C`.
        Update::Cancelled(o) => (format!("cancel-{}", o.id), o.ask.client.clone()),
        Update::New(o) | Update::Triggered(o) | Update::Filled(o, _) | Update::Expired(o) | Update::Amended(o) => {
            (o.ask.client.clone(), String::new())
        }
    };
    let (l, price, fee, fee_coin, trade, maker, value) = match fill {
        Some(f) => (
            spec.size.text(f.qty),
            spec.price.text(f.price),
            eight(f.fee),
            format!("\"{}\"", f.fee_coin),
            f.trade as i64,
            f.maker,
            decimal_text(spec.value(f.price, f.qty).0, spec.price.s + spec.size.s, 8),
        ),
        None => (zero.clone(), zero.clone(), "0".to_owned(), "null".to_owned(), -1, false, zero.clone()),
    };
    let (s, i, working) = (&spec.symbol, order.id, order.state == State::Open);
    let created = order.created_ns / 1_000_000;
    let report = format!(
        r#"{{"e":"executionReport","E":{at},"s":"{s}","c":{c},"S":"{side}","o":"{o}","f":"{tif}","q":"{q}","p":"{p}","P":"{stop}","F":"{zero}","g":-1,"C":{original},"x":"{x}","X":"{state}","r":"NONE","i":{i},"l":"{l}","z":"{z}","L":"{price}","n":"{fee}","N":{fee_coin},"T":{at},"t":{trade},"I":{execution_id},"w":{working},"m":{maker},"M":false,"O":{created},"Z":"{zq}","Y":"{value}","Q":"{zero}","W":{created},"V":"NONE"}}"#,
        c = json_text(&client),
        original = json_text(&original),
        side = order.ask.side.upper(),
        o = words.type_word,
        tif = words.life_word,
        q = words.qty,
        p = words.price,
        stop = words.stop,
        x = execution(update),
        state = status(order),
        z = words.filled,
        zq = words.value,
    );
    let mut events = vec![("executionReport", report)];
    if let Some(fill) = fill {
        let coins: std::collections::BTreeSet<&String> = [&spec.base, &spec.quote, &fill.fee_coin].into();
        let rows: Vec<String> = coins
            .into_iter()
            .map(|coin| {
                let locked = floor.desk.locked(&floor.market, coin);
                let free = floor.desk.balance(coin) - locked;
                format!(r#"{{"a":"{coin}","f":"{}","l":"{}"}}"#, eight(free), eight(locked))
            })
            .collect();
        let rows = rows.join(",");
        events.push((
            "outboundAccountPosition",
            format!(r#"{{"e":"outboundAccountPosition","E":{at},"u":{at},"B":[{rows}]}}"#),
        ));
    }
    events
}

fn futures_events(floor: &Floor, spec: &Spec, update: &Update) -> Vec<(&'static str, String)> {
    let order = update.order();
    let words = words(spec, order);
    let (at, fill) = (order.updated_ns / 1_000_000, last(update));
    let coin = settlement(spec);
    let (l, price, fee, fee_coin, trade, maker, profit) = match fill {
        Some(f) => (
            spec.size.text(f.qty),
            spec.price.text(f.price),
            eight(f.fee),
            f.fee_coin.as_str(),
            f.trade,
            f.maker,
            eight(f.profit),
        ),
        None => ("0".into(), "0".into(), "0".into(), coin.as_str(), 0, false, "0".into()),
    };
    let amendment = matches!(update, Update::Amended(_));
    let body = format!(
        r#"{{"s":"{s}","c":{c},"S":"{side}","o":"{o}","f":"{tif}","q":"{q}","p":"{p}","ap":"{ap}","sp":"{stop}","x":"{x}","X":"{state}","i":{i},"l":"{l}","z":"{z}","L":"{price}","N":"{fee_coin}","n":"{fee}","T":{at},"t":{trade},"b":"0","a":"0","m":{maker},"R":{reduce},"wt":"CONTRACT_PRICE","ot":"{o}","ps":"BOTH","cp":false,"pP":false,"si":0,"ss":0,"rp":"{profit}","V":"EXPIRE_MAKER","pm":"NONE","gtd":0}}"#,
        s = spec.symbol,
        c = json_text(&order.ask.client),
        side = order.ask.side.upper(),
        o = words.type_word,
        tif = words.life_word,
        q = words.qty,
        p = words.price,
        ap = words.average,
        stop = words.stop,
        x = if amendment { "AMENDMENT" } else { execution(update) },
        state = status(order),
        i = order.id,
        z = words.filled,
        reduce = order.ask.reduce_only,
    );
    let mut events =
        vec![("ORDER_TRADE_UPDATE", format!(r#"{{"e":"ORDER_TRADE_UPDATE","E":{at},"T":{at},"o":{body}}}"#))];
    if fill.is_some() {
        let lite = format!(
            r#"{{"e":"TRADE_LITE","E":{at},"T":{at},"s":"{s}","q":"{q}","p":"{p}","m":{maker},"c":{c},"S":"{side}","L":"{price}","l":"{l}","t":{trade},"i":{i}}}"#,
            s = spec.symbol,
            q = words.qty,
            p = words.price,
            c = json_text(&order.ask.client),
            side = order.ask.side.upper(),
            i = order.id,
        );
        // The early message comes first: that is what it is for.
        events.insert(0, ("TRADE_LITE", lite));
        let position = floor.desk.position(order.ask.instrument);
        let wallet = eight(floor.desk.balance(coin));
        let tick = Decimal::new(spec.price.m, spec.price.s);
        let (held, entry) = (size(spec, position.lots), (position.entry * tick).round_dp(8));
        events.push((
            "ACCOUNT_UPDATE",
            format!(
                r#"{{"e":"ACCOUNT_UPDATE","E":{at},"T":{at},"a":{{"m":"ORDER","B":[{{"a":"{coin}","wb":"{wallet}","cw":"{wallet}","bc":"0"}}],"P":[{{"s":"{s}","pa":"{held}","ep":"{entry}","bep":"{entry}","cr":"{profit}","up":"0","mt":"cross","iw":"0","ps":"BOTH"}}]}}}}"#,
                s = spec.symbol
            ),
        ));
    }
    events
}

/// A text as a JSON string.
pub fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Orders that the account may see as open.
pub fn open_orders<'a>(floor: &'a Floor, instrument: Option<usize>) -> impl Iterator<Item = &'a Order> {
    floor.desk.open().filter(move |o| instrument.is_none_or(|i| o.ask.instrument == i))
}

//! MEXC spot on the socket: binary frames with data (`push.rs`), text frames with answers.
//!
//! `{"id":0,"code":0,"msg":"spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT"}`
//! <https://www.mexc.com/api-docs/spot-v3/websocket-market-streams>

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::push::{self, Head};
use crate::event::{Control, Event, Frame};
use crate::text::instant;

/// Reads one frame of the spot socket.
pub fn decode(frame: Frame<'_>, out: &mut Vec<Event>) {
    let read = match frame {
        Frame::Binary(bytes) => push::decode(bytes, out),
        Frame::Text(text) => text_frame(text, out),
    };
    if let Err(why) = read {
        out.push(Event::Malformed(why));
    }
}

pub(super) fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|e| e.to_string())
}

/// A 64-bit number, in quotes or not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Int(pub i64);

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(d)?.get();
        let bare = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')).unwrap_or(raw);
        bare.parse().map(Self).map_err(|_| serde::de::Error::custom(format!("{raw} is no whole number")))
    }
}

/// An answer, or a data frame that its recorder stored as JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    code: Option<i64>,
    #[serde(borrow)]
    msg: Option<Cow<'a, str>>,
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    symbol: Option<Cow<'a, str>>,
    send_time: Option<Int>,
    #[serde(borrow)]
    public_aggre_book_ticker: Option<BookTicker<'a>>,
    #[serde(borrow)]
    public_aggre_deals: Option<Deals<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookTicker<'a> {
    #[serde(borrow)]
    bid_price: Cow<'a, str>,
    #[serde(borrow)]
    bid_quantity: Cow<'a, str>,
    #[serde(borrow)]
    ask_price: Cow<'a, str>,
    #[serde(borrow)]
    ask_quantity: Cow<'a, str>,
    #[serde(borrow)]
    version: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Deals<'a> {
    #[serde(borrow)]
    deals: Vec<Deal<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deal<'a> {
    #[serde(borrow)]
    price: Cow<'a, str>,
    #[serde(borrow)]
    quantity: Cow<'a, str>,
    trade_type: i64,
    time: Int,
    #[serde(borrow)]
    trade_id: Option<Cow<'a, str>>,
}

fn text_frame(frame: &str, out: &mut Vec<Event>) -> Result<(), String> {
    let m: Message = parse(frame)?;
    if let Some(channel) = &m.channel {
        return stored(channel, &m, out);
    }
    let (Some(code), Some(message)) = (m.code, m.msg) else {
        return Err("neither data nor an answer".to_owned());
    };
    out.push(answer(code, &message));
    Ok(())
}

/// A channel was subscribed (or left) if the answer is its name: a refusal has code 0 too, and a sentence that holds the
/// channel: `Not Subscribed successfully! [spot@...].  Reason: Blocked!`
fn answer(code: i64, message: &str) -> Event {
    if code == 0 && message == "PONG" {
        return Event::Control(Control::Pong);
    }
    if code == 0 && is_channel(message) {
        return Event::Control(Control::Ack { id: message.to_owned() });
    }
    let bracketed = message.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(inside, _)| inside);
    let id = bracketed.or(Some(message)).filter(|id| is_channel(id)).map(str::to_owned);
    Event::Error { code: Some(code), message: message.trim_end().to_owned(), id }
}

fn is_channel(text: &str) -> bool {
    text.starts_with("spot@") && !text.contains(char::is_whitespace)
}

fn stored(channel: &str, m: &Message, out: &mut Vec<Event>) -> Result<(), String> {
    let symbol = m.symbol.as_deref().unwrap_or("");
    let head = Head { channel, symbol, time: m.send_time.map(|n| instant(n.0)) };
    match (&m.public_aggre_book_ticker, &m.public_aggre_deals) {
        (Some(best), None) => {
            let seq = best.version.as_deref().map(push::version).transpose()?;
            let (bid, ask) = ((&*best.bid_price, &*best.bid_quantity), (&*best.ask_price, &*best.ask_quantity));
            out.push(push::bbo(&head, bid, ask, seq)?);
        }
        (None, Some(list)) => {
            for deal in &list.deals {
                let id = deal.trade_id.as_deref();
                out.push(push::trade(&head, &deal.price, &deal.quantity, deal.trade_type, deal.time.0, id)?);
            }
        }
        _ => return Err(format!("a text frame of channel `{channel}` without known data")),
    }
    Ok(())
}

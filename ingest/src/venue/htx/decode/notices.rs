//! What comes beside the market: the second socket of spot and the notification sockets of derivatives.

use std::borrow::Cow;

use schemas::Nanos;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{Kind, Message, Ms, Num, offset, parse, side, unit, unquoted, user};
use crate::event::{Control, Event, Funding, Liquidation};
use crate::status::{Of, State, Status};
use crate::text::instant;

/// The number of a ping, which goes back as it came.
pub(super) fn integer(raw: &RawValue) -> Result<&str, String> {
    let digits = unquoted(raw);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("ping `{}`", raw.get()));
    }
    Ok(raw.get())
}

/// `err-code` is a word on spot (`bad-request`) and a number on the notification sockets.
pub(super) fn refusal(m: &Message<'_>) -> Event {
    let word = m.err_code.map(unquoted).unwrap_or("");
    let text = m.err_msg.as_deref().unwrap_or("");
    let code = word.parse().ok();
    let message = if code.is_some() || word.is_empty() { text.to_owned() } else { format!("{word}: {text}") };
    Event::Error { code, message, id: m.id().or_else(|| m.topic.as_deref().map(str::to_owned)) }
}

/// The second socket of spot (`/ws/v2`): `{"action":"push","ch":"orders#btcusdt","data":{...}}`.
pub(super) fn private(action: &str, m: &Message<'_>, out: &mut Vec<Event>) -> Result<(), String> {
    let channel = m.ch.as_deref().unwrap_or("");
    let refused = m.code.filter(|code| *code != 200);
    match action {
        "ping" => {
            let data = m.data.ok_or("ping without data")?;
            #[derive(Deserialize)]
            struct Ping<'a> {
                #[serde(borrow)]
                ts: &'a RawValue,
            }
            let ts = integer(parse::<Ping>(data.get())?.ts)?;
            let answer = format!("{{\"action\":\"pong\",\"data\":{{\"ts\":{ts}}}}}");
            out.push(Event::Control(Control::Ping { answer }));
        }
        "push" => return user::spot(channel, m, out),
        "sub" | "unsub" | "req" => out.push(match refused {
            Some(code) => {
                let message = m.message.as_deref().unwrap_or("").to_owned();
                Event::Error { code: Some(code), message, id: Some(channel.to_owned()) }
            }
            None if action == "sub" => {
                Event::Control(Control::Subscribed { id: channel.to_owned(), channels: vec![channel.to_owned()] })
            }
            None => Event::Control(Control::Ack { id: channel.to_owned() }),
        }),
        other => return Err(format!("action `{other}`")),
    }
    Ok(())
}

/// The notification sockets of derivatives: `{"op":"notify","topic":"public.BTC-USD.funding_rate",...}`.
pub(super) fn notification(
    kind: Kind,
    op: &str,
    m: &Message<'_>,
    frame: &str,
    out: &mut Vec<Event>,
) -> Result<(), String> {
    match op {
        "notify" => return notify(kind, m, frame, out),
        "ping" => {
            let ts = m.ts.ok_or("ping without ts")?;
            let answer = format!("{{\"op\":\"pong\",\"ts\":{}}}", integer(ts)?);
            out.push(Event::Control(Control::Ping { answer }));
        }
        "sub" | "unsub" | "auth" => {
            let topic = m.topic.as_deref().unwrap_or(op);
            let id = m.id().unwrap_or_else(|| topic.to_owned());
            out.push(match m.err_code.map(unquoted) {
                None | Some("0") if op == "sub" => {
                    Event::Control(Control::Subscribed { id, channels: vec![topic.to_owned()] })
                }
                None | Some("0") => Event::Control(Control::Ack { id }),
                Some(_) => refusal(m),
            });
        }
        "error" => out.push(refusal(m)),
        // Sent before the venue ends the connection.
        "close" => out.push(Event::Control(Control::ServerShutdown)),
        other => return Err(format!("op `{other}`")),
    }
    Ok(())
}

fn notify(kind: Kind, m: &Message<'_>, frame: &str, out: &mut Vec<Event>) -> Result<(), String> {
    let topic = m.topic.as_deref().ok_or("a notification without topic")?;
    let Some(of) = topic.strip_prefix("public.") else { return user::swap(topic, m, frame, out) };
    let data = m.data.ok_or("a notification without data")?.get();
    match of.rsplit('.').next().unwrap_or("") {
        "funding_rate" => funding(m.time()?, data, out),
        "liquidation_orders" => liquidations(kind, data, out),
        "heartbeat" => heartbeat(of, m.time()?, data, out),
        "contract_info" => {
            parse::<IgnoredAny>(data)?;
            out.push(Event::Other(topic.to_owned()));
            Ok(())
        }
        _ => Err(format!("unknown topic `{topic}`")),
    }
}

/// Whether a service works: `public.linear-swap.heartbeat`, `public.swap.heartbeat`.
fn heartbeat(topic: &str, at: Nanos, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Beat {
        heartbeat: i64,
        /// Only of a service that is down.
        estimated_recovery_time: Option<Ms>,
    }
    let beat: Beat = parse(data)?;
    let service = topic.strip_suffix(".heartbeat").ok_or_else(|| format!("unknown topic `public.{topic}`"))?;
    let state = match beat.heartbeat {
        1 => State::Online,
        0 => State::Maintenance,
        other => return Err(format!("{service} has heartbeat {other}")),
    };
    out.push(Event::Status(Box::new(Status {
        of: Of::Venue(service.to_owned()),
        state,
        word: format!("heartbeat {}", beat.heartbeat),
        text: String::new(),
        from: None,
        to: beat.estimated_recovery_time.map(Ms::at),
        ts: Some(at),
    })));
    Ok(())
}

fn funding(at: Nanos, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Row {
        contract_code: String,
        funding_rate: Num,
        funding_time: Option<Ms>,
        estimated_rate: Option<Num>,
    }
    for row in parse::<Vec<Row>>(data)? {
        out.push(Event::Funding(Box::new(Funding {
            symbol: row.contract_code.into(),
            rate: row.funding_rate.0,
            due: row.funding_time.map(Ms::at),
            next_rate: row.estimated_rate.map(|n| n.0),
            next_due: None,
            ts: at,
        })));
    }
    Ok(())
}

fn liquidations(kind: Kind, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Row<'a> {
        contract_code: String,
        #[serde(borrow)]
        direction: Cow<'a, str>,
        #[serde(borrow)]
        offset: Cow<'a, str>,
        volume: Num,
        price: Num,
        created_at: i64,
    }
    for row in parse::<Vec<Row>>(data)? {
        out.push(Event::Liquidation(Box::new(Liquidation {
            side: side(&row.direction)?,
            symbol: row.contract_code.into(),
            price: row.price.0,
            avg_price: None,
            size: row.volume.0,
            unit: unit(kind),
            filled: None,
            status: None,
            pos_side: None,
            offset: Some(offset(&row.offset)?),
            ts: instant(row.created_at),
        })));
    }
    Ok(())
}

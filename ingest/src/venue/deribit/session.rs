//! Deribit on a socket: heartbeat first, then subscriptions whose answers are compared with what was asked.

use serde_json::{Value, json};

use super::{decode, rest};
use crate::book::Rule;
use crate::connection::{BookSource, Call, Carries, Connection, Ids, Protocol, Refused, Topic, cut};
use crate::event::{Event, Frame, Trade};
use crate::feed::TradeIds;
use crate::session::{Pace, Plan, Session};
use crate::venue::Request;

/// Channels of one subscribe request.
const BATCH_MAX: usize = 100;
/// No credits left; the venue ends the session.
const TOO_MANY_REQUESTS: i64 = 10_028;

/// `{}` is the instrument.
pub fn check_channel(channel: &str) -> Result<(), String> {
    const ALLOWED: &str = "trades.{}.<interval>, trades.<kind>.<currency>.<interval>, ticker.{}.<interval>, quote.{}, \
                           book.{}.<interval>, book.{}.<group>.<depth>.<interval>, chart.trades.{}.<resolution>, \
                           deribit_price_index.<name>, platform_state";
    let parts: Vec<&str> = channel.split('.').collect();
    let known = match parts[..] {
        ["trades" | "ticker" | "book", "{}", interval] => !interval.is_empty(),
        ["trades", kind, currency, interval] => ![kind, currency, interval].contains(&""),
        ["quote", "{}"] => true,
        ["book", "{}", group, depth, interval] => ![group, depth, interval].contains(&""),
        ["chart", "trades", "{}", resolution] => !resolution.is_empty(),
        ["deribit_price_index", name] => !name.is_empty(),
        [decode::PLATFORM_STATE] => true,
        _ => false,
    };
    if known { Ok(()) } else { Err(format!("allowed are {ALLOWED}")) }
}

/// As few connections as the limits allow; the channels of one instrument stay together.
pub fn sessions(plan: &Plan) -> Vec<Box<dyn Session>> {
    let protocol = || Deribit { channels: plan.channels.clone(), pace: plan.pace };
    let whole = plan.channels.iter().filter(|c| !c.contains("{}"));
    let whole = whole.map(|c| Topic::new("", Carries::Other, c.clone())).collect();
    let parts = cut(&plan.symbols, |symbol| protocol().topics(symbol), whole, plan.pace.topics_max);
    let session = |(n, (symbols, topics)): (usize, (Vec<String>, Vec<Topic>))| {
        let ids = TradeIds::Consecutive;
        Box::new(Connection::new(protocol(), n, plan, Rule::Chain, ids, &symbols, topics)) as Box<dyn Session>
    };
    parts.into_iter().enumerate().map(session).collect()
}

struct Deribit {
    /// Of the configuration.
    channels: Vec<String>,
    pace: Pace,
}

/// `book.X.100ms` is followed; `book.X.none.20.100ms` is a whole top each time.
fn carries(channel: &str) -> Carries {
    let parts: Vec<&str> = channel.split('.').collect();
    match parts[..] {
        ["trades", ..] => Carries::Trades,
        ["book", _, _] => Carries::Book,
        _ => Carries::Other,
    }
}

fn call(ids: &mut Ids, method: &str, params: &Value, topics: &[Topic]) -> Call {
    let id = ids.take();
    Call::by_id(id, json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string(), topics)
}

impl Protocol for Deribit {
    fn group(&self) -> &'static str {
        "ws"
    }

    fn path(&self) -> String {
        "/ws/api/v2".to_owned()
    }

    fn topics(&self, symbol: &str) -> Vec<Topic> {
        let channels = self.channels.iter().filter(|c| c.contains("{}"));
        channels.map(|c| Topic::new(symbol, carries(c), c.replace("{}", symbol))).collect()
    }

    fn hello(&mut self, ids: &mut Ids) -> Vec<Call> {
        vec![call(ids, "public/set_heartbeat", &json!({ "interval": self.pace.ping_ms / 1000 }), &[])]
    }

    fn subscribe(&mut self, ids: &mut Ids, topics: &[Topic], on: bool) -> Vec<Call> {
        let method = if on { "public/subscribe" } else { "public/unsubscribe" };
        let one = |batch: &[Topic]| {
            let channels: Vec<&str> = batch.iter().map(|t| t.text.as_str()).collect();
            call(ids, method, &json!({ "channels": channels }), batch)
        };
        topics.chunks(BATCH_MAX).map(one).collect()
    }

    fn decode(&mut self, frame: Frame<'_>, out: &mut Vec<Event>) {
        decode::decode(frame, out);
    }

    fn test(&mut self, ids: &mut Ids) -> Option<Call> {
        Some(call(ids, "public/test", &json!({}), &[]))
    }

    fn refused(&self, code: Option<i64>, _message: &str) -> Refused {
        match code {
            Some(TOO_MANY_REQUESTS) => Refused::Leave { after_ms: self.pace.quiet_ms },
            _ => Refused::Named,
        }
    }

    /// The venue starts a channel with a snapshot.
    fn book(&mut self, _ids: &mut Ids, _symbol: &str) -> BookSource {
        BookSource::Resubscribe
    }

    fn trades_after(&self, symbol: &str, after: u64) -> Option<Request> {
        Some(rest::trades_after(symbol, after))
    }

    fn decode_trades(&self, _symbol: &str, body: &str) -> Result<Vec<Trade>, String> {
        rest::trades(body)
    }
}

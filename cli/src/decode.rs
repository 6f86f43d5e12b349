//! A payload as JSON for people: `tapeline decode` and `tapeline tap`.
//!
//! MessagePack maps become JSON objects; a pack by column (trades, quotes) is shown as one object a tick, prices
//! as decimal text. What is no MessagePack map is shown as hex: nothing is hidden, nothing fails.

use std::io::{Read, Write};

use anyhow::Context;
use schemas::fixed::decimal_of;
use serde_json::{Map, Value, json};

/// The largest payload read from stdin.
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

/// `payload` as JSON: an object for a fact, `{"hex": ...}` for anything else.
pub fn json_of(payload: &[u8]) -> Value {
    match rmp_serde::from_slice::<Value>(payload) {
        Ok(Value::Object(map)) => Value::Object(readable(map)),
        _ => match serde_json::from_slice::<Value>(payload) {
            // Venue-like JSON, log lines: already readable.
            Ok(value @ (Value::Object(_) | Value::Array(_))) => value,
            _ => json!({ "hex": payload.iter().map(|b| format!("{b:02x}")).collect::<String>() }),
        },
    }
}

/// Columns of mantissas become `ticks`; rows of mantissas become decimal text.
fn readable(mut map: Map<String, Value>) -> Map<String, Value> {
    let Some((price_scale, qty_scale)) = scale_of(&map) else { return map };
    let text = |v: &Value, scale: u32| match v.as_i64() {
        Some(m) => decimal_of(m as i128, scale).map_or(v.clone(), |d| json!(d.to_string())),
        None => v.clone(),
    };
    if let Some(n) = map.get("ts_ns").and_then(Value::as_array).map(Vec::len) {
        let columns = ["ts_ns", "recv_ns", "id", "side", "price", "size", "bid", "bid_size", "ask", "ask_size"];
        let mut ticks: Vec<Map<String, Value>> = vec![Map::new(); n];
        for name in columns {
            let Some(column) = map.remove(name) else { continue };
            let scale = match name {
                "price" | "bid" | "ask" => Some(price_scale),
                "size" | "bid_size" | "ask_size" => Some(qty_scale),
                _ => None,
            };
            let values: Vec<Value> = match column {
                Value::Array(values) => values,
                Value::String(letters) => {
                    letters.chars().map(|c| json!(if c == 'b' { "buy" } else { "sell" })).collect()
                }
                other => vec![other],
            };
            for (tick, value) in ticks.iter_mut().zip(values) {
                let value = scale.map_or(value.clone(), |s| text(&value, s));
                tick.insert(name.to_owned(), value);
            }
        }
        map.insert("ticks".into(), ticks.into_iter().map(Value::Object).collect());
    } else if let Some(Value::Array(items)) = map.get_mut("items") {
        for item in items {
            for side in ["bids", "asks"] {
                let Some(Value::Array(levels)) = item.get_mut(side) else { continue };
                for level in levels {
                    if let [price, size] = level.as_array().map(Vec::as_slice).unwrap_or(&[]) {
                        *level = json!([text(price, price_scale), text(size, qty_scale)]);
                    }
                }
            }
        }
    }
    map
}

/// (price, quantity) digits of a pack; `None` for facts that carry decimal text.
fn scale_of(map: &Map<String, Value>) -> Option<(u32, u32)> {
    if !map.contains_key("ts_ns") && !map.contains_key("items") {
        return None;
    }
    let scale = map.get("scale")?;
    Some((scale.get("price")?.as_u64()? as u32, scale.get("qty")?.as_u64()? as u32))
}

/// `tapeline decode`
#[derive(clap::Args)]
#[command(after_help = "Example:\n  nats sub 'candle.>' --translate 'tapeline decode'")]
pub struct Args {
    /// Indent the JSON
    #[arg(long)]
    pretty: bool,
}

/// One payload on stdin, JSON on stdout.
pub fn run(args: Args) -> anyhow::Result<()> {
    let pretty = args.pretty;
    let mut payload = Vec::new();
    std::io::stdin().lock().take(PAYLOAD_BYTES_MAX).read_to_end(&mut payload).context("read stdin")?;
    let value = json_of(&payload);
    let text = if pretty { serde_json::to_string_pretty(&value)? } else { value.to_string() };
    writeln!(std::io::stdout().lock(), "{text}").context("write stdout")
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::raw::{Trade, Trades};
    use schemas::{Fact, Nanos, PriceM, QtyM, Scale, Side};

    #[test]
    fn a_pack_of_trades_is_shown_tick_by_tick_in_decimal_text() {
        let mut pack = Trades::new(3, "binance", "BTCUSDT", Scale { price: 2, qty: 5 });
        pack.push(Trade {
            ts: Nanos(7),
            recv: Nanos(8),
            id: 9,
            price: PriceM(6_000_010),
            size: QtyM(150),
            side: Side::Sell,
        });
        let value = json_of(&pack.encode());
        assert_eq!(
            value["ticks"][0],
            json!({"ts_ns": 7, "recv_ns": 8, "id": 9, "price": "60000.1", "size": "0.0015", "side": "sell"})
        );
        assert_eq!(value["symbol"], "BTCUSDT");
    }

    #[test]
    fn what_is_no_fact_is_shown_as_hex() {
        assert_eq!(json_of(b"\xff\x00"), json!({"hex": "ff00"}));
    }
}

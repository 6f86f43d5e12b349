//! The questions that are posted to `/info`, and what each costs.

use serde_json::{Value, json};

use super::data;
use super::feed::WIDTHS;
use crate::floor::{Floor, Reply};
use crate::market::{Listing, Trade};

/// Candles of one answer at most.
const CANDLES_MAX: usize = 5000;
/// Trades of one answer: clients report some ten.
const TRADES_MAX: usize = 10;

/// The answer and its weight. An unknown question is 422; a coin that is not traded is 500, as clients report.
pub fn answer(floor: &mut Floor, question: &Value) -> Result<(Value, u64), Reply> {
    let unknown = || Reply::json(422, "Failed to deserialize the JSON body into the target type");
    let instrument = |floor: &Floor, coin: &Value| {
        coin.as_str().and_then(|coin| floor.market.find(coin)).ok_or_else(|| Reply::json(500, "null"))
    };
    Ok(match question["type"].as_str().ok_or_else(unknown)? {
        "meta" => (meta(floor), 20),
        "metaAndAssetCtxs" => {
            let contexts: Vec<Value> = (0..floor.history.len()).map(|i| data::context_object(floor, i)).collect();
            (json!([meta(floor), contexts]), 20)
        }
        // Nothing is traded on spot here; the token that everything is paid in is listed.
        "spotMeta" => (spot(), 20),
        "spotMetaAndAssetCtxs" => (json!([spot(), []]), 20),
        "allMids" => (data::mids(floor), 2),
        "l2Book" => (data::book_state(floor, instrument(floor, &question["coin"])?), 2),
        "recentTrades" => {
            let i = instrument(floor, &question["coin"])?;
            let newest: Vec<Trade> = floor.history[i].trades().rev().take(TRADES_MAX).copied().collect();
            (data::trade_rows(floor.market.listing(i), &newest), 20 + newest.len() as u64 / 20)
        }
        "candleSnapshot" => {
            let asked = &question["req"];
            let i = instrument(floor, &asked["coin"])?;
            let known = WIDTHS.iter().find(|(name, _)| asked["interval"] == *name);
            let (Some(&(interval, width_ms)), Some(start)) = (known, asked["startTime"].as_i64()) else {
                return Err(unknown());
            };
            let end = asked["endTime"].as_i64().unwrap_or(i64::MAX).min(floor.now_ms());
            let rows = candles(floor, i, interval, width_ms, (start, end));
            let weight = 20 + rows.len() as u64 / 60;
            (Value::Array(rows), weight)
        }
        _ => return Err(unknown()),
    })
}

/// Every candle that has a moment in `start..=end`: the first may have begun before. The newest ones where there are more.
fn candles(floor: &mut Floor, i: usize, interval: &str, width_ms: i64, (start, end): (i64, i64)) -> Vec<Value> {
    let now_ms = floor.now_ms();
    floor.history[i].pass(now_ms);
    let bars = floor.history[i].bars(width_ms, start.max(0), end.max(0), CANDLES_MAX);
    let spec = &floor.market.listing(i).spec;
    let fits = bars.iter().filter(|bar| bar.open_ms <= end && bar.open_ms + width_ms > start);
    fits.map(|bar| data::candle_row(spec, bar, interval, width_ms)).collect()
}

fn meta(floor: &Floor) -> Value {
    let row = |l: &Listing| json!({ "szDecimals": l.spec.size.s, "name": l.spec.symbol, "maxLeverage": 40, "marginTableId": 50 });
    let universe: Vec<Value> = floor.market.listings().iter().map(row).collect();
    json!({ "universe": universe, "marginTables": [], "collateralToken": 0 })
}

fn spot() -> Value {
    let usdc = json!({
        "name": "USDC", "szDecimals": 8, "weiDecimals": 8, "index": 0, "isCanonical": true, "evmContract": null,
        "tokenId": "0x6d1e7cde53ba9467b783cb7c530ce054", "fullName": null,
    });
    json!({ "universe": [], "tokens": [usdc] })
}

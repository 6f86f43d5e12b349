//! Closed candles and their indicators, read from the stream when somebody asks: the gateway keeps no copy that
//! could differ.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use nats::Bus;
use schemas::market::{Candle, Indicators};
use schemas::subject::{self, PARTITIONS, stream};
use schemas::{Fact, Timeframe};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::store::{self, From};
use crate::view::candle_json;

/// How long reading may take in all.
const READ_WAIT_MAX: Duration = Duration::from_secs(5);

/// The newest `n` candles, oldest first, each with the named indicator outputs under `indicators`.
pub async fn history(
    bus: &Bus,
    venue: &str,
    symbol: &str,
    tf: Timeframe,
    n: usize,
    outputs: &[&str],
) -> anyhow::Result<Vec<Value>> {
    let p = subject::partition(venue, symbol, PARTITIONS);
    let name = stream::aggregate(venue, p);
    let read = async {
        let tf_text = tf.to_string();
        let candles = newest(bus, &name, &subject::market("candle", p, venue, &tf_text, symbol), tf, n).await?;
        let mut values: BTreeMap<i64, BTreeMap<String, f64>> = BTreeMap::new();
        if !outputs.is_empty() {
            for payload in newest(bus, &name, &subject::market("indicator", p, venue, &tf_text, symbol), tf, n).await? {
                let fact = Indicators::decode(&payload).context("read indicators")?;
                let wanted = fact.values.into_iter().filter(|(name, _)| outputs.contains(&name.as_str()));
                values.insert(fact.open_ns, wanted.collect());
            }
        }
        let mut rows = Vec::with_capacity(candles.len());
        for payload in candles {
            let candle = Candle::decode(&payload).context("read a candle")?;
            let mut row = candle_json(&candle);
            if !outputs.is_empty() {
                row["indicators"] = serde_json::to_value(values.remove(&candle.open_ns).unwrap_or_default())?;
            }
            rows.push(row);
        }
        Ok(rows)
    };
    tokio::time::timeout(READ_WAIT_MAX, read).await.context("the stream did not answer in time")?
}

/// Payloads of the newest `n` messages of one subject.
async fn newest(bus: &Bus, name: &str, subject: &str, tf: Timeframe, n: usize) -> anyhow::Result<VecDeque<Bytes>> {
    let mut kept = VecDeque::with_capacity(n);
    let Some(last) = store::last(bus, name, subject).await? else { return Ok(kept) };
    // Stored time is near event time when data comes live, and all data is near the end when it was imported at
    // once: either way a start this long before the last message holds the newest n.
    let span = Duration::from_secs(tf.seconds() as u64).saturating_mul(n as u32 + 2) + Duration::from_secs(120);
    let stored_at = OffsetDateTime::parse(&last.time, &Rfc3339).context("read the time of a stored fact")?;
    let mut from = From::Time((stored_at - span).format(&Rfc3339).context("write a time")?);
    loop {
        let batch = store::batch(bus, name, subject, &from).await?;
        let Some(end) = batch.last().map(|m| m.seq) else { return Ok(kept) };
        for message in batch {
            if kept.len() == n {
                kept.pop_front();
            }
            kept.push_back(message.payload);
        }
        if end >= last.seq {
            return Ok(kept);
        }
        from = From::Seq(end + 1);
    }
}

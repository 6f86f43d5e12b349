//! Facts into the hub: the desk's streams are read from the store (nothing refused or doubled is ever shown), the
//! market is heard live.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use nats::Bus;
use schemas::subject::{escape, stream};
use serde_json::{Value, json};

use crate::hub::Hub;
use crate::store::{self, From};

/// Live subjects. `latest` channels come of them: a doubled message changes nothing, trades are told apart by id.
pub const LIVE: [&str; 6] =
    ["raw.*.*.trade.>", "raw.*.*.quote.>", "raw.*.*.ticker.>", "candle.>", "indicator.>", "preview.>"];

/// Subjects whose messages mean that a followed stream has grown.
pub const KNOCKS: [&str; 16] = [
    "intent.>",
    "order.>",
    "cancel.>",
    "refusal.>",
    "position.>",
    "account.>",
    "state.>",
    "sending.>",
    "ack.>",
    "fill.>",
    "reject.>",
    "done.>",
    "funding.>",
    "signal.>",
    "llm.>",
    "$KV.instruments.>",
];

/// The streams to read back and follow: (stream, filter).
pub fn stored(account: &str, traders: &[String]) -> Vec<(String, String)> {
    let mut list = vec![
        (stream::risk(account), ">".to_owned()),
        (stream::exec(account), ">".to_owned()),
        // The desk hears every signal, whoever said it, in one recorded order.
        (stream::desk(account), "signal.>".to_owned()),
        (format!("KV_{}", stream::KV_INSTRUMENTS), format!("$KV.{}.>", stream::KV_INSTRUMENTS)),
    ];
    for trader in traders {
        let token = escape(trader);
        list.push((stream::llm_prompt(trader), format!("llm.{token}.prompt")));
        list.push((stream::llm_reply(trader), format!("llm.{token}.reply")));
        list.push((stream::llm_signal(trader), format!("llm.{token}.verdict")));
    }
    list
}

/// Reads one stream from `read_back` messages before its end, and follows it: a live message is only the call to
/// look what was stored, so that nothing refused or doubled is shown.
pub async fn follow(hub: Arc<Hub>, bus: Bus, name: String, filter: String) -> anyhow::Result<()> {
    /// A call may be lost with the connection: look anyway this often.
    const LOOK_PERIOD: Duration = Duration::from_secs(1);
    /// Looks are at least this far apart: a busy desk is read in batches.
    const LOOK_PAUSE: Duration = Duration::from_millis(30);
    let state = bus.stream(&name).await.with_context(|| format!("look at stream {name}"))?;
    let read_back = hub.config.history.read_back_messages_max;
    let mut next = (state.before_first() + 1).max(state.last_seq.saturating_sub(read_back) + 1);
    loop {
        match store::batch(&bus, &name, &filter, &From::Seq(next)).await {
            Ok(batch) if batch.is_empty() => {
                // Either way the stream is looked at: a lost call costs one period.
                let _ = tokio::time::timeout(LOOK_PERIOD, hub.knock.notified()).await;
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            Ok(batch) => {
                for message in batch {
                    hub.hear(&message.subject, &message.payload);
                    next = message.seq + 1;
                }
            }
            Err(error) => {
                tracing::warn!(stream = name, error = %format!("{error:#}"), "stored facts cannot be read");
                tokio::time::sleep(LOOK_PERIOD).await;
            }
        }
    }
}

/// Calls the followers whenever something was said that a stream stores.
pub async fn knock(hub: Arc<Hub>, bus: Bus, subject: &'static str) -> anyhow::Result<()> {
    let mut said = bus.client().subscribe(subject).await.with_context(|| format!("subscribe to {subject}"))?;
    while said.next().await.is_some() {
        hub.knock.notify_waiters();
    }
    anyhow::bail!("subscription to {subject} ended")
}

/// Hears one live subject. The client subscribes again by itself when the connection comes back.
pub async fn live(hub: Arc<Hub>, bus: Bus, subject: &'static str) -> anyhow::Result<()> {
    let mut messages = bus.client().subscribe(subject).await.with_context(|| format!("subscribe to {subject}"))?;
    while let Some(message) = messages.next().await {
        hub.hear(&message.subject, &message.payload);
    }
    anyhow::bail!("subscription to {subject} ended")
}

/// Asks every stage for its statistics, again and again.
pub async fn stages(hub: Arc<Hub>, bus: Bus) -> anyhow::Result<()> {
    const PERIOD: Duration = Duration::from_secs(2);
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match nats::stats::gather(&bus, Duration::from_millis(400)).await {
            Ok(answers) => hub.hear_stages(answers.into_iter().map(|a| json!(a)).collect::<Value>()),
            // The bus is away: the page sees the age of the data and that nothing answers.
            Err(error) => {
                tracing::warn!(%error, "no stage could be asked");
                hub.hear_stages(json!([]));
            }
        }
    }
}

//! `tapeline tap SUBJECT`: facts as JSON, one a line, without a process per message.
//!
//! Live it listens as `nats sub` does. With `--from-seq`, `--since` or `--last-per-subject` it reads the stream
//! that stores the subject, so that what a stream refused is never shown.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::{decode, target};

/// `tapeline tap`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tapeline tap 'candle.*.binance.1m.>'                 closed one-minute candles, live
  tapeline tap 'fill.main.>' --from-seq 1              every fill since the account began
  tapeline tap 'raw.*.binance.trade.>' --since 10m --count 100
  tapeline tap 'position.>' --last-per-subject         what is held now")]
pub struct Args {
    /// Subject; `*` is one token, `>` the rest
    subject: String,
    /// From this sequence of its stream on
    #[arg(long, group = "start")]
    from_seq: Option<u64>,
    /// From this long ago on: 90s, 10m, 4h, 2d
    #[arg(long, group = "start")]
    since: Option<String>,
    /// Only the newest fact of each subject, then end
    #[arg(long, group = "start")]
    last_per_subject: bool,
    /// Which stream, when several store the subject
    #[arg(long)]
    stream: Option<String>,
    /// End after this many facts
    #[arg(long)]
    count: Option<u64>,
    /// End when the stored facts are shown, do not wait for new ones
    #[arg(long)]
    end: bool,
    /// Only the payload, without subject and sequence
    #[arg(long)]
    bare: bool,
}

pub fn run(args: Args, data: Option<PathBuf>, _json: bool) -> anyhow::Result<()> {
    target::block_on(tap(args, data))
}

async fn tap(args: Args, data: Option<PathBuf>) -> anyhow::Result<()> {
    let bus = target::operator_bus(data).await?;
    let stored = args.from_seq.is_some() || args.since.is_some() || args.last_per_subject;
    if !stored {
        let mut live = bus.client().subscribe(args.subject.clone()).await.context("subscribe")?;
        let mut shown = 0;
        while let Some(message) = live.next().await {
            show(&args, &message.subject, None, &message.payload)?;
            shown += 1;
            if args.count.is_some_and(|n| shown >= n) {
                break;
            }
        }
        return Ok(());
    }

    let streams = match &args.stream {
        Some(name) => vec![name.clone()],
        None => streams_of(&bus, &args.subject).await?,
    };
    if streams.is_empty() {
        bail!("no stream stores `{}`", args.subject);
    }
    if streams.len() > 1 && !args.end && !args.last_per_subject {
        bail!(
            "{} streams store `{}`: name one with --stream, or add --end ({})",
            streams.len(),
            args.subject,
            streams.join(", ")
        );
    }
    let mut shown = 0;
    for name in streams {
        shown += read_stream(&bus, &args, &name, shown).await?;
    }
    Ok(())
}

/// Streams, sequencers excepted, whose subjects overlap `subject`.
async fn streams_of(bus: &nats::Bus, subject: &str) -> anyhow::Result<Vec<String>> {
    let request = json!({ "subject": subject });
    let mut names: Vec<String> = Vec::new();
    let answer = bus
        .client()
        .request("$JS.API.STREAM.NAMES", serde_json::to_vec(&request)?.into())
        .await
        .context("ask which streams store it")?;
    let answer: Value = serde_json::from_slice(&answer.payload).context("read the server's answer")?;
    for name in answer["streams"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        names.push(name.to_owned());
    }
    names.sort();
    Ok(names)
}

async fn read_stream(bus: &nats::Bus, args: &Args, name: &str, before: u64) -> anyhow::Result<u64> {
    let stream = bus.js().get_stream(name).await.with_context(|| format!("open stream {name}"))?;
    let deliver_policy = if args.last_per_subject {
        DeliverPolicy::LastPerSubject
    } else if let Some(seq) = args.from_seq {
        DeliverPolicy::ByStartSequence { start_sequence: seq.max(1) }
    } else {
        let ago = parse_span(args.since.as_deref().unwrap_or("0s"))?;
        DeliverPolicy::ByStartTime { start_time: time::OffsetDateTime::now_utc() - ago }
    };
    let consumer = stream
        .create_consumer(pull::Config {
            deliver_policy,
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            filter_subject: args.subject.clone(),
            inactive_threshold: Duration::from_secs(30),
            memory_storage: true,
            ..Default::default()
        })
        .await
        .with_context(|| format!("read stream {name}"))?;
    let mut waiting = consumer.cached_info().num_pending;
    let ends = args.end || args.last_per_subject;
    if ends && waiting == 0 {
        return Ok(0);
    }
    let mut messages = consumer.messages().await.context("read messages")?;
    let mut shown = 0;
    while let Some(message) = messages.next().await {
        let message = message.with_context(|| format!("read stream {name}"))?;
        let info = message.info().map_err(|e| anyhow::anyhow!("read the place of a message: {e}"))?;
        waiting = info.pending;
        show(args, &message.subject, Some((name, info.stream_sequence)), &message.payload)?;
        shown += 1;
        if args.count.is_some_and(|n| before + shown >= n) || (ends && waiting == 0) {
            break;
        }
    }
    Ok(shown)
}

fn show(args: &Args, subject: &str, place: Option<(&str, u64)>, payload: &[u8]) -> anyhow::Result<()> {
    let fact = decode::json_of(payload);
    let line = if args.bare {
        fact
    } else {
        match place {
            Some((stream, seq)) => json!({"subject": subject, "stream": stream, "seq": seq, "fact": fact}),
            None => json!({"subject": subject, "fact": fact}),
        }
    };
    writeln!(std::io::stdout().lock(), "{line}")?;
    Ok(())
}

/// `90s`, `10m`, `4h`, `2d`
fn parse_span(text: &str) -> anyhow::Result<Duration> {
    let wrong = || format!("`{text}` is not a span: a whole number and s, m, h or d, such as 10m");
    let unit = text.chars().last().with_context(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => bail!(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().with_context(wrong)?;
    Ok(Duration::from_secs(count.checked_mul(seconds).with_context(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        assert_eq!(parse_span("10m").unwrap(), Duration::from_secs(600));
        for text in ["", "m", "10", "10w", "-1s", "99999999999999999999s"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }
}

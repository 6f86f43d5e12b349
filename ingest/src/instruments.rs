//! What a venue lists: kept in KV `instruments`, asked for again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use nats::{Bus, kv};
use schemas::raw::Trades;
use schemas::subject::stream;
use schemas::{Fact, Instrument};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, VenueConfig};
use crate::http;
use crate::link::{Batch, Out};
use crate::quota::Quota;
use crate::session::Missing;
use crate::venue::{Market, Request, Venue};
use crate::wall::Wall;

/// Keeps KV `instruments` as the venue describes them, for the configured symbols.
#[allow(clippy::too_many_arguments, reason = "the parts of one task, spawned once")]
pub async fn keep(
    bus: Bus,
    venue: &'static dyn Venue,
    market: Market,
    settings: VenueConfig,
    mut carried: watch::Receiver<Vec<String>>,
    config: Config,
    http: (http::Client, Quota),
    wall: Wall,
    out: mpsc::Sender<Batch>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let rest = settings.endpoints(venue, market).rest;
    // Symbols that the venue was asked about already.
    let mut told: BTreeSet<String> = BTreeSet::new();
    let mut pause_ms = config.link.backoff_first_ms;
    loop {
        let symbols = carried.borrow_and_update().clone();
        let next_ms = match listed(venue, market, &rest, &symbols, &http).await {
            Ok(found) => {
                pause_ms = config.link.backoff_first_ms;
                let mut news = Vec::new();
                for instrument in &found {
                    put(&bus, instrument).await?;
                    news.push(Out::Instrument { symbol: instrument.symbol.clone(), scale: instrument.scale });
                }
                // Binance acknowledges a subscription to nothing and stays silent: this is where it shows.
                for symbol in symbols.iter().filter(|s| !told.contains(*s) && found.iter().all(|i| i.symbol != **s)) {
                    tracing::error!(venue = market.id, symbol, "the venue lists no such instrument");
                    let reason = "the venue lists no such instrument".to_owned();
                    let (symbol, from) = (symbol.clone(), wall.now());
                    news.push(Out::Gap(Missing { symbol, channel: Trades::KIND, from, to: None, reason }));
                }
                told.extend(symbols);
                // An instrument list is no link: its number is beyond theirs.
                if out.send(Batch { link: usize::MAX, whole: true, heard: wall.now(), out: news }).await.is_err() {
                    return Ok(());
                }
                config.instruments_period_ms
            }
            Err(why) => {
                tracing::warn!(venue = market.id, why, "read the instruments");
                pause_ms = (pause_ms * 2).min(config.link.backoff_max_ms);
                pause_ms
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            // Another symbol is carried: what it is must be known. A sender that is gone has stopped with us.
            changed = carried.changed() => if changed.is_err() { return Ok(()) },
            // Only time is lost.
            () = tokio::time::sleep(Duration::from_millis(next_ms)) => {}
        }
    }
}

/// The instruments of `symbols` that the venue lists. Some venues refuse a whole list for one name that they do not know: then
/// its halves are asked for, down to that name.
async fn listed(
    venue: &dyn Venue,
    market: Market,
    rest: &str,
    symbols: &[String],
    client: &(http::Client, Quota),
) -> Result<Vec<Instrument>, String> {
    if let Some(stated) = venue.stated_instruments(market, symbols) {
        return Ok(stated);
    }
    let mut found = Vec::new();
    // At most two requests a symbol: a part is halved or done.
    let mut parts = vec![symbols];
    while let Some(part) = parts.pop() {
        let requests = venue.instrument_requests(market, part);
        match listed_by(venue, market, rest, part, &requests, client).await? {
            Ok(known) => found.extend(known),
            Err(why) if part.len() == 1 => tracing::warn!(venue = market.id, symbol = part[0], why, "not listed"),
            Err(why) => {
                let (first, second) = part.split_at(part.len() / 2);
                // Halves of a question that names no symbols would be refused as it was.
                if venue.instrument_requests(market, first) == requests {
                    return Err(why);
                }
                parts.extend([second, first]);
            }
        }
    }
    Ok(found)
}

/// The inner error: the venue refuses the question.
async fn listed_by(
    venue: &dyn Venue,
    market: Market,
    rest: &str,
    symbols: &[String],
    requests: &[Request],
    (http, quota): &(http::Client, Quota),
) -> Result<Result<Vec<Instrument>, String>, String> {
    let mut found = Vec::new();
    for request in requests {
        let answer = http.ask_static(rest, request, quota).await?;
        if answer.status != 200 {
            let start: String = answer.body.chars().take(200).collect();
            let why = format!("{}: status {}: {start}", request.path, answer.status);
            return if matches!(answer.status, 400 | 404) { Ok(Err(why)) } else { Err(why) };
        }
        let (known, left_out) = venue.decode_instruments(market, &answer.body)?;
        for what in left_out.iter().filter(|what| symbols.iter().any(|s| what.starts_with(&format!("{s}:")))) {
            tracing::warn!(venue = market.id, what, "left out an instrument");
        }
        found.extend(known.into_iter().filter(|i| symbols.contains(&i.symbol)));
    }
    Ok(Ok(found))
}

/// Writes an instrument when it differs from what is there.
pub async fn put(bus: &Bus, instrument: &Instrument) -> anyhow::Result<()> {
    let key = stream::instrument_key(&instrument.venue, &instrument.symbol);
    let value = instrument.encode();
    let there = kv::get(bus, stream::KV_INSTRUMENTS, &key).await?;
    if there.is_none_or(|entry| entry.value != value) {
        kv::put(bus, stream::KV_INSTRUMENTS, &key, value.into())
            .await
            .with_context(|| format!("store instrument {key}"))?;
    }
    Ok(())
}

//! History before the first tick: the venue's own candles of a symbol that nothing is stored of, so that indicators and
//! strategies begin warm.

use std::time::Duration;

use anyhow::Context;
use nats::Writer;
use schemas::{Nanos, Timeframe};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::WarmupConfig;
use crate::event::Bar;
use crate::http;
use crate::pack::Packer;
use crate::quota::Quota;
use crate::venue::{HistoryPage, Market, Venue};

/// Symbols and timeframes that are asked for at once.
const AT_ONCE: usize = 4;
/// Pages of one symbol and timeframe.
const PAGES_MAX: u32 = 20;
/// A candle that closed a moment ago may still change at the venue.
const SETTLE_NS: i64 = 2 * Nanos::PER_SECOND;

type Found = (String, Timeframe, Result<Vec<Bar>, String>);

/// Where history comes from.
#[derive(Clone)]
pub struct Source {
    pub venue: &'static dyn Venue,
    pub market: Market,
    pub rest: String,
    pub http: http::Client,
    pub quota: Quota,
    pub config: WarmupConfig,
}

impl Source {
    /// Stores the candles of `symbols` that closed before `now`, oldest first; what cannot be had within the bounds is told
    /// in the log and left out. How many were stored.
    pub async fn run(
        &self,
        symbols: &[String],
        now: Nanos,
        packer: &mut Packer,
        writer: &mut Writer,
    ) -> anyhow::Result<usize> {
        let mut wanted = Vec::new();
        for symbol in symbols {
            wanted.extend(self.config.candles.iter().map(|(tf, n)| (symbol.clone(), *tf, *n)));
        }
        let mut stored = 0;
        for some in wanted.chunks(AT_ONCE) {
            for (symbol, timeframe, found) in self.some(some, now).await? {
                let bars = match found {
                    Ok(bars) => bars,
                    Err(why) => {
                        tracing::warn!(venue = self.market.id, symbol, %timeframe, why, "no history");
                        continue;
                    }
                };
                stored += bars.len();
                let mut facts = Vec::new();
                packer.history(now, &bars, &mut facts);
                for fact in facts {
                    writer.push(fact.subject(), fact.encode()).await?;
                }
            }
        }
        writer.drain().await?;
        Ok(stored)
    }

    /// The answers in the order of the questions.
    async fn some(&self, wanted: &[(String, Timeframe, u32)], now: Nanos) -> anyhow::Result<Vec<Found>> {
        let mut work = JoinSet::new();
        for (place, (symbol, timeframe, n)) in wanted.iter().cloned().enumerate() {
            let source = self.clone();
            let bound = Duration::from_millis(self.config.ms_max);
            work.spawn(async move {
                let found = timeout(bound, source.candles(&symbol, timeframe, n, now)).await;
                let found = found.unwrap_or_else(|_| Err(format!("not within {} ms", bound.as_millis())));
                (place, (symbol, timeframe, found))
            });
        }
        let mut answers = Vec::new();
        while let Some(done) = work.join_next().await {
            answers.push(done.context("a request for history panicked")?);
        }
        answers.sort_by_key(|(place, _)| *place);
        Ok(answers.into_iter().map(|(_, found)| found).collect())
    }

    async fn candles(&self, symbol: &str, timeframe: Timeframe, wanted: u32, now: Nanos) -> Result<Vec<Bar>, String> {
        let end = timeframe.open_of(now.plus_ns(-SETTLE_NS));
        let mut bars: Vec<Bar> = Vec::new();
        let mut before = end;
        for _ in 0..PAGES_MAX {
            let missing = wanted.saturating_sub(u32::try_from(bars.len()).unwrap_or(u32::MAX));
            if missing == 0 {
                break;
            }
            let page = HistoryPage { symbol, timeframe, before, limit: missing };
            let Some(request) = self.venue.history_request(self.market, page) else {
                return Err(format!("the venue has no candles of {timeframe}"));
            };
            let answer = self.http.ask(&self.rest, &request, &self.quota).await?;
            if answer.status != 200 {
                let start: String = answer.body.chars().take(200).collect();
                return Err(format!("status {}: {start}", answer.status));
            }
            let mut found = self.venue.decode_history(self.market, page, &answer.body)?;
            let fits = |b: &Bar| b.open_ts < before && timeframe.open_of(b.open_ts) == b.open_ts;
            found.retain(fits);
            found.sort_by_key(|b| b.open_ts);
            found.dedup_by_key(|b| b.open_ts);
            let Some(first) = found.first().map(|b| b.open_ts) else { break };
            before = first;
            found.extend(bars);
            bars = found;
        }
        let surplus = bars.len().saturating_sub(wanted as usize);
        Ok(bars.split_off(surplus))
    }
}

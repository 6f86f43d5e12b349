//! A venue's rate limits, shared by everybody behind one address: each bucket is an entry in KV `quota` that is changed by
//! compare-and-set, so processes and connections spend from one purse.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nats::kv::{self, Put};
use nats::{Bus, BusError};
use schemas::subject::stream;
use serde::{Deserialize, Serialize};

use crate::rate::{Allowance, Spent};
use crate::session::HttpAnswer;
use crate::venue::{Bucket, Request};
use crate::wall::Wall;

/// Tries to change an entry that others change at the same time.
const TRIES_MAX: u32 = 50;
/// One wait for an allowance; then it is asked for again.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Part of an allowance that requests may use on which nothing depends ([`Request::spare`]): so much of it that anybody spent
/// makes them wait, and the rest is there for books and missed trades.
const SPARE_PERCENT: u32 = 50;

/// What is stored. Two who spend the same in the same moment would write the same bytes, and whoever lost would take the other's
/// write for its own ([`kv::update`]): the stamp tells them apart.
#[derive(Default, Serialize, Deserialize)]
struct Purse {
    spent: Spent,
    stamp: u64,
}

/// The purses of one market.
#[derive(Clone)]
pub struct Quota {
    store: Store,
    /// Buckets of one address and market share this beginning.
    prefix: String,
    rates: Arc<BTreeMap<&'static str, (Allowance, Option<&'static str>)>>,
    /// After a 429 that does not say for how long.
    quiet_ms: i64,
    wall: Wall,
}

#[derive(Clone)]
enum Store {
    Bus(Bus),
    /// Of this process alone.
    Own(Arc<Mutex<BTreeMap<String, Spent>>>),
}

impl Quota {
    /// `address`: what this machine's address is called; whoever uses the same shares the purses. `percent` of each
    /// allowance is used; `own` are allowances of the configuration, by bucket. A bucket that nobody states one of is free.
    pub fn new(
        bus: Bus,
        address: &str,
        market: &str,
        buckets: &[Bucket],
        own: &BTreeMap<String, Allowance>,
        percent: u32,
        quiet_ms: i64,
        wall: Wall,
    ) -> Self {
        Self { store: Store::Bus(bus), ..Self::of_process(address, market, buckets, own, percent, quiet_ms, wall) }
    }

    /// Without a bus: connections of this process share it.
    pub fn of_process(
        address: &str,
        market: &str,
        buckets: &[Bucket],
        own: &BTreeMap<String, Allowance>,
        percent: u32,
        quiet_ms: i64,
        wall: Wall,
    ) -> Self {
        let allowed = |bucket: &Bucket| {
            let allowance = own.get(bucket.name).copied().or(bucket.stated)?;
            Some((bucket.name, (allowance.part(percent), bucket.used_header)))
        };
        let rates = Arc::new(buckets.iter().filter_map(allowed).collect());
        Self { store: Store::Own(Arc::default()), prefix: format!("{address}.{market}"), rates, quiet_ms, wall }
    }

    fn now_ms(&self) -> i64 {
        self.wall.now().as_ms()
    }

    /// Returns when `weight` of the bucket is ours; true: it had to wait. A bucket without a rate is free.
    pub async fn spend(&self, bucket: &str, weight: u32) -> Result<bool, BusError> {
        self.spend_part(bucket, weight, 100).await
    }

    /// Like [`Quota::spend`], of what others leave.
    pub async fn spend_spare(&self, bucket: &str, weight: u32) -> Result<bool, BusError> {
        self.spend_part(bucket, weight, SPARE_PERCENT).await
    }

    async fn spend_part(&self, bucket: &str, weight: u32, percent: u32) -> Result<bool, BusError> {
        let Some((whole, _)) = self.rates.get(bucket) else { return Ok(false) };
        let allowance = whole.part(percent);
        let mut waited = false;
        // Ends: each refusal names a time at which it is granted, unless others are quicker.
        loop {
            let taken = self.change(bucket, |spent, now_ms| spent.take(allowance, now_ms, weight)).await?;
            match taken {
                Ok(()) => return Ok(waited),
                Err(wait_ms) => {
                    waited = true;
                    tokio::time::sleep(Duration::from_millis(wait_ms).min(WAIT_MAX)).await;
                }
            }
        }
    }

    /// The header in which the venue says what is spent of a bucket.
    pub fn used_header(&self, bucket: &str) -> Option<&'static str> {
        self.rates.get(bucket).and_then(|(_, header)| *header)
    }

    /// What an answer says of the purse: 429 and 418 silence everybody for as long as the venue wants.
    pub async fn answered(&self, request: &Request, answer: &HttpAnswer) -> Result<(), BusError> {
        let Some((allowance, _)) = self.rates.get(request.bucket) else { return Ok(()) };
        if matches!(answer.status, 418 | 429) {
            let wait_ms =
                answer.retry_after_s.map_or(self.quiet_ms, |s| i64::try_from(s).unwrap_or(0).saturating_mul(1000));
            self.change(request.bucket, |spent, now_ms| spent.quiet(now_ms.saturating_add(wait_ms))).await
        } else if let Some(used) = answer.used {
            self.change(request.bucket, |spent, now_ms| spent.told(*allowance, now_ms, used)).await
        } else {
            Ok(())
        }
    }

    async fn change<T>(&self, bucket: &str, change: impl Fn(&mut Spent, i64) -> T) -> Result<T, BusError> {
        let key = format!("{}.{bucket}", self.prefix);
        let bus = match &self.store {
            Store::Bus(bus) => bus,
            Store::Own(purses) => {
                let mut purses = purses.lock().unwrap_or_else(PoisonError::into_inner);
                return Ok(change(purses.entry(key).or_default(), self.now_ms()));
            }
        };
        for _ in 0..TRIES_MAX {
            let entry = kv::get(bus, stream::KV_QUOTA, &key).await?;
            // An entry that cannot be read is another version's: it is begun anew.
            let stored: Option<Purse> = entry.as_ref().and_then(|e| rmp_serde::from_slice(&e.value).ok());
            let mut spent = stored.unwrap_or_default().spent;
            let before = spent.clone();
            let result = change(&mut spent, self.now_ms());
            if spent == before {
                return Ok(result);
            }
            let purse = Purse { spent, stamp: rand::random() };
            let value = rmp_serde::to_vec(&purse).map_err(|e| BusError::Config(format!("write a quota: {e}")))?;
            let written = match entry {
                Some(entry) => kv::update(bus, stream::KV_QUOTA, &key, value.into(), entry.revision).await?,
                None => kv::create(bus, stream::KV_QUOTA, &key, value.into()).await?,
            };
            if let Put::Stored(_) = written {
                return Ok(result);
            }
        }
        Err(BusError::Config(format!("quota {key}: {TRIES_MAX} others were quicker")))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::venue::REST;

    #[tokio::test]
    async fn a_429_that_does_not_say_for_how_long_silences_everybody_for_the_venues_own_quiet() {
        const QUIET_MS: i64 = 200;
        let own = [(REST.to_owned(), Allowance { weight: 100, window_ms: 60_000 })].into();
        let quota = Quota::of_process("test", "m", &[Bucket::new(REST)], &own, 100, QUIET_MS, Wall::new());
        let refusal = HttpAnswer { status: 429, retry_after_s: None, used: None, body: String::new() };
        let since = quota.now_ms();
        quota.answered(&Request::get("/"), &refusal).await.unwrap();
        let spent = tokio::time::timeout(Duration::from_secs(5), quota.spend(REST, 1)).await;
        assert!(spent.expect("no longer than that").unwrap(), "it had to wait");
        assert!(quota.now_ms() >= since + QUIET_MS);
    }

    #[tokio::test]
    async fn what_nothing_depends_on_waits_at_half_of_the_allowance_and_leaves_the_rest_to_others() {
        let own = [(REST.to_owned(), Allowance { weight: 100, window_ms: 60_000 })].into();
        let quota = Quota::of_process("test", "m", &[Bucket::new(REST)], &own, 100, 10_000, Wall::new());
        assert!(!quota.spend(REST, 40).await.unwrap());
        for _ in 0..10 {
            assert!(!quota.spend_spare(REST, 1).await.unwrap());
        }
        assert!(quota.spend_spare(REST, 1).now_or_never().is_none(), "50 of 100 are spent");
        assert!(!quota.spend(REST, 50).await.unwrap());
        assert!(quota.spend(REST, 1).now_or_never().is_none(), "all is spent");
    }
}

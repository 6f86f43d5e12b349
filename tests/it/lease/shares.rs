//! Shares on one server: by list, by lease, over deaths, zombies and rolling restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tests::stored;

use super::{BOUND, Floor, VENUE, outputs, push_step};
use crate::fold::{Stored, assert_same};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_with_a_share_each_say_byte_for_byte_what_one_says() -> anyhow::Result<()> {
    const STEPS: u64 = 200;
    let mut said: Vec<BTreeMap<String, Stored>> = Vec::new();
    for shares in [vec![""], vec!["0-2", "3-7"]] {
        let mut floor = Floor::open(1).await?;
        let mut writer = floor.raw().await?;
        for share in &shares {
            for stage in ["aggregate", "strategy"] {
                let list = if share.is_empty() { String::new() } else { format!("{stage}.{VENUE}.{share}") };
                floor.fleet.spawn_with(stage, &["--tasks", &list])?;
            }
        }
        for step in 0..STEPS {
            push_step(&mut writer, step).await?;
        }
        writer.drain().await?;
        let (candles, signals) = floor.assert_exact(true).await?;
        eprintln!("{} instances of each stage: {candles} candles, {signals} signals", shares.len());
        assert!(candles > 500 && signals > 0);
        let mut all = BTreeMap::new();
        for name in outputs() {
            all.insert(name.clone(), stored(&floor.bus, &name).await?);
        }
        said.push(all);
    }
    for (name, one) in &said[0] {
        assert_same(name, one, &said[1][name]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_holder_is_killed_another_takes_over_within_seconds() -> anyhow::Result<()> {
    let mut floor = Floor::open(1).await?;
    let feed = floor.feed(10).await?;
    for n in 1..=2 {
        floor.compete("aggregate")?;
        floor.shared_by("aggregate", n).await?;
    }
    let mut took_ms = Vec::new();
    for _ in 0..3 {
        let before = floor.holders("aggregate").await?;
        let killed = Instant::now();
        floor.fleet.kill9("aggregate")?;
        floor.compete("aggregate")?;
        floor.goes_on().await?;
        took_ms.push(killed.elapsed().as_millis());
        let after = floor.shared_by("aggregate", 2).await?;
        assert_ne!(before, after);
    }
    feed.end().await?;
    let (candles, _) = floor.assert_exact(false).await?;
    took_ms.sort_unstable();
    eprintln!(
        "takeover after kill -9 (ttl 2 s): {took_ms:?} ms to new outputs of every partition; {candles} candles exact"
    );
    assert!(took_ms.iter().all(|ms| *ms < 6_000), "{took_ms:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_that_wakes_beyond_its_lease_does_no_harm_and_takes_its_part_again() -> anyhow::Result<()> {
    let mut floor = Floor::open(1).await?;
    let feed = floor.feed(10).await?;
    let zombie = floor.compete("aggregate")?;
    floor.compete("aggregate")?;
    let shared = floor.shared_by("aggregate", 2).await?;
    let ids: BTreeSet<String> = shared.values().cloned().collect();
    floor.fleet.pause_one(zombie)?;
    let alone = floor.shared_by("aggregate", 1).await?;
    let survivor = alone[&0].clone();
    // The survivor's outputs get past whatever the zombie held in its hands.
    let step = feed.steps.load(Relaxed);
    feed.reaches(step + 50).await?;
    floor.fleet.resume(zombie)?;
    let again = floor.shared_by("aggregate", 2).await?;
    let now: BTreeSet<String> = again.values().cloned().collect();
    assert!(ids.contains(&survivor) && now == ids, "the same two processes: {ids:?} {now:?}");
    let steps = feed.end().await?;
    let (candles, _) = floor.assert_exact(false).await?;
    let ended = floor.fleet.ended()?;
    assert!(ended.is_empty(), "{ended:?}");
    eprintln!("zombie: {candles} candles of {steps} steps exact");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_misses_no_candle() -> anyhow::Result<()> {
    let mut floor = Floor::open(1).await?;
    let feed = floor.feed(10).await?;
    let mut instances = Vec::new();
    for stage in ["aggregate", "strategy"] {
        for _ in 0..2 {
            instances.push((stage, floor.compete(stage)?));
        }
        floor.shared_by(stage, 2).await?;
    }
    let begun = Instant::now();
    for _ in 0..4 {
        let (stage, old) = instances.remove(0);
        floor.fleet.stop(old, BOUND).await?;
        instances.push((stage, floor.compete(stage)?));
        floor.shared_by(stage, 2).await?;
        // A restart is over in milliseconds: the load goes on behind each, and so do the outputs.
        feed.reaches(feed.steps.load(Relaxed) + 50).await?;
        floor.goes_on().await?;
    }
    let took = begun.elapsed();
    let steps = feed.end().await?;
    let (candles, signals) = floor.assert_exact(true).await?;
    eprintln!(
        "rolling restart of 4 instances in {:.1} s under load: {candles} candles and {signals} signals of {steps} steps exact",
        took.as_secs_f64()
    );
    assert!(candles > 500 && signals > 0);
    Ok(())
}

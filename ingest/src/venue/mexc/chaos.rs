//! MEXC's connections against stand-ins that misbehave.

use std::collections::BTreeSet;

use simulator::VenueId;

use crate::session::Command;
use crate::venue::chaos::trials::{self, faults};
use crate::venue::chaos::{Chaos, Fault, Seen, Trial};

const SPOT: &str = "BTCUSDT";
const CONTRACT: &str = "BTC_USDT";

fn spot() -> Trial {
    let channels = &[
        "spot@public.aggre.deals.v3.api.pb@10ms@{}",
        "spot@public.aggre.depth.v3.api.pb@100ms@{}",
        "spot@public.aggre.bookTicker.v3.api.pb@100ms@{}",
    ];
    Trial { complete: assert_complete, ..Trial::of("mexc", VenueId::MexcSpot, &["BTCUSDT"], &[SPOT], channels) }
}

fn contract() -> Trial {
    Trial {
        market: "mexc-contract",
        stand_in: VenueId::MexcContract,
        symbols: &[CONTRACT],
        channels: &["deal@{}", "depth@{}", "ticker@{}"],
        ..spot()
    }
}

fn both() -> [Trial; 2] {
    [spot(), contract()]
}

/// REST of the contracts reaches back 100 trades: so few come that these outlast what is tried.
fn slow_contract() -> Trial {
    Trial { options: |options| options.flow.rate = 15.0, ..contract() }
}

fn trades_of_both() -> [Trial; 2] {
    [spot().trades(&["spot@public.aggre.deals.v3.api.pb@10ms@{}"]), contract().trades(&["deal@{}"])]
}

/// Every trade of the stand-in between the first and the last one that were pushed was published once. The stand-in's numbers
/// are in the ids of the pushes; what REST told has none, and is counted.
fn assert_complete(seen: &Seen, symbol: &str) {
    seen.assert_rising(symbol);
    let trades = seen.trades_of(symbol);
    let number = |id: &str| match id.split_once("X0_") {
        Some((taker, _)) => taker.parse::<u64>().ok().map(|n| n / 2),
        None => id.parse().ok(),
    };
    let numbers: Vec<Option<u64>> = trades.iter().map(|t| t.venue_id.as_deref().and_then(number)).collect();
    let first = numbers.iter().position(Option::is_some).expect("a trade that was pushed");
    let last = numbers.iter().rposition(Option::is_some).expect("a trade that was pushed");
    let pushed: BTreeSet<u64> = numbers.iter().flatten().copied().collect();
    let (low, high) = (pushed.first().unwrap(), pushed.last().unwrap());
    assert_eq!((last - first + 1) as u64, high - low + 1, "{symbol}: {pushed:?}");
}

#[tokio::test]
async fn a_cut_without_close_is_told_as_a_link_gap_and_rest_fills_the_trades_between_on_both_markets() {
    for trial in both() {
        trials::cut(trial).await;
    }
}

#[tokio::test]
async fn a_drop_during_the_back_off_loses_nothing() {
    trials::back_off(spot()).await;
    trials::back_off(slow_contract()).await;
}

#[tokio::test]
async fn a_silent_socket_is_given_up_and_nothing_is_missing_afterwards() {
    trials::silence(spot()).await;
}

#[tokio::test]
async fn a_hole_that_is_longer_than_what_rest_still_has_is_a_gap_from_the_last_trade_to_the_next() {
    let busy = Trial {
        limits: |limits| limits.idle_timeout_ms = 1500,
        // Some six hundred trades a second; REST gives the newest hundred.
        options: |options| options.flow.rate = 2000.0,
        ..contract().trades(&["deal@{}"])
    };
    let mut chaos = Chaos::following(busy).await;
    chaos.fault(Fault::new("silence"));
    chaos.until("the gap", |s| !s.gaps_of(CONTRACT, "trade").is_empty()).await;
    chaos.trades(CONTRACT, 20).await;
    let seen = chaos.end().await;
    seen.assert_rising(CONTRACT);
    // Told as it begins and as it ends.
    let gaps = seen.gaps_of(CONTRACT, "trade");
    let (from, to) = (gaps[0].from, gaps[1].to.unwrap());
    assert!(gaps.len() == 2 && gaps[0].to.is_none() && from < to, "{gaps:?}");
    let inside = seen.trades_of(CONTRACT).iter().filter(|t| t.ts > from && t.ts < to).count();
    assert_eq!(inside, 0, "{gaps:?}");
}

#[tokio::test]
async fn a_dropped_change_restarts_the_book_and_nothing_is_published_across_the_gap() {
    for trial in both() {
        trials::books(trial, [], faults(["drop_depth"])).await;
    }
}

#[tokio::test]
async fn a_repeated_and_an_old_change_are_stale_and_a_swapped_one_is_a_gap() {
    for trial in both() {
        trials::books(trial, faults(["repeat_depth", "stale_depth"]), faults(["swap_depth"])).await;
    }
}

#[tokio::test]
async fn a_book_starts_whether_its_snapshot_is_older_inside_or_newer_than_what_waits() {
    trials::snapshots(spot()).await;
}

#[tokio::test]
async fn a_frame_that_cannot_be_read_is_a_dead_letter_and_its_trades_are_fetched() {
    for trial in trades_of_both() {
        trials::spoiled(trial, faults(["bad_json", "unknown_enum"])).await;
    }
}

#[tokio::test]
async fn fields_of_a_later_schema_empty_frames_and_trades_without_ids_are_taken_as_they_are() {
    let mut chaos = Chaos::following(spot()).await;
    for kind in ["unknown_fields", "old_deals"] {
        chaos.fault(Fault::new(kind).count(5));
        chaos.trades(SPOT, 40).await;
    }
    // An empty frame in place of a change of the book is a hole in its versions.
    chaos.fault(Fault::new("empty_body").count(3));
    chaos.trades(SPOT, 40).await;
    let seen = chaos.end().await;
    assert!(seen.dead.is_empty(), "{:?}", seen.dead);
    assert!(seen.others["ignored"] == 3);
    seen.assert_rising(SPOT);
    seen.assert_books_are_sound();
    let mut chaos = Chaos::following(contract()).await;
    chaos.fault(Fault::new("old_deals").count(10));
    chaos.trades(CONTRACT, 60).await;
    let seen = chaos.end().await;
    assert!(seen.dead.is_empty(), "{:?}", seen.dead);
    assert_complete(&seen, CONTRACT);
}

#[tokio::test]
async fn a_429_is_waited_for_and_the_book_starts_afterwards() {
    // As its Retry-After says.
    for trial in both() {
        trials::limited_book(trial, 1000).await;
    }
}

#[tokio::test]
async fn an_unknown_symbol_is_a_gap_that_lasts_and_the_others_go_on() {
    for (trial, unknown) in both().into_iter().zip(["NOPEUSDT", "NOPE_USDT"]) {
        trials::unknown_symbol(trial, unknown, &["trade", "book"]).await;
    }
}

#[tokio::test]
async fn an_acknowledgement_behind_its_data_delays_nothing_but_the_whole() {
    trials::late_ack(spot(), "cut").await;
}

#[tokio::test]
async fn symbols_come_go_and_start_again_while_the_connection_lives() {
    let mut chaos = Chaos::following(Trial { listed: &["BTCUSDT", "ETHUSDT"], ..spot() }).await;
    let other = "ETHUSDT";
    let symbol = || other.to_owned();
    chaos.order(0, Command::Subscribe { symbol: symbol() }).await.unwrap();
    chaos.until("the new symbol", |s| s.snapshots(other) == 1 && s.trades_of(other).len() > 20).await;
    chaos.order(0, Command::Resync { symbol: symbol() }).await.unwrap();
    chaos.until("a new book", |s| s.snapshots(other) == 2 && s.open_gaps(other, "book") == 0).await;
    assert_complete(&chaos.seen, other);
    chaos.order(0, Command::Unsubscribe { symbol: symbol() }).await.unwrap();
    assert!(chaos.order(0, Command::Resync { symbol: symbol() }).await.is_err());
    chaos.trades(SPOT, 20).await;
    let seen = chaos.end().await;
    assert_eq!((seen.lost(), seen.gaps_of(SPOT, "book").len(), seen.snapshots(SPOT)), (0, 0, 1));
    assert_complete(&seen, SPOT);
    seen.assert_books_are_sound();
}

/// The venue announces nothing: it closes, and its REST is away for a while, longer than the tries for trades.
#[tokio::test]
async fn a_maintenance_with_rest_away_ends_whole() {
    let mut chaos = Chaos::following(Trial { complete: Seen::assert_rising, ..spot() }).await;
    chaos.fault(Fault::new("rest_503").count(4));
    chaos.fault(Fault::new("close"));
    chaos.lost(1).await;
    chaos.whole_again().await;
    let seen = chaos.ends_well().await;
    // The tries for the trades may have met nothing but the refusals: then the hole is told.
    if seen.gaps_of(SPOT, "trade").is_empty() {
        assert_complete(&seen, SPOT);
    }
}

#[tokio::test]
async fn a_maintenance_with_rest_behind_is_outlasted() {
    trials::maintenance(spot()).await;
    trials::maintenance(slow_contract()).await;
}

#[tokio::test]
async fn a_ping_that_is_not_answered_ends_the_connection() {
    for trial in both() {
        trials::unanswered_ping(trial).await;
    }
}

//! MEXC's connections against stand-ins that misbehave.

use std::collections::BTreeSet;

use simulator::VenueId;

use crate::session::Command;
use crate::venue::chaos::{Chaos, Fault, Seen, Trial};

const SPOT: &str = "BTCUSDT";
const CONTRACT: &str = "BTC_USDT";

fn spot<'a>() -> Trial<'a> {
    Trial {
        market: "mexc",
        stand_in: VenueId::MexcSpot,
        listed: &["BTCUSDT"],
        symbols: &[SPOT],
        channels: &[
            "spot@public.aggre.deals.v3.api.pb@10ms@{}",
            "spot@public.aggre.depth.v3.api.pb@100ms@{}",
            "spot@public.aggre.bookTicker.v3.api.pb@100ms@{}",
        ],
        limits: |_| {},
        options: |options| options.flow.rate = 200.0,
    }
}

fn contract<'a>() -> Trial<'a> {
    Trial {
        market: "mexc-contract",
        stand_in: VenueId::MexcContract,
        symbols: &[CONTRACT],
        channels: &["deal@{}", "depth@{}", "ticker@{}"],
        ..spot()
    }
}

const DEALS_ONLY: &[&str] = &["spot@public.aggre.deals.v3.api.pb@10ms@{}"];

/// Whole, with some trades and the book if there is one.
async fn following(trial: Trial<'_>) -> Chaos {
    let symbol = trial.symbols[0];
    let books = usize::from(trial.channels.iter().any(|c| c.contains("depth")));
    let mut chaos = Chaos::start(trial).await;
    chaos
        .until("a whole start", |s| s.is_whole() && s.snapshots(symbol) == books && s.trades_of(symbol).len() > 20)
        .await;
    chaos
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

async fn whole_again(chaos: &mut Chaos, symbol: &str, snapshots: usize) {
    chaos.until("whole again", |s| s.is_whole() && s.snapshots(symbol) == snapshots).await;
    chaos.trades(symbol, 20).await;
}

#[tokio::test]
async fn a_cut_without_close_is_told_as_a_link_gap_and_rest_fills_the_trades_between_on_both_markets() {
    for (trial, symbol) in [(spot(), SPOT), (contract(), CONTRACT)] {
        let mut chaos = following(trial).await;
        chaos.fault(Fault::new("cut"));
        chaos.until("the loss", |s| s.lost() == 1).await;
        whole_again(&mut chaos, symbol, 2).await;
        let seen = chaos.end().await;
        assert_complete(&seen, symbol);
        seen.assert_books_are_sound();
        assert_eq!((seen.gaps_of(symbol, "link").len(), seen.gaps_of(symbol, "trade").len()), (2, 0));
    }
}

#[tokio::test]
async fn a_drop_during_the_back_off_loses_nothing() {
    let mut chaos = following(spot()).await;
    for n in 1..=3 {
        chaos.fault(Fault::new("cut"));
        chaos.until("the loss", |s| s.lost() == n).await;
        chaos.until("a new connection", |s| s.links.iter().filter(|(e, _)| *e == "connected").count() > n).await;
    }
    chaos.until("whole again", |s| s.is_whole() && s.open_gaps(SPOT, "book") == 0).await;
    chaos.trades(SPOT, 20).await;
    let seen = chaos.end().await;
    assert_complete(&seen, SPOT);
    seen.assert_books_are_sound();
    assert_eq!(seen.open_gaps(SPOT, "link"), 0);
}

#[tokio::test]
async fn a_silent_socket_is_given_up_and_nothing_is_missing_afterwards() {
    let mut chaos = following(Trial { limits: |limits| limits.idle_timeout_ms = 1000, ..spot() }).await;
    chaos.fault(Fault::new("silence"));
    chaos.until("the loss", |s| s.lost() == 1).await;
    whole_again(&mut chaos, SPOT, 2).await;
    let seen = chaos.end().await;
    assert_complete(&seen, SPOT);
    assert!(seen.links.iter().any(|(_, why)| why.contains("idle")), "{:?}", seen.links);
}

#[tokio::test]
async fn a_hole_that_is_longer_than_what_rest_still_has_is_a_gap_from_the_last_trade_to_the_next() {
    let busy = Trial {
        channels: &["deal@{}"],
        limits: |limits| limits.idle_timeout_ms = 1500,
        // Some six hundred trades a second; REST gives the newest hundred.
        options: |options| options.flow.rate = 2000.0,
        ..contract()
    };
    let mut chaos = following(busy).await;
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
    for (trial, symbol) in [(spot(), SPOT), (contract(), CONTRACT)] {
        let mut chaos = following(trial).await;
        chaos.fault(Fault::new("drop_depth"));
        chaos.until("the gap", |s| !s.gaps_of(symbol, "book").is_empty()).await;
        chaos.until("a new book", |s| s.snapshots(symbol) == 2 && s.open_gaps(symbol, "book") == 0).await;
        let seen = chaos.end().await;
        seen.assert_books_are_sound();
        assert_complete(&seen, symbol);
        assert_eq!(seen.lost(), 0);
    }
}

#[tokio::test]
async fn a_repeated_and_an_old_change_are_stale_and_a_swapped_one_is_a_gap() {
    let mut chaos = following(spot()).await;
    let updates = |s: &Seen| s.books[SPOT].updates;
    for kind in ["repeat_depth", "stale_depth"] {
        chaos.fault(Fault::new(kind));
        let before = updates(&chaos.seen);
        chaos.until("more changes", |s| updates(s) >= before + 5).await;
        assert!(chaos.seen.gaps_of(SPOT, "book").is_empty(), "{kind}");
    }
    chaos.fault(Fault::new("swap_depth"));
    chaos.until("a new book", |s| s.snapshots(SPOT) == 2 && s.open_gaps(SPOT, "book") == 0).await;
    chaos.end().await.assert_books_are_sound();
}

#[tokio::test]
async fn a_book_starts_whether_its_snapshot_is_older_inside_or_newer_than_what_waits() {
    for (kind, ms) in [("snapshot_older", 0), ("snapshot_inside", 300), ("snapshot_newer", 300)] {
        let mut chaos = following(spot()).await;
        chaos.fault(Fault::new(kind).ms(ms));
        chaos.fault(Fault::new("drop_depth"));
        chaos.until(kind, |s| s.snapshots(SPOT) >= 2 && s.open_gaps(SPOT, "book") == 0).await;
        let before = chaos.seen.books[SPOT].updates;
        chaos.until("changes behind it", |s| s.books[SPOT].updates >= before + 5).await;
        chaos.end().await.assert_books_are_sound();
    }
}

#[tokio::test]
async fn a_frame_that_cannot_be_read_is_a_dead_letter_and_its_trades_are_fetched() {
    for (trial, symbol) in
        [(Trial { channels: DEALS_ONLY, ..spot() }, SPOT), (Trial { channels: &["deal@{}"], ..contract() }, CONTRACT)]
    {
        let mut chaos = following(trial).await;
        for (n, kind) in ["bad_json", "unknown_enum"].into_iter().enumerate() {
            chaos.fault(Fault::new(kind));
            chaos.until("the dead letter", |s| s.dead.len() > n && s.is_whole()).await;
            chaos.trades(symbol, 30).await;
        }
        let seen = chaos.end().await;
        assert_complete(&seen, symbol);
        assert!(seen.trades_of(symbol).iter().any(|t| t.backfill));
        assert_eq!((seen.lost(), seen.gaps_of(symbol, "trade").len()), (0, 0));
    }
}

#[tokio::test]
async fn fields_of_a_later_schema_empty_frames_and_trades_without_ids_are_taken_as_they_are() {
    let mut chaos = following(spot()).await;
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
    let mut chaos = following(contract()).await;
    chaos.fault(Fault::new("old_deals").count(10));
    chaos.trades(CONTRACT, 60).await;
    let seen = chaos.end().await;
    assert!(seen.dead.is_empty(), "{:?}", seen.dead);
    assert_complete(&seen, CONTRACT);
}

#[tokio::test]
async fn a_429_is_waited_for_and_the_book_starts_afterwards() {
    for (trial, symbol) in [(spot(), SPOT), (contract(), CONTRACT)] {
        let mut chaos = following(trial).await;
        chaos.fault(Fault::new("rest_429"));
        chaos.fault(Fault::new("drop_depth"));
        chaos.until("a new book", |s| s.snapshots(symbol) == 2 && s.open_gaps(symbol, "book") == 0).await;
        let seen = chaos.end().await;
        assert_eq!(seen.lost(), 0);
        seen.assert_books_are_sound();
    }
}

#[tokio::test]
async fn an_unknown_symbol_is_a_gap_that_lasts_and_the_others_go_on() {
    let two = Trial { symbols: &[SPOT, "NOPEUSDT"], ..spot() };
    let mut chaos = following(two).await;
    chaos.trades(SPOT, 20).await;
    let seen = chaos.end().await;
    assert_eq!((seen.open_gaps("NOPEUSDT", "trade"), seen.open_gaps("NOPEUSDT", "book")), (1, 1));
    assert_eq!((seen.lost(), seen.gaps_of(SPOT, "trade").len()), (0, 0));
    assert_complete(&seen, SPOT);

    let two = Trial { symbols: &[CONTRACT, "NOPE_USDT"], ..contract() };
    let mut chaos = following(two).await;
    chaos.trades(CONTRACT, 20).await;
    let seen = chaos.end().await;
    assert_eq!((seen.open_gaps("NOPE_USDT", "trade"), seen.open_gaps("NOPE_USDT", "book")), (1, 1));
    assert_complete(&seen, CONTRACT);
}

#[tokio::test]
async fn an_acknowledgement_behind_its_data_delays_nothing_but_the_whole() {
    let mut chaos = following(spot()).await;
    chaos.fault(Fault::new("late_ack").ms(700));
    chaos.fault(Fault::new("cut"));
    chaos.until("the loss", |s| s.lost() == 1).await;
    whole_again(&mut chaos, SPOT, 2).await;
    let seen = chaos.end().await;
    assert_complete(&seen, SPOT);
    seen.assert_books_are_sound();
}

/// An operator's wish, and what the link says to it.
async fn command(chaos: &Chaos, command: Command) -> Result<(), String> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    chaos.orders[0].send((command, answer)).await.expect("the link lives");
    answered.await.expect("an answer")
}

#[tokio::test]
async fn symbols_come_go_and_start_again_while_the_connection_lives() {
    let mut chaos = following(Trial { listed: &["BTCUSDT", "ETHUSDT"], ..spot() }).await;
    let other = "ETHUSDT";
    let symbol = || other.to_owned();
    command(&chaos, Command::Subscribe { symbol: symbol() }).await.unwrap();
    chaos.until("the new symbol", |s| s.snapshots(other) == 1 && s.trades_of(other).len() > 20).await;
    command(&chaos, Command::Resync { symbol: symbol() }).await.unwrap();
    chaos.until("a new book", |s| s.snapshots(other) == 2 && s.open_gaps(other, "book") == 0).await;
    assert_complete(&chaos.seen, other);
    command(&chaos, Command::Unsubscribe { symbol: symbol() }).await.unwrap();
    assert!(command(&chaos, Command::Resync { symbol: symbol() }).await.is_err());
    chaos.trades(SPOT, 20).await;
    let seen = chaos.end().await;
    assert_eq!((seen.lost(), seen.gaps_of(SPOT, "book").len(), seen.snapshots(SPOT)), (0, 0, 1));
    assert_complete(&seen, SPOT);
    seen.assert_books_are_sound();
}

/// The venue announces nothing: it closes, and its REST is away for a while.
#[tokio::test]
async fn a_maintenance_with_rest_away_ends_whole() {
    let mut chaos = following(spot()).await;
    chaos.fault(Fault::new("rest_503").count(4));
    chaos.fault(Fault::new("close"));
    chaos.until("the loss", |s| s.lost() == 1).await;
    whole_again(&mut chaos, SPOT, 2).await;
    let seen = chaos.end().await;
    seen.assert_rising(SPOT);
    seen.assert_books_are_sound();
    // The tries for the trades may have met nothing but the refusals: then the hole is told.
    if seen.gaps_of(SPOT, "trade").is_empty() {
        assert_complete(&seen, SPOT);
    }
}

#[tokio::test]
async fn a_ping_that_is_not_answered_ends_the_connection() {
    let quick = Trial { limits: |limits| limits.ack_timeout_ms = 500, ..spot() };
    let mut chaos = following(quick).await;
    chaos.fault(Fault::new("no_pong"));
    chaos.until("the loss", |s| s.lost() == 1).await;
    whole_again(&mut chaos, SPOT, 2).await;
    let seen = chaos.end().await;
    assert_complete(&seen, SPOT);
    assert!(seen.links.iter().any(|(_, why)| why.contains("no answer")), "{:?}", seen.links);
}

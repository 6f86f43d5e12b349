//! Binance's connection against a stand-in that misbehaves.

use simulator::VenueId;

use crate::venue::chaos::{Chaos, Fault, Trial};

const SYMBOL: &str = "BTCUSDT";

fn trial<'a>() -> Trial<'a> {
    Trial {
        market: "binance",
        stand_in: VenueId::BinanceSpot,
        listed: &[SYMBOL],
        symbols: &[SYMBOL],
        channels: &["{}@trade", "{}@depth@100ms", "{}@bookTicker"],
        limits: |_| {},
        options: |options| options.flow.rate = 200.0,
    }
}

/// Whole, with some trades and the book if there is one.
async fn following(trial: Trial<'_>) -> Chaos {
    let books = usize::from(trial.channels.iter().any(|c| c.contains("@depth")));
    let mut chaos = Chaos::start(trial).await;
    chaos
        .until("a whole start", |s| s.is_whole() && s.snapshots(SYMBOL) == books && s.trades_of(SYMBOL).len() > 20)
        .await;
    chaos
}

#[tokio::test]
async fn a_cut_without_close_is_told_as_a_link_gap_and_the_trades_between_are_fetched() {
    let mut chaos = following(trial()).await;
    chaos.fault(Fault::new("cut"));
    chaos.until("the loss", |s| s.lost() == 1).await;
    chaos.until("whole again", |s| s.is_whole() && s.snapshots(SYMBOL) == 2).await;
    chaos.trades(SYMBOL, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SYMBOL);
    seen.assert_books_are_sound();
    assert_eq!((seen.gaps_of(SYMBOL, "link").len(), seen.gaps_of(SYMBOL, "trade").len()), (2, 0));
}

#[tokio::test]
async fn a_silent_socket_is_given_up_and_nothing_is_missing_afterwards() {
    let quick = Trial { limits: |limits| limits.idle_timeout_ms = 1000, ..trial() };
    let mut chaos = following(quick).await;
    chaos.fault(Fault::new("silence"));
    chaos.until("the loss", |s| s.lost() == 1).await;
    chaos.until("whole again", |s| s.is_whole() && s.snapshots(SYMBOL) == 2).await;
    chaos.trades(SYMBOL, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SYMBOL);
    assert!(seen.links.iter().any(|(_, why)| why.contains("idle")), "{:?}", seen.links);
}

#[tokio::test]
async fn a_dropped_change_restarts_the_book_and_nothing_is_published_across_the_gap() {
    let mut chaos = following(trial()).await;
    chaos.fault(Fault::new("drop_depth"));
    chaos.until("the gap", |s| !s.gaps_of(SYMBOL, "book").is_empty()).await;
    chaos.until("a new book", |s| s.snapshots(SYMBOL) == 2 && s.open_gaps(SYMBOL, "book") == 0).await;
    let seen = chaos.end().await;
    seen.assert_books_are_sound();
    seen.assert_consecutive(SYMBOL);
}

#[tokio::test]
async fn a_repeated_change_is_stale_and_a_swapped_one_is_a_gap() {
    let mut chaos = following(trial()).await;
    chaos.fault(Fault::new("repeat_depth"));
    let updates = |s: &crate::venue::chaos::Seen| s.books[SYMBOL].updates;
    let before = updates(&chaos.seen);
    chaos.until("more changes", |s| updates(s) >= before + 5).await;
    assert!(chaos.seen.gaps_of(SYMBOL, "book").is_empty());
    chaos.fault(Fault::new("swap_depth"));
    chaos.until("a new book", |s| s.snapshots(SYMBOL) == 2 && s.open_gaps(SYMBOL, "book") == 0).await;
    chaos.end().await.assert_books_are_sound();
}

#[tokio::test]
async fn a_corrupt_frame_is_a_dead_letter_and_the_trades_that_it_held_are_fetched() {
    let mut chaos = following(Trial { channels: &["{}@trade"], ..trial() }).await;
    chaos.fault(Fault::new("bad_json"));
    chaos.until("the dead letter", |s| s.dead.len() == 1).await;
    chaos.trades(SYMBOL, 30).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SYMBOL);
    assert!(seen.trades_of(SYMBOL).iter().any(|t| t.backfill));
}

#[tokio::test]
async fn a_429_is_waited_for_and_the_book_starts_afterwards() {
    let mut chaos = following(trial()).await;
    chaos.fault(Fault::new("rest_429"));
    chaos.fault(Fault::new("drop_depth"));
    chaos.until("a new book", |s| s.snapshots(SYMBOL) == 2 && s.open_gaps(SYMBOL, "book") == 0).await;
    let seen = chaos.end().await;
    assert_eq!(seen.lost(), 0);
    seen.assert_books_are_sound();
}

#[tokio::test]
async fn a_server_shutdown_is_a_planned_reconnect() {
    let mut chaos = following(trial()).await;
    chaos.fault(Fault::new("server_shutdown"));
    chaos.until("the change", |s| s.links.iter().any(|(event, _)| *event == "planned_reconnect")).await;
    chaos.until("whole again", |s| s.is_whole() && s.snapshots(SYMBOL) == 2).await;
    chaos.trades(SYMBOL, 20).await;
    chaos.end().await.assert_consecutive(SYMBOL);
}

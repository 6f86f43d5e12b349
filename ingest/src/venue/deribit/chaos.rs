//! Deribit's connection against a stand-in that misbehaves.

use simulator::VenueId;

use crate::venue::chaos::{Chaos, Fault, Seen, Trial};

const SYMBOL: &str = "BTC-PERPETUAL";

fn trial<'a>() -> Trial<'a> {
    Trial {
        market: "deribit",
        stand_in: VenueId::Deribit,
        listed: &["BTCUSDT"],
        symbols: &[SYMBOL],
        channels: &["trades.{}.100ms", "book.{}.100ms", "quote.{}"],
        limits: |_| {},
        options: |options| options.flow.rate = 200.0,
    }
}

/// Whole, with a book and some trades.
async fn following(trial: Trial<'_>) -> Chaos {
    let mut chaos = Chaos::start(trial).await;
    chaos.until("a whole start", |s| s.is_whole() && s.snapshots(SYMBOL) == 1 && s.trades_of(SYMBOL).len() > 20).await;
    chaos
}

fn new_book(s: &Seen) -> bool {
    s.snapshots(SYMBOL) >= 2 && s.open_gaps(SYMBOL, "book") == 0
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
    chaos.end().await.assert_consecutive(SYMBOL);
}

#[tokio::test]
async fn a_dropped_a_swapped_and_a_misnamed_change_each_restart_the_book_by_another_subscription() {
    for fault in ["drop_depth", "swap_depth", "break_chain"] {
        let mut chaos = following(trial()).await;
        chaos.fault(Fault::new(fault));
        chaos.until("the gap", |s| !s.gaps_of(SYMBOL, "book").is_empty()).await;
        chaos.until("a new book", new_book).await;
        let seen = chaos.end().await;
        assert_eq!(seen.lost(), 0, "{fault}: on the same connection");
        seen.assert_books_are_sound();
        seen.assert_consecutive(SYMBOL);
    }
}

#[tokio::test]
async fn a_repeated_change_leaves_the_book_sound() {
    let mut chaos = following(trial()).await;
    chaos.fault(Fault::new("repeat_depth"));
    let updates = |s: &Seen| s.books[SYMBOL].updates;
    let before = updates(&chaos.seen);
    // A repeat names a predecessor that is not the last one: a break by the venue's rule, and the book starts again.
    chaos.until("the gap", |s| !s.gaps_of(SYMBOL, "book").is_empty()).await;
    chaos.until("a new book", |s| new_book(s) && updates(s) >= before + 5).await;
    let seen = chaos.end().await;
    seen.assert_books_are_sound();
    seen.assert_consecutive(SYMBOL);
}

#[tokio::test]
async fn a_corrupt_frame_is_a_dead_letter_and_the_trades_that_it_held_are_fetched() {
    let trades = Trial { channels: &["trades.{}.100ms"], ..trial() };
    let mut chaos = Chaos::start(trades).await;
    chaos.until("a whole start", |s| s.is_whole() && s.trades_of(SYMBOL).len() > 20).await;
    chaos.fault(Fault::new("bad_json"));
    chaos.until("the dead letter", |s| s.dead.len() == 1).await;
    chaos.trades(SYMBOL, 30).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SYMBOL);
    assert!(seen.trades_of(SYMBOL).iter().any(|t| t.backfill));
}

#[tokio::test]
async fn an_unknown_instrument_is_a_gap_that_lasts_and_the_others_flow() {
    let two = Trial { symbols: &[SYMBOL, "NIX-PERPETUAL"], ..trial() };
    let mut chaos = following(two).await;
    chaos.trades(SYMBOL, 10).await;
    let seen = chaos.end().await;
    assert_eq!((seen.open_gaps("NIX-PERPETUAL", "trade"), seen.open_gaps("NIX-PERPETUAL", "book")), (1, 1));
    seen.assert_consecutive(SYMBOL);
}

#[tokio::test]
async fn an_acknowledgement_behind_its_data_changes_nothing_and_a_closed_session_comes_back() {
    let mut chaos = Chaos::start(trial()).await;
    chaos.fault(Fault::new("late_ack").ms(300));
    chaos.until("a whole start", |s| s.is_whole() && s.trades_of(SYMBOL).len() > 20).await;
    chaos.fault(Fault::new("close"));
    chaos.until("the loss", |s| s.lost() == 1).await;
    chaos.until("whole again", |s| s.is_whole() && s.snapshots(SYMBOL) >= 2).await;
    chaos.trades(SYMBOL, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SYMBOL);
    seen.assert_books_are_sound();
}

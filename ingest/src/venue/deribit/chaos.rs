//! Deribit's connection against a stand-in that misbehaves.

use simulator::VenueId;

use crate::venue::chaos::trials::{self, faults};
use crate::venue::chaos::{Chaos, Fault, Trial};

const SYMBOL: &str = "BTC-PERPETUAL";
const CHANNELS: &[&str] = &["trades.{}.100ms", "book.{}.100ms", "quote.{}"];

fn trial() -> Trial {
    Trial::of("deribit", VenueId::Deribit, &["BTCUSDT"], &[SYMBOL], CHANNELS)
}

#[tokio::test]
async fn a_cut_without_close_is_told_as_a_link_gap_and_the_trades_between_are_fetched() {
    trials::cut(trial()).await;
}

#[tokio::test]
async fn drops_during_the_back_off_leave_no_hole() {
    trials::back_off(trial()).await;
}

#[tokio::test]
async fn a_silent_socket_is_given_up_and_nothing_is_missing_afterwards() {
    trials::silence(trial()).await;
}

#[tokio::test]
async fn a_test_request_of_the_venue_is_answered_and_the_connection_lives() {
    trials::answered_ping(trial(), "test_request").await;
}

#[tokio::test]
async fn a_dropped_a_swapped_and_a_misnamed_change_each_restart_the_book_by_another_subscription() {
    trials::books(trial(), [], faults(["drop_depth", "swap_depth", "break_chain"])).await;
}

/// A repeat names a predecessor that is not the last one: a break by the venue's rule, and the book starts again.
#[tokio::test]
async fn a_repeated_change_leaves_the_book_sound() {
    trials::books(trial(), [], faults(["repeat_depth"])).await;
}

#[tokio::test]
async fn a_corrupt_frame_is_a_dead_letter_and_the_trades_that_it_held_are_fetched() {
    trials::spoiled(trial().trades(&["trades.{}.100ms"]), faults(["bad_json", "unknown_enum"])).await;
}

#[tokio::test]
async fn out_of_credits_the_connection_stays_away_as_long_as_the_venue_wants() {
    let mut chaos = Chaos::following(trial()).await;
    chaos.fault(Fault::new("too_many_requests"));
    // The book is subscribed anew, which is one request too many.
    chaos.fault(Fault::new("drop_depth"));
    chaos.lost(1).await;
    chaos.whole_again().await;
    chaos.assert_waited(10_000);
    let seen = chaos.ends_well().await;
    assert!(seen.links.iter().any(|(_, why)| why.contains("error 10028")), "{:?}", seen.links);
    assert_eq!((seen.gaps_of(SYMBOL, "link").len(), seen.gaps_of(SYMBOL, "trade").len()), (2, 0));
}

#[tokio::test]
async fn an_unknown_instrument_is_a_gap_that_lasts_and_the_others_flow() {
    trials::unknown_symbol(trial(), "NIX-PERPETUAL", &["trade", "book"]).await;
}

#[tokio::test]
async fn an_announced_maintenance_is_told_as_a_status_and_nothing_else_is_marked() {
    let all = Trial { channels: &["trades.{}.100ms", "book.{}.100ms", "quote.{}", "platform_state"], ..trial() };
    trials::told(all, Fault::new("maintenance"), "index btc_usd").await;
}

/// While it is announced, only orders are refused.
#[tokio::test]
async fn a_maintenance_refuses_no_public_data_and_its_end_is_outlasted() {
    let mut chaos = Chaos::following(trial()).await;
    chaos.harmless(Fault::new("maintenance").ms(60_000)).await;
    let seen = chaos.ends_well().await;
    assert_eq!((seen.lost(), seen.dead.len()), (0, 0), "{:?}", seen.dead);
    trials::maintenance(trial()).await;
}

#[tokio::test]
async fn an_acknowledgement_behind_its_data_changes_nothing_and_a_closed_session_comes_back() {
    trials::late_ack(trial(), "close").await;
}

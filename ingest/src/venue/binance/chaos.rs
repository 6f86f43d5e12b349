//! Binance's connection against a stand-in that misbehaves.

use simulator::VenueId;

use crate::venue::chaos::trials::{self, faults};
use crate::venue::chaos::{Chaos, Fault, Trial};

const SYMBOL: &str = "BTCUSDT";
const CHANNELS: &[&str] = &["{}@trade", "{}@depth@100ms", "{}@bookTicker"];

fn trial() -> Trial {
    Trial::of("binance", VenueId::BinanceSpot, &[SYMBOL], &[SYMBOL], CHANNELS)
}

fn trades() -> Trial {
    trial().trades(&["{}@trade"])
}

/// Both kinds of futures.
fn futures() -> [Trial; 2] {
    [
        Trial { market: "binance-usdm", stand_in: VenueId::BinanceUsdm, ..trial() },
        Trial { market: "binance-coinm", stand_in: VenueId::BinanceCoinm, symbols: &["BTCUSD_PERP"], ..trial() },
    ]
}

#[tokio::test]
async fn a_cut_without_close_is_told_as_a_link_gap_and_the_trades_between_are_fetched() {
    trials::cut(trial()).await;
}

#[tokio::test]
async fn a_cut_of_the_futures_is_told_as_a_link_gap_and_the_trades_between_are_fetched() {
    for trial in futures() {
        trials::cut(trial).await;
    }
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
async fn a_ping_of_the_venue_is_echoed_and_the_connection_lives() {
    trials::answered_ping(trial(), "ping").await;
}

#[tokio::test]
async fn a_dropped_change_restarts_the_book_and_nothing_is_published_across_the_gap() {
    trials::books(trial(), [], faults(["drop_depth"])).await;
}

#[tokio::test]
async fn a_repeated_and_an_old_change_are_stale_and_a_swapped_one_is_a_gap() {
    trials::books(trial(), faults(["repeat_depth", "stale_depth"]), faults(["swap_depth"])).await;
}

/// A repeat is one too: what it names is not the last one.
#[tokio::test]
async fn a_change_of_the_futures_that_does_not_name_the_one_before_it_restarts_the_book() {
    for trial in futures() {
        trials::books(trial, [], faults(["drop_depth", "jump_pu", "swap_depth", "repeat_depth"])).await;
    }
}

#[tokio::test]
async fn a_book_starts_whether_its_snapshot_is_older_inside_or_newer_than_what_waits() {
    trials::snapshots(trial()).await;
}

#[tokio::test]
async fn a_corrupt_frame_is_a_dead_letter_and_the_trades_that_it_held_are_fetched() {
    trials::spoiled(trades(), faults(["bad_json", "unknown_enum"])).await;
}

#[tokio::test]
async fn a_429_is_waited_for_and_the_book_starts_afterwards() {
    // As its Retry-After says.
    trials::limited_book(trial(), 1000).await;
}

/// The venue acknowledges any stream, and sends nothing: only its list of instruments tells ([`crate::live`]).
#[tokio::test]
async fn an_unknown_symbol_is_acknowledged_and_silent_and_the_others_go_on() {
    let seen = Chaos::following(Trial { unknown: Some("NOPEUSDT"), ..trial() }).await.ends_well().await;
    assert_eq!((seen.lost(), seen.gaps.len(), seen.dead.len()), (0, 0, 0), "{:?} {:?}", seen.gaps, seen.dead);
    assert!(seen.trades_of("NOPEUSDT").is_empty());
}

#[tokio::test]
async fn an_acknowledgement_behind_its_data_delays_nothing_but_the_whole() {
    trials::late_ack(trial(), "cut").await;
}

#[tokio::test]
async fn a_server_shutdown_is_a_planned_reconnect() {
    trials::announced(trial(), Fault::new("server_shutdown")).await;
}

#[tokio::test]
async fn a_maintenance_with_rest_behind_is_outlasted() {
    trials::maintenance(trial()).await;
}

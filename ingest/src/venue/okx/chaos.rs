//! OKX's connections against a stand-in that misbehaves.

use simulator::VenueId;

use crate::session::Command;
use crate::venue::chaos::trials::{self, faults};
use crate::venue::chaos::{Chaos, Fault, Trial};

const SYMBOL: &str = "BTC-USDT";

/// Books on the public socket, single fills on the business one.
fn trial() -> Trial {
    let channels = &["trades-all:{}", "books:{}", "bbo-tbt:{}"];
    Trial { sockets: 2, ..Trial::of("okx", VenueId::Okx, &["BTCUSDT"], &[SYMBOL], channels) }
}

fn trades() -> Trial {
    trial().trades(&["trades-all:{}"])
}

#[tokio::test]
async fn every_channel_of_a_swap_is_understood() {
    let all = Trial {
        listed: &["BTC-USDT-SWAP"],
        symbols: &["BTC-USDT-SWAP"],
        channels: &[
            "trades-all:{}",
            "books:{}",
            "bbo-tbt:{}",
            "tickers:{}",
            "candle1m:{}",
            "mark-price:{}",
            "funding-rate:{}",
            "open-interest:{}",
            "index-tickers:BTC-USDT",
            "status",
        ],
        ..trial()
    };
    let mut chaos = Chaos::start(all).await;
    let kinds = ["bar", "bbo", "funding", "index", "mark", "open_interest", "ticker"];
    chaos.until("every kind", |s| kinds.iter().all(|kind| s.others.contains_key(kind)) && s.is_whole()).await;
    chaos.trades("BTC-USDT-SWAP", 50).await;
    let seen = chaos.end().await;
    assert_eq!((&seen.dead[..], seen.gaps.len()), (&[][..], 0), "{:?}", seen.gaps);
    seen.assert_consecutive("BTC-USDT-SWAP");
    seen.assert_books_are_sound();
}

#[tokio::test]
async fn a_cut_without_close_is_told_as_a_link_gap_and_the_trades_between_are_fetched() {
    trials::cut(trial()).await;
}

#[tokio::test]
async fn losses_during_the_back_off_leave_no_hole() {
    trials::back_off(trial()).await;
}

#[tokio::test]
async fn a_silent_socket_is_given_up_and_nothing_is_missing_afterwards() {
    trials::silence(trial()).await;
}

#[tokio::test]
async fn a_ping_without_answer_is_a_reconnect() {
    trials::unanswered_ping(trades()).await;
}

#[tokio::test]
async fn behind_a_gap_the_book_is_aligned_with_one_from_rest() {
    trials::books(trial(), [], faults(["drop_depth"])).await;
}

#[tokio::test]
async fn where_rest_tells_no_number_the_channel_is_subscribed_anew() {
    let old = |options: &mut simulator::Options| {
        options.flow.rate = 200.0;
        options.config.okx.rest_seq_ids = false;
    };
    trials::books(Trial { options: old, ..trial() }, [], faults(["drop_depth"])).await;
}

#[tokio::test]
async fn without_a_snapshot_on_the_channel_the_book_starts_by_rest() {
    let announced = |options: &mut simulator::Options| {
        options.flow.rate = 200.0;
        options.config.okx.snapshots = false;
    };
    let mut chaos = Chaos::following(Trial { options: announced, ..trial() }).await;
    chaos.changes().await;
    let seen = chaos.ends_well().await;
    assert!(seen.gaps_of(SYMBOL, "book").is_empty());
}

#[tokio::test]
async fn keep_alives_repeats_and_a_sequence_that_starts_anew_are_no_gap_but_a_swap_is() {
    let harmless = faults(["keep_alive", "reset_sequence", "repeat_depth"]);
    trials::books(trial(), harmless, faults(["swap_depth"])).await;
}

#[tokio::test]
async fn real_checksums_agree_and_a_wrong_one_restarts_the_book() {
    let summed = |options: &mut simulator::Options| {
        options.flow.rate = 200.0;
        options.config.okx.checksums = true;
    };
    let mut chaos = Chaos::following(Trial { options: summed, ..trial() }).await;
    for _ in 0..3 {
        chaos.changes().await;
    }
    assert!(chaos.seen.gaps_of(SYMBOL, "book").is_empty(), "{:?}", chaos.seen.gaps);
    chaos.breaks(Fault::new("wrong_checksum")).await;
    let seen = chaos.ends_well().await;
    let gaps = seen.gaps_of(SYMBOL, "book");
    assert!(gaps.len() == 2 && gaps[0].reason.starts_with("checksum "), "{gaps:?}");
}

#[tokio::test]
async fn a_corrupt_frame_is_a_dead_letter_and_the_trades_that_it_held_are_fetched() {
    trials::spoiled(trades(), faults(["bad_json", "unknown_enum"])).await;
}

#[tokio::test]
async fn a_429_is_waited_for_and_the_book_starts_afterwards() {
    trials::limited_book(trial(), trials::QUIET_MS).await;
}

#[tokio::test]
async fn a_backfill_that_fails_is_asked_for_again() {
    let mut chaos = Chaos::following(trades()).await;
    chaos.fault(Fault::new("rest_503"));
    chaos.fault(Fault::new("cut"));
    chaos.lost(1).await;
    chaos.whole_again().await;
    assert_eq!(chaos.struck("rest_503"), 1);
    chaos.ends_well().await;
}

#[tokio::test]
async fn a_maintenance_with_rest_behind_is_outlasted() {
    trials::maintenance(trial()).await;
}

#[tokio::test]
async fn an_acknowledgement_behind_its_data_delays_nothing_but_the_whole() {
    trials::late_ack(trial(), "cut").await;
}

#[tokio::test]
async fn an_announced_maintenance_is_told_as_a_status_and_nothing_else_is_marked() {
    let all = Trial { channels: &["trades-all:{}", "books:{}", "bbo-tbt:{}", "status"], ..trial() };
    trials::told(all, Fault::new("status"), "unified: Trading account WebSocket system upgrade").await;
}

#[tokio::test]
async fn the_notice_of_an_upgrade_is_a_planned_reconnect() {
    trials::announced(trial(), Fault::new("upgrade_notice").ms(60_000)).await;
}

#[tokio::test]
async fn an_unknown_symbol_is_a_gap_that_lasts_and_the_others_go_on() {
    let seen = trials::unknown_symbol(trial(), "NOPE-USDT", &["trade", "book", "channel"]).await;
    assert_eq!(seen.gaps.len(), 3, "{:?}", seen.gaps);
}

#[tokio::test]
async fn a_symbol_is_added_resynced_and_dropped_while_the_others_go_on() {
    const ADDED: &str = "ETH-USDT";
    // Short: an acknowledgement that was taken for another would end the connection.
    let quick = |limits: &mut crate::session::Limits| limits.ack_timeout_ms = 3000;
    let mut chaos = Chaos::following(Trial { listed: &["BTCUSDT", "ETHUSDT"], limits: quick, ..trial() }).await;
    for link in [0, 1] {
        chaos.order(link, Command::Subscribe { symbol: ADDED.to_owned() }).await.unwrap();
    }
    chaos.until("its data", |s| s.snapshots(ADDED) == 1 && s.trades_of(ADDED).len() > 20).await;
    assert!(chaos.order(0, Command::Subscribe { symbol: ADDED.to_owned() }).await.is_err());
    chaos.order(0, Command::Resync { symbol: ADDED.to_owned() }).await.unwrap();
    chaos.until("its second book", |s| s.snapshots(ADDED) == 2 && s.open_gaps(ADDED, "book") == 0).await;
    for link in [0, 1] {
        chaos.order(link, Command::Unsubscribe { symbol: ADDED.to_owned() }).await.unwrap();
    }
    // As long as the acknowledgements may take, in trades of the other.
    chaos.trades(SYMBOL, 600).await;
    let seen = chaos.end().await;
    assert_eq!((seen.lost(), &seen.dead[..]), (0, &[][..]), "{:?}", seen.links);
    seen.assert_consecutive(SYMBOL);
    seen.assert_consecutive(ADDED);
    seen.assert_books_are_sound();
}

//! HTX's connections against a stand-in that misbehaves. The stand-in packs every frame as the venue does.

use simulator::VenueId;

use crate::venue::chaos::trials::{self, faults};
use crate::venue::chaos::{Chaos, Fault, Seen, Trial};

const SPOT: &str = "btcusdt";
const SWAP: &str = "BTC-USDT";
const TRADES: &[&str] = &["market.{}.trade.detail"];

/// Spot: trades on one socket, the book by changes on another.
fn spot() -> Trial {
    let channels = &["market.{}.trade.detail", "market.{}.mbp.20", "market.{}.bbo"];
    Trial { sockets: 2, ..Trial::of("htx", VenueId::HtxSpot, &["BTCUSDT"], &[SPOT], channels) }
}

/// Linear swaps: trades and the book on one socket.
fn swap() -> Trial {
    let channels = &["market.{}.trade.detail", "market.{}.depth.size_20.high_freq"];
    Trial { complete: each_step, ..Trial::of("htx-linear", VenueId::HtxLinear, &["BTCUSDT"], &[SWAP], channels) }
}

/// The stand-in numbers a swap's trades by ten thousand: nothing is missing if each step is just that.
fn each_step(seen: &Seen, symbol: &str) {
    for pair in seen.trades_of(symbol).windows(2) {
        assert_eq!(pair[1].id, pair[0].id + 10_000, "{pair:?}");
    }
}

#[tokio::test]
async fn a_cut_without_close_is_told_as_a_link_gap_and_the_trades_between_are_fetched() {
    trials::cut(spot()).await;
}

#[tokio::test]
async fn drops_during_the_back_off_leave_no_hole() {
    trials::back_off(spot()).await;
}

#[tokio::test]
async fn an_outage_of_a_swaps_socket_loses_and_doubles_no_trade_though_its_ids_have_holes() {
    let mut chaos = Chaos::following(swap()).await;
    chaos.fault(Fault::new("outage").ms(800));
    chaos.lost(1).await;
    chaos.whole_again().await;
    let seen = chaos.ends_well().await;
    assert_eq!((seen.gaps_of(SWAP, "link").len(), seen.gaps_of(SWAP, "trade").len()), (2, 0));
    assert!(seen.trades_of(SWAP).iter().any(|t| t.backfill), "the trades between were fetched");
}

#[tokio::test]
async fn a_silent_socket_is_given_up_and_nothing_is_missing_afterwards() {
    for trial in [spot(), swap()] {
        trials::silence(trial).await;
    }
}

#[tokio::test]
async fn a_dropped_change_asks_for_the_book_again_and_nothing_is_published_across_the_gap() {
    let seen = trials::books(spot(), [], faults(["drop_depth", "break_chain"])).await;
    assert_eq!(seen.gaps_of(SPOT, "book").len(), 4, "each gap has a from and a to");
}

#[tokio::test]
async fn a_dropped_change_of_a_swap_takes_its_topic_again() {
    trials::books(swap(), [], faults(["drop_depth"])).await;
}

#[tokio::test]
async fn a_repeated_change_is_stale_a_swapped_one_a_gap_and_a_whole_book_in_between_is_taken() {
    let mut chaos = Chaos::following(swap()).await;
    chaos.harmless(Fault::new("repeat_depth")).await;
    chaos.fault(Fault::new("snapshot_again"));
    chaos.books_again().await;
    assert!(chaos.seen.gaps_of(SWAP, "book").is_empty());
    chaos.breaks(Fault::new("swap_depth")).await;
    chaos.ends_well().await;
}

#[tokio::test]
async fn a_repeated_and_a_swapped_change_of_spot_leave_the_book_sound() {
    trials::books(spot(), faults(["repeat_depth"]), faults(["swap_depth"])).await;
}

#[tokio::test]
async fn a_damaged_frame_a_bomb_and_cut_text_are_dead_letters_and_their_trades_are_fetched() {
    let seen = trials::spoiled(spot().trades(TRADES), faults(["bad_gzip", "big_gzip", "bad_json"])).await;
    let reasons = ["not gzip", "a gzip frame of more than", "EOF while parsing"];
    assert!(seen.dead.iter().zip(reasons).all(|(told, why)| told.contains(why)), "{:?}", seen.dead);
    assert_eq!(seen.dead.len(), reasons.len());
}

#[tokio::test]
async fn a_damaged_frame_of_a_swap_asks_for_the_trades_though_their_ids_show_no_hole() {
    trials::spoiled(swap().trades(TRADES), faults(["bad_gzip"])).await;
}

#[tokio::test]
async fn a_damaged_frame_of_the_book_restarts_it() {
    let both = &["market.{}.trade.detail", "market.{}.mbp.20"];
    let mut chaos = Chaos::following(Trial { channels: both, ..spot() }).await;
    // Of a trade or of the book: with both struck often enough, the book is among them.
    chaos.fault(Fault::new("bad_gzip").count(40));
    chaos.until("a gap of the book", |s| !s.gaps_of(SPOT, "book").is_empty()).await;
    chaos.until("all strikes", |s| s.dead.len() == 40).await;
    chaos.until("whole again", |s| s.is_whole() && s.open_gaps(SPOT, "book") == 0).await;
    chaos.ends_well().await;
}

#[tokio::test]
async fn pings_whose_answers_do_not_arrive_end_the_connection_and_nothing_is_missing() {
    let quick = Trial {
        options: |options| {
            options.flow.rate = 200.0;
            options.config.htx.ping_period_ms = 300;
        },
        ..spot()
    };
    let mut chaos = Chaos::following(quick).await;
    // As long as they arrive, the connections live.
    chaos.trades(SPOT, 200).await;
    assert_eq!(chaos.seen.lost(), 0);
    chaos.given_up(Fault::new("deaf"), "ping timeout").await;
}

#[tokio::test]
async fn a_429_without_a_time_is_waited_for_and_the_trades_come_afterwards() {
    trials::limited_trades(spot().trades(TRADES), Fault::new("bad_gzip"), trials::QUIET_MS).await;
}

#[tokio::test]
async fn an_acknowledgement_behind_its_data_delays_nothing_but_the_whole() {
    trials::late_ack(spot(), "cut").await;
}

#[tokio::test]
async fn an_unknown_symbol_is_a_gap_that_lasts_and_the_others_are_served() {
    let seen = trials::unknown_symbol(spot(), "nopeusdt", &["trade", "book", "channel"]).await;
    assert!(seen.gaps.iter().all(|g| g.reason.contains("did not subscribe market.nopeusdt")), "{:?}", seen.gaps);
    trials::unknown_symbol(swap(), "NOPE-USDT", &["trade", "book"]).await;
}

#[tokio::test]
async fn maintenance_is_outlasted_with_pauses_and_also_a_cut_in_the_middle_of_them() {
    let mut chaos = Chaos::following(spot()).await;
    chaos.fault(Fault::new("outage").ms(1500));
    chaos.lost(1).await;
    chaos.whole_again().await;
    chaos.assert_waited(1500);
    // Dropped again as soon as it is back, while the pause still counts from before.
    chaos.fault(Fault::new("cut"));
    chaos.lost(2).await;
    chaos.whole_again().await;
    let seen = chaos.ends_well().await;
    assert!(seen.gaps_of(SPOT, "trade").is_empty());
}

#[tokio::test]
async fn a_maintenance_with_rest_behind_is_outlasted_on_both_markets() {
    for trial in [spot(), swap()] {
        trials::maintenance(trial).await;
    }
}

#[tokio::test]
async fn an_announced_maintenance_is_told_as_a_status_and_nothing_else_is_marked() {
    let channels = &["market.{}.trade.detail", "market.{}.depth.size_20.high_freq", "public.linear-swap.heartbeat"];
    trials::told(Trial { channels, sockets: 2, ..swap() }, Fault::new("status"), "linear-swap").await;
}

#[tokio::test]
async fn a_swap_trade_without_a_direction_is_left_out_and_told() {
    let mut chaos = Chaos::following(swap()).await;
    chaos.fault(Fault::new("empty_direction"));
    chaos.until("the strike", |s| s.trades_of(SWAP).windows(2).any(|pair| pair[1].id == pair[0].id + 20_000)).await;
    let seen = chaos.end().await;
    assert!(seen.dead.is_empty(), "{:?}", seen.dead);
    seen.assert_rising(SWAP);
}

#[tokio::test]
async fn every_channel_of_a_swap_brings_its_data_over_three_sockets() {
    let all = Trial {
        market: "htx-inverse",
        stand_in: VenueId::HtxInverse,
        symbols: &["BTC-USD"],
        channels: &[
            "market.{}.trade.detail",
            "market.{}.bbo",
            "market.{}.depth.size_150.high_freq",
            "market.{}.detail",
            "market.{}.kline.1min",
            "market.{}.index.1min",
            "market.{}.mark_price.1min",
            "public.{}.funding_rate",
            "public.{}.liquidation_orders",
        ],
        ..swap()
    };
    let mut chaos = Chaos::start(all).await;
    chaos
        .until("one of each", |s| {
            let kinds = ["bbo", "ticker", "bar", "index", "mark", "funding"];
            s.is_whole() && s.snapshots("BTC-USD") == 1 && kinds.iter().all(|kind| s.others.contains_key(kind))
        })
        .await;
    chaos.trades("BTC-USD", 20).await;
    let seen = chaos.end().await;
    seen.assert_books_are_sound();
    assert!(seen.gaps.is_empty() && seen.dead.is_empty(), "{:?} {:?}", seen.gaps, seen.dead);
}

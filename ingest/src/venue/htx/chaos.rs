//! HTX's connections against a stand-in that misbehaves. The stand-in packs every frame as the venue does.

use simulator::VenueId;

use crate::venue::chaos::{Chaos, Fault, Seen, Trial};

const SPOT: &str = "btcusdt";
const SWAP: &str = "BTC-USDT";

/// Spot: trades on one socket, the book by changes on another.
fn spot<'a>() -> Trial<'a> {
    Trial {
        market: "htx",
        stand_in: VenueId::HtxSpot,
        listed: &["BTCUSDT"],
        symbols: &[SPOT],
        channels: &["market.{}.trade.detail", "market.{}.mbp.20", "market.{}.bbo"],
        limits: |_| {},
        options: |options| options.flow.rate = 200.0,
    }
}

/// Linear swaps: trades and the book on one socket.
fn swap<'a>() -> Trial<'a> {
    Trial {
        market: "htx-linear",
        stand_in: VenueId::HtxLinear,
        listed: &["BTCUSDT"],
        symbols: &[SWAP],
        channels: &["market.{}.trade.detail", "market.{}.depth.size_20.high_freq"],
        limits: |_| {},
        options: |options| options.flow.rate = 200.0,
    }
}

/// Whole, with some trades and, where it is followed, a book.
async fn following(trial: Trial<'_>) -> Chaos {
    let symbol = trial.symbols[0];
    let books = usize::from(trial.channels.iter().any(|c| c.contains(".mbp.") || c.contains("high_freq")));
    let mut chaos = Chaos::start(trial).await;
    chaos
        .until("a whole start", |s| s.is_whole() && s.snapshots(symbol) == books && s.trades_of(symbol).len() > 20)
        .await;
    chaos
}

fn updates(seen: &Seen, symbol: &str) -> usize {
    seen.books[symbol].updates
}

#[tokio::test]
async fn a_cut_without_close_is_told_as_a_link_gap_and_the_trades_between_are_fetched() {
    let mut chaos = following(spot()).await;
    chaos.fault(Fault::new("cut"));
    chaos.until("the loss of both sockets", |s| s.lost() == 2).await;
    chaos.until("whole again", |s| s.is_whole() && s.snapshots(SPOT) == 2).await;
    chaos.trades(SPOT, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SPOT);
    seen.assert_books_are_sound();
    // From and to, of each of the two sockets.
    assert_eq!((seen.gaps_of(SPOT, "link").len(), seen.gaps_of(SPOT, "trade").len()), (4, 0));
}

#[tokio::test]
async fn an_outage_of_a_swaps_socket_loses_and_doubles_no_trade_though_its_ids_have_holes() {
    let mut chaos = following(swap()).await;
    chaos.fault(Fault::new("outage").ms(800));
    chaos.until("the loss", |s| s.lost() == 1).await;
    chaos.until("whole again", |s| s.is_whole() && s.snapshots(SWAP) == 2).await;
    chaos.trades(SWAP, 20).await;
    let seen = chaos.end().await;
    // The stand-in numbers its trades by ten thousand: nothing is missing if each step is just that.
    for pair in seen.trades_of(SWAP).windows(2) {
        assert_eq!(pair[1].id, pair[0].id + 10_000, "{pair:?}");
    }
    seen.assert_books_are_sound();
    assert_eq!((seen.gaps_of(SWAP, "link").len(), seen.gaps_of(SWAP, "trade").len()), (2, 0));
    assert!(seen.trades_of(SWAP).iter().any(|t| t.backfill), "the trades between were fetched");
}

#[tokio::test]
async fn a_silent_socket_is_given_up_and_nothing_is_missing_afterwards() {
    let quick =
        Trial { limits: |limits| limits.idle_timeout_ms = 1000, channels: &["market.{}.trade.detail"], ..spot() };
    let mut chaos = following(quick).await;
    chaos.fault(Fault::new("silence"));
    chaos.until("the loss", |s| s.lost() == 1).await;
    chaos.until("whole again", |s| s.is_whole()).await;
    chaos.trades(SPOT, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SPOT);
    assert!(seen.links.iter().any(|(_, why)| why.contains("idle")), "{:?}", seen.links);
}

#[tokio::test]
async fn a_dropped_change_asks_for_the_book_again_and_nothing_is_published_across_the_gap() {
    let mut chaos = following(spot()).await;
    for fault in ["drop_depth", "break_chain"] {
        let before = chaos.seen.snapshots(SPOT);
        chaos.fault(Fault::new(fault));
        chaos.until("a gap", |s| s.gaps_of(SPOT, "book").len() >= 2 * before - 1).await;
        chaos.until("a new book", |s| s.snapshots(SPOT) > before && s.open_gaps(SPOT, "book") == 0).await;
    }
    let seen = chaos.end().await;
    assert_eq!((seen.lost(), seen.gaps_of(SPOT, "book").len()), (0, 4), "each gap has a from and a to");
    seen.assert_books_are_sound();
    seen.assert_consecutive(SPOT);
}

#[tokio::test]
async fn a_dropped_change_of_a_swap_takes_its_topic_again() {
    let mut chaos = following(swap()).await;
    chaos.fault(Fault::new("drop_depth"));
    chaos.until("the gap", |s| !s.gaps_of(SWAP, "book").is_empty()).await;
    chaos.until("a new book", |s| s.snapshots(SWAP) == 2 && s.open_gaps(SWAP, "book") == 0).await;
    let before = updates(&chaos.seen, SWAP);
    chaos.until("more changes", |s| updates(s, SWAP) >= before + 5).await;
    let seen = chaos.end().await;
    assert_eq!(seen.lost(), 0);
    seen.assert_books_are_sound();
}

#[tokio::test]
async fn a_repeated_change_is_stale_a_swapped_one_a_gap_and_a_whole_book_in_between_is_taken() {
    let mut chaos = following(swap()).await;
    chaos.fault(Fault::new("repeat_depth"));
    let before = updates(&chaos.seen, SWAP);
    chaos.until("more changes", |s| updates(s, SWAP) >= before + 5).await;
    chaos.fault(Fault::new("snapshot_again"));
    chaos.until("the book again", |s| s.snapshots(SWAP) == 2).await;
    assert!(chaos.seen.gaps_of(SWAP, "book").is_empty());
    chaos.fault(Fault::new("swap_depth"));
    chaos.until("a new book", |s| s.snapshots(SWAP) == 3 && s.open_gaps(SWAP, "book") == 0).await;
    chaos.end().await.assert_books_are_sound();
}

#[tokio::test]
async fn a_damaged_frame_a_bomb_and_cut_text_are_dead_letters_and_their_trades_are_fetched() {
    let mut chaos = following(Trial { channels: &["market.{}.trade.detail"], ..spot() }).await;
    for (n, (fault, reason)) in
        [("bad_gzip", "not gzip"), ("big_gzip", "a gzip frame of more than"), ("bad_json", "EOF while parsing")]
            .into_iter()
            .enumerate()
    {
        chaos.fault(Fault::new(fault));
        chaos.until("the dead letter", |s| s.dead.len() == n + 1).await;
        assert!(chaos.seen.dead[n].contains(reason), "{fault}: {}", chaos.seen.dead[n]);
        chaos.trades(SPOT, 30).await;
    }
    let seen = chaos.end().await;
    seen.assert_consecutive(SPOT);
    assert_eq!((seen.lost(), seen.gaps_of(SPOT, "trade").len()), (0, 0));
    assert!(seen.trades_of(SPOT).iter().any(|t| t.backfill));
}

#[tokio::test]
async fn a_damaged_frame_of_a_swap_asks_for_the_trades_though_their_ids_show_no_hole() {
    let mut chaos = following(Trial { channels: &["market.{}.trade.detail"], ..swap() }).await;
    chaos.fault(Fault::new("bad_gzip"));
    chaos.until("the dead letter", |s| s.dead.len() == 1).await;
    chaos.until("whole again", |s| s.is_whole()).await;
    chaos.trades(SWAP, 30).await;
    let seen = chaos.end().await;
    for pair in seen.trades_of(SWAP).windows(2) {
        assert_eq!(pair[1].id, pair[0].id + 10_000, "{pair:?}");
    }
    assert_eq!((seen.lost(), seen.gaps_of(SWAP, "trade").len()), (0, 0));
    assert!(seen.trades_of(SWAP).iter().any(|t| t.backfill), "they were fetched");
}

#[tokio::test]
async fn a_damaged_frame_of_the_book_restarts_it() {
    let mut chaos = following(Trial { channels: &["market.{}.trade.detail", "market.{}.mbp.20"], ..spot() }).await;
    // Of a trade or of the book: with both struck often enough, the book is among them.
    chaos.fault(Fault::new("bad_gzip").count(40));
    chaos.until("a gap of the book", |s| !s.gaps_of(SPOT, "book").is_empty()).await;
    chaos.until("all strikes", |s| s.dead.len() == 40).await;
    chaos.until("whole again", |s| s.is_whole() && s.open_gaps(SPOT, "book") == 0).await;
    chaos.trades(SPOT, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SPOT);
    seen.assert_books_are_sound();
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
    let mut chaos = following(quick).await;
    // As long as they arrive, the connections live.
    chaos.trades(SPOT, 200).await;
    assert_eq!(chaos.seen.lost(), 0);
    chaos.fault(Fault::new("deaf"));
    chaos.until("the loss of both sockets", |s| s.lost() == 2).await;
    chaos.until("whole again", |s| s.is_whole() && s.snapshots(SPOT) == 2).await;
    chaos.trades(SPOT, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SPOT);
    assert!(seen.links.iter().any(|(_, why)| why.contains("ping timeout")), "{:?}", seen.links);
}

#[tokio::test]
async fn a_429_without_a_time_is_waited_for_and_the_trades_come_afterwards() {
    let mut chaos = following(Trial { channels: &["market.{}.trade.detail"], ..spot() }).await;
    chaos.fault(Fault::new("rest_429"));
    chaos.fault(Fault::new("bad_gzip"));
    chaos.until("the dead letter", |s| s.dead.len() == 1).await;
    chaos.until("the missing trades", |s| s.trades_of(SPOT).iter().any(|t| t.backfill)).await;
    chaos.trades(SPOT, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SPOT);
    assert_eq!((seen.lost(), seen.gaps_of(SPOT, "trade").len()), (0, 0));
}

#[tokio::test]
async fn an_unknown_symbol_is_a_gap_that_lasts_and_the_others_are_served() {
    let mut chaos = Chaos::start(Trial { symbols: &[SPOT, "nopeusdt"], ..spot() }).await;
    chaos.until("the known one", |s| s.is_whole() && s.snapshots(SPOT) == 1 && s.trades_of(SPOT).len() > 20).await;
    let seen = chaos.end().await;
    for channel in ["trade", "book", "channel"] {
        let gaps = seen.gaps_of("nopeusdt", channel);
        assert!(matches!(gaps[..], [gap] if gap.to.is_none()), "{channel}: {gaps:?}");
        assert!(gaps[0].reason.contains("did not subscribe market.nopeusdt"), "{gaps:?}");
    }
    assert!(seen.gaps_of(SPOT, "trade").is_empty());
}

#[tokio::test]
async fn maintenance_is_outlasted_with_pauses_and_also_a_cut_in_the_middle_of_them() {
    let mut chaos = following(spot()).await;
    chaos.fault(Fault::new("outage").ms(1500));
    chaos.until("the loss of both sockets", |s| s.lost() == 2).await;
    chaos.until("whole again", |s| s.is_whole() && s.snapshots(SPOT) == 2).await;
    // Dropped again as soon as it is back, while the pause still counts from before.
    chaos.fault(Fault::new("cut"));
    chaos.until("the loss again", |s| s.lost() == 4).await;
    chaos.until("whole again", |s| s.is_whole() && s.snapshots(SPOT) == 3).await;
    chaos.trades(SPOT, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SPOT);
    seen.assert_books_are_sound();
    assert!(seen.gaps_of(SPOT, "trade").is_empty());
}

#[tokio::test]
async fn a_swap_trade_without_a_direction_is_left_out_and_told() {
    let mut chaos = following(swap()).await;
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

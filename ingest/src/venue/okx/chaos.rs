//! OKX's connections against a stand-in that misbehaves.

use simulator::VenueId;
use tokio::sync::oneshot;

use crate::session::Command;
use crate::venue::chaos::{Chaos, Fault, Seen, Trial};

const SYMBOL: &str = "BTC-USDT";

/// Books on the public socket, single fills on the business one.
fn trial<'a>() -> Trial<'a> {
    Trial {
        market: "okx",
        stand_in: VenueId::Okx,
        listed: &["BTCUSDT"],
        symbols: &[SYMBOL],
        channels: &["trades-all:{}", "books:{}", "bbo-tbt:{}"],
        limits: |_| {},
        options: |options| options.flow.rate = 200.0,
    }
}

/// Whole, with some trades and the book if there is one.
async fn following(trial: Trial<'_>) -> Chaos {
    let books = usize::from(trial.channels.iter().any(|c| c.starts_with("books")));
    let mut chaos = Chaos::start(trial).await;
    chaos
        .until("a whole start", |s| s.is_whole() && s.snapshots(SYMBOL) == books && s.trades_of(SYMBOL).len() > 20)
        .await;
    chaos
}

fn updates(seen: &Seen) -> usize {
    seen.books[SYMBOL].updates
}

/// A second book, and no gap of it open.
fn book_anew(seen: &Seen) -> bool {
    seen.snapshots(SYMBOL) == 2 && seen.open_gaps(SYMBOL, "book") == 0
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
    let mut chaos = following(trial()).await;
    chaos.fault(Fault::new("cut"));
    chaos.until("the loss", |s| s.lost() == 2).await;
    chaos.until("whole again", |s| s.is_whole() && s.snapshots(SYMBOL) == 2).await;
    chaos.trades(SYMBOL, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SYMBOL);
    seen.assert_books_are_sound();
    // One of each socket, begun and ended.
    assert_eq!((seen.gaps_of(SYMBOL, "link").len(), seen.gaps_of(SYMBOL, "trade").len()), (4, 0));
}

#[tokio::test]
async fn losses_during_the_back_off_leave_no_hole() {
    let mut chaos = following(trial()).await;
    let connected = |s: &Seen| s.links.iter().filter(|(event, _)| *event == "connected").count();
    for fault in ["cut", "close", "cut"] {
        let before = (chaos.seen.lost(), connected(&chaos.seen));
        chaos.fault(Fault::new("turn_away").count(2));
        chaos.fault(Fault::new(fault));
        chaos.until("the loss", |s| s.lost() > before.0).await;
        // The next one strikes as soon as one of the two is back: the other may still wait.
        chaos.until("one is back", |s| connected(s) > before.1).await;
    }
    chaos.until("whole again", |s| s.is_whole() && s.open_gaps(SYMBOL, "link") == 0).await;
    chaos.trades(SYMBOL, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SYMBOL);
    seen.assert_books_are_sound();
    assert!(seen.trades_of(SYMBOL).iter().any(|t| t.backfill));
}

#[tokio::test]
async fn a_silent_socket_is_given_up_and_nothing_is_missing_afterwards() {
    let quick = Trial { limits: |limits| limits.idle_timeout_ms = 1000, ..trial() };
    let mut chaos = following(quick).await;
    chaos.fault(Fault::new("silence"));
    chaos.until("the loss", |s| s.lost() == 2).await;
    chaos.until("whole again", |s| s.is_whole() && s.snapshots(SYMBOL) == 2).await;
    chaos.trades(SYMBOL, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SYMBOL);
    assert!(seen.links.iter().any(|(_, why)| why.contains("idle")), "{:?}", seen.links);
}

/// The session pings every 20 s.
#[tokio::test]
async fn a_ping_without_answer_is_a_reconnect() {
    let quick = Trial { channels: &["trades-all:{}"], limits: |limits| limits.ack_timeout_ms = 1000, ..trial() };
    let mut chaos = following(quick).await;
    chaos.fault(Fault::new("no_pong"));
    chaos.until("the loss", |s| s.lost() == 1).await;
    chaos.until("whole again", Seen::is_whole).await;
    chaos.trades(SYMBOL, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(SYMBOL);
    assert!(seen.links.iter().any(|(_, why)| why.contains("no answer")), "{:?}", seen.links);
}

#[tokio::test]
async fn behind_a_gap_the_book_is_aligned_with_one_from_rest() {
    let mut chaos = following(trial()).await;
    chaos.fault(Fault::new("drop_depth"));
    chaos.until("the gap", |s| !s.gaps_of(SYMBOL, "book").is_empty()).await;
    chaos.until("a new book", book_anew).await;
    let before = updates(&chaos.seen);
    chaos.until("more changes", |s| updates(s) >= before + 5).await;
    let seen = chaos.end().await;
    assert_eq!(seen.lost(), 0);
    seen.assert_books_are_sound();
    seen.assert_consecutive(SYMBOL);
}

#[tokio::test]
async fn where_rest_tells_no_number_the_channel_is_subscribed_anew() {
    let old = |options: &mut simulator::Options| {
        options.flow.rate = 200.0;
        options.config.okx.rest_seq_ids = false;
    };
    let mut chaos = following(Trial { options: old, ..trial() }).await;
    chaos.fault(Fault::new("drop_depth"));
    chaos.until("a new book", book_anew).await;
    let seen = chaos.end().await;
    assert_eq!(seen.lost(), 0);
    seen.assert_books_are_sound();
}

#[tokio::test]
async fn without_a_snapshot_on_the_channel_the_book_starts_by_rest() {
    let announced = |options: &mut simulator::Options| {
        options.flow.rate = 200.0;
        options.config.okx.snapshots = false;
    };
    let mut chaos = following(Trial { options: announced, ..trial() }).await;
    let before = updates(&chaos.seen);
    chaos.until("more changes", |s| updates(s) >= before + 10).await;
    let seen = chaos.end().await;
    assert!(seen.gaps_of(SYMBOL, "book").is_empty());
    seen.assert_books_are_sound();
}

#[tokio::test]
async fn keep_alives_repeats_and_a_sequence_that_starts_anew_are_no_gap_but_a_swap_is() {
    let mut chaos = following(trial()).await;
    for harmless in ["keep_alive", "reset_sequence", "repeat_depth"] {
        chaos.fault(Fault::new(harmless));
        let before = updates(&chaos.seen);
        chaos.until("more changes", |s| updates(s) >= before + 5).await;
        assert!(chaos.seen.gaps_of(SYMBOL, "book").is_empty(), "{harmless}: {:?}", chaos.seen.gaps);
    }
    chaos.fault(Fault::new("swap_depth"));
    chaos.until("a new book", book_anew).await;
    chaos.end().await.assert_books_are_sound();
}

#[tokio::test]
async fn real_checksums_agree_and_a_wrong_one_restarts_the_book() {
    let summed = |options: &mut simulator::Options| {
        options.flow.rate = 200.0;
        options.config.okx.checksums = true;
    };
    let mut chaos = following(Trial { options: summed, ..trial() }).await;
    let before = updates(&chaos.seen);
    chaos.until("more changes", |s| updates(s) >= before + 30).await;
    assert!(chaos.seen.gaps_of(SYMBOL, "book").is_empty(), "{:?}", chaos.seen.gaps);
    chaos.fault(Fault::new("wrong_checksum"));
    chaos.until("a new book", book_anew).await;
    let before = updates(&chaos.seen);
    chaos.until("more changes", |s| updates(s) >= before + 10).await;
    let seen = chaos.end().await;
    seen.assert_books_are_sound();
    let gaps = seen.gaps_of(SYMBOL, "book");
    assert!(gaps.len() == 2 && gaps[0].reason.starts_with("checksum "), "{gaps:?}");
}

#[tokio::test]
async fn a_corrupt_frame_is_a_dead_letter_and_the_trades_that_it_held_are_fetched() {
    for fault in ["bad_json", "unknown_enum"] {
        let mut chaos = following(Trial { channels: &["trades-all:{}"], ..trial() }).await;
        chaos.fault(Fault::new(fault));
        chaos.until("the dead letter", |s| s.dead.len() == 1).await;
        chaos.trades(SYMBOL, 30).await;
        let seen = chaos.end().await;
        seen.assert_consecutive(SYMBOL);
        assert!(seen.trades_of(SYMBOL).iter().any(|t| t.backfill));
    }
}

#[tokio::test]
async fn a_429_is_waited_for_and_the_book_starts_afterwards() {
    let mut chaos = following(trial()).await;
    chaos.fault(Fault::new("rest_429"));
    chaos.fault(Fault::new("drop_depth"));
    chaos.until("a new book", book_anew).await;
    let seen = chaos.end().await;
    assert_eq!(seen.lost(), 0);
    seen.assert_books_are_sound();
}

#[tokio::test]
async fn a_backfill_that_fails_is_asked_for_again() {
    let mut chaos = following(Trial { channels: &["trades-all:{}"], ..trial() }).await;
    chaos.fault(Fault::new("rest_503"));
    chaos.fault(Fault::new("cut"));
    chaos.until("the loss", |s| s.lost() == 1).await;
    chaos.until("whole again", Seen::is_whole).await;
    chaos.trades(SYMBOL, 20).await;
    chaos.end().await.assert_consecutive(SYMBOL);
}

#[tokio::test]
async fn the_notice_of_an_upgrade_is_a_planned_reconnect() {
    let mut chaos = following(trial()).await;
    chaos.fault(Fault::new("upgrade_notice").ms(60_000));
    let planned = |s: &Seen| s.links.iter().filter(|(event, _)| *event == "planned_reconnect").count();
    chaos.until("the change", |s| planned(s) == 2).await;
    chaos.until("whole again", |s| s.is_whole() && s.snapshots(SYMBOL) == 2).await;
    chaos.trades(SYMBOL, 20).await;
    chaos.end().await.assert_consecutive(SYMBOL);
}

#[tokio::test]
async fn an_unknown_symbol_is_a_gap_that_lasts_and_the_others_go_on() {
    let mut chaos = following(Trial { symbols: &[SYMBOL, "NOPE-USDT"], ..trial() }).await;
    chaos.until("the refusals", |s| s.gaps.len() >= 3).await;
    chaos.trades(SYMBOL, 20).await;
    let seen = chaos.end().await;
    for channel in ["trade", "book", "channel"] {
        assert_eq!(seen.open_gaps("NOPE-USDT", channel), 1, "{channel}: {:?}", seen.gaps);
    }
    assert_eq!((seen.gaps.len(), seen.lost()), (3, 0));
    seen.assert_consecutive(SYMBOL);
}

/// What a link answers to an operator's wish.
async fn answer(chaos: &Chaos, link: usize, command: Command) -> Result<(), String> {
    let (done, answer) = oneshot::channel();
    chaos.orders[link].send((command, done)).await.expect("the link runs");
    answer.await.expect("an answer")
}

#[tokio::test]
async fn a_symbol_is_added_resynced_and_dropped_while_the_others_go_on() {
    const ADDED: &str = "ETH-USDT";
    // Short: an acknowledgement that was taken for another would end the connection.
    let quick = |limits: &mut crate::session::Limits| limits.ack_timeout_ms = 3000;
    let mut chaos = following(Trial { listed: &["BTCUSDT", "ETHUSDT"], limits: quick, ..trial() }).await;
    for link in [0, 1] {
        answer(&chaos, link, Command::Subscribe { symbol: ADDED.to_owned() }).await.unwrap();
    }
    chaos.until("its data", |s| s.snapshots(ADDED) == 1 && s.trades_of(ADDED).len() > 20).await;
    assert!(answer(&chaos, 0, Command::Subscribe { symbol: ADDED.to_owned() }).await.is_err());
    answer(&chaos, 0, Command::Resync { symbol: ADDED.to_owned() }).await.unwrap();
    chaos.until("its second book", |s| s.snapshots(ADDED) == 2 && s.open_gaps(ADDED, "book") == 0).await;
    for link in [0, 1] {
        answer(&chaos, link, Command::Unsubscribe { symbol: ADDED.to_owned() }).await.unwrap();
    }
    // As long as the acknowledgements may take, in trades of the other.
    chaos.trades(SYMBOL, 600).await;
    let seen = chaos.end().await;
    assert_eq!((seen.lost(), &seen.dead[..]), (0, &[][..]), "{:?}", seen.links);
    seen.assert_consecutive(SYMBOL);
    seen.assert_consecutive(ADDED);
    seen.assert_books_are_sound();
}

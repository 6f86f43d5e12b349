//! Coinbase's connections against stand-ins that misbehave.

use simulator::VenueId;
use tokio::sync::oneshot;

use crate::session::Command;
use crate::venue::chaos::{Chaos, Fault, Seen, Trial};

const BTC: &str = "BTC-USD";
const ETH: &str = "ETH-USD";

fn advanced<'a>() -> Trial<'a> {
    Trial {
        market: "coinbase",
        stand_in: VenueId::CoinbaseAdvanced,
        listed: &["BTCUSDT", "ETHUSDT"],
        symbols: &[BTC, ETH],
        channels: &["level2:{}", "heartbeats", "market_trades:{}", "ticker:{}"],
        limits: |limits| limits.ack_timeout_ms = 3000,
        options: |options| options.flow.rate = 200.0,
    }
}

fn exchange<'a>() -> Trial<'a> {
    Trial {
        market: "coinbase-exchange",
        stand_in: VenueId::CoinbaseExchange,
        channels: &["level2_batch:{}", "matches:{}", "ticker:{}", "heartbeat:{}"],
        ..advanced()
    }
}

/// A change that the venue told was published behind every snapshot.
fn books(seen: &Seen, snapshots: usize) -> bool {
    [BTC, ETH].iter().all(|s| seen.snapshots(s) >= snapshots && seen.open_gaps(s, "book") == 0)
}

/// Whole, with some trades and both books.
async fn following(trial: Trial<'_>) -> Chaos {
    let mut chaos = Chaos::start(trial).await;
    chaos.until("a whole start", |s| s.is_whole() && books(s, 1) && s.trades_of(BTC).len() > 20).await;
    chaos
}

/// Ends behind some more trades: nothing is missing, nothing came twice, no book was published across a gap.
async fn ends_well(mut chaos: Chaos) -> Seen {
    chaos.trades(BTC, 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive(BTC);
    seen.assert_consecutive(ETH);
    seen.assert_books_are_sound();
    seen
}

#[tokio::test]
async fn a_cut_is_told_as_a_link_gap_and_the_trades_between_are_there_on_both_apis() {
    for trial in [advanced(), exchange()] {
        let mut chaos = following(trial).await;
        chaos.fault(Fault::new("cut"));
        chaos.until("the loss", |s| s.lost() == 1).await;
        chaos.until("whole again", |s| s.is_whole() && books(s, 2)).await;
        let seen = ends_well(chaos).await;
        assert_eq!((seen.gaps_of(BTC, "link").len(), seen.gaps_of(BTC, "trade").len()), (2, 0));
        let [from, to] = seen.gaps_of(BTC, "link")[..] else { panic!() };
        assert!(from.to.is_none() && to.to >= Some(from.from));
    }
}

#[tokio::test]
async fn attempts_that_fail_before_it_is_connected_again_change_nothing() {
    let mut chaos = following(advanced()).await;
    chaos.fault(Fault::new("turn_away").count(3));
    chaos.fault(Fault::new("close"));
    chaos.until("whole again", |s| s.lost() == 1 && s.is_whole() && books(s, 2)).await;
    assert_eq!(chaos.sim.faults(VenueId::CoinbaseAdvanced)["struck"]["turn_away"], 3);
    let seen = ends_well(chaos).await;
    // One gap from the loss to the first event behind it, however many attempts lay between.
    assert_eq!((seen.gaps_of(BTC, "link").len(), seen.gaps_of(BTC, "trade").len()), (2, 0));
}

#[tokio::test]
async fn a_silent_socket_is_given_up_although_it_lives() {
    let mut chaos = following(Trial { limits: |limits| limits.idle_timeout_ms = 1000, ..advanced() }).await;
    chaos.fault(Fault::new("silence"));
    chaos.until("the loss", |s| s.lost() == 1).await;
    chaos.until("whole again", |s| s.is_whole() && books(s, 2)).await;
    let seen = ends_well(chaos).await;
    assert!(seen.links.iter().any(|(_, why)| why.contains("idle")), "{:?}", seen.links);
}

#[tokio::test]
async fn a_lost_message_of_advanced_restarts_all_books_whichever_lost_it() {
    for kind in ["drop_depth", "drop_message"] {
        let mut chaos = following(advanced()).await;
        chaos.fault(Fault::new(kind));
        chaos.until("the gap", |s| [BTC, ETH].iter().all(|p| !s.gaps_of(p, "book").is_empty())).await;
        chaos.until("new books", |s| books(s, 2)).await;
        let seen = ends_well(chaos).await;
        assert!(seen.gaps_of(ETH, "book")[0].reason.contains("of the connection after"), "{:?}", seen.gaps);
        assert_eq!(seen.lost(), 0, "the connection stays");
    }
}

#[tokio::test]
async fn a_repeat_is_passed_over_and_a_swap_restarts_the_books() {
    let mut chaos = following(advanced()).await;
    chaos.fault(Fault::new("repeat_depth").symbol(BTC));
    let before = chaos.seen.books[BTC].updates;
    chaos.until("more changes", |s| s.books[BTC].updates >= before + 10).await;
    assert!(chaos.seen.gaps.is_empty(), "{:?}", chaos.seen.gaps);
    chaos.fault(Fault::new("swap_depth").symbol(BTC));
    chaos.until("new books", |s| books(s, 2)).await;
    ends_well(chaos).await;
}

#[tokio::test]
async fn a_corrupt_frame_is_a_dead_letter_and_what_it_held_is_made_good() {
    for trial in [advanced(), exchange()] {
        let mut chaos = following(trial).await;
        chaos.fault(Fault::new("bad_json").count(3));
        // Two of the spoiled parts may have been in one message.
        chaos.until("the dead letters", |s| s.dead.len() >= 2).await;
        chaos.until("whole again", |s| s.is_whole() && books(s, 1)).await;
        ends_well(chaos).await;
    }
}

#[tokio::test]
async fn an_unknown_side_is_a_dead_letter_and_the_trade_is_fetched() {
    for trial in [advanced(), exchange()] {
        let mut chaos = following(trial).await;
        chaos.fault(Fault::new("unknown_enum").symbol(BTC));
        chaos.until("the dead letter", |s| s.dead.len() == 1).await;
        let seen = ends_well(chaos).await;
        assert!(seen.trades_of(BTC).iter().any(|t| t.backfill), "{:?}", seen.dead);
    }
}

#[tokio::test]
async fn a_level_that_is_no_number_restarts_the_book() {
    for trial in [advanced(), exchange()] {
        let mut chaos = following(trial).await;
        chaos.fault(Fault::new("bad_level").symbol(BTC));
        chaos.until("the dead letter", |s| s.dead.iter().any(|why| why.contains("0.-10000"))).await;
        chaos.until("a new book", |s| books(s, 2)).await;
        ends_well(chaos).await;
    }
}

#[tokio::test]
async fn a_snapshot_that_is_not_understood_is_asked_for_again() {
    let mut chaos = following(advanced()).await;
    chaos.fault(Fault::new("bad_snapshot").symbol(BTC));
    chaos.fault(Fault::new("drop_message"));
    chaos.until("the dead letter", |s| s.dead.iter().any(|why| why.contains("0.-10000"))).await;
    chaos.until("new books", |s| books(s, 2)).await;
    ends_well(chaos).await;
}

#[tokio::test]
async fn a_change_without_a_time_is_published_all_the_same() {
    for trial in [advanced(), exchange()] {
        let mut chaos = following(trial).await;
        chaos.fault(Fault::new("no_time").symbol(BTC));
        let before = chaos.seen.books[BTC].updates;
        chaos.until("more changes", |s| s.books[BTC].updates >= before + 10).await;
        let seen = ends_well(chaos).await;
        assert!(seen.dead.is_empty() && seen.gaps.is_empty(), "{:?} {:?}", seen.dead, seen.gaps);
    }
}

#[tokio::test]
async fn an_unknown_symbol_is_told_as_a_gap_that_lasts_and_the_others_run() {
    for trial in [advanced(), exchange()] {
        let mut chaos = Chaos::start(Trial { symbols: &[BTC, ETH, "NOPE-USD"], ..trial }).await;
        chaos.until("a whole start", |s| s.is_whole() && books(s, 1) && s.trades_of(BTC).len() > 20).await;
        chaos
            .until("both gaps", |s| s.open_gaps("NOPE-USD", "book") == 1 && s.open_gaps("NOPE-USD", "trade") == 1)
            .await;
        ends_well(chaos).await;
    }
}

#[tokio::test]
async fn a_refused_subscription_is_told_and_a_late_answer_is_waited_for() {
    let mut chaos = following(advanced()).await;
    chaos.fault(Fault::new("refuse"));
    chaos.fault(Fault::new("late_ack").ms(1000));
    chaos.fault(Fault::new("cut"));
    // The first request of the new connection is that of the heartbeats.
    chaos.until("the refusal", |s| s.gaps.iter().any(|g| g.reason.contains("heartbeats"))).await;
    chaos.until("whole again", |s| s.is_whole() && books(s, 2)).await;
    ends_well(chaos).await;
}

#[tokio::test]
async fn a_429_is_waited_for_and_the_trades_come_afterwards() {
    let mut chaos = following(exchange()).await;
    chaos.fault(Fault::new("rest_429"));
    chaos.fault(Fault::new("unknown_enum").symbol(BTC));
    chaos.until("the dead letter", |s| s.dead.len() == 1).await;
    let seen = ends_well(chaos).await;
    assert_eq!((seen.lost(), seen.gaps_of(BTC, "trade").len()), (0, 0));
}

async fn order(chaos: &Chaos, command: Command) -> Result<(), String> {
    let (answer, outcome) = oneshot::channel();
    chaos.orders[0].send((command, answer)).await.expect("the link takes orders");
    outcome.await.expect("the link answers")
}

#[tokio::test]
async fn a_running_feed_takes_a_symbol_in_leaves_one_starts_a_book_anew_and_reconnects() {
    for trial in [advanced(), exchange()] {
        let mut chaos = Chaos::start(Trial { symbols: &[BTC], ..trial }).await;
        chaos.until("a whole start", |s| s.is_whole() && s.snapshots(BTC) == 1 && s.trades_of(BTC).len() > 20).await;
        order(&chaos, Command::Subscribe { symbol: ETH.into() }).await.unwrap();
        assert!(order(&chaos, Command::Subscribe { symbol: ETH.into() }).await.is_err());
        chaos.until("the other one too", |s| books(s, 1) && s.trades_of(ETH).len() > 20).await;
        order(&chaos, Command::Resync { symbol: BTC.into() }).await.unwrap();
        chaos.until("a book anew", |s| s.snapshots(BTC) == 2 && s.open_gaps(BTC, "book") == 0).await;
        order(&chaos, Command::Reconnect).await.unwrap();
        chaos.until("whole again", |s| s.is_whole() && s.snapshots(BTC) == 3 && s.snapshots(ETH) == 2).await;
        order(&chaos, Command::Unsubscribe { symbol: ETH.into() }).await.unwrap();
        assert!(order(&chaos, Command::Unsubscribe { symbol: ETH.into() }).await.is_err());
        let seen = ends_well(chaos).await;
        assert_eq!(seen.lost(), 0, "{:?}", seen.links);
    }
}

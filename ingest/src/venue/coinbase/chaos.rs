//! Coinbase's connections against stand-ins that misbehave.

use simulator::VenueId;

use crate::session::Command;
use crate::venue::chaos::trials::{self, faults};
use crate::venue::chaos::{Books, Chaos, Fault, Seen, Trial};

const BTC: &str = "BTC-USD";
const ETH: &str = "ETH-USD";

/// One connection numbers all its messages: a lost one restarts every book.
fn advanced() -> Trial {
    Trial {
        books: Books::AtLeastOnce,
        limits: |limits| limits.ack_timeout_ms = 3000,
        ..Trial::of(
            "coinbase",
            VenueId::CoinbaseAdvanced,
            &["BTCUSDT", "ETHUSDT"],
            &[BTC, ETH],
            &["level2:{}", "heartbeats", "market_trades:{}", "ticker:{}"],
        )
    }
}

fn exchange() -> Trial {
    Trial {
        market: "coinbase-exchange",
        stand_in: VenueId::CoinbaseExchange,
        channels: &["level2_batch:{}", "matches:{}", "ticker:{}", "heartbeat:{}"],
        ..advanced()
    }
}

/// In the middle of Bitcoin's data.
fn of_btc(kind: &str) -> [Fault; 1] {
    [Fault::new(kind).symbol(BTC)]
}

#[tokio::test]
async fn a_cut_is_told_as_a_link_gap_and_the_trades_between_are_there_on_both_apis() {
    for trial in [advanced(), exchange()] {
        trials::cut(trial).await;
    }
}

#[tokio::test]
async fn attempts_that_fail_before_it_is_connected_again_change_nothing() {
    for trial in [advanced(), exchange()] {
        trials::back_off(trial).await;
    }
}

#[tokio::test]
async fn a_silent_socket_is_given_up_although_it_lives() {
    for trial in [advanced(), exchange()] {
        trials::silence(trial).await;
    }
}

#[tokio::test]
async fn a_lost_message_of_advanced_restarts_all_books_whichever_lost_it() {
    let seen = trials::books(advanced(), [], faults(["drop_depth", "drop_message"])).await;
    let gaps = seen.gaps_of(ETH, "book");
    assert!(gaps.len() >= 4 && gaps.iter().all(|g| g.reason.contains("of the connection after")), "{gaps:?}");
}

#[tokio::test]
async fn a_repeat_is_passed_over_and_a_swap_restarts_the_books() {
    trials::books(advanced(), of_btc("repeat_depth"), of_btc("swap_depth")).await;
}

#[tokio::test]
async fn a_corrupt_frame_is_a_dead_letter_and_what_it_held_is_made_good() {
    for trial in [advanced(), exchange()] {
        let mut chaos = Chaos::following(trial).await;
        chaos.fault(Fault::new("bad_json").count(3));
        // Two of the spoiled parts may have been in one message.
        chaos.until("the dead letters", |s| s.dead.len() >= 2).await;
        let books = |s: &Seen| [BTC, ETH].iter().all(|symbol| s.open_gaps(symbol, "book") == 0);
        chaos.until("whole again", |s| s.is_whole() && books(s)).await;
        chaos.ends_well().await;
    }
}

#[tokio::test]
async fn an_unknown_side_is_a_dead_letter_and_the_trade_is_fetched() {
    for trial in [advanced(), exchange()] {
        trials::spoiled(trial, of_btc("unknown_enum")).await;
    }
}

#[tokio::test]
async fn a_level_that_is_no_number_restarts_the_book() {
    for trial in [advanced(), exchange()] {
        let mut chaos = Chaos::following(trial).await;
        chaos.fault(Fault::new("bad_level").symbol(BTC));
        chaos.until("the dead letter", |s| s.dead.iter().any(|why| why.contains("0.-10000"))).await;
        chaos.books_again().await;
        chaos.ends_well().await;
    }
}

#[tokio::test]
async fn a_snapshot_that_is_not_understood_is_asked_for_again() {
    let mut chaos = Chaos::following(advanced()).await;
    chaos.fault(Fault::new("bad_snapshot").symbol(BTC));
    chaos.fault(Fault::new("drop_message"));
    chaos.until("the dead letter", |s| s.dead.iter().any(|why| why.contains("0.-10000"))).await;
    chaos.books_again().await;
    chaos.ends_well().await;
}

#[tokio::test]
async fn a_change_without_a_time_is_published_all_the_same() {
    for trial in [advanced(), exchange()] {
        let seen = trials::books(trial, of_btc("no_time"), []).await;
        assert!(seen.dead.is_empty() && seen.gaps.is_empty(), "{:?} {:?}", seen.dead, seen.gaps);
    }
}

#[tokio::test]
async fn an_unknown_symbol_is_told_as_a_gap_that_lasts_and_the_others_run() {
    for trial in [advanced(), exchange()] {
        trials::unknown_symbol(trial, "NOPE-USD", &["book", "trade"]).await;
    }
}

#[tokio::test]
async fn a_refused_subscription_is_told_and_a_late_answer_is_waited_for() {
    let mut chaos = Chaos::following(advanced()).await;
    chaos.fault(Fault::new("refuse"));
    chaos.fault(Fault::new("late_ack").ms(1000));
    chaos.fault(Fault::new("cut"));
    // The first request of the new connection is that of the heartbeats.
    chaos.until("the refusal", |s| s.gaps.iter().any(|g| g.reason.contains("heartbeats"))).await;
    chaos.whole_again().await;
    chaos.ends_well().await;
}

#[tokio::test]
async fn a_429_is_waited_for_and_the_trades_come_afterwards() {
    for trial in [advanced(), exchange()] {
        let [spoiling] = of_btc("unknown_enum");
        trials::limited_trades(trial, spoiling, trials::QUIET_MS).await;
    }
}

#[tokio::test]
async fn a_product_that_goes_offline_is_told_as_a_status_and_nothing_else_is_marked() {
    let with_status: [(Trial, &[&str]); 2] = [
        (advanced(), &["level2:{}", "heartbeats", "market_trades:{}", "status:{}"]),
        (exchange(), &["level2_batch:{}", "matches:{}", "heartbeat:{}", "status"]),
    ];
    for (trial, channels) in with_status {
        trials::told(Trial { channels, ..trial }, Fault::new("status").symbol(ETH), ETH).await;
    }
}

/// The venue announces nothing.
#[tokio::test]
async fn a_maintenance_with_rest_behind_is_outlasted() {
    for trial in [advanced(), exchange()] {
        trials::maintenance(trial).await;
    }
}

#[tokio::test]
async fn a_running_feed_takes_a_symbol_in_leaves_one_starts_a_book_anew_and_reconnects() {
    for trial in [advanced(), exchange()] {
        let mut chaos = Chaos::following(Trial { symbols: &[BTC], books: Books::Once, ..trial }).await;
        chaos.order(0, Command::Subscribe { symbol: ETH.into() }).await.unwrap();
        assert!(chaos.order(0, Command::Subscribe { symbol: ETH.into() }).await.is_err());
        chaos
            .until("the other one too", |s| {
                s.snapshots(ETH) >= 1 && s.open_gaps(ETH, "book") == 0 && s.trades_of(ETH).len() > 20
            })
            .await;
        chaos.order(0, Command::Resync { symbol: BTC.into() }).await.unwrap();
        chaos.until("a book anew", |s| s.snapshots(BTC) == 2 && s.open_gaps(BTC, "book") == 0).await;
        chaos.order(0, Command::Reconnect).await.unwrap();
        chaos.until("whole again", |s| s.is_whole() && s.snapshots(BTC) == 3 && s.snapshots(ETH) == 2).await;
        chaos.order(0, Command::Unsubscribe { symbol: ETH.into() }).await.unwrap();
        assert!(chaos.order(0, Command::Unsubscribe { symbol: ETH.into() }).await.is_err());
        let seen = chaos.ends_well().await;
        seen.assert_consecutive(ETH);
        assert_eq!(seen.lost(), 0, "{:?}", seen.links);
    }
}

//! Hyperliquid's connection against a stand-in that misbehaves.
//!
//! The venue's trade ids tell nothing of their order, but the stand-in's can be turned back into the numbers that they were
//! made of ([`trade_number`]): so these tests know whether one is missing, which the program does not.

use schemas::Nanos;
use simulator::hyperliquid::trade_number;
use simulator::{Options, Simulator, VenueId};

use crate::config::Config;
use crate::http;
use crate::quota::Quota;
use crate::session::Command;
use crate::venue::chaos::trials::{self, faults};
use crate::venue::chaos::{Books, Chaos, Fault, Seen, Trial};
use crate::venue::{Endpoints, HistoryPage, by_id};
use crate::wall::Wall;

const COIN: &str = "BTC";

fn trial() -> Trial {
    Trial {
        books: Books::Always,
        // More than the history.
        trades_min: 35,
        complete: |seen, _| assert_every_trade(seen),
        // Few enough that the 30 trades of a history reach over the loss of a connection.
        options: |options| options.flow.rate = 40.0,
        ..Trial::of("hyperliquid", VenueId::Hyperliquid, &[COIN], &[COIN], &["{}@trades", "{}@l2Book", "{}@bbo"])
    }
}

fn trades() -> Trial {
    trial().trades(&["{}@trades"])
}

/// Few enough that they reach over a loss with attempts that fail.
fn slow() -> Trial {
    Trial { options: |options| options.flow.rate = 15.0, ..trial() }
}

fn numbers(seen: &Seen) -> Vec<u64> {
    let id = |t: &crate::venue::chaos::SeenTrade| t.venue_id.as_deref().unwrap().parse().unwrap();
    seen.trades_of(COIN).iter().map(|t| trade_number(id(t))).collect()
}

/// Places where trades are missing: how many, and the times around.
fn holes(seen: &Seen) -> Vec<(u64, Nanos, Nanos)> {
    let (numbers, trades) = (numbers(seen), seen.trades_of(COIN));
    let hole = |n: usize| (numbers[n + 1] - numbers[n] - 1, trades[n].ts, trades[n + 1].ts);
    (0..numbers.len() - 1).map(hole).filter(|(missing, ..)| *missing > 0).collect()
}

/// Every trade once and in order, under ids of ours that rise.
fn assert_every_trade(seen: &Seen) {
    seen.assert_rising(COIN);
    let numbers = numbers(seen);
    assert!(numbers.windows(2).all(|two| two[0] < two[1]), "out of order or doubled: {numbers:?}");
    assert_eq!(holes(seen), [], "{numbers:?}");
}

#[tokio::test]
async fn a_cut_without_close_is_a_link_gap_and_the_next_subscription_brings_what_was_missed() {
    trials::cut(trial()).await;
}

#[tokio::test]
async fn a_silent_socket_is_given_up_and_nothing_is_missing_afterwards() {
    trials::silence(slow()).await;
}

#[tokio::test]
async fn a_loss_that_the_history_does_not_reach_over_is_told_with_its_times() {
    let silent = Trial {
        limits: |limits| limits.idle_timeout_ms = 1500,
        options: |options| options.flow.rate = 300.0,
        ..trades()
    };
    let mut chaos = Chaos::following(silent).await;
    chaos.fault(Fault::new("silence"));
    chaos.until("the loss", |s| s.lost() == 1).await;
    chaos.until("whole again", |s| s.is_whole() && s.gaps_of(COIN, "trade").len() == 2).await;
    chaos.trades(COIN, 40).await;
    let seen = chaos.end().await;
    assert!(seen.links.iter().any(|(_, why)| why.contains("idle")), "{:?}", seen.links);
    seen.assert_rising(COIN);
    let holes = holes(&seen);
    let [(missing, from, to)] = holes[..] else { panic!("{holes:?}") };
    assert!(missing > 0);
    let told = seen.gaps_of(COIN, "trade")[1];
    assert_eq!((told.from, told.to), (from, Some(to)), "the gap is where trades are missing, and nowhere else");
}

#[tokio::test]
async fn a_connection_that_is_lost_again_while_it_comes_back_loses_nothing() {
    trials::back_off(slow()).await;
}

#[tokio::test]
async fn a_corrupt_frame_is_a_dead_letter_and_its_trades_come_with_another_subscription() {
    let seen = trials::spoiled(trades(), faults(["bad_json"])).await;
    assert_eq!(seen.gaps.len(), 0, "{:?}", seen.gaps);
    // The history at the start, and what was asked for again.
    let past = seen.trades_of(COIN).iter().filter(|t| t.backfill).count();
    assert!(past > 30, "{past} trades of the past");
}

#[tokio::test]
async fn a_trade_with_an_unknown_side_is_not_guessed_and_comes_again_with_a_known_one() {
    let seen = trials::spoiled(trades(), faults(["unknown_enum"])).await;
    assert!(seen.dead[0].contains("side `Mystery`"), "{:?}", seen.dead);
}

#[tokio::test]
async fn books_that_are_dropped_doubled_swapped_or_empty_are_no_gap_and_leave_it_sound() {
    let mut chaos = Chaos::following(trial()).await;
    for kind in ["drop_depth", "repeat_depth", "swap_depth", "empty_book"] {
        chaos.fault(Fault::new(kind));
        let aim = chaos.seen.snapshots(COIN) + 4;
        chaos.until("more books", |s| s.snapshots(COIN) >= aim).await;
    }
    let full = |s: &Seen| s.books[COIN].levels.bid_levels() == 20 && s.books[COIN].levels.ask_levels() == 20;
    chaos.until("a whole book", full).await;
    for kind in ["drop_depth", "repeat_depth", "swap_depth", "empty_book"] {
        assert_eq!(chaos.struck(kind), 1, "{kind}");
    }
    let seen = chaos.ends_well().await;
    assert_eq!((seen.gaps.len(), seen.dead.len(), seen.lost()), (0, 0, 0), "{:?} {:?}", seen.gaps, seen.dead);
}

#[tokio::test]
async fn a_book_that_is_started_again_survives_a_429_because_the_next_message_is_whole() {
    let mut chaos = Chaos::following(trial()).await;
    chaos.fault(Fault::new("rest_429"));
    chaos.order(0, Command::Resync { symbol: COIN.to_owned() }).await.unwrap();
    chaos.until("the gap", |s| s.gaps_of(COIN, "book").len() == 2).await;
    let aim = chaos.seen.snapshots(COIN) + 3;
    chaos.until("more books", |s| s.snapshots(COIN) >= aim).await;
    assert_eq!(chaos.struck("rest_429"), 1);
    let seen = chaos.ends_well().await;
    assert_eq!((seen.open_gaps(COIN, "book"), seen.lost()), (0, 0));
}

#[tokio::test]
async fn an_unknown_coin_is_a_gap_that_lasts_and_the_others_flow() {
    trials::unknown_symbol(trial(), "NOPE", &["trade", "book"]).await;
}

/// The venue announces nothing.
#[tokio::test]
async fn a_maintenance_is_outlasted() {
    trials::maintenance(slow()).await;
}

#[tokio::test]
async fn an_acknowledgement_behind_its_data_changes_nothing() {
    trials::late_ack(trial(), "cut").await;
}

#[tokio::test]
async fn a_ping_without_an_answer_ends_the_connection_although_data_flows() {
    trials::unanswered_ping(trial()).await;
}

#[tokio::test]
async fn a_coin_can_be_added_and_dropped_while_the_connection_runs() {
    let mut chaos = Chaos::following(Trial { listed: &[COIN, "ETH"], ..trial() }).await;
    chaos.order(0, Command::Subscribe { symbol: "ETH".to_owned() }).await.unwrap();
    chaos.until("trades of the new coin", |s| s.trades_of("ETH").len() > 35 && s.snapshots("ETH") > 2).await;
    chaos.order(0, Command::Unsubscribe { symbol: "ETH".to_owned() }).await.unwrap();
    let seen = chaos.ends_well().await;
    seen.assert_rising("ETH");
    assert_eq!((seen.gaps.len(), seen.lost()), (0, 0), "{:?}", seen.gaps);
}

#[tokio::test]
async fn a_fresh_start_fetches_the_candles_and_instruments_of_six_coins_within_a_minutes_weight() {
    let coins = ["BTC", "ETH", "SOL", "BNB", "DOGE", "XRP"].map(str::to_owned);
    let mut options = Options::new(&[VenueId::Hyperliquid], simulator::config::Config::load(None).unwrap());
    options.symbols = coins.to_vec();
    options.history_ns = 60 * Nanos::PER_SECOND;
    let sim = Simulator::start(options).await.unwrap();
    let rest = format!("http://{}", sim.addr(VenueId::Hyperliquid));
    let (venue, market) = by_id("hyperliquid").unwrap();
    let config = Config::load(None).unwrap();
    let client = http::Client::new(config.link.http_timeout_ms, None).unwrap();
    let quota = Quota::of_process(
        "warm-up",
        market.id,
        venue.buckets(market),
        &config.venues[market.id].rates,
        100,
        10_000,
        Wall::new(),
    );
    let before = Nanos(simulator::server::wall_ns());
    for (width, limit) in [("3m", 200), ("4h", 100)] {
        for coin in &coins {
            let page = HistoryPage { symbol: coin, timeframe: width.parse().unwrap(), before, limit };
            let request = venue.history_request(market, page).unwrap();
            let answer = client.ask(&rest, &request, &quota).await.unwrap();
            assert_eq!(answer.status, 200, "{coin} {width}: {}", answer.body);
            let bars = venue.decode_history(market, page, &answer.body).unwrap();
            assert_eq!(bars.len(), limit as usize, "{coin} {width}");
            let steps = bars.windows(2).map(|two| two[1].open_ts.0 - two[0].open_ts.0);
            assert!(steps.into_iter().all(|step| step == page.timeframe.ns()));
            let open = bars.iter().filter(|bar| bar.closed == Some(false)).count();
            assert_eq!((open, bars[bars.len() - 1].closed), (1, Some(false)), "the last one is open");
        }
    }
    let [request] = &venue.instrument_requests(market, &coins)[..] else { panic!("one question is enough") };
    let answer = client.ask(&rest, request, &quota).await.unwrap();
    let (instruments, left) = venue.decode_instruments(market, &answer.body).unwrap();
    assert_eq!((instruments.len(), left.len()), (6, 0));
    assert!(instruments.iter().map(|i| &i.symbol).eq(&coins));
    assert_eq!((instruments[0].tick.to_string(), instruments[0].lot.to_string()), ("1".into(), "0.00001".into()));
    sim.stop().await.unwrap();
    let Endpoints { rest, .. } = venue.endpoints(market, false);
    assert_eq!(rest, "https://api.hyperliquid.xyz", "and not the venue itself was asked");
}

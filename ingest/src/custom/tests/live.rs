//! Described venues over real links against the stand-in.

use simulator::VenueId;

use super::*;
use crate::venue::chaos::{Chaos, Trial, trials};

const SYMBOL: &str = "BTCUSDT";

fn trial(id: &'static str, channels: &'static [&'static str]) -> Trial {
    let options = |options: &mut simulator::Options| options.flow.rate = 100.0;
    Trial { options, ..Trial::of(id, VenueId::BinanceSpot, &[SYMBOL], &[SYMBOL], channels) }
}

#[tokio::test]
async fn a_described_venue_follows_books_and_fills_the_hole_of_a_cut_by_rest() {
    register("described-live", "x.toml", BINANCE).unwrap();
    let seen = trials::cut(trial("described-live", &["trades", "quotes", "book", "candles"])).await;
    assert!(seen.others["bbo"] > 0, "{:?}", seen.others);
    assert_eq!(seen.dead, Vec::<String>::new());
}

#[tokio::test]
async fn a_polled_venue_gives_every_trade_once_without_a_socket() {
    let text = BINANCE
        .replace("topic = \"{lower}@trade\"", "get = \"/api/v3/trades?symbol={symbol}&limit=1000\"\nevery_ms = 200")
        .replace("channel = \"backfill\"", "channel = \"trades\"");
    register("polled-live", "x.toml", &text).unwrap();
    let trades = &["trades"];
    let mut chaos = Chaos::following(trial("polled-live", trades).trades(trades)).await;
    for _ in 0..3 {
        chaos.trades(SYMBOL, 10).await;
    }
    let seen = chaos.ends_well().await;
    assert_eq!(seen.links[0].0, "connected");
    assert_eq!((seen.gaps.len(), seen.dead.len(), seen.lost()), (0, 0, 0), "{:?} {:?}", seen.gaps, seen.dead);
}

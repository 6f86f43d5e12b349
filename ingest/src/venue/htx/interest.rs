//! Open interest of HTX's swaps over real links against stand-ins.

use simulator::VenueId;

use crate::venue::chaos::{Chaos, Fault, Seen, Trial};

fn told(seen: &Seen) -> u64 {
    seen.others.get("open_interest").copied().unwrap_or(0)
}

#[tokio::test]
async fn open_interest_of_both_kinds_of_swaps_is_told_again_and_again_across_refusals_and_a_cut() {
    const CHANNELS: &[&str] =
        &["market.{}.trade.detail", "market.{}.depth.size_20.high_freq", "market.{}.open_interest"];
    let markets: [(_, _, &[&str]); 2] = [
        ("htx-linear", VenueId::HtxLinear, &["BTC-USDT", "ETH-USDT"]),
        ("htx-inverse", VenueId::HtxInverse, &["BTC-USD", "ETH-USD"]),
    ];
    for (market, stand_in, symbols) in markets {
        let mut chaos = Chaos::start(Trial {
            limits: |limits| limits.poll_period_ms = 200,
            ..Trial::of(market, stand_in, &["BTCUSDT", "ETHUSDT"], symbols, CHANNELS)
        })
        .await;
        let symbol = symbols[0];
        // Two symbols an answer.
        chaos.until("open interest", |s| told(s) >= 6 && s.is_whole() && s.trades_of(symbol).len() > 20).await;
        assert_eq!(told(&chaos.seen) % 2, 0);
        chaos.fault(Fault::new("rest_503").count(2));
        while chaos.sim.faults(stand_in)["struck"]["rest_503"] != 2 {
            let before = told(&chaos.seen);
            chaos.until("open interest behind a refusal", |s| told(s) > before).await;
        }
        assert_eq!((chaos.seen.lost(), chaos.seen.gaps.len()), (0, 0), "{:?}", chaos.seen.gaps);
        chaos.fault(Fault::new("cut"));
        chaos.until("the loss", |s| s.lost() == 1).await;
        let before = told(&chaos.seen);
        chaos.until("open interest again", |s| told(s) >= before + 4 && s.is_whole() && s.snapshots(symbol) == 2).await;
        chaos.trades(symbol, 20).await;
        let seen = chaos.end().await;
        seen.assert_rising(symbol);
        seen.assert_books_are_sound();
        assert_eq!((seen.gaps_of(symbol, "link").len(), seen.gaps_of(symbol, "trade").len()), (2, 0));
    }
}

//! Open interest of Binance's futures over real links against stand-ins.

use schemas::Nanos;
use simulator::VenueId;

use crate::venue::chaos::{Chaos, Fault, Seen, Trial};

fn trial(market: &'static str, stand_in: VenueId, symbols: &'static [&'static str]) -> Trial {
    const CHANNELS: &[&str] = &["{}@trade", "{}@depth@100ms", "{}@openInterest"];
    Trial {
        limits: |limits| limits.poll_period_ms = 200,
        ..Trial::of(market, stand_in, &["BTCUSDT"], symbols, CHANNELS)
    }
}

fn told(seen: &Seen) -> u64 {
    seen.others.get("open_interest").copied().unwrap_or(0)
}

#[tokio::test]
async fn open_interest_of_both_futures_markets_is_told_again_and_again_across_refusals_and_a_cut() {
    let markets: [(_, _, &[&str]); 2] = [
        ("binance-usdm", VenueId::BinanceUsdm, &["BTCUSDT"]),
        ("binance-coinm", VenueId::BinanceCoinm, &["BTCUSD_PERP"]),
    ];
    for (market, stand_in, symbols) in markets {
        let symbol = symbols[0];
        let mut chaos = Chaos::start(trial(market, stand_in, symbols)).await;
        chaos.until("open interest", |s| told(s) >= 3 && s.is_whole() && s.trades_of(symbol).len() > 20).await;
        chaos.fault(Fault::new("rest_503").count(2));
        while chaos.sim.faults(stand_in)["struck"]["rest_503"] != 2 {
            let before = told(&chaos.seen);
            chaos.until("open interest behind a refusal", |s| told(s) > before).await;
        }
        assert_eq!((chaos.seen.lost(), chaos.seen.gaps.len()), (0, 0), "{:?}", chaos.seen.gaps);
        chaos.fault(Fault::new("cut"));
        chaos.until("the loss", |s| s.lost() == 1).await;
        let before = told(&chaos.seen);
        chaos.until("open interest again", |s| told(s) >= before + 2 && s.is_whole() && s.snapshots(symbol) == 2).await;
        chaos.trades(symbol, 20).await;
        let seen = chaos.end().await;
        seen.assert_consecutive(symbol);
        seen.assert_books_are_sound();
        assert_eq!((seen.gaps_of(symbol, "link").len(), seen.gaps_of(symbol, "trade").len()), (2, 0));
    }
}

#[tokio::test]
async fn a_silent_socket_is_given_up_although_open_interest_keeps_coming() {
    let quick = Trial {
        limits: |limits| (limits.poll_period_ms, limits.idle_timeout_ms) = (200, 2_000),
        options: |options| {
            options.flow.rate = 200.0;
            options.history_ns = 60 * Nanos::PER_SECOND;
        },
        ..trial("binance-usdm", VenueId::BinanceUsdm, &["BTCUSDT"])
    };
    let mut chaos = Chaos::start(quick).await;
    chaos.until("a whole start", |s| s.is_whole() && told(s) > 0 && s.trades_of("BTCUSDT").len() > 20).await;
    chaos.fault(Fault::new("silence"));
    let (before, lost) = (told(&chaos.seen), chaos.seen.lost());
    chaos.until("the loss", |s| s.lost() == lost + 1).await;
    assert!(told(&chaos.seen) > before, "REST lived while the socket was silent");
    chaos.until("whole again", |s| s.is_whole() && s.snapshots("BTCUSDT") == 2).await;
    chaos.trades("BTCUSDT", 20).await;
    let seen = chaos.end().await;
    seen.assert_consecutive("BTCUSDT");
    assert!(seen.links.iter().any(|(_, why)| why.contains("idle")), "{:?}", seen.links);
}

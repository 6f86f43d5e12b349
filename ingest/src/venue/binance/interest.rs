//! Open interest of Binance's futures over real links against stand-ins.

use simulator::VenueId;

use crate::venue::chaos::trials::open_interest;
use crate::venue::chaos::{Chaos, Fault, Trial};

const CHANNELS: &[&str] = &["{}@trade", "{}@depth@100ms", "{}@openInterest"];

fn usdm() -> Trial {
    Trial::of("binance-usdm", VenueId::BinanceUsdm, &["BTCUSDT"], &["BTCUSDT"], CHANNELS)
}

#[tokio::test]
async fn open_interest_of_both_futures_markets_is_told_again_and_again_across_refusals_and_a_cut() {
    let coinm = Trial::of("binance-coinm", VenueId::BinanceCoinm, &["BTCUSDT"], &["BTCUSD_PERP"], CHANNELS);
    for trial in [usdm(), coinm] {
        open_interest(trial).await;
    }
}

#[tokio::test]
async fn a_silent_socket_is_given_up_although_open_interest_keeps_coming() {
    let quick = Trial { limits: |limits| (limits.poll_period_ms, limits.idle_timeout_ms) = (200, 2_000), ..usdm() };
    let mut chaos = Chaos::following(quick).await;
    chaos.fault(Fault::new("silence"));
    let before = chaos.seen.count("open_interest");
    chaos.lost(1).await;
    assert!(chaos.seen.count("open_interest") > before, "REST lived while the socket was silent");
    chaos.whole_again().await;
    let seen = chaos.ends_well().await;
    assert!(seen.links.iter().any(|(_, why)| why.contains("idle")), "{:?}", seen.links);
}

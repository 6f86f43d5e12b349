//! Open interest of HTX's swaps over real links against stand-ins.

use simulator::VenueId;

use crate::venue::chaos::trials::open_interest;
use crate::venue::chaos::{Seen, Trial};

/// Two symbols an answer.
#[tokio::test]
async fn open_interest_of_both_kinds_of_swaps_is_told_again_and_again_across_refusals_and_a_cut() {
    const LISTED: &[&str] = &["BTCUSDT", "ETHUSDT"];
    let channels = &["market.{}.trade.detail", "market.{}.depth.size_20.high_freq", "market.{}.open_interest"];
    for trial in [
        Trial::of("htx-linear", VenueId::HtxLinear, LISTED, &["BTC-USDT", "ETH-USDT"], channels),
        Trial::of("htx-inverse", VenueId::HtxInverse, LISTED, &["BTC-USD", "ETH-USD"], channels),
    ] {
        open_interest(Trial { complete: Seen::assert_rising, ..trial }).await;
    }
}

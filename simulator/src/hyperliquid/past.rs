//! Minutes that lie before the market's start: a walk backwards from the first price, from the seed alone. So a hundred
//! candles of four hours can be asked for without a market that ran for weeks.

use crate::book::Side;
use crate::history::Bar;
use crate::market::Listing;
use crate::rng::Rng;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 1_440 * MINUTE_MS;
/// Days of past: 100 candles of four hours are not quite 17.
const DAYS: i64 = 17;
/// Deviation of a minute's move: 0.8 of a year's, over the root of its minutes.
const MINUTE_DEVIATION: f64 = 0.8 / 725.0;

/// The minutes before `start_ms`, oldest first, from midnight (UTC) of a day at least [`DAYS`] before. Each opens where the
/// one before closed, and the last closes at the price of the book.
pub fn minutes(listing: &Listing, seed: u64, start_ms: i64) -> Vec<Bar> {
    let spec = &listing.spec;
    let mut rng = Rng::new(seed, &format!("past/{}/{}", spec.venue.name(), spec.symbol));
    let last_open = start_ms.div_euclid(MINUTE_MS) * MINUTE_MS - MINUTE_MS;
    let first_open = (start_ms - DAYS * DAY_MS).div_euclid(DAY_MS) * DAY_MS;
    let begin = listing.book.best(Side::Buy).unwrap_or((spec.start_price / spec.price.step()) as i64).max(1);
    // Lots of a usual minute: some hundred thousand units of quote.
    let usual = ((100_000.0 / (spec.start_price * spec.size.step())) as u64).max(10);
    let mut close = begin;
    let mut bars: Vec<Bar> = (0..=(last_open - first_open) / MINUTE_MS)
        .map(|n| {
            let sigma = (close as f64 * MINUTE_DEVIATION).max(0.5);
            // Never far from where it began, so that a coin of few ticks stays a price.
            let open = ((close as f64 + rng.normal() * sigma).round() as i64).clamp(begin / 4 + 1, begin * 4);
            let beyond = |rng: &mut Rng| (rng.unit() * sigma) as i64;
            let high = open.max(close) + beyond(&mut rng);
            let low = (open.min(close) - beyond(&mut rng)).max(1);
            let volume = 1 + rng.below(usual * 2) as i64;
            let buy_volume = rng.below(volume as u64 + 1) as i64;
            let price = (high + low) / 2;
            let (value, buy_value) = (spec.value(price, volume).0, spec.value(price, buy_volume).0);
            let count = 1 + rng.below(60);
            let open_ms = last_open - n * MINUTE_MS;
            let bar = Bar {
                open_ms,
                open,
                high,
                low,
                close,
                volume,
                value,
                buy_volume,
                buy_value,
                n: count,
                first: 0,
                last: 0,
            };
            close = open;
            bar
        })
        .collect();
    bars.reverse();
    bars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::{Spec, VenueId};
    use crate::market::{Flow, Market};
    use crate::reference::Mood;

    fn market(symbol: &str) -> Market {
        let flow = Flow { mood: Mood { volatility: 1.0, correlation: 0.5 }, rate: 40.0, levels: 60 };
        Market::new(5, vec![Spec::parse(VenueId::Hyperliquid, symbol).unwrap()], flow, 1_700_000_012_345_000_000)
    }

    #[test]
    fn the_past_is_whole_minutes_that_meet_and_end_at_the_book() {
        for symbol in ["BTC", "ETH", "SOL", "BNB", "DOGE", "XRP"] {
            let market = market(symbol);
            let listing = market.listing(0);
            let bars = minutes(listing, 5, 1_700_000_012_345);
            assert!(bars.len() as i64 * MINUTE_MS >= 100 * 4 * 3_600_000);
            assert_eq!(bars[0].open_ms % DAY_MS, 0);
            assert_eq!(bars.last().unwrap().open_ms, 1_700_000_012_345 / MINUTE_MS * MINUTE_MS - MINUTE_MS);
            assert_eq!(bars.last().unwrap().close, listing.book.best(Side::Buy).unwrap());
            for two in bars.windows(2) {
                assert_eq!((two[1].open_ms - two[0].open_ms, two[1].open), (MINUTE_MS, two[0].close));
            }
            assert!(bars.iter().all(|b| 0 < b.low && b.low <= b.open.min(b.close) && b.open.max(b.close) <= b.high));
            assert_eq!(bars, minutes(listing, 5, 1_700_000_012_345), "the same seed, the same past");
            assert_ne!(bars, minutes(listing, 6, 1_700_000_012_345));
        }
    }
}

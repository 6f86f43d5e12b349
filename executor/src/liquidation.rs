//! Isolated margin: when a venue closes a position by itself, and at what price.
//!
//! With entry `E`, mark `P`, initial margin share `i`, maintenance share `m`, a linear position of one coin holds the
//! margin `i E` and is closed when margin and unrealised profit are at or below `m P`:
//! ```text
//! long:  i E + P - E <= m P   at   P <= E (1 - i) / (1 - m)
//! short: i E + E - P <= m P   at   P >= E (1 + i) / (1 + m)
//! ```
//! An inverse contract of one dollar holds `i / E` coins, and its profit is `1/E - 1/P` coins:
//! ```text
//! long:  P <= E (1 + m) / (1 + i)        short: P >= E (1 - m) / (1 - i)
//! ```
//! The price at which nothing of the margin is left (the bankruptcy price) is the same with `m = 0`.

use rust_decimal::Decimal;
use schemas::{Instrument, InstrumentKind, Price, Qty};

use crate::config::Margin;

/// Digits kept behind the point.
const DIGITS: u32 = 12;

/// Whether positions of this instrument are held on margin.
pub fn applies(instrument: &Instrument) -> bool {
    matches!(instrument.kind, InstrumentKind::Perpetual | InstrumentKind::Future)
}

/// The price at or beyond which the position is closed: below for a long one, above for a short one.
pub fn trigger(instrument: &Instrument, entry: Price, held: Qty, margin: &Margin) -> Price {
    level(instrument, entry, held, margin.initial, margin.maintenance)
}

/// The price at which the margin is used up.
pub fn bankruptcy(instrument: &Instrument, entry: Price, held: Qty, margin: &Margin) -> Price {
    level(instrument, entry, held, margin.initial, Decimal::ZERO)
}

fn level(instrument: &Instrument, entry: Price, held: Qty, initial: Decimal, left: Decimal) -> Price {
    let one = Decimal::ONE;
    let (up, down) = match (held.signum() > 0, instrument.inverse) {
        (true, false) => (one - initial, one - left),
        (false, false) => (one + initial, one + left),
        (true, true) => (one + left, one + initial),
        (false, true) => (one - left, one - initial),
    };
    // A whole margin (initial 1) of an inverse short is never used up.
    let price = (entry.get() * up).checked_div(down).unwrap_or(Decimal::MAX);
    Price::new(price.round_dp(DIGITS))
}

/// The average entry behind an execution of `qty` (signed) at `price` on `held`; `None` when that leaves nothing.
pub fn entry_behind(entry: Option<Price>, held: Qty, qty: Qty, price: Price, inverse: bool) -> Option<Price> {
    let after = held + qty;
    if after.is_zero() {
        return None;
    }
    let grows = held.signum() * qty.signum() > 0;
    match entry {
        Some(entry) if grows => {
            let (a, b) = (held.abs().get(), qty.abs().get());
            let mean = if inverse {
                (a + b).checked_div(a / entry.get() + b / price.get())
            } else {
                (a * entry.get() + b * price.get()).checked_div(a + b)
            };
            mean.map(|mean| Price::new(mean.round_dp(DIGITS)))
        }
        // What is left of a position that was reduced was entered where it was.
        Some(entry) if held.signum() == after.signum() => Some(entry),
        _ => Some(price),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn margin(initial: &str, maintenance: &str) -> Margin {
        let share = |text: &str| text.parse().unwrap();
        Margin { initial: share(initial), maintenance: share(maintenance), fee: Decimal::ZERO }
    }
    fn p(text: &str) -> Price {
        text.parse().unwrap()
    }
    fn q(n: i64) -> Qty {
        Qty::new(n.into())
    }

    #[test]
    fn the_levels_are_those_computed_by_hand() {
        let linear = crate::tape::instrument();
        let inverse = Instrument { inverse: true, ..linear.clone() };
        let m = margin("0.1", "0.05");
        // 100 * 0.9 / 0.95, 100 * 1.1 / 1.05, 100 * 1.05 / 1.1, 100 * 0.95 / 0.9
        assert_eq!(trigger(&linear, p("100"), q(1), &m), p("94.736842105263"));
        assert_eq!(trigger(&linear, p("100"), q(-1), &m), p("104.761904761905"));
        assert_eq!(trigger(&inverse, p("100"), q(1), &m), p("95.454545454545"));
        assert_eq!(trigger(&inverse, p("100"), q(-1), &m), p("105.555555555556"));
        assert_eq!(bankruptcy(&linear, p("100"), q(1), &m), p("90"));
        assert_eq!(bankruptcy(&linear, p("100"), q(-1), &m), p("110"));
    }

    proptest! {
        #[test]
        fn a_position_is_closed_before_its_margin_is_used_up(entry in 1i64..1_000_000, initial in 2i64..100, part in 1i64..100, long in any::<bool>(), inverse in any::<bool>()) {
            let instrument = Instrument { inverse, ..crate::tape::instrument() };
            let initial = Decimal::new(initial, 3);
            let m = Margin { initial, maintenance: initial * Decimal::new(part, 2) * Decimal::new(99, 2), fee: Decimal::ZERO };
            let (entry, held) = (Price::new(entry.into()), q(if long { 1 } else { -1 }));
            let (at, ruin) = (trigger(&instrument, entry, held, &m), bankruptcy(&instrument, entry, held, &m));
            if long {
                prop_assert!(ruin < at && at < entry, "{ruin} {at} {entry}");
            } else {
                prop_assert!(entry < at && at < ruin, "{entry} {at} {ruin}");
            }
        }

        #[test]
        fn an_average_entry_lies_between_the_prices_that_it_is_made_of(fills in prop::collection::vec(1i64..1_000, 1..20), inverse in any::<bool>()) {
            let (mut entry, mut held) = (None, Qty::ZERO);
            for price in &fills {
                entry = entry_behind(entry, held, q(3), Price::new((*price).into()), inverse);
                held += q(3);
            }
            let (low, high) = (*fills.iter().min().unwrap(), *fills.iter().max().unwrap());
            let slack = Decimal::new(1, 9);
            let mean = entry.unwrap().get();
            prop_assert!(Decimal::from(low) - slack <= mean && mean <= Decimal::from(high) + slack);
            prop_assert_eq!(entry_behind(entry, held, -held, p("5"), inverse), None);
            prop_assert_eq!(entry_behind(entry, held, -held - q(1), p("5"), inverse), Some(p("5")));
        }
    }
}

//! Fixed-point mantissas for the hot path: an integer and a scale fixed per instrument (`Scale`), so that ticks
//! are folded with integer arithmetic. 60 000.10 at price scale 2 is `PriceM(6_000_010)`.
//!
//! Products and sums are 128 bits wide: price (63 bits) times quantity (63 bits) fits, and so do 2^1 to 2^64 of
//! them for every real instrument (a price below 10^9 at scale 8 and a quantity below 10^9 at scale 8 leave
//! 10^4 times the age of every market in milliseconds). Sums are checked all the same.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::num::{Notional, Price, Qty};

/// Digits behind the point of an instrument's prices and quantities.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Scale {
    pub price: u8,
    pub qty: u8,
}

/// The widest scale `rust_decimal` can hold.
pub const SCALE_MAX: u8 = 28;

macro_rules! mantissa {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);
    };
}
mantissa!(
    /// A price as an integer at `Scale::price` digits.
    PriceM, i64
);
mantissa!(
    /// A quantity as an integer at `Scale::qty` digits.
    QtyM, i64
);
mantissa!(
    /// Price times quantity as an integer at `Scale::price + Scale::qty` digits.
    NotionalM, i128
);

impl PriceM {
    /// The product; exact, cannot overflow 128 bits.
    #[inline]
    pub fn times(self, qty: QtyM) -> NotionalM {
        NotionalM(self.0 as i128 * qty.0 as i128)
    }
    pub fn price(self, scale: Scale) -> Price {
        Price::new(Decimal::from_i128_with_scale(self.0 as i128, scale.price as u32))
    }
}
impl QtyM {
    pub fn qty(self, scale: Scale) -> Qty {
        Qty::new(Decimal::from_i128_with_scale(self.0 as i128, scale.qty as u32))
    }
}
impl NotionalM {
    /// `None` when the value does not fit the 96 bits of a `Decimal` even without its trailing zeros.
    pub fn notional(self, scale: Scale) -> Option<Notional> {
        decimal_of(self.0, scale.price as u32 + scale.qty as u32).map(Notional::new)
    }
}

/// `mantissa * 10^-scale`, exact, or `None` when 96 bits do not hold it.
pub fn decimal_of(mut mantissa: i128, mut scale: u32) -> Option<Decimal> {
    while scale > 0 && mantissa % 10 == 0 {
        mantissa /= 10;
        scale -= 1;
    }
    Decimal::try_from_i128_with_scale(mantissa, scale).ok()
}

/// The mantissa of `value` at `scale` digits; `None` when digits would be lost or 63 bits do not hold it.
#[inline]
pub fn mantissa_at(value: Decimal, scale: u8) -> Option<i64> {
    // Nearly always: both mantissas are short, and the value has no more digits than the scale.
    if let Some(factor) = u32::from(scale).checked_sub(value.scale()).and_then(|n| TENS.get(n as usize))
        && let Ok(mantissa) = i64::try_from(value.mantissa())
    {
        return mantissa.checked_mul(*factor);
    }
    mantissa_of_any(value, scale)
}

/// The powers of ten that 63 bits hold.
const TENS: [i64; 19] = {
    let mut tens = [1; 19];
    let mut n = 1;
    while n < tens.len() {
        tens[n] = tens[n - 1] * 10;
        n += 1;
    }
    tens
};

#[cold]
fn mantissa_of_any(value: Decimal, scale: u8) -> Option<i64> {
    let value = value.normalize();
    let have = value.scale();
    let want = scale as u32;
    if have > want {
        return None;
    }
    let factor = 10i128.checked_pow(want - have)?;
    i64::try_from(value.mantissa().checked_mul(factor)?).ok()
}

impl Scale {
    /// The narrowest scale that holds both this one and the digits of `price` and `qty`.
    #[inline]
    pub fn widened(self, price: Decimal, qty: Decimal) -> Self {
        // What already has no more digits is not asked for the zeros among them.
        let wide = |have: u8, value: Decimal| match value.scale() <= u32::from(have) {
            true => have,
            false => have.max(value.normalize().scale() as u8),
        };
        Self { price: wide(self.price, price), qty: wide(self.qty, qty) }
    }
    pub fn price_m(self, price: Price) -> Option<PriceM> {
        mantissa_at(price.get(), self.price).map(PriceM)
    }
    pub fn qty_m(self, qty: Qty) -> Option<QtyM> {
        mantissa_at(qty.get(), self.qty).map(QtyM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decimal_to_mantissa_and_back_is_the_same_value(m in any::<i32>(), s in 0u32..8, wider in 0u8..3) {
            let value = Decimal::new(m as i64, s);
            let scale = s as u8 + wider;
            let mantissa = mantissa_at(value, scale).unwrap();
            prop_assert_eq!(decimal_of(mantissa as i128, scale as u32).unwrap(), value.normalize());
        }

        #[test]
        fn the_short_way_to_a_mantissa_finds_what_the_long_way_finds(
            m in prop_oneof![any::<i128>(), any::<i64>().prop_map(i128::from), -1000i128..1000],
            zeros in 0u32..6, s in 0u32..=28, scale in 0u8..=28,
        ) {
            let value = Decimal::try_from_i128_with_scale(m.wrapping_mul(10i128.pow(zeros)), s);
            prop_assume!(value.is_ok());
            let value = value.unwrap();
            prop_assert_eq!(mantissa_at(value, scale), mantissa_of_any(value, scale));
            let start = Scale { price: scale, qty: 3 };
            let digits = value.normalize().scale() as u8;
            prop_assert_eq!(start.widened(value, value), Scale { price: scale.max(digits), qty: digits.max(3) });
        }

        #[test]
        fn a_scale_that_would_lose_digits_is_refused(m in 1i64..1_000_000, s in 1u32..10) {
            prop_assume!(m % 10 != 0);
            prop_assert_eq!(mantissa_at(Decimal::new(m, s), s as u8 - 1), None);
        }

        #[test]
        fn the_product_of_mantissas_is_the_product_of_decimals(p in any::<i32>(), q in any::<i32>()) {
            let scale = Scale { price: 2, qty: 5 };
            let (pm, qm) = (PriceM(p as i64), QtyM(q as i64));
            prop_assert_eq!(pm.times(qm).notional(scale).unwrap(), pm.price(scale) * qm.qty(scale));
        }
    }
}

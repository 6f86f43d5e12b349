//! A natural logarithm of price ratios that has the same bits on every machine, which the platform's does not
//! promise.

/// ln(now / before), both above zero; within a few units in the last place.
///
/// ln(a/b) = 2 atanh((a-b)/(a+b)): the difference of neighbouring prices is exact, so small returns keep all
/// their digits.
pub fn log_return(before: f64, now: f64) -> f64 {
    let (mut a, mut halvings) = (now, 0.0);
    // Prices further apart than a factor of two are brought near; a power of two costs no digits.
    while a > 1.5 * before {
        a *= 0.5;
        halvings += 1.0;
    }
    while a < 0.75 * before {
        a *= 2.0;
        halvings -= 1.0;
    }
    let s = (a - before) / (a + before);
    let s2 = s * s;
    let (mut power, mut sum, mut odd) = (s, s, 1.0);
    // |s| is at most 1/5: each term is 25 times smaller, so this ends within a dozen turns.
    loop {
        power *= s2;
        odd += 2.0;
        let next = sum + power / odd;
        if next == sum {
            return 2.0 * sum + halvings * std::f64::consts::LN_2;
        }
        sum = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_logarithm(a in 1e-9f64..1e9, b in 1e-9f64..1e9, near in -0.01f64..0.01) {
            for (a, b) in [(a, b), (a, a * (1.0 + near)), (a, a)] {
                let (got, want) = (log_return(a, b), (b / a).ln());
                prop_assert!((got - want).abs() <= 4.0 * f64::EPSILON * want.abs() + 2.0 * f64::EPSILON, "{got} {want}");
            }
        }
    }
}

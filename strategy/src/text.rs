//! Numbers and times as text that is the same on every machine.

/// `x` with at most `digits` significant digits, without an exponent and without trailing zeros; whole digits
/// are never rounded away. 42391.2703 at 7 is `42391.27`, 0.00001234567 at 3 is `0.0000123`.
pub fn significant(x: f64, digits: usize) -> String {
    if x == 0.0 || !x.is_finite() {
        return if x == 0.0 { "0".to_owned() } else { "null".to_owned() };
    }
    let digits = digits.max(1);
    let exponent = format!("{x:.*e}", digits - 1);
    let exponent: i64 = exponent.rsplit_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    decimals(x, usize::try_from(digits as i64 - 1 - exponent).unwrap_or(0))
}

/// `x` with at most `places` digits behind the point, without trailing zeros; `null` when it is not finite.
pub fn decimals(x: f64, places: usize) -> String {
    if !x.is_finite() {
        return "null".to_owned();
    }
    let text = format!("{x:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Nanoseconds since 1970 as RFC 3339 in UTC; milliseconds only where there are any.
pub fn utc(ns: i64) -> String {
    let ms = ns.div_euclid(1_000_000);
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = schemas::num::civil_day(days);
    let (h, m, s, milli) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60, of_day % 1000);
    let fraction = if milli == 0 { String::new() } else { format!(".{milli:03}") };
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}{fraction}Z")
}

/// What a person or a model wrote, safe to store and show: no control characters, at most `chars` characters.
pub fn plain(text: &str, chars: usize) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = clean.clone().take(chars).collect();
    if clean.count() > chars && short.pop().is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_print_as_a_person_would_write_them() {
        for (x, digits, text) in [
            (42391.2703, 7, "42391.27"),
            (0.00001234567, 3, "0.0000123"),
            (-0.0, 3, "0"),
            (1_234_567.0, 3, "1234567"),
            (0.5, 7, "0.5"),
            (9.9996, 4, "10"),
            (f64::NAN, 4, "null"),
        ] {
            assert_eq!(significant(x, digits), text);
        }
        assert_eq!(decimals(-0.0001, 2), "0");
        assert_eq!(decimals(100.0, 2), "100");
        assert_eq!(decimals(100.0, 0), "100");
    }

    #[test]
    fn times_print_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(1_709_164_800_000_000_000), "2024-02-29T00:00:00Z");
        assert_eq!(utc(1_704_067_199_999_000_000), "2023-12-31T23:59:59.999Z");
        assert_eq!(utc(-1_000_000_000), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn text_from_outside_is_cut_and_has_no_control_characters() {
        assert_eq!(plain("a\nb\u{7}c", 10), "a b c");
        assert_eq!(plain("abcdef", 4), "abc…");
    }

    proptest! {
        #[test]
        fn seven_significant_digits_keep_a_number_to_six(x in -1e9f64..1e9) {
            let back: f64 = significant(x, 7).parse().unwrap();
            prop_assert!((back - x).abs() <= x.abs() * 1e-6, "{x} {back}");
        }
    }
}

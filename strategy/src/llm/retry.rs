//! Whether and when a question is asked again. Pure: the caller gives the clock.

use schemas::llm::LlmAttempt;

/// What a failed attempt allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Trouble of the moment: the same question may be asked again.
    Again,
    /// Asking again cannot help.
    Never,
}

/// Trouble of the moment is a busy or broken server and a broken connection; a refused key or request is not.
pub fn after(attempt: &LlmAttempt, code: &str) -> Retry {
    let again = match attempt.status {
        Some(408 | 425 | 429 | 500 | 502 | 503 | 504 | 520..=524 | 529) => true,
        Some(200) => ["empty", "transport", "not_json_body"].contains(&code),
        Some(_) => false,
        None => code == "transport",
    };
    if again { Retry::Again } else { Retry::Never }
}

/// The wait that a `Retry-After` header asks for, in milliseconds from `now_ns`: whole seconds or an HTTP date.
/// `None` when it says neither.
pub fn after_ms(header: &str, now_ns: i64) -> Option<u64> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return seconds.checked_mul(1000);
    }
    let at_ms = http_date(header)?.checked_mul(1000)?;
    Some(u64::try_from(at_ms - now_ns.div_euclid(1_000_000)).unwrap_or(0))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970. The two other forms of RFC 9110 are obsolete and are
/// not read.
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rest = text.split_once(", ")?.1.strip_suffix(" GMT")?;
    let parts: Vec<&str> = rest.split(' ').collect();
    let [day, month, year, clock] = parts[..] else { return None };
    let month = MONTHS.iter().position(|m| *m == month)? as i64 + 1;
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<i64> = clock.split(':').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = clock[..] else { return None };
    let in_range = (1..=31).contains(&day) && (1970..=9999).contains(&year) && hour < 24 && minute < 60 && second < 61;
    // Days since 1970 of a year that starts in March.
    let march_year = if month <= 2 { year - 1 } else { year };
    let march_month = (month + 9) % 12;
    let days =
        365 * march_year + march_year / 4 - march_year / 100 + march_year / 400 + (153 * march_month + 2) / 5 + day - 1;
    in_range.then_some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// The wait before try `tries + 1`: doubling from `min_ms`, at most `max_ms`, spread over its upper half by
/// `seed` so that traders of one provider do not ask in step.
pub fn backoff_ms(tries: u32, seed: u64, min_ms: u64, max_ms: u64) -> u64 {
    let full = min_ms.saturating_mul(1 << tries.saturating_sub(1).min(20)).min(max_ms);
    let mixed = (seed ^ u64::from(tries)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    full - full / 2 * mixed / u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_nothing_else() {
        let now_ns = 784_111_770_000_000_000;
        for (header, ms) in [
            ("2", Some(2000)),
            (" 600 ", Some(600_000)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7000)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Thu, 29 Feb 2024 00:00:00 GMT", Some(925_053_030_000)),
            ("soon", None),
            ("-1", None),
            ("Sun, 06 Foo 1994 08:49:37 GMT", None),
        ] {
            assert_eq!(after_ms(header, now_ns), ms, "{header}");
        }
    }

    #[test]
    fn waits_double_up_to_their_bound_and_keep_half() {
        for tries in 1..40 {
            for seed in 0..50 {
                let wait = backoff_ms(tries, seed, 500, 8000);
                let full = 500 * 2u64.pow((tries - 1).min(4));
                assert!((full / 2..=full).contains(&wait), "{tries} {seed} {wait}");
            }
        }
    }
}

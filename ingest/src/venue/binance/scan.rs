//! The trade messages in one pass over their bytes, when they look as the venue writes them: members of one letter,
//! no spaces, no escapes, plain numbers. Whatever looks different is left to the full parser (`decode.rs`), which
//! alone decides what is an error. Both say the same of everything that is read here.

use schemas::Decimal;

use crate::text::leading_number;

/// A `trade`, or an `aggTrade` with the ids of its first and last trade.
#[derive(Debug, PartialEq)]
pub(super) struct Row<'a> {
    pub symbol: &'a str,
    pub id: u64,
    pub price: Decimal,
    pub size: Decimal,
    pub time: i64,
    pub event_time: i64,
    pub buyer_is_maker: bool,
    pub aggregate: Option<(u64, u64)>,
}

/// `None`: no trade, or written in another way, or of an order type other than `MARKET`.
///
/// `{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","T":1672515782136,"m":true,"M":true}`
/// `{"e":"aggTrade","E":...,"s":"BNBBTC","a":5,"p":"0.001","q":"100","f":100,"l":105,"T":...,"m":true,"M":true}`
pub(super) fn row(data: &str) -> Option<Row<'_>> {
    let data = data.as_bytes();
    if let Some(rest) = data.strip_prefix(br#"{"e":"trade""#) {
        return members(rest, b't', letters(b"EstpqTm"));
    }
    members(data.strip_prefix(br#"{"e":"aggTrade""#)?, b'a', letters(b"EsapqflTm"))
}

/// `rest`: what stands behind the first member. `id`: the letter of the id. `needed`: members that must be there.
#[inline(always)]
fn members(mut rest: &[u8], id: u8, needed: u64) -> Option<Row<'_>> {
    let zero = Decimal::ZERO;
    let mut row = Row {
        symbol: "",
        id: 0,
        price: zero,
        size: zero,
        time: 0,
        event_time: 0,
        buyer_is_maker: false,
        aggregate: None,
    };
    let (mut first, mut last, mut seen) = (0, 0, 0u64);
    loop {
        let key = match rest {
            [b',', b'"', key, b'"', b':', tail @ ..] => {
                rest = tail;
                *key
            }
            [b'}'] => break,
            _ => return None,
        };
        if !key.is_ascii_alphabetic() {
            return None;
        }
        let mark = letters(&[key]);
        // A member that is there twice is an error, or is not: the full parser knows.
        if seen & mark != 0 {
            return None;
        }
        seen |= mark;
        match key {
            key if key == id => row.id = number(&mut rest)?,
            b'E' => row.event_time = number(&mut rest)? as i64,
            b'T' => row.time = number(&mut rest)? as i64,
            b's' => row.symbol = name(&mut rest)?,
            b'p' => row.price = decimal(&mut rest)?,
            b'q' => row.size = decimal(&mut rest)?,
            b'm' => row.buyer_is_maker = truth(&mut rest)?,
            b'f' => first = number(&mut rest)?,
            b'l' => last = number(&mut rest)?,
            // Of no meaning: the best match flag, and the order ids of former times.
            b'M' => _ = truth(&mut rest)?,
            b'a' | b'b' => _ = number(&mut rest)?,
            b'X' if quoted(&mut rest)? == b"MARKET" => {}
            _ => return None,
        }
    }
    if seen & needed != needed {
        return None;
    }
    row.aggregate = (id == b'a').then_some((first, last));
    Some(row)
}

/// A set of letters.
const fn letters(list: &[u8]) -> u64 {
    let (mut set, mut n) = (0, 0);
    while n < list.len() {
        set |= 1 << (list[n] & 63);
        n += 1;
    }
    set
}

/// At most 18 digits without a leading zero.
#[inline]
fn number(rest: &mut &[u8]) -> Option<u64> {
    if let [b'0', b'0'..=b'9', ..] = rest {
        return None;
    }
    let (value, tail) = leading_number(rest)?;
    if rest.len() - tail.len() > 18 {
        return None;
    }
    *rest = tail;
    Some(value)
}

/// A decimal in quotes of at most 18 digits: what `text::decimal` reads, without its trailing zeros.
#[inline]
fn decimal(rest: &mut &[u8]) -> Option<Decimal> {
    let mut text = rest.strip_prefix(b"\"")?;
    let (mut value, mut digits) = (0u64, 0);
    while let [digit @ b'0'..=b'9', tail @ ..] = text {
        (value, digits, text) = (value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')), digits + 1, tail);
    }
    let (mut kept, mut scale) = (value, 0);
    if digits == 0 {
        return None;
    }
    if let [b'.', tail @ ..] = text {
        let whole = digits;
        text = tail;
        while let [digit @ b'0'..=b'9', tail @ ..] = text {
            (value, digits, text) = (value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')), digits + 1, tail);
            if *digit != b'0' {
                (kept, scale) = (value, digits - whole);
            }
        }
        if digits == whole {
            return None;
        }
    }
    *rest = text.strip_prefix(b"\"")?;
    // More digits than that wrapped around.
    let fits = digits <= 18;
    fits.then(|| Decimal::from_parts(kept as u32, (kept >> 32) as u32, 0, false, scale))
}

/// Text in quotes up to the next quote; whoever takes it refuses a backslash.
#[inline]
fn quoted<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let text = rest.strip_prefix(b"\"")?;
    let end = text.iter().position(|byte| *byte == b'"')?;
    *rest = &text[end + 1..];
    Some(&text[..end])
}

#[inline]
fn name<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let text = quoted(rest)?;
    let plain = text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    if plain { std::str::from_utf8(text).ok() } else { None }
}

#[inline]
fn truth(rest: &mut &[u8]) -> Option<bool> {
    let (value, tail) = match rest {
        [b't', b'r', b'u', b'e', tail @ ..] => (true, tail),
        [b'f', b'a', b'l', b's', b'e', tail @ ..] => (false, tail),
        _ => return None,
    };
    *rest = tail;
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Kind, decode};
    use super::*;
    use crate::event::Event;

    /// What both readers say of a message that begins as trades do.
    fn both(kind: Kind, data: &str) -> (Option<Event>, Result<Event, String>) {
        let mut full = Vec::new();
        let said = match data.starts_with(r#"{"e":"aggTrade""#) {
            true => decode::aggregate_trade(kind, data, &mut full),
            false => decode::trade(kind, data, &mut full),
        };
        (row(data).map(|row| decode::row_event(kind, row)), said.map(|()| full.remove(0)))
    }

    fn agree(kind: Kind, data: &str) -> bool {
        let (quick, full) = both(kind, data);
        if let Some(quick) = &quick {
            assert_eq!(full.as_ref(), Ok(quick), "{data}");
        }
        quick.is_some()
    }

    /// Every trade message of the recorded fixtures, and one of each known form.
    fn messages() -> Vec<String> {
        let mut found: Vec<String> = FORMS.iter().map(|form| form.to_string()).collect();
        let Some(root) = schemas::fixtures::root() else { return found };
        for entry in std::fs::read_dir(root.join("fixtures/venues/binance")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "jsonl") {
                continue;
            }
            for line in std::fs::read_to_string(path).unwrap().lines() {
                for word in [r#"{"e":"trade""#, r#"{"e":"aggTrade""#] {
                    if let Some(at) = line.find(word) {
                        let end = line[at..].find('}').map_or(line.len(), |end| at + end + 1);
                        found.push(line[at..end].to_owned());
                    }
                }
            }
        }
        assert!(found.len() > 400, "only {} messages", found.len());
        found
    }

    const FORMS: [&str; 5] = [
        r#"{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.00100000","q":"100","T":1672515782136,"m":true,"M":true}"#,
        r#"{"e":"trade","E":1672515782136,"s":"BNBBTC","t":1,"p":"60000.10","q":"1","b":88,"a":50,"T":1672515782136123,"m":false,"M":true}"#,
        r#"{"e":"trade","E":1672515782136,"T":1672515782135,"s":"BTCUSD_240927","t":9,"p":"1","q":"0.5","X":"MARKET","m":true}"#,
        r#"{"e":"aggTrade","E":1672515782136,"s":"BNBBTC","a":5,"p":"0.001","q":"100","f":100,"l":105,"T":0,"m":true,"M":true}"#,
        r#"{"e":"aggTrade","E":1672515782136,"a":123456789012345678,"s":"X","p":"0","q":"0.0","f":0,"l":0,"T":1,"m":false}"#,
    ];

    #[test]
    fn every_recorded_trade_is_read_in_one_pass_and_as_the_full_parser_reads_it() {
        for data in messages() {
            let market = data.contains(r#""X":""#) && !data.contains(r#""X":"MARKET""#);
            assert!(agree(Kind::Usdm, &data) != market, "{data}");
        }
    }

    #[test]
    fn what_is_written_in_another_way_is_left_to_the_full_parser() {
        let plain = FORMS[0];
        for (from, to) in [
            (",", ", "),
            ("BNBBTC", "BNB\\u0042TC"),
            ("12345,", "12345.0,"),
            ("12345,", "012345,"),
            ("12345,", "1234567890123456789,"),
            ("12345,", "-12345,"),
            ("\"100\"", "\"1e2\""),
            ("\"100\"", "100"),
            ("\"t\":12345,", ""),
            ("\"t\":12345,", "\"t\":12345,\"t\":12345,"),
            ("true}", "true},"),
            ("true}", "true,}"),
            ("\"M\"", "\"tt\""),
            ("\"M\":true", "\"X\":\"ADL\""),
        ] {
            let data = plain.replacen(from, to, 1);
            assert_ne!(data, plain);
            assert!(!agree(Kind::Spot, &data), "{data}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        #[test]
        fn whatever_is_read_in_one_pass_is_what_the_full_parser_reads(
            pick in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, "[ -~]|[0-9]|[,:\"{}.\\\\]|é"), 0..4),
        ) {
            let all = MESSAGES.get_or_init(messages);
            let mut data: Vec<char> = all[pick.index(all.len())].chars().collect();
            // Behind the first member, so that it still begins as a trade.
            let begin = data.iter().position(|c| *c == ',').unwrap();
            for (place, what, text) in changes {
                let at = begin + place.index(data.len() - begin);
                let c = text.chars().next().unwrap();
                match what {
                    0 => data[at] = c,
                    1 => data.insert(at, c),
                    2 if data.len() > begin + 1 => drop(data.remove(at)),
                    // A piece comes twice.
                    _ => data = [&data[..at], &data[begin..]].concat(),
                }
            }
            let data: String = data.into_iter().collect();
            agree(Kind::Spot, &data);
        }
    }

    static MESSAGES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
}

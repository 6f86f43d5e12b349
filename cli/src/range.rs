//! A stored range by time or sequence. A time is turned into a sequence once, by the time at which the server
//! stored the message; from then on positions count.

use anyhow::{Context, bail};
use nats::{Bus, leader};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `--from` or `--to` as written: `1234`, `RAW_BINANCE:1234`, `2026-11-21T10:00:00Z`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Point {
    /// Sequence in any stream.
    Seq(u64),
    /// Sequence in this stream only.
    In { stream: String, seq: u64 },
    /// When the server stored it.
    Time { ns: i64 },
}

impl std::str::FromStr for Point {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(seq) = text.parse() {
            return Ok(Self::Seq(seq));
        }
        if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
            return i64::try_from(at.unix_timestamp_nanos())
                .map(|ns| Self::Time { ns })
                .map_err(|_| format!("`{text}` is outside of the years that nanoseconds can count"));
        }
        match text.rsplit_once(':').and_then(|(stream, seq)| Some((stream, seq.parse().ok()?))) {
            Some((stream, seq)) if !stream.is_empty() => Ok(Self::In { stream: stream.to_owned(), seq }),
            _ => {
                Err(format!("`{text}` is no sequence (1234), place (RAW_BINANCE:1234) or time (2026-11-21T10:00:00Z)"))
            }
        }
    }
}

/// The part of `stream` that the points mean, both ends included; ends that nobody named are those of the stream.
/// `said` gets a line for every time that was turned into a sequence. An empty range has `to < from`.
pub async fn resolve(
    bus: &Bus,
    stream: &str,
    from: &[Point],
    to: &[Point],
    said: &mut Vec<String>,
) -> anyhow::Result<(u64, u64)> {
    let state = bus.stream(stream).await?;
    let (first, last) = (state.before_first() + 1, state.last_seq);
    let from = match pick(stream, from)? {
        None => first,
        Some(Point::Seq(seq) | Point::In { seq, .. }) => *seq,
        Some(Point::Time { ns }) => {
            let seq = first_at(bus, stream, first, last, *ns).await?;
            said.push(format!("{stream}: from {} is sequence {seq}", crate::records::time_text(*ns)));
            seq
        }
    };
    let to = match pick(stream, to)? {
        None => last,
        Some(Point::Seq(seq) | Point::In { seq, .. }) => (*seq).min(last),
        Some(Point::Time { ns }) => {
            let seq = first_at(bus, stream, first, last, ns.saturating_add(1)).await? - 1;
            said.push(format!("{stream}: to {} is sequence {seq}", crate::records::time_text(*ns)));
            seq
        }
    };
    if from == 0 {
        bail!("sequences begin at 1");
    }
    if from < first {
        bail!("{stream} begins at {first}: what stood before has expired");
    }
    if from > last + 1 {
        bail!("{stream} ends at {last}, before {from}");
    }
    Ok((from, to))
}

/// The point that counts for this stream: its own before one for all.
fn pick<'a>(stream: &str, points: &'a [Point]) -> anyhow::Result<Option<&'a Point>> {
    let own: Vec<&Point> = points.iter().filter(|p| matches!(p, Point::In { stream: s, .. } if s == stream)).collect();
    let all: Vec<&Point> = points.iter().filter(|p| !matches!(p, Point::In { .. })).collect();
    match (own.as_slice(), all.as_slice()) {
        ([point], _) | ([], [point]) => Ok(Some(point)),
        ([], []) => Ok(None),
        _ => bail!("{stream}: two points for one end"),
    }
}

/// The first sequence of `first..=last` that was stored at `ns` or later; `last + 1` when all are older.
async fn first_at(bus: &Bus, stream: &str, first: u64, last: u64, ns: i64) -> anyhow::Result<u64> {
    let (mut low, mut high) = (first, last + 1);
    // Halved each time: at most 64 reads.
    while low < high {
        let middle = low + (high - low) / 2;
        let message = leader::next_by_subject(bus, stream, ">", middle)
            .await?
            .with_context(|| format!("{stream} holds nothing from {middle} on, though it ends at {last}"))?;
        if message.time_ns < ns {
            low = message.seq + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_sequence_a_place_or_a_time() {
        assert_eq!("17".parse(), Ok(Point::Seq(17)));
        assert_eq!("RAW_BINANCE:17".parse(), Ok(Point::In { stream: "RAW_BINANCE".into(), seq: 17 }));
        assert_eq!("1970-01-01T00:00:01.5Z".parse(), Ok(Point::Time { ns: 1_500_000_000 }));
        for text in ["", ":17", "yesterday", "RAW_BINANCE:", "-1"] {
            assert!(text.parse::<Point>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_streams_own_point_goes_before_one_for_all_and_two_are_refused() {
        let points = [Point::Seq(5), Point::In { stream: "A".into(), seq: 9 }];
        assert_eq!(pick("A", &points).unwrap(), Some(&points[1]));
        assert_eq!(pick("B", &points).unwrap(), Some(&points[0]));
        assert_eq!(pick("B", &points[1..]).unwrap(), None);
        assert!(pick("B", &[Point::Seq(1), Point::Seq(2)]).is_err());
    }
}

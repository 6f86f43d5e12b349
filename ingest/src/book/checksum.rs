//! Checksums of order books (OKX): the signed CRC-32 of `bid:size:ask:size:...` over the 25 best levels of each side, in the
//! very texts that the venue sent. A side that is shorter leaves its places out.
//!
//! It costs nothing where the venue sends none (OKX sends 0 since June 2026): a decoder then reads numbers the short way and
//! sets no checksum, and nothing here is called. With a checksum the numbers keep the digits that were sent ([`as_sent`]), so
//! that the levels which a [`View`] holds anyway print as they came.

use std::fmt::Write;

use flate2::Crc;
use schemas::Decimal;

use super::{Levels, View};

/// Levels of each side that the checksum covers.
const LEVELS: usize = 25;

/// The number, with the trailing zeros that were sent. A text that it would not print again is refused: its checksum
/// could not be compared.
pub(crate) fn as_sent(text: &str) -> Result<Decimal, String> {
    match Decimal::from_str_exact(text) {
        Ok(value) if value.to_string() == text => Ok(value),
        Ok(_) => Err(format!("`{text}` is written in an unknown way")),
        Err(e) => Err(format!("`{text}`: {e}")),
    }
}

fn checksum(levels: &Levels) -> i32 {
    let (mut bids, mut asks) = (levels.bids(), levels.asks());
    let mut text = String::with_capacity(LEVELS * 2 * 24);
    for _ in 0..LEVELS {
        for (price, size) in [bids.next(), asks.next()].into_iter().flatten() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{price}:{size}:");
        }
    }
    text.pop();
    let mut crc = Crc::new();
    crc.update(text.as_bytes());
    crc.sum().cast_signed()
}

impl View {
    /// Why the book behind a message is not the one whose checksum the venue sent with it; `None`: it is.
    pub fn disagrees(&self, sum: i32) -> Option<String> {
        let own = checksum(self.levels());
        (own != sum).then(|| format!("checksum {sum}, own {own}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_prints_as_it_was_sent(text in "(0|[1-9][0-9]{0,11})(\\.[0-9]{1,12})?") {
            prop_assert_eq!(as_sent(&text).unwrap().to_string(), text);
        }

        #[test]
        fn what_would_print_otherwise_is_refused(
            text in "(0[0-9]{1,4}|\\+[1-9]|[1-9]\\.|\\.[0-9]{1,3}|[1-9]e[0-9]|[a-z]{0,3})",
        ) {
            prop_assert!(as_sent(&text).is_err());
        }
    }
}

//! The checksum of OKX order books: the signed CRC-32 of `bid:size:ask:size:...` over the 25 best levels of each side, in
//! the very texts that the venue sent. A side that is shorter leaves its places out.
//!
//! Since June 2026 the venue sends 0, which is no checksum. Then nothing here does anything: the decoder reads numbers the
//! short way and sets none, and [`Sums`] holds no levels. With a checksum the numbers keep the digits that were sent
//! ([`as_sent`]), so that they print as they came.

use std::collections::BTreeMap;

use flate2::Crc;
use schemas::Decimal;
use schemas::raw::BookAction;

use crate::event::Book;

/// Levels of each side that the checksum covers.
const LEVELS: usize = 25;

/// The number, with the trailing zeros that were sent. A text that it would not print again is refused: its checksum
/// could not be compared.
pub(super) fn as_sent(text: &str) -> Result<Decimal, String> {
    match Decimal::from_str_exact(text) {
        Ok(value) if value.to_string() == text => Ok(value),
        Ok(_) => Err(format!("`{text}` is written in an unknown way")),
        Err(e) => Err(format!("`{text}`: {e}")),
    }
}

/// The levels of one book, as the venue wrote them, while it sends checksums.
#[derive(Debug, Default)]
pub struct Sums {
    /// Since a snapshot with a checksum.
    following: bool,
    bids: BTreeMap<Decimal, Level>,
    asks: BTreeMap<Decimal, Level>,
    /// Messages whose checksum was compared.
    pub compared: u64,
}

/// As they were sent: the key of a map keeps the digits of its first price.
#[derive(Debug, Clone, Copy)]
struct Level {
    price: Decimal,
    size: Decimal,
}

impl Sums {
    /// Takes a message that follows the last one; the error says that the book behind it is not the venue's.
    pub fn take(&mut self, book: &Book) -> Result<(), String> {
        let Some(sum) = book.checksum else {
            if self.following {
                self.stop();
            }
            return Ok(());
        };
        match book.action {
            BookAction::Snapshot => {
                self.stop();
                self.following = true;
            }
            // Without the levels there is nothing to compare.
            BookAction::Update if !self.following => return Ok(()),
            BookAction::Update => {}
        }
        for (side, rows) in [(&mut self.bids, &book.bids), (&mut self.asks, &book.asks)] {
            for (price, size) in rows {
                match size.is_zero() {
                    true => side.remove(price),
                    false => side.insert(*price, Level { price: *price, size: *size }),
                };
            }
        }
        self.compared += 1;
        let own = self.sum();
        if own != sum {
            self.stop();
            return Err(format!("checksum {sum}, own {own}"));
        }
        Ok(())
    }

    /// Nothing is held.
    pub fn is_idle(&self) -> bool {
        !self.following && self.bids.is_empty() && self.asks.is_empty()
    }

    /// Forgets the book: what follows is compared again behind the next snapshot.
    pub fn stop(&mut self) {
        self.following = false;
        self.bids.clear();
        self.asks.clear();
    }

    /// The checksum of the levels held.
    fn sum(&self) -> i32 {
        let (mut bids, mut asks) = (self.bids.values().rev(), self.asks.values());
        let mut text = String::with_capacity(LEVELS * 2 * 24);
        for _ in 0..LEVELS {
            for level in [bids.next(), asks.next()].into_iter().flatten() {
                text.push_str(&format!("{}:{}:", level.price, level.size));
            }
        }
        text.pop();
        let mut crc = Crc::new();
        crc.update(text.as_bytes());
        crc.sum().cast_signed()
    }
}

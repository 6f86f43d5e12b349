//! A trade list's average entry prices as engines that keep portfolios in binary floating point print them: value
//! divided by units, both doubles, where the units come from a share of the equity.
//!
//! Such a price can differ from the fill's price in its last bit (104579.99999999999 for a fill at 104580). The
//! money here is exact and stays so; this replica only gives the list the column that other engines give, so that
//! lists compare equal. Convention: vectorbt 1.0.0, `from_orders` with a target share, fees in the quote currency.

use schemas::Side;
use schemas::exec::Fill;

/// The replica: cash and position after every fill, and the open trip's units and value.
#[derive(Clone, PartialEq, Debug)]
pub struct Doubles {
    /// Share of the equity that a position is worth at its entry.
    share: f64,
    /// Of a side's notional.
    fee_rate: f64,
    cash: f64,
    held: f64,
    /// Units and value of the open trip's entries.
    entry: Option<(f64, f64)>,
}

impl Doubles {
    pub fn new(share: f64, fee_rate: f64, cash: f64) -> Self {
        Self { share, fee_rate, cash, held: 0.0, entry: None }
    }

    /// Follows a fill; `held_after` is the sign of the exact position behind it. Gives the average entry price of the
    /// trip that it closed.
    pub fn on_fill(&mut self, fill: &Fill, held_after: i32) -> Option<f64> {
        let price = fill.price.to_f64();
        let equity = self.cash + self.held * price;
        let target = f64::from(held_after) * self.share * equity / price;
        let units = (target - self.held).abs();
        let value = units * price;
        let fee = value * self.fee_rate;
        let before = self.held;
        match fill.side {
            Side::Buy => {
                self.cash -= value + fee;
                self.held += units;
            }
            Side::Sell => {
                self.cash += value - fee;
                self.held -= units;
            }
        }
        if held_after == 0 {
            self.held = 0.0;
        }
        let closes = before != 0.0 && (before > 0.0) != (fill.side == Side::Buy);
        if !closes {
            let (u, v) = self.entry.unwrap_or_default();
            self.entry = Some((u + units, v + value));
            return None;
        }
        let (u, v) = self.entry.take()?;
        if held_after != 0 {
            let rest = units - u;
            self.entry = Some((rest, rest * price));
        }
        Some(v / u)
    }
}

//! Round trips: the n-th time that an instrument of an account leaves flat, until it is flat again.
//!
//! Risk's positions and the executor's fills each count them on their own; both see every fill in the same order, so
//! the counts agree and either may be heard first.

use std::collections::BTreeMap;

use schemas::desk::PositionFact;
use schemas::exec::Fill;
use schemas::{Decimal, Notional, Qty};
use serde::{Deserialize, Serialize};

use crate::core::of_trade;
use crate::row::Change;

/// Digits behind the point of an average price.
const PRICE_DIGITS: u32 = 12;

/// Account, venue, symbol: one text, because MessagePack maps are read by others too.
fn name(account: &str, venue: &str, symbol: &str) -> String {
    format!("{account} {venue} {symbol}")
}

/// The money side of round trips, from risk's positions.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Holdings(BTreeMap<String, Holding>);

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Holding {
    n: u64,
    held: Qty,
    qty_max: Qty,
    opened_ns: i64,
    /// Totals of the instrument as of the last fact, and when the open trip began.
    last: Totals,
    base: Totals,
}

#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Totals {
    realised: Notional,
    fees: Notional,
    funding: Notional,
}

impl Holdings {
    /// The trips that this position ends, changes or begins.
    pub fn hear(&mut self, p: &PositionFact) -> Vec<Change> {
        let holding = self.0.entry(name(&p.account, &p.venue, &p.symbol)).or_default();
        let totals = Totals { realised: p.realised, fees: p.fees, funding: p.funding };
        let (was, is) = (holding.held.signum(), p.held.signum());
        let mut changes = Vec::new();
        if was != 0 && is != was {
            changes.push(holding.row(p, &totals, Some(p.ts_ns)));
        }
        if is != 0 && is != was {
            holding.n += 1;
            holding.opened_ns = p.since_ns.unwrap_or(p.ts_ns);
            holding.qty_max = Qty::ZERO;
            // What turns a position round belongs to the trip that it ends.
            holding.base = if was == 0 { holding.last } else { totals };
        }
        holding.held = p.held;
        holding.qty_max = holding.qty_max.max(p.held.abs());
        holding.last = totals;
        if is != 0 {
            changes.push(holding.row(p, &totals, None));
        }
        changes
    }
}

impl Holding {
    fn row(&self, p: &PositionFact, totals: &Totals, closed_ns: Option<i64>) -> Change {
        let side = if self.held.signum() < 0 { "short" } else { "long" };
        let realised = totals.realised - self.base.realised;
        let fees = totals.fees - self.base.fees;
        let funding = totals.funding - self.base.funding;
        of_trade(&p.account, &p.venue, &p.symbol, self.n)
            .replace("side", side)
            .replace("opened_ns", self.opened_ns)
            .replace("closed_ns", closed_ns)
            .replace("qty_max", self.qty_max)
            .replace("realised", realised)
            .replace("fees", fees)
            .replace("funding", funding)
            .replace("net_pnl", realised - fees + funding)
    }
}

/// The price side of round trips, from the executor's fills.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Executions(BTreeMap<String, Execution>);

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Execution {
    n: u64,
    held: Qty,
    entered: Leg,
    left: Leg,
    fills: u64,
}

/// Quantity and value of one direction.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Leg {
    qty: Qty,
    /// Sum of price times quantity; absent when it left 28 digits.
    value: Option<Notional>,
}

impl Leg {
    fn add(&mut self, f: &Fill, qty: Qty) {
        let part = f.price.get().checked_mul(qty.get());
        let so_far = if self.qty.is_zero() { Some(Decimal::ZERO) } else { self.value.map(Notional::get) };
        self.value = part.zip(so_far).and_then(|(a, b)| a.checked_add(b)).map(Notional::new);
        self.qty += qty;
    }
    fn price(&self) -> Option<Decimal> {
        let price = self.value?.get().checked_div(self.qty.get())?;
        Some(price.round_dp(PRICE_DIGITS).normalize())
    }
}

impl Executions {
    /// The trip that the fill belongs to (the one it ends, when it turns the position round) and the changed trips.
    pub fn hear(&mut self, f: &Fill) -> (u64, Vec<Change>) {
        let e = self.0.entry(name(&f.account, &f.venue, &f.symbol)).or_default();
        let signed = Qty::new(f.qty.get() * f.side.sign());
        let mut changes = Vec::new();
        let against = e.held.signum() * signed.signum() < 0;
        let leaving = if against { f.qty.min(e.held.abs()) } else { Qty::ZERO };
        let entering = f.qty - leaving;
        let mut belongs = e.n;
        if against {
            e.left.add(f, leaving);
            e.fills += 1;
            changes.push(e.row(f));
        }
        if !entering.is_zero() {
            if e.held.is_zero() || against {
                *e = Execution { n: e.n + 1, ..Execution::default() };
                belongs = if against { belongs } else { e.n };
            }
            e.entered.add(f, entering);
            e.fills += 1;
            e.held += Qty::new(entering.get() * f.side.sign());
            changes.push(e.row(f));
        } else {
            e.held += signed;
        }
        (belongs, changes)
    }
}

impl Execution {
    fn row(&self, f: &Fill) -> Change {
        of_trade(&f.account, &f.venue, &f.symbol, self.n)
            .replace("entry_price", self.entered.price())
            .replace("exit_price", self.left.price())
            .replace("qty_in", self.entered.qty)
            .replace("qty_out", self.left.qty)
            .replace("fills", self.fills)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use schemas::exec::Liquidity;
    use schemas::{Cause, Side, Version};

    use super::*;
    use crate::row::Value;

    fn show(change: &Change) -> String {
        let text = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::Text(t) | Value::Json(t) => t.clone(),
            Value::Int(n) => n.to_string(),
            Value::Decimal(d) => d.to_string(),
            Value::Bool(b) => b.to_string(),
        };
        let cells = change.cells.iter().filter(|c| !["account", "venue", "symbol"].contains(&c.column));
        cells.map(|c| format!("{}={}", c.column, text(&c.value))).collect::<Vec<_>>().join(" ")
    }

    /// `b|s QTY PRICE` a fill.
    fn fills(script: &str, want: Expect) {
        let mut executions = Executions::default();
        let mut text = String::new();
        for (n, item) in script.split(" | ").enumerate() {
            let words: Vec<&str> = item.split(' ').collect();
            let fill = Fill {
                v: Version,
                account: "main".into(),
                id: "x".into(),
                n: n as u32 + 1,
                venue: "binance".into(),
                symbol: "BTCUSDT".into(),
                side: if words[0] == "b" { Side::Buy } else { Side::Sell },
                price: words[2].parse().unwrap(),
                qty: words[1].parse().unwrap(),
                fee: Notional::ZERO,
                liquidity: Liquidity::Taker,
                reduce_only: false,
                left: Qty::ZERO,
                why: String::new(),
                ts_ns: n as i64,
                cause: Cause::default(),
            };
            let (belongs, changes) = executions.hear(&fill);
            text += &format!("{item}: trade {belongs}\n");
            changes.iter().for_each(|c| text += &format!("  {}\n", show(c)));
        }
        want.assert_eq(&text);
    }

    #[test]
    fn a_fill_that_turns_the_position_round_ends_one_trade_and_begins_the_next() {
        fills(
            "b 2 100 | b 1 103 | s 1 110 | s 3 90 | b 1 80",
            expect![[r#"
                b 2 100: trade 1
                  n=1 entry_price=100 exit_price=- qty_in=2 qty_out=0 fills=1
                b 1 103: trade 1
                  n=1 entry_price=101 exit_price=- qty_in=3 qty_out=0 fills=2
                s 1 110: trade 1
                  n=1 entry_price=101 exit_price=110 qty_in=3 qty_out=1 fills=3
                s 3 90: trade 1
                  n=1 entry_price=101 exit_price=96.666666666667 qty_in=3 qty_out=3 fills=4
                  n=2 entry_price=90 exit_price=- qty_in=1 qty_out=0 fills=1
                b 1 80: trade 2
                  n=2 entry_price=90 exit_price=80 qty_in=1 qty_out=1 fills=2
            "#]],
        );
    }

    #[test]
    fn money_of_a_trade_is_what_the_totals_moved_while_it_was_open() {
        let mut holdings = Holdings::default();
        let mut text = String::new();
        for (ts_ns, held, since_ns, realised, fees, funding) in [
            (1, "2", Some(1), "0", "0.1", "0"),
            (2, "2", Some(1), "0", "0.1", "-0.5"),
            (3, "-1", Some(3), "20", "0.4", "-0.5"),
            (4, "0", None, "15", "0.5", "-0.5"),
            (5, "1", Some(5), "15", "0.75", "-0.5"),
        ] {
            let fact = PositionFact {
                v: Version,
                account: "main".into(),
                venue: "binance".into(),
                symbol: "BTCUSDT".into(),
                ts_ns,
                held: held.parse().unwrap(),
                entry: None,
                since_ns,
                realised: realised.parse().unwrap(),
                fees: fees.parse().unwrap(),
                funding: funding.parse().unwrap(),
                mark: None,
                unrealised: None,
                cause: Cause::default(),
            };
            holdings.hear(&fact).iter().for_each(|c| text += &format!("{}\n", show(c)));
        }
        expect![[r#"
            n=1 side=long opened_ns=1 closed_ns=- qty_max=2 realised=0 fees=0.1 funding=0 net_pnl=-0.1
            n=1 side=long opened_ns=1 closed_ns=- qty_max=2 realised=0 fees=0.1 funding=-0.5 net_pnl=-0.6
            n=1 side=long opened_ns=1 closed_ns=3 qty_max=2 realised=20 fees=0.4 funding=-0.5 net_pnl=19.1
            n=2 side=short opened_ns=3 closed_ns=- qty_max=1 realised=0 fees=0 funding=0 net_pnl=0
            n=2 side=short opened_ns=3 closed_ns=4 qty_max=1 realised=-5 fees=0.1 funding=0 net_pnl=-5.1
            n=3 side=long opened_ns=5 closed_ns=- qty_max=1 realised=0 fees=0.25 funding=0 net_pnl=-0.25
        "#]]
        .assert_eq(&text);
    }
}

//! What is held and earned, said at every fill, every payment and every full minute.

use schemas::desk::{AccountFact, PositionFact};
use schemas::{Notional, Version};

use super::{Key, Out, RiskCore, Work};

impl RiskCore {
    /// What is held, at its marks; signed.
    pub(super) fn worth(&self) -> Notional {
        self.held_books().map(|book| self.price_of(book).map_or(Notional::ZERO, |mark| book.position.worth(mark))).sum()
    }

    fn held_books(&self) -> impl Iterator<Item = &crate::book::Book> {
        self.state.open.iter().filter_map(|(venue, symbol)| self.book(venue, symbol))
    }
    fn price_of(&self, book: &crate::book::Book) -> Option<schemas::Price> {
        self.mark(book).map(|mark| mark.price)
    }

    pub(super) fn say_position(&mut self, key: &Key, ts_ns: i64, work: &mut Work<'_>) {
        let Some(book) = self.book(&key.0, &key.1) else { return };
        let mark = self.price_of(book);
        let position = &book.position;
        work.out.push(Out::Position(PositionFact {
            v: Version,
            account: self.account.clone(),
            venue: key.0.clone(),
            symbol: key.1.clone(),
            ts_ns,
            held: position.held(),
            entry: position.entry(),
            since_ns: position.since_ns(),
            realised: position.realised(),
            fees: position.fees(),
            funding: position.funding(),
            mark,
            unrealised: mark.map(|mark| position.unrealised(mark)),
            cause: work.cause.clone(),
        }));
    }

    pub(super) fn say_account(&mut self, ts_ns: i64, work: &mut Work<'_>) {
        let (mut unrealised, mut gross, mut net) = (Notional::ZERO, Notional::ZERO, Notional::ZERO);
        for book in self.held_books() {
            let Some(mark) = self.price_of(book) else { continue };
            let notional = book.contract().notional(book.held(), mark);
            unrealised += book.position.unrealised(mark);
            gross += notional.abs();
            net += notional;
        }
        let account = &self.state.account;
        debug_assert_eq!(
            account.equity,
            self.config.initial_cash + account.realised - account.fees + account.funding + unrealised,
            "Invariant R-7: money is conserved"
        );
        work.out.push(Out::Account(AccountFact {
            v: Version,
            account: self.account.clone(),
            ts_ns,
            mode: self.config.mode.clone(),
            cash: account.cash,
            equity: account.equity,
            unrealised,
            realised: account.realised,
            fees: account.fees,
            funding: account.funding,
            day_start_equity: account.day_start_equity,
            peak_equity: account.peak_equity,
            drawdown: account.drawdown(),
            gross,
            net,
            state: account.trading,
            cause: work.cause.clone(),
        }));
    }
}

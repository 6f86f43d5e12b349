//! The account as a whole: money, baselines, and whether it may trade.

use schemas::desk::TradingState;
use schemas::{Fraction, Notional};
use serde::{Deserialize, Serialize};

use crate::limit::{Broken, Limits, daily_loss, drawdown};

const DAY_NS: i64 = 86_400_000_000_000;
const MINUTE_NS: i64 = 60_000_000_000;

/// Money of an account, in its currency.
///
/// Invariant R-7: `equity = initial cash + realised - fees + funding + unrealised`, exactly.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Account {
    /// Money without open positions: what fills paid out and in, less fees, with funding.
    pub cash: Notional,
    pub realised: Notional,
    /// Paid; positive is a cost.
    pub fees: Notional,
    /// Received; negative was paid.
    pub funding: Notional,
    /// Cash and the worth of what is held, when a price of it moved last.
    pub equity: Notional,
    pub day_start_equity: Notional,
    pub peak_equity: Notional,
    /// Whole days and minutes since 1970 of the newest event time.
    day: Option<i64>,
    minute: Option<i64>,
    /// Event times since which a bound is broken without a break.
    loss_since_ns: Option<i64>,
    drawdown_since_ns: Option<i64>,
    pub trading: TradingState,
    /// Who set `trading`: `operator` or a limit's code; empty at the start.
    pub by: String,
    /// Everything is being closed, on whose behalf.
    pub flatten: Option<crate::limit::By>,
}

/// A loss that has lasted.
pub struct Breach {
    pub code: &'static str,
    pub broken: Broken,
}

impl Account {
    pub fn new(initial_cash: Notional) -> Self {
        Self {
            cash: initial_cash,
            realised: Notional::ZERO,
            fees: Notional::ZERO,
            funding: Notional::ZERO,
            equity: initial_cash,
            day_start_equity: initial_cash,
            peak_equity: initial_cash,
            day: None,
            minute: None,
            loss_since_ns: None,
            drawdown_since_ns: None,
            trading: TradingState::Active,
            by: String::new(),
            flatten: None,
        }
    }

    /// Starts a new UTC day when `now_ns` lies in one: its start equity is the equity before this instant. True when
    /// it did, but not for the first time that is heard.
    pub fn turn_of_day(&mut self, now_ns: i64) -> bool {
        let day = now_ns.div_euclid(DAY_NS);
        if self.day.is_some_and(|now| day <= now) {
            return false;
        }
        self.day_start_equity = self.equity;
        self.loss_since_ns = None;
        self.day.replace(day).is_some()
    }

    /// True once for every full minute that was passed, and for the first time that is heard.
    pub fn turn_of_minute(&mut self, now_ns: i64) -> bool {
        let minute = now_ns.div_euclid(MINUTE_NS);
        if self.minute.is_some_and(|now| minute <= now) {
            return false;
        }
        self.minute = Some(minute);
        true
    }

    /// Takes the new equity and says which bound it breaks for long enough, drawdown before daily loss.
    pub fn revalue(&mut self, equity: Notional, now_ns: i64, limits: &Limits) -> Option<Breach> {
        self.equity = equity;
        self.peak_equity = self.peak_equity.max(equity);
        let drawdown = drawdown::Drawdown::measure(equity, self.peak_equity, limits);
        let loss = daily_loss::DailyLoss::measure(equity, self.day_start_equity, limits);
        let lasted = |since: &mut Option<i64>, broken: Result<(), Broken>, confirm_ms: u32| {
            let Err(broken) = broken else {
                *since = None;
                return None;
            };
            let since = *since.get_or_insert(now_ns);
            (now_ns.saturating_sub(since) >= i64::from(confirm_ms) * 1_000_000).then_some(broken)
        };
        let drawdown = lasted(&mut self.drawdown_since_ns, drawdown, limits.drawdown.confirm_ms)
            .filter(|_| limits.drawdown.on)
            .map(|broken| Breach { code: drawdown::Drawdown::ID, broken });
        let loss = lasted(&mut self.loss_since_ns, loss, limits.daily_loss.confirm_ms)
            .filter(|_| limits.daily_loss.on)
            .map(|broken| Breach { code: daily_loss::DailyLoss::ID, broken });
        drawdown.or(loss)
    }

    /// An operator lets the account trade again: losses are measured from here, or it would stop at once.
    pub fn rebase(&mut self) {
        self.peak_equity = self.equity;
        self.day_start_equity = self.equity;
        (self.loss_since_ns, self.drawdown_since_ns) = (None, None);
    }

    /// Share of the peak that is lost now, 12 digits.
    pub fn drawdown(&self) -> Fraction {
        let lost = (self.peak_equity - self.equity).get();
        Fraction::clamped(lost.checked_div(self.peak_equity.get()).unwrap_or_default().round_dp(12))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn money(n: i64) -> Notional {
        Notional::new(n.into())
    }

    #[test]
    fn a_day_starts_with_the_equity_before_its_first_price() {
        let mut account = Account::new(money(100));
        assert!(!account.turn_of_day(5 * DAY_NS + 7));
        account.equity = money(90);
        assert!(!account.turn_of_day(5 * DAY_NS + 8));
        assert_eq!(account.day_start_equity, money(100));
        assert!(account.turn_of_day(6 * DAY_NS));
        assert_eq!(account.day_start_equity, money(90));
        assert!(!account.turn_of_day(5 * DAY_NS), "time does not go back");
    }

    #[test]
    fn each_full_minute_is_told_once() {
        let mut account = Account::new(money(100));
        let told: Vec<bool> =
            [0, 1, MINUTE_NS - 1, MINUTE_NS, MINUTE_NS, 9 * MINUTE_NS].map(|t| account.turn_of_minute(t)).into();
        assert_eq!(told, [true, false, false, true, false, true]);
    }

    #[test]
    fn a_loss_must_last_and_one_bad_print_does_nothing() {
        let limits = Config::load(None).unwrap().limits;
        let mut account = Account::new(money(100));
        let second = 1_000_000_000;
        assert!(account.revalue(money(50), 0, &limits).is_none());
        assert!(account.revalue(money(100), second / 2, &limits).is_none());
        assert!(account.revalue(money(50), second, &limits).is_none());
        assert_eq!(account.revalue(money(50), 2 * second, &limits).unwrap().code, "drawdown");
        account.rebase();
        assert!(account.revalue(money(50), 9 * second, &limits).is_none());
        assert_eq!(account.drawdown(), Fraction::ZERO);
    }

    #[test]
    fn a_smaller_loss_of_the_day_is_told_as_such() {
        let limits = Config::load(None).unwrap().limits;
        let mut account = Account::new(money(100));
        assert!(account.revalue(money(89), 0, &limits).is_none());
        let breach = account.revalue(money(89), 1_000_000_000, &limits).unwrap();
        assert_eq!((breach.code, breach.broken.number.as_str()), ("daily_loss", "0.11"));
    }
}

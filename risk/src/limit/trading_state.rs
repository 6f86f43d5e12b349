//! The account's state: closes only while REDUCING, nothing from strategies while HALTED.

use schemas::config::ConfigError;
use schemas::desk::TradingState;

use super::{Asked, Broken, By, Limit, Limits, always_on};

pub struct TradingStateLimit;

impl Limit for TradingStateLimit {
    fn id(&self) -> &'static str {
        "trading_state"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.trading_state.on
    }
    /// A strategy's close is refused while HALTED; an operator's and an emergency's never are.
    fn applies_to_closes(&self) -> bool {
        true
    }
    fn check_config(&self, limits: &Limits) -> Result<(), ConfigError> {
        always_on(limits.trading_state.on, self.id())
    }
    fn check(&self, asked: &Asked, _: &Limits) -> Result<(), Broken> {
        match (asked.trading, asked.is_close(), asked.by) {
            (TradingState::Active, ..) | (TradingState::Reducing, true, _) => Ok(()),
            (TradingState::Halted, true, By::Operator | By::Emergency) => Ok(()),
            (TradingState::Reducing, false, _) => {
                Err(Broken::new("reducing", "active", "the account is reducing: closes only"))
            }
            (TradingState::Halted, ..) => Err(Broken::new("halted", "active", "the account is halted")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn an_active_account_may_open_and_a_reducing_or_halted_one_not() {
        check(&TradingStateLimit, "state=active", "passes");
        check(&TradingStateLimit, "state=reducing", "reducing, allowed active");
        check(&TradingStateLimit, "state=halted", "halted, allowed active");
    }

    #[test]
    fn a_reducing_account_closes_and_a_halted_one_only_for_operator_and_emergency() {
        check(&TradingStateLimit, "state=reducing held=1 sell close", "passes");
        check(&TradingStateLimit, "state=halted held=1 sell close", "halted, allowed active");
        check(&TradingStateLimit, "state=halted held=1 sell close by=operator", "passes");
        check(&TradingStateLimit, "state=halted held=1 sell close by=emergency", "passes");
    }
}

//! The instrument is known and its venue trades it.

use schemas::config::ConfigError;

use super::{Asked, Broken, Limit, Limits, always_on};

pub struct InstrumentLimit;

impl Limit for InstrumentLimit {
    fn id(&self) -> &'static str {
        "instrument"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.instrument.on
    }
    fn check_config(&self, limits: &Limits) -> Result<(), ConfigError> {
        always_on(limits.instrument.on, self.id())
    }
    fn check(&self, asked: &Asked, _: &Limits) -> Result<(), Broken> {
        match &asked.instrument {
            None => Err(Broken::new("unknown", "known", "no instrument fact was heard")),
            Some(instrument) if !instrument.trading => {
                Err(Broken::new("closed", "trading", "its venue does not trade it now"))
            }
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn a_known_instrument_that_trades_passes() {
        check(&InstrumentLimit, "", "passes");
    }

    #[test]
    fn an_unknown_or_closed_instrument_is_refused() {
        check(&InstrumentLimit, "unknown", "unknown, allowed known");
        check(&InstrumentLimit, "closed", "closed, allowed trading");
    }
}

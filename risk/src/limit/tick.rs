//! All prices of the order are whole ticks.

use schemas::Price;

use super::{Asked, Broken, Limit, Limits};

pub struct Tick;

impl Limit for Tick {
    fn id(&self) -> &'static str {
        "tick"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.tick.on
    }
    /// A close by market has no price and passes always.
    fn applies_to_closes(&self) -> bool {
        true
    }
    fn check(&self, asked: &Asked, _: &Limits) -> Result<(), Broken> {
        let tick = asked.instrument.as_ref().map(|i| i.tick).unwrap_or_default();
        let order = &asked.order;
        let protect = order.protect.unwrap_or_default();
        for (what, price) in [
            ("limit", order.limit),
            ("trigger", order.trigger),
            ("stop-loss", protect.stop_loss),
            ("take-profit", protect.take_profit),
        ] {
            let Some(price) = price else { continue };
            if price <= Price::ZERO {
                return Err(Broken::new(price, tick, format!("{what} is not above zero")));
            }
            if !tick.is_zero() && !(price.get() % tick.get()).is_zero() {
                return Err(Broken::new(price, tick, format!("{what} is not a whole tick")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn prices_on_the_tick_and_orders_without_a_price_pass() {
        check(&Tick, "tick=0.5 limit=100.5 stop=90 take=120.5", "passes");
        check(&Tick, "tick=0.5", "passes");
        check(&Tick, "tick=0 limit=100.123", "passes");
    }

    #[test]
    fn any_price_off_the_tick_is_refused() {
        check(&Tick, "tick=0.5 limit=100.3", "100.3, allowed 0.5");
        check(&Tick, "tick=0.5 limit=100 stop=90.1", "90.1, allowed 0.5");
        check(&Tick, "tick=0.5 take=120.7", "120.7, allowed 0.5");
        check(&Tick, "tick=0.5 limit=-1", "-1, allowed 0.5");
    }
}

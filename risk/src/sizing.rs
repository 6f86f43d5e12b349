//! From a verdict to a size and to prices.

use rust_decimal::{Decimal, RoundingStrategy};
use schemas::desk::{OrderKind, Protect};
use schemas::signal::Stance;
use schemas::{Fraction, Instrument, Notional, Price, Qty, Side};

use crate::config::{Config, EntryKind, ProtectFrom, SizeBy, StrengthBy};
use crate::position::Contract;

/// The signed size wanted, before it is rounded to lots. `None`: at this mark no size can be told.
pub fn target(
    side: Stance,
    strength: Fraction,
    equity: Notional,
    mark: Price,
    contract: Contract,
    config: &Config,
) -> Option<Qty> {
    let sign = match side {
        Stance::Long => Decimal::ONE,
        Stance::Flat => return Some(Qty::ZERO),
        Stance::Short => Decimal::NEGATIVE_ONE,
    };
    let sizing = &config.sizing;
    let part = match sizing.strength {
        StrengthBy::Full => Decimal::ONE,
        StrengthBy::Scaled => strength.get(),
    };
    // A debt buys nothing.
    let equity = equity.max(Notional::ZERO);
    let qty = match sizing.by {
        SizeBy::EquityShare => contract.qty(Notional::new(equity.get() * sizing.share.0 * part), mark)?,
        SizeBy::Notional => contract.qty(Notional::new(sizing.notional.get() * part), mark)?,
        SizeBy::Qty => Qty::new(sizing.qty.get() * part),
    };
    Some(Qty::new(qty.get() * sign))
}

/// Kind and limit price of an entry. A limit is better than the mark by the configured offset and a whole tick, so a
/// buy's is rounded down and a sell's up.
pub fn entry(side: Side, mark: Price, instrument: Option<&Instrument>, config: &Config) -> (OrderKind, Option<Price>) {
    match config.entry.kind {
        EntryKind::Market => (OrderKind::Market, None),
        EntryKind::Limit => {
            let offset = config.entry.offset_bps.0 / Decimal::from(10_000);
            let price = mark.moved_by(-side.sign() * offset);
            (OrderKind::Limit, Some(to_tick(price, instrument, side == Side::Sell)))
        }
    }
}

/// Protective prices of an entry of `side`: the suggestion where the configuration wants it, else shares of the mark.
/// They are rounded toward the mark: a stop loses less, a take-profit comes sooner.
pub fn protect(
    side: Side,
    mark: Price,
    suggested: Protect,
    instrument: Option<&Instrument>,
    config: &Config,
) -> Option<Protect> {
    let own = |share: Decimal, sign: Decimal| (!share.is_zero()).then(|| mark.moved_by(side.sign() * sign * share));
    let config_stop = own(config.protect.stop_share.get(), Decimal::NEGATIVE_ONE);
    let config_take = own(config.protect.take_share.0, Decimal::ONE);
    let (stop, take) = match config.protect.from {
        ProtectFrom::SignalOrConfig => (suggested.stop_loss.or(config_stop), suggested.take_profit.or(config_take)),
        ProtectFrom::Signal => (suggested.stop_loss, suggested.take_profit),
        ProtectFrom::Config => (config_stop, config_take),
        ProtectFrom::None => (None, None),
    };
    if stop.is_none() && take.is_none() {
        return None;
    }
    let long = side == Side::Buy;
    Some(Protect {
        stop_loss: stop.map(|price| to_tick(price, instrument, long)),
        take_profit: take.map(|price| to_tick(price, instrument, !long)),
    })
}

/// The nearest whole tick at or above (`up`), else at or below. Unchanged where the tick is unknown or the number is
/// beyond what decimals hold; limits see it then.
fn to_tick(price: Price, instrument: Option<&Instrument>, up: bool) -> Price {
    let tick = instrument.map(|i| i.tick).unwrap_or_default();
    let strategy = if up { RoundingStrategy::ToPositiveInfinity } else { RoundingStrategy::ToNegativeInfinity };
    let steps = price.get().checked_div(tick.get()).map(|steps| steps.round_dp_with_strategy(0, strategy));
    steps.and_then(|steps| steps.checked_mul(tick.get())).map_or(price, Price::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("[risk]\n{text}\n");
        Config::load(Some(&schemas::config::UserFile { name: "test".into(), text })).unwrap()
    }
    fn p(text: &str) -> Price {
        text.parse().unwrap()
    }
    fn target_of(text: &str, side: Stance, strength: &str, equity: &str) -> String {
        let strength = Fraction::new(strength.parse().unwrap()).unwrap();
        target(side, strength, equity.parse().unwrap(), p("200"), Contract::default(), &config(text))
            .unwrap()
            .to_string()
    }

    #[test]
    fn a_size_is_a_share_of_equity_an_amount_or_a_quantity() {
        assert_eq!(target_of("", Stance::Long, "0.5", "10000"), "5");
        assert_eq!(
            target_of("sizing = { by = \"notional\", notional = \"500\" }", Stance::Short, "0.5", "10000"),
            "-2.5"
        );
        assert_eq!(target_of("sizing = { by = \"qty\", qty = \"0.25\" }", Stance::Long, "0.5", "10000"), "0.25");
        assert_eq!(target_of("", Stance::Flat, "1", "10000"), "0");
    }

    #[test]
    fn strength_scales_where_it_is_asked_for_and_a_debt_buys_nothing() {
        assert_eq!(target_of("sizing = { strength = \"scaled\" }", Stance::Long, "0.5", "10000"), "2.5");
        assert_eq!(target_of("", Stance::Long, "1", "-10000"), "0");
    }

    #[test]
    fn a_limit_entry_is_better_than_the_mark_and_on_the_tick() {
        let config = config("entry = { kind = \"limit\", offset_bps = \"10\" }");
        let mut btc = crate::tape::instrument("BTC");
        btc.tick = p("0.5");
        assert_eq!(entry(Side::Buy, p("100"), Some(&btc), &config).1, Some(p("99.5")));
        assert_eq!(entry(Side::Sell, p("100"), Some(&btc), &config).1, Some(p("100.5")));
    }

    #[test]
    fn protective_prices_come_from_the_signal_or_the_shares_and_are_rounded_toward_the_mark() {
        let mut btc = crate::tape::instrument("BTC");
        btc.tick = p("0.5");
        let suggested = Protect { stop_loss: Some(p("97.3")), take_profit: None };
        let get = |text: &str, side| {
            let protect = protect(side, p("100"), suggested, Some(&btc), &config(text))?;
            Some((protect.stop_loss.map(|p| p.to_string()), protect.take_profit.map(|p| p.to_string())))
        };
        let s = |text: &str| Some(text.to_owned());
        assert_eq!(get("", Side::Buy), Some((s("97.5"), None)));
        assert_eq!(get("protect = { take_share = \"0.113\" }", Side::Buy), Some((s("97.5"), s("111"))));
        assert_eq!(get("protect = { from = \"config\", stop_share = \"0.033\" }", Side::Buy), Some((s("97"), None)));
        assert_eq!(get("protect = { from = \"config\", stop_share = \"0.033\" }", Side::Sell), Some((s("103"), None)));
        let none = "protect = { from = \"none\" }\nlimits = { stop_distance = { required = false } }";
        assert_eq!(get(none, Side::Buy), None);
    }
}

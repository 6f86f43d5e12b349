//! A live venue as the core sees it: what is under way, and stored reports turned into the core's own.

use std::collections::{BTreeMap, BTreeSet};

use schemas::desk::Order;
use schemas::exec::{LiveReport, LiveWhat};
use schemas::{Instrument, Notional, Qty, WireError};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::venue::{ExecVenue, Report, Tick};

/// All live venues of one account. It hears facts and nothing else, so the journal is a fold of the desk in live mode too.
pub struct LiveVenue {
    venues: BTreeSet<String>,
    instruments_max: usize,
    state: LiveState,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct LiveState {
    /// What can be traded; by venue and symbol.
    instruments: BTreeMap<String, BTreeMap<String, Listed>>,
    /// Orders that were sent and have not ended, by client id.
    under_way: BTreeMap<String, UnderWay>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Listed {
    trading: bool,
    /// What fees are counted in.
    currency: String,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct UnderWay {
    qty: Qty,
    filled: Qty,
    currency: String,
    trades: BTreeSet<String>,
    cancelling: bool,
}

impl LiveVenue {
    pub fn new(config: &Config) -> Self {
        Self {
            venues: config.live.venues.keys().cloned().collect(),
            instruments_max: config.instruments_max,
            state: LiveState::default(),
        }
    }

    fn listed(&self, order: &Order) -> Option<&Listed> {
        self.state.instruments.get(&order.venue)?.get(&order.symbol)
    }
}

impl ExecVenue for LiveVenue {
    fn instrument(&mut self, instrument: &Instrument) {
        let known: usize = self.state.instruments.values().map(BTreeMap::len).sum();
        let venue = self.state.instruments.entry(instrument.venue.clone()).or_default();
        if known < self.instruments_max || venue.contains_key(&instrument.symbol) {
            let currency = if instrument.inverse { &instrument.base } else { &instrument.quote };
            let listed = Listed { trading: instrument.trading, currency: currency.clone() };
            venue.insert(instrument.symbol.clone(), listed);
        }
    }

    fn admits(&self, order: &Order) -> Result<(), (&'static str, String)> {
        let protocol = super::protocol(&order.venue).filter(|protocol| self.venues.contains(protocol.id()));
        let Some(protocol) = protocol else {
            return Err(("no_venue", format!("{} is not among executor.live.venues", order.venue)));
        };
        let Some(listed) = self.listed(order) else {
            return Err(("no_instrument", format!("no instrument {} on {}", order.symbol, order.venue)));
        };
        if !listed.trading {
            return Err(("not_trading", format!("{} takes no orders in {}", order.venue, order.symbol)));
        }
        protocol.admits(order)
    }

    fn place(&mut self, order: &Order, _held: Qty, _out: &mut Vec<Report>) {
        let currency = self.listed(order).map(|listed| listed.currency.clone()).unwrap_or_default();
        let (qty, filled, trades) = (order.qty, Qty::ZERO, BTreeSet::new());
        self.state.under_way.insert(order.id.clone(), UnderWay { qty, filled, currency, trades, cancelling: false });
    }

    fn cancel(&mut self, order: &Order, ts_ns: i64, reason: &str, out: &mut Vec<Report>) {
        let Some(under_way) = self.state.under_way.get_mut(&order.id) else { return };
        if !std::mem::replace(&mut under_way.cancelling, true) {
            out.push(Report::Cancelling { id: order.id.clone(), reason: reason.to_owned(), ts_ns });
        }
    }

    fn live(&mut self, report: &LiveReport, out: &mut Vec<Report>) {
        let Some(under_way) = self.state.under_way.get_mut(&report.id) else { return };
        let (id, ts_ns) = (report.id.clone(), report.ts_ns);
        let ended = match &report.what {
            LiveWhat::Attempt { .. } => false,
            LiveWhat::Acked { venue_order_id } => {
                out.push(Report::Acked { id, venue_order_id: venue_order_id.clone(), ts_ns });
                false
            }
            LiveWhat::Filled { trade_id, price, qty, fee, fee_asset, liquidity } => {
                if !under_way.trades.insert(trade_id.clone()) {
                    return;
                }
                under_way.filled += *qty;
                // A fee in another coin is told, and not added to money of this one.
                let counted = *fee_asset == under_way.currency || fee.is_zero();
                let (fee, why) = match counted {
                    true => (*fee, format!("trade {trade_id}")),
                    false => (Notional::ZERO, format!("trade {trade_id}, fee {fee} {fee_asset} not counted")),
                };
                let (price, qty, liquidity) = (*price, *qty, *liquidity);
                out.push(Report::Filled { id, price, qty, fee, liquidity, why, ts_ns });
                under_way.filled >= under_way.qty
            }
            LiveWhat::Rejected { code, reason } => {
                out.push(Report::Rejected { id, code: code.clone().into(), reason: reason.clone(), ts_ns });
                true
            }
            LiveWhat::Ended { state, reason } => {
                out.push(Report::Ended { id, state: *state, reason: reason.clone(), ts_ns });
                true
            }
        };
        if ended {
            self.state.under_way.remove(&report.id);
        }
    }

    // Market data moves nothing here: the venue itself says what became of an order.
    fn watches(&self, _venue: &str, _symbol: &str, _held: Qty) -> bool {
        false
    }
    fn tick(&mut self, _: &str, _: &str, _: i64, _: Tick<'_>, _: Qty, _: &mut Vec<Report>) {}
    fn waiting(&self, _venue: &str) -> Vec<String> {
        Vec::new()
    }

    fn save(&self) -> Vec<u8> {
        schemas::wire::encode(&self.state)
    }
    /// Refuses the state of a fill engine: an account is live or simulated for its life.
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        self.state = schemas::wire::decode(state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{ExecutorCore, In, Out};
    use crate::tape::{VENUE, config, instrument, order};
    use schemas::desk::Cancel;
    use schemas::exec::{DoneState, Liquidity};
    use schemas::{Cause, Core, Place, Version};

    fn live() -> Config {
        let mut config = config("next_trade");
        config.mode = "live".into();
        config.live.consent_to_real_orders = true;
        config.check().unwrap();
        config
    }

    fn report(id: &str, what: LiveWhat) -> In {
        let (venue, symbol) = (VENUE.to_owned(), "BTC".to_owned());
        let (account, id, cause) = ("main".to_owned(), id.to_owned(), Cause::default());
        In::Live(Box::new(LiveReport { v: Version, account, id, venue, symbol, what, ts_ns: 5, recv_ns: 6, cause }))
    }
    fn filled(trade: &str, qty: &str, fee_asset: &str) -> LiveWhat {
        LiveWhat::Filled {
            trade_id: trade.into(),
            price: "100".parse().unwrap(),
            qty: qty.parse().unwrap(),
            fee: "0.5".parse().unwrap(),
            fee_asset: fee_asset.into(),
            liquidity: Liquidity::Taker,
        }
    }
    fn acked() -> LiveWhat {
        LiveWhat::Acked { venue_order_id: "77".into() }
    }

    /// What the core says to all of it, a line a fact; the core is saved and restored before every input.
    fn said(inputs: Vec<In>) -> Vec<String> {
        let mut saved = ExecutorCore::new("main", &live()).save();
        let mut lines = Vec::new();
        for (input, seq) in [In::Instrument(instrument())].into_iter().chain(inputs).zip(1..) {
            let mut core = ExecutorCore::new("main", &live());
            core.restore(&saved).unwrap();
            let mut out = Vec::new();
            core.handle(&Place::new("DESK_main", seq), input, &mut out).unwrap();
            saved = core.save();
            lines.extend(out.iter().map(|fact| match fact {
                Out::Sending(f) => format!("sending {}", f.order.id),
                Out::Cancelling(f) => format!("cancelling {}: {}", f.id, f.reason),
                Out::Ack(f) => format!("ack {} as {}", f.id, f.venue_order_id),
                Out::Fill(f) => {
                    format!("fill {} {} {}@{} fee {} left {}: {}", f.id, f.n, f.qty, f.price, f.fee, f.left, f.why)
                }
                Out::Reject(f) => format!("reject {} {}: {}", f.id, f.code, f.reason),
                Out::Done(f) => format!("done {} {:?} {}", f.id, f.state, f.filled),
                Out::Funding(f) => format!("funding {}", f.amount),
            }));
        }
        lines
    }
    fn buy(text: &str) -> In {
        In::Order(Box::new(order(text)))
    }

    #[test]
    fn an_order_goes_through_its_life_by_stored_reports_and_each_execution_counts_once() {
        let inputs = vec![
            buy("buy 2 BTC"),
            report("o1", LiveWhat::Attempt { timestamp_ms: 1, recv_window_ms: 2 }),
            report("o1", acked()),
            report("o1", filled("t1", "1.5", "USDT")),
            report("o1", filled("t1", "1.5", "USDT")),
            report("o1", filled("t2", "0.5", "BNB")),
            report("o1", filled("t2", "0.5", "BNB")),
        ];
        let expected = [
            "sending o1",
            "ack o1 as 77",
            "fill o1 1 1.5@100 fee 0.5 left 0.5: trade t1",
            "fill o1 2 0.5@100 fee 0 left 0: trade t2, fee 0.5 BNB not counted",
            "done o1 Filled 2",
        ];
        assert_eq!(said(inputs), expected);
    }

    #[test]
    fn a_cancellation_is_said_once_before_the_venue_hears_of_it_and_ends_when_the_venue_says_so() {
        let cancel = || {
            let (venue, symbol) = (VENUE.to_owned(), "BTC".to_owned());
            let (id, reason) = ("o1".to_owned(), "enough".to_owned());
            let account = "main".to_owned();
            In::Cancel(Cancel { v: Version, account, id, venue, symbol, reason, ts_ns: 9, cause: Cause::default() })
        };
        let ended = LiveWhat::Ended { state: DoneState::Cancelled, reason: "enough".into() };
        let inputs = vec![
            buy("buy 2 BTC limit=50"),
            report("o1", acked()),
            cancel(),
            cancel(),
            report("o1", filled("t1", "1", "USDT")),
            report("o1", ended.clone()),
            report("o1", ended),
            cancel(),
        ];
        let expected = [
            "sending o1",
            "ack o1 as 77",
            "cancelling o1: enough",
            "fill o1 1 1@100 fee 0.5 left 1: trade t1",
            "done o1 Cancelled 1",
        ];
        assert_eq!(said(inputs), expected);
    }

    #[test]
    fn what_no_live_venue_takes_is_rejected_at_the_door() {
        let said = said(vec![buy("buy 2 BTC stop=90"), buy("buy 2 ETH")]);
        assert!(said[0].starts_with("reject o1 unsupported: ") && said.len() == 1, "{said:?}");
        let mut elsewhere = order("buy 2 BTC");
        elsewhere.venue = "deribit".into();
        assert_eq!(LiveVenue::new(&live()).admits(&elsewhere).unwrap_err().0, "no_venue");
    }

    #[test]
    fn the_state_of_a_simulated_venue_is_not_taken_for_a_live_one_nor_the_reverse() {
        let (paper, real) = (ExecutorCore::new("main", &config("next_trade")), ExecutorCore::new("main", &live()));
        assert!(ExecutorCore::new("main", &live()).restore(&paper.save()).is_err());
        assert!(ExecutorCore::new("main", &config("next_trade")).restore(&real.save()).is_err());
    }
}

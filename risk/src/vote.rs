//! Votes on one instrument: the newest signal of every strategy, and which of them count.

use std::collections::BTreeMap;

use schemas::desk::Vote;
use schemas::signal::{Signal, Stance};
use schemas::{Cause, Fraction, Price, Qty, Timeframe};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::record::Records;

/// A strategy's newest signal on an instrument.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Heard {
    pub side: Stance,
    pub strength: Fraction,
    pub confidence: Fraction,
    pub ts_ns: i64,
    pub valid_until_ns: i64,
    /// Length of its candle; 0 where the signal names none.
    pub candle_ns: i64,
    pub stop_loss: Option<Price>,
    pub take_profit: Option<Price>,
    /// Bars that were not seen whole behind it, as the signal says.
    #[serde(default)]
    pub gap_bars: u32,
    /// What the signal itself follows from: equal where one signal is delivered twice.
    pub origin: Cause,
    /// Where we heard it.
    pub place: Cause,
}

impl Heard {
    pub fn of(signal: &Signal, place: Cause) -> Self {
        Self {
            side: signal.side,
            strength: signal.strength,
            confidence: signal.confidence,
            ts_ns: signal.ts_ns,
            valid_until_ns: signal.valid_until_ns,
            candle_ns: signal.timeframe.parse::<Timeframe>().map_or(0, Timeframe::ns),
            stop_loss: signal.stop_loss,
            take_profit: signal.take_profit,
            gap_bars: signal.gap_bars,
            origin: signal.cause.clone(),
            place,
        }
    }
    fn expired(&self, now_ns: i64, config: &Config) -> bool {
        let age_ns_max = i64::from(config.votes.age_ms_max) * 1_000_000;
        now_ns > self.valid_until_ns || now_ns.saturating_sub(self.ts_ns) > age_ns_max
    }
}

/// The name that a signal votes under. Anyone may publish to `signal.ext.>`, so those cannot speak in the name of a
/// strategy of ours.
pub fn voter(signal: &Signal) -> String {
    if signal.origin == "ext" { format!("ext/{}", signal.strategy) } else { signal.strategy.clone() }
}

/// The newest signal of every strategy on one instrument.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Votes(BTreeMap<String, Heard>);

/// What a signal did to the votes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// Older than the strategy's vote, or no room for it: nothing moved.
    Nothing,
    /// The same wish again; its time is renewed.
    Same,
    /// The first vote, another wish, or the one before had run out.
    Changed,
}

impl Votes {
    /// Beyond `strategies_max` the vote that ran out first makes room; if none has, the newcomer finds none.
    pub fn put(&mut self, name: String, heard: Heard, now_ns: i64, config: &Config) -> News {
        let news = match self.0.get(&name) {
            Some(before) if heard.ts_ns < before.ts_ns => return News::Nothing,
            Some(before) => {
                let same = (before.side, before.strength) == (heard.side, heard.strength);
                if same && !before.expired(now_ns, config) { News::Same } else { News::Changed }
            }
            None if self.0.len() < config.strategies_max => News::Changed,
            None => {
                let oldest =
                    self.0.iter().filter(|(_, v)| v.expired(now_ns, config)).min_by_key(|(_, v)| v.valid_until_ns);
                let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { return News::Nothing };
                self.0.remove(&oldest);
                News::Changed
            }
        };
        self.0.insert(name, heard);
        news
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub fn get(&self, name: &str) -> Option<&Heard> {
        self.0.get(name)
    }

    /// Every vote, in the order of the strategies' names.
    pub fn tally(&self, now_ns: i64, held: Qty, records: &Records, config: &Config) -> Vec<Vote> {
        self.0
            .iter()
            .map(|(name, heard)| {
                let mut vote = Vote {
                    strategy: name.clone(),
                    side: heard.side,
                    strength: heard.strength,
                    confidence: heard.confidence,
                    weight: records.weight(name, &config.weights),
                    ts_ns: heard.ts_ns,
                    counted: true,
                    note: String::new(),
                    cause: heard.place.clone(),
                };
                judge(&mut vote, heard, now_ns, held, records, config);
                vote
            })
            .collect()
    }
}

/// Decides whether the vote counts, and as what.
fn judge(vote: &mut Vote, heard: &Heard, now_ns: i64, held: Qty, records: &Records, config: &Config) {
    let uncounted = |vote: &mut Vote, note: String| {
        vote.counted = false;
        vote.note = note;
    };
    let ahead_ms = heard.ts_ns.saturating_sub(now_ns) / 1_000_000;
    if now_ns > heard.valid_until_ns {
        let late_ms = now_ns.saturating_sub(heard.valid_until_ns) / 1_000_000;
        uncounted(vote, format!("ran out {late_ms} ms ago"));
    } else if heard.expired(now_ns, config) {
        uncounted(vote, format!("{} ms old", now_ns.saturating_sub(heard.ts_ns) / 1_000_000));
    } else if ahead_ms > i64::from(config.votes.ahead_ms_max) {
        uncounted(vote, format!("{ahead_ms} ms ahead of the market data"));
    } else if heard.confidence < config.votes.confidence_min {
        uncounted(vote, format!("confidence below {}", config.votes.confidence_min));
    } else if vote.weight == Fraction::ZERO {
        uncounted(vote, "no weight".into());
    } else if records.cooling_until(&vote.strategy, now_ns).is_some() {
        // It may take off what is held, never put on: otherwise a pause would hold a position against its strategy.
        let against = match vote.side {
            Stance::Flat => return,
            Stance::Long => held.signum() < 0,
            Stance::Short => held.signum() > 0,
        };
        if against {
            vote.side = Stance::Flat;
            vote.note = "cooling down: counts as flat".into();
        } else {
            uncounted(vote, "cooling down".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CoolDown;
    use crate::position::ClosedTrade;
    use schemas::Notional;

    const SECOND: i64 = 1_000_000_000;

    fn heard(side: Stance, ts_ns: i64) -> Heard {
        let mut signal = crate::tape::signal("ema", "BTC", side, ts_ns);
        signal.valid_until_ns = ts_ns + 60 * SECOND;
        Heard::of(&signal, Cause::default())
    }
    fn note(votes: &Votes, now_ns: i64, held: &str, records: &Records, config: &Config) -> String {
        let vote = votes.tally(now_ns, held.parse().unwrap(), records, config).remove(0);
        format!("{:?} {} {}", vote.side, if vote.counted { "counts" } else { "does not count" }, vote.note)
    }

    #[test]
    fn a_vote_counts_until_its_time_and_not_behind_it() {
        let mut config = Config::load(None).unwrap();
        let (mut votes, records) = (Votes::default(), Records::default());
        votes.put("ema".into(), heard(Stance::Long, 0), 0, &config);
        assert_eq!(note(&votes, 60 * SECOND, "0", &records, &config), "Long counts ");
        assert_eq!(note(&votes, 61 * SECOND, "0", &records, &config), "Long does not count ran out 1000 ms ago");
        config.votes.age_ms_max = 10_000;
        assert_eq!(note(&votes, 11 * SECOND, "0", &records, &config), "Long does not count 11000 ms old");
    }

    #[test]
    fn a_vote_from_the_future_and_an_unsure_one_do_not_count() {
        let mut config = Config::load(None).unwrap();
        let (mut votes, records) = (Votes::default(), Records::default());
        votes.put("ema".into(), heard(Stance::Long, 10 * SECOND), 0, &config);
        assert_eq!(note(&votes, 0, "0", &records, &config), "Long does not count 10000 ms ahead of the market data");
        config.votes.confidence_min = Fraction::ONE;
        assert_eq!(note(&votes, 10 * SECOND, "0", &records, &config), "Long does not count confidence below 1");
    }

    #[test]
    fn a_strategy_that_cools_down_can_take_off_and_not_put_on() {
        let mut config = Config::load(None).unwrap();
        config.cool_down = CoolDown { losses_in_row: 1, pause_ms: 1_000 };
        let mut records = Records::default();
        let loss =
            ClosedTrade { since_ns: 0, until_ns: 0, result: Notional::new((-1).into()), notional: Notional::ZERO };
        records.closed(&["ema".to_owned()], &loss, &config.cool_down, &config.weights, 9);
        let mut votes = Votes::default();
        votes.put("ema".into(), heard(Stance::Long, 0), 0, &config);
        assert_eq!(note(&votes, 1, "0", &records, &config), "Long does not count cooling down");
        assert_eq!(note(&votes, 1, "2", &records, &config), "Long does not count cooling down");
        assert_eq!(note(&votes, 1, "-2", &records, &config), "Flat counts cooling down: counts as flat");
        assert_eq!(note(&votes, SECOND, "0", &records, &config), "Long counts ");
        votes.put("ema".into(), heard(Stance::Flat, 1), 1, &config);
        assert_eq!(note(&votes, 1, "0", &records, &config), "Flat counts ");
    }

    #[test]
    fn the_same_wish_again_is_no_news_until_the_first_has_run_out() {
        let config = Config::load(None).unwrap();
        let mut votes = Votes::default();
        assert_eq!(votes.put("ema".into(), heard(Stance::Long, 0), 0, &config), News::Changed);
        assert_eq!(votes.put("ema".into(), heard(Stance::Long, SECOND), SECOND, &config), News::Same);
        assert_eq!(votes.put("ema".into(), heard(Stance::Long, 0), SECOND, &config), News::Nothing);
        assert_eq!(votes.put("ema".into(), heard(Stance::Flat, SECOND), SECOND, &config), News::Changed);
        assert_eq!(votes.put("ema".into(), heard(Stance::Flat, 99 * SECOND), 99 * SECOND, &config), News::Changed);
    }

    #[test]
    fn a_newcomer_takes_the_place_of_a_vote_that_ran_out_or_finds_none() {
        let mut config = Config::load(None).unwrap();
        config.strategies_max = 1;
        let mut votes = Votes::default();
        votes.put("ema".into(), heard(Stance::Long, 0), 0, &config);
        assert_eq!(votes.put("rsi".into(), heard(Stance::Long, 1), 1, &config), News::Nothing);
        assert_eq!(votes.put("rsi".into(), heard(Stance::Long, 99 * SECOND), 99 * SECOND, &config), News::Changed);
        assert!(votes.get("ema").is_none());
    }

    #[test]
    fn a_program_outside_cannot_vote_in_the_name_of_our_strategy() {
        let mut signal = crate::tape::signal("ema", "BTC", Stance::Long, 0);
        assert_eq!(voter(&signal), "ema");
        signal.origin = "ext".into();
        assert_eq!(voter(&signal), "ext/ema");
    }
}

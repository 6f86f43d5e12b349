//! The whole pipeline on one queue in one process: aggregate and strategy by venue and partition, one desk.
//!
//! **The order of events** is the one that the live sequencer would most naturally record:
//! 1. facts are heard in the order in which they were said, first come, first served, over all streams;
//! 2. the tape puts in its next fact only when everything that follows from the one before has been heard;
//! 3. of one fact, aggregate or strategy hear first, then risk, then the executor.
//!
//! So a raw fact is on the desk before what follows from it, and what takes fewer hops (a fill) is there before what
//! takes more (a signal). Live, a fact may be overtaken by later ones of the tape; `DESK_<account>` records it then.
//!
//! Facts go round as types. [`Wire::Bytes`] sends each through its bytes instead, as the streams do; both say the
//! same, which a test shows.

use std::collections::VecDeque;
use std::sync::Arc;

use aggregate::core::AggregateCore;
use anyhow::{Context, anyhow};
use executor::ExecutorCore;
use risk::RiskCore;
use schemas::raw::{Raw, Trades};
use schemas::subject::stream;
use schemas::{Core, Fact, Listen, Place, Speak};
use sha2::{Digest, Sha256};
use strategy::StrategyCore;

use crate::fact::{Entry, Typed};
use crate::setup::{Desk, Setup};
use crate::sizing::{self, Sizer, When};

/// How facts reach the cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Wire {
    #[default]
    Typed,
    /// Encoded and decoded between cores.
    Bytes,
}

/// See the module.
pub struct Engine {
    setup: Setup,
    lanes: Vec<Lane>,
    trader: Trader,
    executor: ExecutorCore,
    desk: Line,
    risk: Line,
    exec: Line,
    waiting: VecDeque<Entry>,
    hash: Option<Sha256>,
    facts: u64,
    said: Said,
}

/// A stream that the engine writes.
struct Line {
    name: Arc<str>,
    last_seq: u64,
}

impl Line {
    fn new(name: String) -> Self {
        Self { name: name.into(), last_seq: 0 }
    }
    fn next(&mut self) -> Place {
        self.last_seq += 1;
        Place { stream: Arc::clone(&self.name), seq: self.last_seq }
    }
}

/// The market side of one venue and partition: two live tasks.
struct Lane {
    venue: String,
    p: u32,
    aggregate: AggregateCore,
    strategy: StrategyCore,
    candles: Line,
    signals: Line,
}

/// Who turns signals into orders.
enum Trader {
    Risk(Box<RiskCore>),
    Sizer(Box<Sizer>),
}

/// Room for what one fact leads to; empty between facts.
#[derive(Default)]
struct Said {
    market: Vec<aggregate::core::Out>,
    signals: Vec<strategy::Out>,
    risk: Vec<risk::Out>,
    sizer: Vec<sizing::Out>,
    exec: Vec<executor::Out>,
}

impl Engine {
    /// Error: a configuration that does not pass its own check.
    pub fn new(setup: &Setup) -> anyhow::Result<Self> {
        let account = setup.account.as_str();
        let trader = match &setup.desk {
            Desk::Risk(config) => Trader::Risk(Box::new(RiskCore::new(account, config)?)),
            Desk::Sizing { sizing, cash } => Trader::Sizer(Box::new(Sizer::new(account, *sizing, When::Now, *cash))),
        };
        setup.executor.check()?;
        Ok(Self {
            lanes: Vec::new(),
            trader,
            executor: ExecutorCore::new(account, &setup.executor),
            desk: Line::new(stream::desk(account)),
            risk: Line::new(stream::risk(account)),
            exec: Line::new(stream::exec(account)),
            waiting: VecDeque::new(),
            hash: setup.hash.then(Sha256::new),
            facts: 0,
            said: Said::default(),
            setup: setup.clone(),
        })
    }

    /// Puts a fact of the tape in and lets everything follow; `watch` sees each fact in its order.
    pub fn play(&mut self, entry: Entry, watch: &mut dyn FnMut(&Entry) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.facts += 1;
        self.waiting.push_back(entry);
        while let Some(entry) = self.waiting.pop_front() {
            watch(&entry)?;
            let desk = entry.fact.on_desk(self.setup.books).then(|| self.desk.next());
            let heard = match self.setup.wire {
                Wire::Typed => self.hear(&entry, desk.as_ref()),
                Wire::Bytes => self.hear_bytes(&entry, desk.as_ref()),
            };
            heard.with_context(|| format!("at {}:{} {}", entry.place.stream, entry.place.seq, entry.fact.subject()))?;
        }
        Ok(())
    }

    /// Facts so far, those of the tape included.
    pub fn facts(&self) -> u64 {
        self.facts
    }

    /// SHA-256 over stream, sequence, subject and bytes of every fact that a core said so far, in hex; empty where
    /// the setup asks for none.
    pub fn hash(&self) -> String {
        let Some(hash) = &self.hash else { return String::new() };
        hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn hear(&mut self, entry: &Entry, desk: Option<&Place>) -> anyhow::Result<()> {
        let mut said = std::mem::take(&mut self.said);
        let place = &entry.place;
        let lane = self.lane_of(&entry.fact)?;
        if let Some(at) = lane {
            self.lanes[at].hear(place, &entry.fact, &mut said)?;
        }
        if let Some(desk) = desk {
            match &mut self.trader {
                Trader::Risk(core) => {
                    if let Some(input) = risk_input(&entry.fact)? {
                        told(core.handle(desk, input, &mut said.risk), "risk")?;
                    }
                }
                Trader::Sizer(core) => match &entry.fact {
                    Typed::Raw(Raw::Trades(pack)) => core.on_trades(pack),
                    fact => {
                        if let Some(input) = sizer_input(fact)? {
                            told(core.handle(desk, input, &mut said.sizer), "sizing")?;
                        }
                    }
                },
            }
            match &entry.fact {
                Typed::Raw(Raw::Trades(pack)) => self.executor.on_trades(desk, pack, &mut said.exec),
                fact => {
                    if let Some(input) = executor_input(fact) {
                        told(self.executor.handle(desk, input, &mut said.exec), "executor")?;
                    }
                }
            }
        }
        self.put(lane, said);
        Ok(())
    }

    /// The same by the bytes of the fact, as a stage hears it from its stream.
    fn hear_bytes(&mut self, entry: &Entry, desk: Option<&Place>) -> anyhow::Result<()> {
        let mut said = std::mem::take(&mut self.said);
        let (subject, payload) = (entry.fact.subject(), entry.fact.payload());
        let lane = self.lane_of(&entry.fact)?;
        if let Some(lane) = lane.map(|at| &mut self.lanes[at]) {
            heard(&mut lane.aggregate, &entry.place, &subject, &payload, &mut said.market)?;
            heard(&mut lane.strategy, &entry.place, &subject, &payload, &mut said.signals)?;
        }
        if let Some(desk) = desk {
            match &mut self.trader {
                Trader::Risk(core) => heard(&mut **core, desk, &subject, &payload, &mut said.risk)?,
                Trader::Sizer(core) => heard(&mut **core, desk, &subject, &payload, &mut said.sizer)?,
            }
            heard(&mut self.executor, desk, &subject, &payload, &mut said.exec)?;
        }
        self.put(lane, said);
        Ok(())
    }

    /// Where the fact is folded on the market side; made when an instrument of its partition is heard first.
    fn lane_of(&mut self, fact: &Typed) -> anyhow::Result<Option<usize>> {
        let (venue, p, opens) = match fact {
            Typed::Raw(Raw::Trades(f)) => (&f.venue, f.p, true),
            Typed::Raw(Raw::Gap(f)) => (&f.venue, f.p, f.channel == "trade"),
            Typed::Raw(Raw::Bars(f)) => (&f.venue, f.p, aggregate::core::tells_history(f)),
            Typed::Raw(Raw::Clock(f)) => (&f.venue, f.p, false),
            Typed::Market(aggregate::core::Out::Candle(f)) => (&f.venue, f.p, false),
            Typed::Market(aggregate::core::Out::Indicators(f)) => (&f.venue, f.p, false),
            _ => return Ok(None),
        };
        let found = self.lanes.iter().position(|lane| lane.p == p && lane.venue == *venue);
        if found.is_some() || !opens {
            return Ok(found);
        }
        let (candles, signals) = (stream::aggregate(venue, p), stream::signal(venue, p));
        self.lanes.push(Lane {
            venue: venue.clone(),
            p,
            aggregate: AggregateCore::new(&self.setup.aggregate)?,
            strategy: self.setup.strategies.start()?,
            candles: Line::new(candles),
            signals: Line::new(signals),
        });
        Ok(Some(self.lanes.len() - 1))
    }

    /// Gives what was said its places and queues it.
    fn put(&mut self, lane: Option<usize>, mut said: Said) {
        if let Some(at) = lane {
            for out in said.market.drain(..).filter(Speak::stored) {
                let place = self.lanes[at].candles.next();
                self.queue(place, Typed::Market(out));
            }
            for strategy::Out::Signal(signal) in said.signals.drain(..) {
                let place = self.lanes[at].signals.next();
                self.queue(place, Typed::Signal(signal));
            }
        }
        for out in said.risk.drain(..) {
            let place = self.risk.next();
            self.queue(place, Typed::Risk(out));
        }
        for sizing::Out::Order(order) in said.sizer.drain(..) {
            let place = self.risk.next();
            self.queue(place, Typed::Risk(risk::Out::Order(Box::new(order))));
        }
        for out in said.exec.drain(..) {
            let place = self.exec.next();
            self.queue(place, Typed::Exec(out));
        }
        self.said = said;
    }

    fn queue(&mut self, place: Place, fact: Typed) {
        self.facts += 1;
        if let Some(hash) = &mut self.hash {
            let (subject, payload) = (fact.subject(), fact.payload());
            // Lengths stand before what they measure, so no two different runs read the same.
            for part in [place.stream.as_bytes(), &place.seq.to_be_bytes(), subject.as_bytes(), &payload] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
        self.waiting.push_back(Entry { place, fact });
    }
}

impl Lane {
    fn hear(&mut self, place: &Place, fact: &Typed, said: &mut Said) -> anyhow::Result<()> {
        use aggregate::core::In;
        let out = &mut said.market;
        let folded = match fact {
            Typed::Raw(Raw::Trades(pack)) => self.aggregate.on_trades(place, pack, out),
            Typed::Raw(Raw::Clock(clock)) => self.aggregate.handle(place, In::Clock(clock.clone()), out),
            Typed::Raw(Raw::Gap(gap)) if gap.channel == "trade" => {
                self.aggregate.handle(place, In::Gap(gap.clone()), out)
            }
            Typed::Raw(Raw::Bars(bars)) if aggregate::core::tells_history(bars) => {
                self.aggregate.handle(place, In::Bars(bars.clone()), out)
            }
            Typed::Market(market) => return self.think(place, market, &mut said.signals),
            _ => return Ok(()),
        };
        told(folded, "aggregate")
    }

    fn think(
        &mut self,
        place: &Place,
        market: &aggregate::core::Out,
        out: &mut Vec<strategy::Out>,
    ) -> anyhow::Result<()> {
        let mut signals = Vec::new();
        let heard = match market {
            aggregate::core::Out::Candle(candle) => self.strategy.on_candle(candle, &place.cause(0), &mut signals),
            aggregate::core::Out::Indicators(values) => {
                self.strategy.on_indicators(values, &place.cause(0), &mut signals)
            }
            aggregate::core::Out::Late(_) | aggregate::core::Out::Preview(_) => Ok(()),
        };
        out.extend(signals.into_iter().map(strategy::Out::Signal));
        told(heard, "strategy")
    }
}

fn told(result: Result<(), schemas::Fault>, stage: &str) -> anyhow::Result<()> {
    result.map_err(|fault| anyhow!("{stage}: {}", fault.0))
}

/// One core hears bytes.
fn heard<C: Core>(
    core: &mut C,
    place: &Place,
    subject: &str,
    payload: &[u8],
    out: &mut Vec<C::Out>,
) -> anyhow::Result<()> {
    let Some(input) = C::In::hear(subject, payload)? else { return Ok(()) };
    core.handle(place, input, out).map_err(|fault| anyhow!(fault.0))
}

/// What risk hears of a fact of the desk.
fn risk_input(fact: &Typed) -> anyhow::Result<Option<risk::In>> {
    use executor::Out as Exec;
    use risk::In;
    Ok(match fact {
        Typed::Raw(raw) => In::of_raw(raw),
        Typed::Instrument(f) => Some(In::Instrument(f.clone())),
        Typed::State(f) => Some(In::State(f.clone())),
        Typed::Signal(f) => Some(In::Signal(Box::new(f.clone().checked(&f.subject())?))),
        Typed::Exec(Exec::Ack(f)) => Some(In::Ack(f.clone())),
        Typed::Exec(Exec::Fill(f)) => Some(In::Fill(Box::new(f.clone()))),
        Typed::Exec(Exec::Reject(f)) => Some(In::Reject(f.clone())),
        Typed::Exec(Exec::Done(f)) => Some(In::Done(f.clone())),
        Typed::Exec(Exec::Funding(f)) => Some(In::Funding(f.clone())),
        Typed::Exec(Exec::Sending(_) | Exec::Cancelling(_)) | Typed::Market(_) | Typed::Risk(_) => None,
    })
}

/// What the sizer hears, trades aside.
fn sizer_input(fact: &Typed) -> anyhow::Result<Option<sizing::In>> {
    use executor::Out as Exec;
    use sizing::In;
    Ok(match fact {
        Typed::Signal(f) => Some(In::Signal(f.clone().checked(&f.subject())?)),
        Typed::Exec(Exec::Fill(f)) => Some(In::Fill(f.clone())),
        Typed::Exec(Exec::Reject(f)) => Some(In::Reject(f.clone())),
        Typed::Exec(Exec::Done(f)) => Some(In::Done(f.clone())),
        _ => None,
    })
}

/// What the executor hears, trades aside.
fn executor_input(fact: &Typed) -> Option<executor::In> {
    use executor::In;
    Some(match fact {
        Typed::Raw(Raw::Quotes(f)) => In::Quotes(f.clone()),
        Typed::Raw(Raw::Books(f)) => In::Books(f.clone()),
        Typed::Raw(Raw::Tickers(f)) => In::Tickers(f.clone()),
        Typed::Raw(Raw::Clock(f)) => In::Clock(f.clone()),
        Typed::Raw(Raw::Gap(f)) => In::Gap(f.clone()),
        Typed::Instrument(f) => In::Instrument((**f).clone()),
        Typed::State(f) | Typed::Risk(risk::Out::State(f)) => In::State(f.clone()),
        Typed::Risk(risk::Out::Order(f)) => In::Order(f.clone()),
        Typed::Risk(risk::Out::Cancel(f)) => In::Cancel(f.clone()),
        Typed::Raw(_) | Typed::Market(_) | Typed::Signal(_) | Typed::Risk(_) | Typed::Exec(_) => return None,
    })
}

/// Ticks in a raw fact, for progress and figures.
pub fn ticks(fact: &Typed) -> u64 {
    match fact {
        Typed::Raw(Raw::Trades(pack)) => Trades::len(pack) as u64,
        Typed::Raw(Raw::Quotes(pack)) => pack.len() as u64,
        Typed::Raw(Raw::Books(pack)) => pack.items.len() as u64,
        Typed::Raw(Raw::Tickers(pack)) => pack.items.len() as u64,
        _ => 0,
    }
}

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use proptest::prelude::*;
use schemas::desk::DeskState;
use schemas::raw::{Quote, Quotes, TickerUpdate, Tickers};
use schemas::{Decimal, Instrument, Nanos, PriceM, QtyM, Scale};

use super::*;
use crate::fact::Typed;
use crate::pack::{ColumnTape, Columns, Listed, Source};
use crate::run::{play, watch};
use crate::source::Held;

const START_NS: i64 = 1_700_000_000_000_000_000;

/// Facts that several tapes can be made of.
pub(crate) struct Facts {
    pub facts: Vec<Entry>,
    pub instruments: Vec<Instrument>,
}

impl Facts {
    fn tape(&self) -> Held {
        Held::new(self.facts.iter().cloned(), self.instruments.clone())
    }
}

/// Prices that wander around 100 by cents, three trades a second, on `symbols` instruments of two venues.
pub(crate) fn wandering(seed: u64, trades: usize, symbols: usize) -> Facts {
    let scale = Scale { price: 2, qty: 1 };
    let venue = |i: usize| if i % 2 == 0 { "binance-usdm" } else { "deribit" };
    let listed: Vec<Listed> =
        (0..symbols).map(|i| Listed { venue: venue(i).into(), symbol: format!("S{i}"), scale, spot: false }).collect();
    let mut state = seed;
    let mut columns = vec![Columns::default(); symbols];
    let mut cents = vec![10_000i64; symbols];
    for i in 0..trades {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let dice = (state >> 33) as i64;
        let at = (dice % symbols as i64) as usize;
        cents[at] = (cents[at] + (dice / 7) % 41 - 20).clamp(8_000, 12_000);
        let c = &mut columns[at];
        c.ts_ns.push(START_NS + i as i64 * 333 * Nanos::PER_MS);
        c.recv_ns.push(START_NS + i as i64 * 333 * Nanos::PER_MS);
        c.id.push(i as u64 + 1);
        c.price.push(cents[at]);
        c.size.push(1 + dice % 300);
        c.side.push(if dice & 64 == 0 { b'b' } else { b's' });
    }
    let source = |c: Columns| -> Box<dyn Source> { Box::new(VecDeque::from([c])) };
    let sources = columns.into_iter().map(source).collect();
    let mut tape = ColumnTape::new(listed, sources, "1s".parse().unwrap(), |_| 500 * Nanos::PER_MS, None);
    let held = Held::all(&mut tape).unwrap();
    Facts { facts: held.facts.into(), instruments: held.instruments }
}

/// One strategy under risk, with limits that let it trade.
pub(crate) fn setup(strategy: &str, timeframe: &str) -> Setup {
    let mut setup =
        Setup::of(None).unwrap().with_strategy(&strategy.parse().unwrap(), timeframe.parse().unwrap()).unwrap();
    setup.executor.fill.model = "next_trade".to_owned();
    setup
}

/// Quotes and tickers between the trades, and an operator's word in the middle.
fn enriched(mut facts: Facts) -> Facts {
    let mut rich = Vec::new();
    let half = facts.facts.len() / 2;
    for (i, entry) in facts.facts.drain(..).enumerate() {
        if let Typed::Raw(Raw::Trades(pack)) = &entry.fact {
            let (ts, price) = (Nanos(pack.ts_ns[0]), pack.price[0]);
            let mut quotes = Quotes::new(pack.p, &pack.venue, &pack.symbol, pack.scale);
            let level = |cents: i64| Some((PriceM(price + cents), QtyM(50)));
            quotes.push(Quote { ts, recv: ts, bid: level(-1), ask: level(1) });
            let mut tickers = Tickers::new(pack.p, &pack.venue, &pack.symbol, pack.scale);
            tickers.items.push(TickerUpdate {
                ts_ns: ts.0,
                mark: Some(PriceM(price).price(pack.scale)),
                funding_rate: Some("0.0001".parse().unwrap()),
                next_funding_ns: Some((ts.0 / (600 * Nanos::PER_SECOND) + 1) * 600 * Nanos::PER_SECOND),
                ..TickerUpdate::default()
            });
            let place = |kind: u64| Place::new("RAW_RICH", 10 * i as u64 + kind);
            rich.push(Entry { place: place(1), fact: Typed::Raw(Raw::Quotes(quotes)) });
            if i % 20 == 0 {
                rich.push(Entry { place: place(2), fact: Typed::Raw(Raw::Tickers(tickers)) });
            }
        }
        if i == half {
            let state = DeskState {
                v: schemas::Version,
                account: "main".into(),
                state: schemas::desk::TradingState::Halted,
                flatten: true,
                by: "operator".into(),
                reason: "coffee".into(),
                ts_ns: entry.fact.ts_ns().unwrap_or_default(),
                cause: None,
            };
            let active = DeskState { state: schemas::desk::TradingState::Active, flatten: false, ..state.clone() };
            rich.push(Entry { place: Place::new("KV_cfg", 1), fact: Typed::State(state) });
            rich.push(Entry { place: Place::new("KV_cfg", 2), fact: Typed::State(active) });
        }
        rich.push(entry);
    }
    Facts { facts: rich, ..facts }
}

fn all(setup: &Setup, facts: &Facts) -> (Vec<Entry>, String) {
    let mut engine = Engine::new(setup).unwrap();
    let mut seen = Vec::new();
    watch(&mut engine, &mut facts.tape(), |entry, _| {
        seen.push(entry.clone());
        Ok(())
    })
    .unwrap();
    assert_eq!(engine.facts(), seen.len() as u64);
    (seen, engine.hash())
}

fn kinds(facts: &[Entry]) -> BTreeMap<&'static str, usize> {
    let mut kinds = BTreeMap::new();
    facts.iter().for_each(|entry| *kinds.entry(entry.fact.kind()).or_insert(0) += 1);
    kinds
}

#[test]
fn facts_as_types_and_facts_as_bytes_lead_to_the_same_facts() {
    for (strategy, symbols, sizing, model, rich) in [
        ("ema_cross_2_5", 1, None, "next_trade", false),
        ("supertrend", 3, None, "book", true),
        ("ema_cross_2_5", 2, None, "book", true),
        ("ema_cross_2_5", 1, Some("fixed:2"), "next_trade", false),
    ] {
        let facts = wandering(11, 6_000, symbols);
        let facts = if rich { enriched(facts) } else { facts };
        let mut typed = setup(strategy, "5s").with_sizing(sizing.map(|text| text.parse().unwrap()));
        typed.executor.fill.model = model.to_owned();
        typed.executor.liquidation.on = rich;
        let bytes = Setup { wire: Wire::Bytes, ..typed.clone() };
        let ((a, hash_a), (b, hash_b)) = (all(&typed, &facts), all(&bytes, &facts));
        let counts = kinds(&a);
        assert!(counts["fill"] > 4 && counts["order"] > 4, "{strategy}: {counts:?}");
        for (a, b) in a.iter().zip(&b) {
            assert_eq!(a, b, "{strategy} {symbols}");
        }
        assert_eq!((a.len(), hash_a), (b.len(), hash_b));
        if rich {
            assert!(counts["funding"] > 0 && counts["state"] >= 2, "{counts:?}");
        }
    }
}

#[test]
fn a_raw_fact_is_on_the_desk_before_what_follows_from_it_and_places_have_no_hole() {
    let (facts, _) = all(&setup("ema_cross_2_5", "5s"), &wandering(3, 3_000, 2));
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    let mut heard: BTreeMap<String, u64> = BTreeMap::new();
    let mut desk = 0;
    for entry in &facts {
        let seq = next.entry(entry.place.stream.to_string()).or_insert(0);
        *seq += 1;
        assert_eq!(entry.place.seq, *seq, "{}", entry.place.stream);
        heard.insert(entry.place.stream.to_string(), entry.place.seq);
        desk += u64::from(entry.fact.on_desk(false));
        heard.insert("DESK_main".to_owned(), desk);
        let cause = match &entry.fact {
            Typed::Market(aggregate::core::Out::Candle(f)) => &f.cause,
            Typed::Signal(f) => &f.cause,
            Typed::Risk(risk::Out::Order(f)) => &f.cause,
            Typed::Exec(executor::Out::Fill(f)) => &f.cause,
            _ => continue,
        };
        assert!(
            cause.seq <= heard[&cause.stream],
            "{} follows from {cause}, which is not there yet",
            entry.fact.kind()
        );
    }
}

#[test]
fn two_runs_are_equal_and_another_latency_is_another_run() {
    let facts = wandering(7, 6_000, 2);
    let one = setup("ema_cross_2_5", "5s");
    let run = |setup: &Setup| play(setup, &mut facts.tape(), |_| ()).unwrap();
    let first = run(&one);
    assert_eq!(run(&one), first);
    assert!(first.trips.len() > 5, "{:?} {:?}", first.kinds, first.refusals);
    let mut slow = one.clone();
    slow.executor.fill.latency_ns = 3 * Nanos::PER_SECOND;
    assert_ne!(run(&slow).hash, first.hash);
    let mut unhashed = one;
    unhashed.hash = false;
    let unhashed = run(&unhashed);
    assert_eq!((unhashed.hash.as_str(), &unhashed.trips, unhashed.facts), ("", &first.trips, first.facts));
}

#[test]
fn every_configured_rule_and_timeframe_plays_where_no_strategy_is_chosen() {
    let setup = Setup::of(None).unwrap();
    let (facts, _) = all(&setup, &wandering(9, 4_000, 2));
    let mut strategies: Vec<&str> = Vec::new();
    let mut timeframes: Vec<&str> = Vec::new();
    for entry in &facts {
        match &entry.fact {
            Typed::Signal(f) => strategies.push(&f.strategy),
            Typed::Market(aggregate::core::Out::Candle(f)) => timeframes.push(&f.tf),
            _ => {}
        }
    }
    for list in [&mut strategies, &mut timeframes] {
        list.sort_unstable();
        list.dedup();
    }
    assert!(!strategies.is_empty(), "{:?}", kinds(&facts));
    assert_eq!(timeframes, ["15m", "1m", "1s", "3m", "5m"]);
}

#[test]
fn rules_of_several_timeframes_play_side_by_side_and_nothing_that_nobody_looks_at_matters() {
    let text = "[aggregate]\ntimeframes = [\"1s\", \"5s\", \"15s\", \"1m\", \"5m\"]\npreview_timeframes = []\n\
        indicator_timeframes = [\"5s\", \"15s\", \"1m\"]\n\
        [strategy.rules.ema_cross]\ntimeframe = \"5s\"\nparams = { fast = 2, slow = 5 }\n\
        [strategy.rules.macd_trend]\ntimeframe = \"15s\"\nhigher_timeframe = \"1m\"\n\
        [strategy.rules.rsi_mean_reversion]\nenabled = false\n[strategy.rules.bollinger_breakout]\nenabled = false\n\
        [strategy.rules.supertrend]\nenabled = false\n";
    let user = schemas::config::UserFile { name: "tapeline.toml".into(), text: text.into() };
    let whole = Setup::of(Some(&user)).unwrap();
    let mut narrow = whole.clone();
    narrow.narrow().unwrap();
    assert_eq!(narrow.aggregate.timeframes.len(), 3, "{:?}", narrow.aggregate.timeframes);
    let facts = wandering(9, 12_000, 2);
    let signals = |setup: &Setup| -> Vec<(String, String, i64, schemas::signal::Stance)> {
        let (said, _) = all(setup, &facts);
        let signal = |entry: &Entry| match &entry.fact {
            Typed::Signal(f) => Some((f.strategy.clone(), f.symbol.clone(), f.ts_ns, f.side)),
            _ => None,
        };
        said.iter().filter_map(signal).collect()
    };
    let said = signals(&whole);
    for strategy in ["ema_cross", "macd_trend"] {
        for symbol in ["S0", "S1"] {
            assert!(said.iter().any(|s| s.0 == strategy && s.1 == symbol), "{strategy} on {symbol}");
        }
    }
    assert_eq!(signals(&narrow), said);
}

#[test]
fn a_position_on_margin_is_liquidated_and_the_account_shows_it() {
    let mut setup = setup("ema_cross_2_5", "5s").with_sizing(Some("fixed:3".parse().unwrap()));
    setup.executor.liquidation.on = true;
    setup.executor.liquidation.initial_share =
        "0.004".parse::<Decimal>().ok().and_then(|d| schemas::Fraction::new(d).ok()).unwrap();
    setup.executor.liquidation.maintenance_share =
        "0.002".parse::<Decimal>().ok().and_then(|d| schemas::Fraction::new(d).ok()).unwrap();
    let facts = wandering(13, 6_000, 1);
    let (said, _) = all(&setup, &facts);
    let liquidated = said.iter().filter(|entry| match &entry.fact {
        Typed::Exec(executor::Out::Fill(fill)) => fill.why.starts_with("liquidation: mark"),
        _ => false,
    });
    assert!(liquidated.count() > 0, "{:?}", kinds(&said));
    let report = play(&setup, &mut facts.tape(), |_| ()).unwrap();
    let made: schemas::Notional = report.trips.iter().map(|trip| trip.net).sum();
    let last = report.equity.last().unwrap();
    if !last.in_position {
        let off = (last.equity.get() - setup.cash() - made.get()).abs();
        assert!(off < Decimal::new(1, 9), "{off}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_tape_that_ends_earlier_says_the_same_up_to_its_end(seed in any::<u64>(), symbols in 1usize..4, part in 1usize..90) {
        let facts = wandering(seed, 2_000, symbols);
        let setup = setup("ema_cross_2_5", "5s");
        let end = facts.facts.len() * part / 100;
        let piece = Facts { facts: facts.facts[..end].to_vec(), instruments: facts.instruments.clone() };
        let (whole, _) = all(&setup, &facts);
        let (cut, _) = all(&setup, &piece);
        prop_assert_eq!(&whole[..cut.len()], &cut[..]);
    }
}

use expect_test::{Expect, expect};
use proptest::prelude::*;
use schemas::Speak;

use super::*;
use crate::voter::fixture::{MINUTE, candle};

fn core(text: &str) -> StrategyCore {
    let user = schemas::config::UserFile { name: "test".into(), text: text.into() };
    StrategyCore::new(&Config::load(Some(&user)).unwrap()).unwrap()
}

/// Only `kind`, as a rule of the same name with these lines.
fn only(kind: &str, lines: &str) -> StrategyCore {
    StrategyCore::new(&Config::only(kind, lines.parse().unwrap()).unwrap()).unwrap()
}

fn indicators(candle: &Candle, values: &[(&str, f64)]) -> Indicators {
    Indicators {
        v: Version,
        venue: candle.venue.clone(),
        symbol: candle.symbol.clone(),
        p: candle.p,
        tf: candle.tf.clone(),
        open_ns: candle.open_ns,
        close_ns: candle.close_ns,
        close: candle.close,
        complete: candle.complete,
        values: values.iter().map(|(name, x)| ((*name).to_owned(), *x)).collect(),
        gaps: Default::default(),
        cause: candle.cause.clone(),
    }
}

fn told(core: &mut StrategyCore, inputs: impl IntoIterator<Item = In>) -> Vec<Signal> {
    let mut out = Vec::new();
    for (i, input) in inputs.into_iter().enumerate() {
        core.handle(&Place::new("AGG_BINANCE_3", i as u64 + 1), input, &mut out).unwrap();
    }
    out.into_iter().map(|Out::Signal(signal)| signal).collect()
}

fn check(signals: &[Signal], expected: Expect) {
    let line = |s: &Signal| {
        let (at, until) = (s.ts_ns / MINUTE, s.valid_until_ns / MINUTE);
        format!("{} {:?} at {at} until {until} by {}: {}\n", s.strategy, s.side, s.cause, s.reason)
    };
    expected.assert_eq(&signals.iter().map(line).collect::<String>());
}

const FAST: &str = "params = { fast = 1, slow = 2 }";
/// Closes that make EMA1 and EMA2 cross above at bar 3 and below at bar 5.
const CLOSES: [&str; 8] = ["10", "9", "8", "9", "10", "8", "7", "6"];

fn candles() -> Vec<In> {
    CLOSES.iter().enumerate().map(|(i, close)| In::Candle(candle(i as i64, close))).collect()
}

#[test]
fn a_standing_opinion_is_said_again_at_each_close_so_that_the_vote_stays_valid() {
    let signals = told(&mut only("ema_cross", FAST), candles());
    check(
        &signals,
        expect![[r#"
        ema_cross Long at 4 until 6 by AGG_BINANCE_3:4:0: EMA1 9 crossed above EMA2 8.83333333
        ema_cross Long at 5 until 7 by AGG_BINANCE_3:5:0: EMA1 10 has stayed above EMA2 9.61111111
        ema_cross Short at 6 until 8 by AGG_BINANCE_3:6:0: EMA1 8 crossed below EMA2 8.53703704
        ema_cross Short at 7 until 9 by AGG_BINANCE_3:7:0: EMA1 7 has stayed below EMA2 7.51234568
        ema_cross Short at 8 until 10 by AGG_BINANCE_3:8:0: EMA1 6 has stayed below EMA2 6.50411523
    "#]],
    );
    assert_eq!(signals[0].subject(), "signal.3.ema_cross.binance.BTCUSDT");
    signals[0].clone().checked("signal.3.ema_cross.binance.BTCUSDT").unwrap();
}

#[test]
fn without_reaffirming_only_changes_are_said() {
    check(
        &told(&mut only("ema_cross", &format!("{FAST}\nreaffirm = \"never\"")), candles()),
        expect![[r#"
        ema_cross Long at 4 until 6 by AGG_BINANCE_3:4:0: EMA1 9 crossed above EMA2 8.83333333
        ema_cross Short at 6 until 8 by AGG_BINANCE_3:6:0: EMA1 8 crossed below EMA2 8.53703704
    "#]],
    );
}

#[test]
fn a_bar_that_was_not_seen_whole_warms_up_and_says_nothing() {
    let mut inputs = candles();
    for i in [3, 5] {
        let In::Candle(candle) = &mut inputs[i] else { unreachable!() };
        candle.complete = false;
    }
    check(
        &told(&mut only("ema_cross", FAST), inputs.clone()),
        expect![[r#"
        ema_cross Long at 5 until 7 by AGG_BINANCE_3:5:0: EMA1 10 has stayed above EMA2 9.61111111
        ema_cross Short at 7 until 9 by AGG_BINANCE_3:7:0: EMA1 7 has stayed below EMA2 7.51234568
        ema_cross Short at 8 until 10 by AGG_BINANCE_3:8:0: EMA1 6 has stayed below EMA2 6.50411523
    "#]],
    );
    let mut told_anyway = told(&mut only("ema_cross", &format!("{FAST}\ntrade_incomplete = true")), inputs);
    assert_eq!(told_anyway.iter().map(|s| s.gap_bars).collect::<Vec<_>>(), [1, 1, 2, 2, 2]);
    told_anyway.iter_mut().for_each(|s| s.gap_bars = 0);
    assert_eq!(told_anyway, told(&mut only("ema_cross", FAST), candles()));
}

#[test]
fn bars_from_before_we_listened_warm_up_and_say_nothing() {
    let mut inputs = candles();
    for input in &mut inputs[..6] {
        let In::Candle(candle) = input else { unreachable!() };
        candle.closed_by = ClosedBy::History;
    }
    check(
        &told(&mut only("ema_cross", FAST), inputs),
        expect![[r#"
        ema_cross Short at 7 until 9 by AGG_BINANCE_3:7:0: EMA1 7 has stayed below EMA2 7.51234568
        ema_cross Short at 8 until 10 by AGG_BINANCE_3:8:0: EMA1 6 has stayed below EMA2 6.50411523
    "#]],
    );
}

#[test]
fn a_signal_says_how_many_bars_over_a_gap_its_averages_look_back_on() {
    // EMA 2 forgets a bar within 7, a crossing looks at one more.
    let mut inputs = candles();
    inputs.extend((8..14).map(|i| In::Candle(candle(i, "5"))));
    for i in [0, 3, 5] {
        let In::Candle(candle) = &mut inputs[i] else { unreachable!() };
        candle.complete = false;
    }
    let gaps: Vec<_> =
        told(&mut only("ema_cross", FAST), inputs).iter().map(|s| (s.ts_ns / MINUTE, s.gap_bars)).collect();
    // Bar 0 is where we began. Bars 3 and 5 are not spoken on.
    assert_eq!(gaps, [(5, 1), (7, 2), (8, 2), (9, 2), (10, 2), (11, 2), (12, 1), (13, 1), (14, 0)]);
    let plain = &told(&mut only("ema_cross", FAST), candles())[0];
    assert!(!plain.encode().windows(8).any(|word| word == b"gap_bars"), "unchanged bytes");
}

#[test]
fn where_we_began_behind_the_venues_own_candles_is_no_gap() {
    let mut inputs = candles();
    for (i, input) in inputs.iter_mut().enumerate() {
        let In::Candle(candle) = input else { unreachable!() };
        candle.complete = i != 3;
        if i < 3 {
            candle.closed_by = ClosedBy::History;
        }
    }
    let gaps: Vec<_> = told(&mut only("ema_cross", FAST), inputs).iter().map(|s| s.gap_bars).collect();
    assert_eq!(gaps, [0, 0, 0, 0]);
}

#[test]
fn a_signal_over_indicators_says_what_the_declared_ones_say_and_the_higher_timeframe_too() {
    let mut core = only("macd_trend", "higher_timeframe = \"1h\"\nreaffirm = \"always\"");
    let mut hour = candle(0, "100");
    (hour.tf, hour.close_ns) = ("1h".into(), 60 * MINUTE);
    let with = |candle: &Candle, gaps: &[(&str, u32)]| {
        let mut values = indicators(candle, &[("macd.hist", 1.0)]);
        values.gaps = gaps.iter().map(|(name, bars)| ((*name).to_owned(), *bars)).collect();
        In::Indicators(values)
    };
    let bar = |i: i64, gaps: &[(&str, u32)]| [In::Candle(candle(i, "100")), with(&candle(i, "100"), gaps)];
    let mut inputs = vec![with(&hour, &[])];
    inputs.extend(bar(60, &[("macd.hist", 2), ("sma.sma_200", 9)]));
    inputs.extend(bar(61, &[("sma.sma_200", 9)]));
    (hour.open_ns, hour.close_ns) = (60 * MINUTE, 120 * MINUTE);
    inputs.push(with(&hour, &[("macd.hist", 1)]));
    inputs.extend(bar(120, &[]));
    let gaps: Vec<_> = told(&mut core, inputs).iter().map(|s| s.gap_bars).collect();
    assert_eq!(gaps, [2, 0, 1]);
}

#[test]
fn a_bar_far_behind_the_newest_one_says_nothing() {
    let mut newer = candle(100, "5");
    newer.symbol = "ETHUSDT".into();
    let mut inputs = candles();
    inputs.insert(4, In::Candle(newer));
    check(
        &told(&mut only("ema_cross", FAST), inputs),
        expect![[r#"
        ema_cross Long at 4 until 6 by AGG_BINANCE_3:4:0: EMA1 9 crossed above EMA2 8.83333333
    "#]],
    );
}

#[test]
fn the_same_bar_twice_and_an_older_one_are_passed_over() {
    let mut inputs = candles();
    inputs.insert(4, inputs[3].clone());
    inputs.insert(5, inputs[1].clone());
    let sides = |signals: Vec<Signal>| signals.into_iter().map(|s| (s.side, s.reason)).collect::<Vec<_>>();
    assert_eq!(sides(told(&mut only("ema_cross", FAST), inputs)), sides(told(&mut only("ema_cross", FAST), candles())));
}

#[test]
fn a_strategy_over_indicators_runs_when_both_halves_of_a_bar_are_heard_in_either_order() {
    let bar = candle(0, "100");
    let values = indicators(&bar, &[("supertrend.direction", 1.0), ("supertrend.supertrend", 98.5)]);
    let (c, v) = (In::Candle(bar.clone()), In::Indicators(values.clone()));
    let first = told(&mut only("supertrend", ""), [c.clone(), v.clone()]);
    check(
        &first,
        expect![[r#"
        supertrend Long at 1 until 3 by AGG_BINANCE_3:2:0: SuperTrend points up from 98.5, close 100
    "#]],
    );
    assert_eq!(first, told(&mut only("supertrend", ""), [v.clone(), c.clone()]));
    let other = In::Candle(candle(1, "100"));
    assert_eq!(told(&mut only("supertrend", ""), [c, other, v]), [], "halves of different bars are no bar");
}

#[test]
fn a_higher_timeframe_is_seen_from_its_close_on_and_must_agree() {
    let mut hour = candle(0, "100");
    (hour.tf, hour.close_ns) = ("1h".into(), 60 * MINUTE);
    let bar = |i: i64, hist: f64| {
        let candle = candle(i, "100");
        let values = indicators(&candle, &[("macd.hist", hist)]);
        [In::Candle(candle), In::Indicators(values)]
    };
    let higher = |hist: f64| In::Indicators(indicators(&hour, &[("macd.hist", hist)]));
    let mut core = only("macd_trend", "higher_timeframe = \"1h\"\nreaffirm = \"always\"");
    let mut inputs = bar(59, 1.0).to_vec();
    inputs.push(higher(-2.0));
    inputs.extend(bar(60, 1.5));
    inputs.extend(bar(61, -0.5));
    check(
        &told(&mut core, inputs),
        expect![[r#"
        macd_trend Flat at 61 until 63 by AGG_BINANCE_3:5:0: MACD histogram 1.5 stands for long, dead zone 0; the higher timeframe's -2 disagrees
        macd_trend Short at 62 until 64 by AGG_BINANCE_3:7:0: MACD histogram -0.5 stands for short, dead zone 0; the higher timeframe's -2 agrees
    "#]],
    );
}

#[test]
fn an_instrument_that_no_rule_watches_is_passed_over() {
    let mut core = core("[strategy.rules.ema_cross]\nsymbols = [\"ETH*\"]\nparams = { fast = 1, slow = 2 }\n");
    assert_eq!(told(&mut core, candles()), []);
}

#[test]
fn one_instrument_too_many_halts_with_the_bound() {
    let mut core = core("[strategy]\nsymbols_max = 1\n");
    let mut other = candle(0, "1");
    other.symbol = "ETHUSDT".into();
    let mut out = Vec::new();
    core.handle(&Place::new("AGG", 1), In::Candle(candle(0, "1")), &mut out).unwrap();
    let fault = core.handle(&Place::new("AGG", 2), In::Candle(other), &mut out).unwrap_err();
    assert_eq!(fault.0, "ETHUSDT is instrument 2 of this task; symbols_max is 1");
}

#[test]
fn a_rule_that_was_configured_otherwise_starts_anew_after_a_restore() {
    let mut before = only("ema_cross", FAST);
    told(&mut before, candles());
    let mut same = only("ema_cross", FAST);
    same.restore(&before.save()).unwrap();
    assert_eq!(same.save(), before.save());
    let mut other = only("ema_cross", "params = { fast = 1, slow = 3 }");
    other.restore(&before.save()).unwrap();
    let next = || [In::Candle(candle(8, "5")), In::Candle(candle(9, "4"))];
    assert_eq!(told(&mut same, next()).len(), 2);
    assert_eq!(told(&mut other, next()), []);
    assert!(same.restore(b"no state").is_err());
}

#[test]
fn what_it_does_not_listen_to_is_passed_over_and_what_it_cannot_read_is_an_error() {
    assert_eq!(In::hear("late.3.binance.BTCUSDT", b"").unwrap(), None);
    assert!(In::hear("candle.3.binance.1m.BTCUSDT", b"\xc1").is_err());
    let bar = candle(0, "1");
    assert_eq!(In::hear(&bar.subject(), &bar.encode()).unwrap(), Some(In::Candle(bar)));
}

/// A walk of candles and indicators over two symbols and two timeframes, with gaps, repeats and lost halves.
fn facts() -> impl Strategy<Value = Vec<In>> {
    let step = (0u8..2, any::<bool>(), 1i64..4, -3i64..4, 0u8..10, -2.0f64..2.0);
    proptest::collection::vec(step, 1..120).prop_map(|steps| {
        let mut at = [[0i64; 2]; 2];
        let mut price = 1000i64;
        let mut facts = Vec::new();
        for (symbol, hour, skip, change, fate, value) in steps {
            price = (price + change).max(10);
            let i = &mut at[usize::from(symbol)][usize::from(hour)];
            *i += skip - 1;
            let mut bar = candle(*i, &price.to_string());
            if hour {
                (bar.tf, bar.open_ns, bar.close_ns) = ("1h".into(), *i * 60 * MINUTE, (*i + 1) * 60 * MINUTE);
            }
            bar.symbol = ["BTCUSDT", "ETHUSDT"][usize::from(symbol)].into();
            bar.complete = fate != 0;
            let close = bar.close.to_f64();
            let values = indicators(
                &bar,
                &[
                    ("macd.hist", value),
                    ("bbands.upper", close - value),
                    ("bbands.middle", close - 2.0 * value),
                    ("bbands.lower", close - 3.0 * value.abs() - value),
                    ("supertrend.direction", value.signum()),
                    ("supertrend.supertrend", close),
                ],
            );
            let (c, v) = (In::Candle(bar), In::Indicators(values));
            match fate {
                1 => facts.push(c),
                2 => facts.push(v),
                3 => facts.extend([v, c]),
                _ => facts.extend([c, v]),
            }
        }
        facts
    })
}

const ALL: &str = "[strategy.rule]\nvalid_bars = 3\n\
    [strategy.rules.ema_cross]\nparams = { fast = 2, slow = 3 }\n\
    [strategy.rules.rsi_mean_reversion]\nparams = { period = 2 }\nreaffirm = \"always\"\n\
    [strategy.rules.macd_trend]\nhigher_timeframe = \"1h\"\n";

proptest! {
    #[test]
    fn saving_and_restoring_between_any_two_facts_changes_nothing(facts in facts(), cut in any::<prop::sample::Index>()) {
        let mut whole = core(ALL);
        let mut expected = Vec::new();
        let mut got = Vec::new();
        for (i, fact) in facts.iter().enumerate() {
            whole.handle(&Place::new("AGG", i as u64), fact.clone(), &mut expected).unwrap();
        }
        let cut = cut.index(facts.len());
        let mut first = core(ALL);
        for (i, fact) in facts[..cut].iter().enumerate() {
            first.handle(&Place::new("AGG", i as u64), fact.clone(), &mut got).unwrap();
        }
        let mut second = core(ALL);
        second.restore(&first.save()).unwrap();
        prop_assert_eq!(second.save(), first.save());
        for (i, fact) in facts.iter().enumerate().skip(cut) {
            second.handle(&Place::new("AGG", i as u64), fact.clone(), &mut got).unwrap();
        }
        prop_assert_eq!(second.save(), whole.save());
        let bytes = |out: &[Out]| out.iter().map(Speak::payload).collect::<Vec<_>>();
        prop_assert_eq!(bytes(&got), bytes(&expected));
    }

    #[test]
    fn what_a_strategy_says_never_depends_on_what_the_other_symbol_did(facts in facts()) {
        // Staleness does look at the newest bar of any instrument, so it is out of the way here.
        let text = format!("{ALL}[strategy.rules.supertrend]\n[strategy.rules.bollinger_breakout]\n")
            .replace("valid_bars = 3", "stale_bars_max = 100000");
        let of = |facts: &[In]| {
            let mut core = core(&text);
            let mut out = Vec::new();
            for fact in facts {
                core.handle(&Place::new("AGG", 1), fact.clone(), &mut out).unwrap();
            }
            out.into_iter().map(|Out::Signal(s)| s).filter(|s| s.symbol == "BTCUSDT").collect::<Vec<_>>()
        };
        let alone: Vec<In> = facts.iter().filter(|fact| match fact {
            In::Candle(c) => c.symbol == "BTCUSDT",
            In::Indicators(v) => v.symbol == "BTCUSDT",
        }).cloned().collect();
        prop_assert_eq!(of(&facts), of(&alone));
    }
}

/// The targets of a golden backtest beside those of the strategy on the same candles.
fn golden(folder: &str, kind: &str) {
    let Some(root) = schemas::fixtures::root() else { return };
    let file = root.join("goldens/backtests").join(folder).join("signals.csv.gz");
    let mut text = String::new();
    let bytes = std::fs::File::open(&file).unwrap();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(bytes), &mut text).unwrap();
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap().split(',').collect();
    let column = |name: &str| head.iter().position(|h| *h == name).unwrap();
    let (at, close, target) = (column("open_ts_ms"), column("close"), column("target_after_close"));

    let mut core = only(kind, "reaffirm = \"never\"");
    let mut rows = 0;
    let mut changes = 0;
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let mut bar = candle(0, cells[close]);
        bar.open_ns = cells[at].parse::<i64>().unwrap() * 1_000_000;
        bar.close_ns = bar.open_ns + MINUTE;
        let mut out = Vec::new();
        core.on_candle(&bar, &Cause::default(), &mut out).unwrap();
        let said = match out.first().map(|s| s.side) {
            None => "",
            Some(Stance::Long) => "1",
            Some(Stance::Flat) => "0",
            Some(Stance::Short) => "-1",
        };
        let wanted = cells[target].trim_end_matches(".0");
        assert_eq!(said, wanted, "{folder} {line}");
        rows += 1;
        changes += usize::from(!said.is_empty());
    }
    assert!(100 < rows && 10 < changes, "{folder}: {rows} rows, {changes} changes");
    eprintln!("{folder}: {rows} rows, {changes} changes of side, all equal");
}

#[test]
fn ema_cross_turns_where_the_golden_backtests_turn() {
    golden("btc_spot_5m__ema_cross_9_21", "ema_cross");
    golden("btc_perp_1m__ema_cross_9_21", "ema_cross");
}

#[test]
fn rsi_mean_reversion_turns_where_the_golden_backtests_turn() {
    golden("btc_spot_5m__rsi14_mean_reversion", "rsi_mean_reversion");
    golden("btc_perp_1m__rsi14_mean_reversion", "rsi_mean_reversion");
}

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use schemas::config::UserFile;
use schemas::raw::{PACK_MAX, Trade};
use schemas::{Decimal, Side};

use super::*;

const VENUE: &str = "binance";

fn core(toml: &str) -> AggregateCore {
    let quiet = "indicator_timeframes = []\npreview_timeframes = []\n";
    let text = format!(
        "[aggregate]\n{}{toml}",
        if toml.contains("preview") || toml.contains("indicator") { "" } else { quiet }
    );
    AggregateCore::new(&Config::load(Some(&UserFile { name: "test.toml".into(), text })).unwrap()).unwrap()
}

fn trades(symbol: &str, scale: Scale, items: &[Trade]) -> Trades {
    let mut pack = Trades::new(1, VENUE, symbol, scale);
    items.iter().for_each(|t| pack.push(*t));
    pack
}

/// `t SYMBOL MS PRICE SIZE[b|s] ID`, `clock MS`, `gap SYMBOL FROM TO|-`, `past SYMBOL TF OPEN_MS PRICE`, parted by `|`.
fn input(text: &str) -> In {
    let words: Vec<&str> = text.split_whitespace().collect();
    let ms = |w: &str| Nanos::from_ms(w.parse().unwrap());
    match words[0] {
        "t" => {
            let (size, side) = words[4].split_at(words[4].len() - 1);
            let (price, size) = (words[3].parse::<Decimal>().unwrap(), size.parse::<Decimal>().unwrap());
            let scale = Scale::default().widened(price, size);
            let trade = Trade {
                ts: ms(words[2]),
                recv: ms(words[2]),
                id: words[5].parse().unwrap(),
                price: scale.price_m(price.into()).unwrap(),
                size: scale.qty_m(size.into()).unwrap(),
                side: if side == "b" { Side::Buy } else { Side::Sell },
            };
            In::Trades(trades(words[1], scale, &[trade]))
        }
        "clock" => In::Clock(clock(ms(words[1]).0)),
        "gap" => In::Gap(Gap {
            v: Version,
            venue: VENUE.into(),
            symbol: words[1].into(),
            p: 1,
            channel: "trade".into(),
            from_ns: ms(words[2]).0,
            to_ns: (words[3] != "-").then(|| ms(words[3]).0),
            reason: "test".into(),
        }),
        "past" => {
            let close: Decimal = words[4].parse().unwrap();
            let mut bars = VenueBars::new(1, VENUE, words[1], Scale::default());
            bars.items.push(VenueBar {
                ts_ns: ms(words[3]).0,
                recv_ns: 0,
                interval: words[2].into(),
                open_ts_ns: ms(words[3]).0,
                open: schemas::Price::new(close),
                high: schemas::Price::new(close),
                low: schemas::Price::new(close),
                close: schemas::Price::new(close),
                volume: Qty::new(7.into()),
                closed: true,
                quote_volume: None,
                trades: Some(3),
                origin: schemas::raw::Origin::Backfill,
            });
            In::Bars(bars)
        }
        other => panic!("{other}"),
    }
}

fn clock(watermark_ns: i64) -> Clock {
    Clock { v: Version, venue: VENUE.into(), p: 1, watermark_ns, wall_ns: watermark_ns }
}

fn show(out: &Out) -> String {
    match out {
        Out::Candle(c) | Out::Preview(c) => {
            let head = if out.stored() { "" } else { "preview " };
            let flags =
                format!("{}{}", if c.complete { "" } else { " incomplete" }, if c.filled { " filled" } else { "" });
            let by = format!("{:?}", c.closed_by).to_lowercase();
            format!(
                "{head}{} {} {}..{} {} {} {} {} v{} b{} q{} n{} {by}{flags}",
                c.symbol,
                c.tf,
                c.open_ns / 1_000_000,
                c.close_ns / 1_000_000,
                c.open,
                c.high,
                c.low,
                c.close,
                c.volume,
                c.buy_volume,
                c.quote_volume,
                c.trades,
            )
        }
        Out::Indicators(i) => {
            let over_gaps = i.gaps.iter().map(|(name, bars)| format!(" {name} over {bars}")).collect::<String>();
            format!("{} {} indicators {} complete={}{over_gaps}", i.symbol, i.tf, i.values.len(), i.complete)
        }
        Out::Late(l) => format!("{} late {} at {} {}x{}", l.symbol, l.id, l.ts_ns / 1_000_000, l.price, l.size),
    }
}

fn check(toml: &str, script: &str, want: Expect) {
    let mut core = core(toml);
    let mut text = String::new();
    for (n, item) in script.split('|').enumerate() {
        let mut out = Vec::new();
        core.handle(&Place::new("RAW", n as u64 + 1), input(item), &mut out).unwrap();
        for fact in &out {
            writeln!(text, "{}", show(fact)).unwrap();
        }
    }
    want.assert_eq(&text);
}

const ONE: &str = "timeframes = [\"1s\"]\n";

#[test]
fn a_trade_of_a_later_bucket_closes_the_candle_and_the_first_is_incomplete() {
    check(
        ONE,
        "t A 1000 10 1b 1 | t A 1500 12 2s 2 | t A 1999 11 1b 3 | t A 2000 9 1b 4 | t A 5000 9 1b 5",
        expect![[r#"
            A 1s 1000..2000 10 12 10 11 v4 b2 q45 n3 trade incomplete
            A 1s 2000..3000 9 9 9 9 v1 b1 q9 n1 trade
        "#]],
    );
}

#[test]
fn the_clock_closes_a_candle_once_the_watermark_is_past_its_end_and_the_grace() {
    check(
        ONE,
        "t A 1000 10 1b 1 | clock 2499 | clock 2500 | clock 9000 | t A 8700 11 1b 2 | clock 9500",
        expect![[r#"
            A 1s 1000..2000 10 10 10 10 v1 b1 q10 n1 clock incomplete
            A 1s 8000..9000 11 11 11 11 v1 b1 q11 n1 clock
        "#]],
    );
}

#[test]
fn a_symbol_begins_with_the_venues_own_candles_in_order_and_only_before_its_first_trade() {
    check(
        "timeframes = [\"1s\", \"1m\"]\nindicator_timeframes = [\"1m\"]\npreview_timeframes = []\n",
        "past A 1m 60000 10 | past A 1m 0 9 | past A 1m 60000 10 | past A 1m 120000 11 | past A 5m 0 10 \
         | past A 1m 180500 10 | t A 190000 12 1b 1 | past A 1m 180000 12 | t A 191000 12 1b 2",
        expect![[r#"
            A 1m 60000..120000 10 10 10 10 v7 b0 q0 n3 history
            A 1m indicators 4 complete=true
            A 1m 120000..180000 11 11 11 11 v7 b0 q0 n3 history
            A 1m indicators 7 complete=true
            A 1s 190000..191000 12 12 12 12 v1 b1 q12 n1 trade incomplete
        "#]],
    );
}

#[test]
fn where_we_began_behind_the_venues_own_candles_is_no_gap() {
    check(
        "timeframes = [\"1m\"]\nindicator_timeframes = [\"1m\"]\npreview_timeframes = []\nindicators = [\"obv.obv\"]\n",
        "past A 1m 60000 10 | past A 1m 120000 11 | t A 190000 12 1b 1 | t A 240000 12 1b 2 | t A 300000 13 1b 3 \
         | gap A 310000 320000 | t A 360000 13 1b 4",
        expect![[r#"
            A 1m 60000..120000 10 10 10 10 v7 b0 q0 n3 history
            A 1m indicators 1 complete=true
            A 1m 120000..180000 11 11 11 11 v7 b0 q0 n3 history
            A 1m indicators 1 complete=true
            A 1m 180000..240000 12 12 12 12 v1 b1 q12 n1 trade incomplete
            A 1m indicators 1 complete=false
            A 1m 240000..300000 12 12 12 12 v1 b1 q12 n1 trade
            A 1m indicators 1 complete=true
            A 1m 300000..360000 13 13 13 13 v1 b1 q13 n1 trade incomplete
            A 1m indicators 1 complete=false obv.obv over 1
        "#]],
    );
}

#[test]
fn what_is_known_of_history_outlives_a_restart() {
    let config = "timeframes = [\"1m\"]\n";
    let mut before = core(config);
    let mut out = Vec::new();
    before.handle(&Place::new("RAW", 1), input("past A 1m 60000 10"), &mut out).unwrap();
    let mut after = core(config);
    after.restore(&before.save()).unwrap();
    out.clear();
    after.handle(&Place::new("RAW", 2), input("past A 1m 60000 10"), &mut out).unwrap();
    assert_eq!(out, []);
    after.handle(&Place::new("RAW", 3), input("past A 1m 120000 10"), &mut out).unwrap();
    assert_eq!(out.len(), 1);
}

#[test]
fn a_late_trade_is_told_and_changes_no_candle() {
    check(
        ONE,
        "t A 1000 10 1b 1 | t A 2000 11 1b 2 | t A 1999 99 5s 3 | t A 3000 12 1b 4",
        expect![[r#"
            A 1s 1000..2000 10 10 10 10 v1 b1 q10 n1 trade incomplete
            A late 3 at 1999 99x5
            A 1s 2000..3000 11 11 11 11 v1 b1 q11 n1 trade
        "#]],
    );
}

#[test]
fn a_trade_behind_the_clock_is_late_even_where_no_candle_was_made() {
    check(
        ONE,
        "t A 1000 10 1b 1 | clock 9500 | t A 7999 11 1b 2 | t A 9000 11 1b 3 | clock 10500",
        expect![[r#"
            A 1s 1000..2000 10 10 10 10 v1 b1 q10 n1 clock incomplete
            A late 2 at 7999 11x1
            A 1s 9000..10000 11 11 11 11 v1 b1 q11 n1 clock
        "#]],
    );
}

#[test]
fn an_out_of_order_trade_of_the_open_bucket_is_folded_in_source_order() {
    check(
        ONE,
        "t A 1500 10 1b 1 | t A 1100 12 1b 2 | t A 2000 9 1b 3",
        expect![[r#"
            A 1s 1000..2000 10 12 10 12 v2 b2 q22 n2 trade incomplete
        "#]],
    );
}

#[test]
fn trades_at_or_below_the_highest_id_are_dropped() {
    check(
        ONE,
        "t A 1000 10 1b 5 | t A 1001 10 1b 5 | t A 1500 99 1b 4 | t A 7000 99 1b 3 | t A 2000 9 1b 6",
        expect![[r#"
            A 1s 1000..2000 10 10 10 10 v1 b1 q10 n1 trade incomplete
        "#]],
    );
}

#[test]
fn trades_without_ids_are_never_duplicates() {
    check(
        ONE,
        "t A 1000 10 1b 0 | t A 1000 10 1b 0 | t A 2000 9 1b 0",
        expect![[r#"
            A 1s 1000..2000 10 10 10 10 v2 b2 q20 n2 trade incomplete
        "#]],
    );
}

#[test]
fn higher_timeframes_are_rolled_up_and_the_smaller_closes_first() {
    check(
        "timeframes = [\"5s\", \"1s\", \"10s\"]\n",
        "t A 9000 10 1b 1 | t A 10000 12 2s 2 | t A 14000 8 1b 3 | t A 20000 9 1b 4",
        expect![[r#"
            A 1s 9000..10000 10 10 10 10 v1 b1 q10 n1 trade incomplete
            A 5s 5000..10000 10 10 10 10 v1 b1 q10 n1 trade incomplete
            A 10s 0..10000 10 10 10 10 v1 b1 q10 n1 trade incomplete
            A 1s 10000..11000 12 12 12 12 v2 b0 q24 n1 trade
            A 1s 14000..15000 8 8 8 8 v1 b1 q8 n1 trade
            A 5s 10000..15000 12 12 8 8 v3 b1 q32 n2 trade
            A 10s 10000..20000 12 12 8 8 v3 b1 q32 n2 trade
        "#]],
    );
}

#[test]
fn one_clock_closes_by_end_then_timeframe_then_symbol() {
    check(
        "timeframes = [\"1s\", \"2s\"]\n",
        "t B 1000 10 1b 1 | t A 1000 20 1b 1 | t C 300 5 1b 1 | clock 2500",
        expect![[r#"
            C 1s 0..1000 5 5 5 5 v1 b1 q5 n1 clock incomplete
            A 1s 1000..2000 20 20 20 20 v1 b1 q20 n1 clock incomplete
            B 1s 1000..2000 10 10 10 10 v1 b1 q10 n1 clock incomplete
            A 2s 0..2000 20 20 20 20 v1 b1 q20 n1 clock incomplete
            B 2s 0..2000 10 10 10 10 v1 b1 q10 n1 clock incomplete
            C 2s 0..2000 5 5 5 5 v1 b1 q5 n1 clock incomplete
        "#]],
    );
}

#[test]
fn empty_intervals_are_filled_only_where_configured() {
    check(
        "timeframes = [\"1s\", \"2s\"]\nfill = [\"2s\"]\n",
        "t A 1000 10 1b 1 | clock 6500 | t A 8000 12 1b 2",
        expect![[r#"
            A 1s 1000..2000 10 10 10 10 v1 b1 q10 n1 clock incomplete
            A 2s 0..2000 10 10 10 10 v1 b1 q10 n1 clock incomplete
            A 2s 2000..4000 10 10 10 10 v0 b0 q0 n0 clock filled
            A 2s 4000..6000 10 10 10 10 v0 b0 q0 n0 clock filled
            A 2s 6000..8000 10 10 10 10 v0 b0 q0 n0 trade filled
        "#]],
    );
}

#[test]
fn a_silence_longer_than_the_bound_is_not_filled() {
    check(
        "timeframes = [\"1s\"]\nfill = [\"1s\"]\nfill_run_max = 2\n",
        "t A 1000 10 1b 1 | t A 4000 11 1b 2 | t A 8000 12 1b 3",
        expect![[r#"
            A 1s 1000..2000 10 10 10 10 v1 b1 q10 n1 trade incomplete
            A 1s 2000..3000 10 10 10 10 v0 b0 q0 n0 trade filled
            A 1s 3000..4000 10 10 10 10 v0 b0 q0 n0 trade filled
            A 1s 4000..5000 11 11 11 11 v1 b1 q11 n1 trade
        "#]],
    );
}

#[test]
fn every_candle_over_a_gap_is_incomplete() {
    check(
        "timeframes = [\"1s\", \"5s\"]\n",
        "t A 4000 10 1b 1 | t A 5000 10 1b 2 | gap A 6100 6300 | t A 6400 10 1b 3 | t A 7000 10 1b 4 | t A 10000 9 1b 5",
        expect![[r#"
            A 1s 4000..5000 10 10 10 10 v1 b1 q10 n1 trade incomplete
            A 5s 0..5000 10 10 10 10 v1 b1 q10 n1 trade incomplete
            A 1s 5000..6000 10 10 10 10 v1 b1 q10 n1 trade
            A 1s 6000..7000 10 10 10 10 v1 b1 q10 n1 trade incomplete
            A 1s 7000..8000 10 10 10 10 v1 b1 q10 n1 trade
            A 5s 5000..10000 10 10 10 10 v3 b3 q30 n3 trade incomplete
        "#]],
    );
}

#[test]
fn a_gap_that_ended_before_the_first_trade_says_since_when_we_listen() {
    check(
        ONE,
        "gap A 0 1000 | t A 1200 10 1b 1 | t A 2000 10 1b 2",
        expect![[r#"
            A 1s 1000..2000 10 10 10 10 v1 b1 q10 n1 trade
        "#]],
    );
}

#[test]
fn forming_candles_are_shown_at_the_clock_when_a_trade_came() {
    check(
        "timeframes = [\"1s\", \"1m\"]\npreview_timeframes = [\"1m\"]\nindicator_timeframes = []\n",
        "t A 61000 10 1b 1 | t A 62000 12 1b 2 | clock 62000 | clock 62100 | clock 63600",
        expect![[r#"
            A 1s 61000..62000 10 10 10 10 v1 b1 q10 n1 trade incomplete
            preview A 1m 60000..120000 10 12 10 12 v2 b2 q22 n2 open incomplete
            A 1s 62000..63000 12 12 12 12 v1 b1 q12 n1 clock
        "#]],
    );
}

#[test]
fn indicators_follow_their_candle_and_carry_its_completeness() {
    check(
        "timeframes = [\"1s\", \"1m\"]\npreview_timeframes = []\nindicator_timeframes = [\"1m\"]\nindicators = [\"obv.obv\"]\n",
        "t A 61000 10 1b 1 | t A 120000 12 1b 2 | t A 180000 12 1b 3",
        expect![[r#"
            A 1s 61000..62000 10 10 10 10 v1 b1 q10 n1 trade incomplete
            A 1m 60000..120000 10 10 10 10 v1 b1 q10 n1 trade incomplete
            A 1m indicators 1 complete=false
            A 1s 120000..121000 12 12 12 12 v1 b1 q12 n1 trade
            A 1m 120000..180000 12 12 12 12 v1 b1 q12 n1 trade
            A 1m indicators 1 complete=true
        "#]],
    );
}

#[test]
fn an_indicator_says_how_many_of_its_bars_are_over_a_gap_until_the_last_has_left_its_window() {
    // SMA 20 and the true range, which looks back on two bars; a trade a second, and a gap in the 22nd candle.
    let seconds = (1..=44).map(|s| format!("t A {}000 10 1b {s}", s));
    let mut steps: Vec<String> = seconds.collect();
    steps.insert(22, "gap A 22300 22500".to_owned());
    let text = "timeframes = [\"1s\"]\npreview_timeframes = []\nindicator_timeframes = [\"1s\"]\n\
                indicators = [\"sma.sma_20\", \"atr.tr\"]\n";
    let (mut core, mut out) = (core(text), Vec::new());
    for (i, step) in steps.iter().enumerate() {
        core.handle(&Place::new("RAW", i as u64 + 1), input(step), &mut out).unwrap();
        // What is remembered of a gap is in the checkpoint.
        let state = core.save();
        core = self::core(text);
        core.restore(&state).unwrap();
    }
    let said = out.iter().filter_map(|out| if let Out::Indicators(i) = out { Some(i) } else { None });
    let over: Vec<_> = said.map(|i| (i.open_ns / 1_000_000_000, i.complete, i.gaps.clone())).collect();
    let gaps = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 1)).collect::<BTreeMap<_, _>>();
    for (open_s, complete, over) in over {
        let expected = match open_s {
            22 | 23 => gaps(&["sma.sma_20", "atr.tr"]),
            24..=41 => gaps(&["sma.sma_20"]),
            _ => gaps(&[]),
        };
        assert_eq!(over, expected, "{open_s}");
        assert_eq!(complete, open_s != 22 && open_s != 1, "{open_s}");
    }
}

#[test]
fn indicators_over_no_gap_keep_their_bytes_and_old_ones_are_read() {
    const ALL: &str = "timeframes = [\"1s\"]\npreview_timeframes = []\nindicator_timeframes = [\"1s\"]\n";
    let (mut core, mut out) = (core(ALL), Vec::new());
    for (seq, step) in [(1, "t A 1000 10 1b 1"), (2, "t A 2000 11 1b 2"), (3, "t A 3000 11 1b 3")] {
        core.handle(&Place::new("RAW", seq), input(step), &mut out).unwrap();
    }
    let said = out.into_iter().filter_map(|out| if let Out::Indicators(i) = out { Some(i) } else { None });
    for fact in said {
        let bytes = fact.encode();
        assert!(!bytes.windows(4).any(|word| word == b"gaps"), "{fact:?}");
        assert_eq!(Indicators::decode(&bytes).unwrap(), fact);
    }
}

#[test]
fn bars_close_with_the_trade_that_reaches_their_limit() {
    check(
        "timeframes = [\"1m\"]\n[[aggregate.bars]]\nbar = \"tick-2\"\nvenue = \"binance\"\n\
         [[aggregate.bars]]\nbar = \"volume-2.5\"\nvenue = \"binance\"\n\
         [[aggregate.bars]]\nbar = \"notional-50\"\nvenue = \"binance\"\nsymbols = [\"B\"]\n",
        "t A 1000 10 1b 1 | t A 1500 12 1s 2 | t A 1600 12 1s 2 | t A 1700 11 0.5s 3 | t B 1000 25.5 2b 1",
        expect![[r#"
            A tick-2 1000..1500 10 12 10 12 v2 b1 q22 n2 count
            A volume-2.5 1000..1700 10 12 10 11 v2.5 b1 q27.5 n3 count
            B notional-50 1000..1000 25.5 25.5 25.5 25.5 v2 b2 q51 n1 count
        "#]],
    );
}

#[test]
fn one_instrument_too_many_stops_the_task_and_names_the_bound() {
    let mut core = core("symbols_max = 1\n");
    let (place, mut out) = (Place::new("RAW", 1), Vec::new());
    core.handle(&place, input("t A 1000 10 1b 1"), &mut out).unwrap();
    let fault = core.handle(&place, input("t B 1000 10 1b 1"), &mut out).unwrap_err();
    assert!(fault.0.contains("aggregate.symbols_max = 1"), "{fault}");
}

#[test]
fn a_mantissa_that_cannot_be_widened_stops_the_task() {
    let mut core = core(ONE);
    let (place, mut out) = (Place::new("RAW", 1), Vec::new());
    core.handle(&place, input("t A 1000 0.00000001 1b 1"), &mut out).unwrap();
    let huge = In::Trades(trades("A", Scale::default(), &[trade(1001, 2, i64::MAX / 2, 1, true)]));
    assert!(core.handle(&place, huge, &mut out).unwrap_err().0.contains("63 bits"));
}

#[test]
fn a_timeframe_added_at_a_restart_begins_incomplete_and_changes_no_other() {
    let first = ["t A 61000 10 1b 1", "t A 62000 12 1b 2"];
    let then = ["t A 90000 11 1b 3", "t A 120000 9 1b 4", "t A 180000 9 1b 5"];
    let run = |toml: &str, state: Option<&[u8]>, script: &[&str]| {
        let mut core = core(toml);
        if let Some(state) = state {
            core.restore(state).unwrap();
        }
        let mut out = Vec::new();
        for (n, item) in script.iter().enumerate() {
            core.handle(&Place::new("RAW", n as u64 + 1), input(item), &mut out).unwrap();
        }
        (core.save(), out.iter().map(show).collect::<Vec<_>>())
    };
    let (state, _) = run("timeframes = [\"1s\", \"1m\"]\n", None, &first);
    let of = |lines: &[String], tf: &str| {
        lines.iter().filter(|l| l.split(' ').nth(1) == Some(tf)).cloned().collect::<Vec<_>>()
    };
    let (_, same) = run("timeframes = [\"1s\", \"1m\"]\n", Some(&state), &then);
    let (_, more) = run("timeframes = [\"1s\", \"30s\", \"1m\"]\n", Some(&state), &then);
    let (_, coarser) = run("timeframes = [\"1m\"]\n", Some(&state), &then);
    assert_eq!(of(&same, "1m"), of(&more, "1m"));
    assert_eq!(of(&same, "1m"), of(&coarser, "1m"));
    expect![[r#"
        A 30s 60000..90000 12 12 12 12 v1 b1 q12 n1 trade incomplete
        A 30s 90000..120000 11 11 11 11 v1 b1 q11 n1 trade
        A 30s 120000..150000 9 9 9 9 v1 b1 q9 n1 trade
    "#]]
    .assert_eq(&(of(&more, "30s").join("\n") + "\n"));
}

fn trade(ms: i64, id: u64, price: i64, size: i64, buy: bool) -> Trade {
    let side = if buy { Side::Buy } else { Side::Sell };
    Trade { ts: Nanos::from_ms(ms), recv: Nanos::from_ms(ms), id, price: PriceM(price), size: QtyM(size), side }
}

/// A day in the life of two symbols: trades that jump, fall back and repeat, clocks and gaps.
#[derive(Clone, Debug)]
enum Step {
    Trade { symbol: bool, by_ms: i64, id_by: u64, price: i64, size: i64, buy: bool },
    Clock { behind_ms: i64 },
    Gap { symbol: bool, from_by: i64, len_ms: Option<i64> },
}

fn step() -> impl Strategy<Value = Step> {
    let by = prop_oneof![6 => 0i64..400, 2 => -900i64..0, 2 => 400i64..4_000, 1 => 50_000i64..100_000];
    prop_oneof![
        12 => (any::<bool>(), by, 0u64..4, 1i64..500, 1i64..90, any::<bool>()).prop_map(
            |(symbol, by_ms, id_by, price, size, buy)| Step::Trade { symbol, by_ms, id_by, price, size, buy }
        ),
        2 => (0i64..800).prop_map(|behind_ms| Step::Clock { behind_ms }),
        1 => (any::<bool>(), -2_000i64..2_000, prop::option::of(0i64..3_000)).prop_map(
            |(symbol, from_by, len_ms)| Step::Gap { symbol, from_by, len_ms }
        ),
    ]
}

const SCALE: Scale = Scale { price: 1, qty: 2 };

fn inputs(steps: &[Step]) -> Vec<In> {
    let (mut now, mut ids) = (1_000_000i64, [1u64, 1]);
    let name = |symbol: bool| if symbol { "A" } else { "B" };
    let mut all = Vec::new();
    for step in steps {
        all.push(match step.clone() {
            Step::Trade { symbol, by_ms, id_by, price, size, buy } => {
                now = (now + by_ms).max(0);
                ids[symbol as usize] += id_by;
                In::Trades(trades(name(symbol), SCALE, &[trade(now, ids[symbol as usize], price, size, buy)]))
            }
            Step::Clock { behind_ms } => In::Clock(clock(Nanos::from_ms(now - behind_ms).0)),
            Step::Gap { symbol, from_by, len_ms } => {
                let from = (now + from_by).max(0);
                let to = len_ms.map_or("-".to_owned(), |len| (from + len).to_string());
                input(&format!("gap {} {from} {to}", name(symbol)))
            }
        });
    }
    all
}

/// Neighbouring trades of one symbol joined to packs of at most `max`.
fn packed(inputs: &[In], max: usize) -> Vec<In> {
    let mut packs: Vec<In> = Vec::new();
    for one in inputs {
        match (packs.last_mut(), one) {
            (Some(In::Trades(pack)), In::Trades(more)) if pack.symbol == more.symbol && pack.len() < max => {
                more.iter().for_each(|t| pack.push(t));
            }
            _ => packs.push(one.clone()),
        }
    }
    packs
}

const RICH: &str = "timeframes = [\"1s\", \"3s\", \"1m\"]\nfill = [\"3s\"]\npreview_timeframes = [\"1m\"]\n\
    indicator_timeframes = [\"3s\"]\nindicators = [\"ema.ema_9\", \"obv.obv\"]\n\
    [[aggregate.bars]]\nbar = \"tick-3\"\nvenue = \"binance\"\n[[aggregate.bars]]\nbar = \"volume-1\"\nvenue = \"binance\"\n";

fn run(core: &mut AggregateCore, inputs: &[In]) -> Vec<Out> {
    let mut out = Vec::new();
    for (n, one) in inputs.iter().enumerate() {
        core.handle(&Place::new("RAW", n as u64 + 1), one.clone(), &mut out).unwrap();
    }
    out
}

fn without_causes(mut facts: Vec<Out>) -> Vec<Out> {
    for fact in &mut facts {
        match fact {
            Out::Candle(c) | Out::Preview(c) => c.cause = Default::default(),
            Out::Indicators(i) => i.cause = Default::default(),
            Out::Late(l) => l.cause = Default::default(),
        }
    }
    facts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_save_and_restore_at_any_point_changes_nothing(steps in prop::collection::vec(step(), 1..120), at in any::<prop::sample::Index>()) {
        let inputs = inputs(&steps);
        let at = at.index(inputs.len());
        let mut whole = core(RICH);
        let want = run(&mut whole, &inputs);
        let mut first = core(RICH);
        let (mut out, mut second) = (Vec::new(), core(RICH));
        for (n, one) in inputs.iter().enumerate() {
            if n == at {
                second.restore(&first.save()).unwrap();
                first = core(RICH);
                first.restore(&second.save()).unwrap();
            }
            first.handle(&Place::new("RAW", n as u64 + 1), one.clone(), &mut out).unwrap();
        }
        prop_assert_eq!(&out, &want);
        prop_assert_eq!(first.save(), whole.save());
    }

    #[test]
    fn packs_split_differently_give_the_same_facts(steps in prop::collection::vec(step(), 1..120), max in 2usize..9) {
        let inputs = inputs(&steps);
        let (mut one, mut many) = (core(RICH), core(RICH));
        let want = without_causes(run(&mut one, &inputs));
        let found = without_causes(run(&mut many, &packed(&inputs, max.min(PACK_MAX))));
        prop_assert_eq!(found, want);
        prop_assert_eq!(many.save(), one.save());
    }

    #[test]
    fn a_wider_scale_in_the_middle_changes_no_value(steps in prop::collection::vec(step(), 1..80), wide in prop::collection::vec((0u8..4, 0u8..4), 80)) {
        let inputs = inputs(&steps);
        let widened: Vec<In> = inputs.iter().zip(&wide).map(|(one, &(p, q))| match one {
            In::Trades(t) => {
                let scale = Scale { price: SCALE.price + p, qty: SCALE.qty + q };
                let up = |t: Trade| Trade {
                    price: PriceM(t.price.0 * 10i64.pow(p as u32)), size: QtyM(t.size.0 * 10i64.pow(q as u32)), ..t
                };
                In::Trades(trades(&t.symbol, scale, &t.iter().map(up).collect::<Vec<_>>()))
            }
            other => other.clone(),
        }).collect();
        let want = run(&mut core(RICH), &inputs);
        prop_assert_eq!(run(&mut core(RICH), &widened), want);
    }

    /// Against a second, slow opinion: group what is neither late nor double by bucket, in decimals.
    #[test]
    fn candles_equal_a_grouping_of_the_trades_in_decimals(steps in prop::collection::vec(step(), 1..150)) {
        let inputs: Vec<In> = inputs(&steps).into_iter().filter(|i| matches!(i, In::Trades(_))).collect();
        let tfs = ["1s", "3s", "1m"];
        let mut core = core("timeframes = [\"1s\", \"3s\", \"1m\"]\n");
        let mut out = run(&mut core, &inputs);
        core.flush(&Place::new("RAW", 0), &mut out).unwrap();
        for name in ["A", "B"] {
            let (mut kept, mut late, mut newest, mut id_max) = (Vec::new(), 0usize, 0, 0);
            for one in &inputs {
                let In::Trades(pack) = one else { continue };
                if pack.symbol != name { continue }
                let t = pack.iter().next().unwrap();
                if t.id <= id_max { continue }
                id_max = t.id;
                let second = t.ts.0 / 1_000_000_000;
                if second < newest { late += 1; continue }
                newest = second;
                kept.push(t);
            }
            for tf in tfs.map(|tf| tf.parse::<Timeframe>().unwrap()) {
                let found: Vec<&Candle> = out.iter().filter_map(|o| match o {
                    Out::Candle(c) if c.symbol == name && c.tf == tf.to_string() => Some(c),
                    _ => None,
                }).collect();
                let mut opens: Vec<i64> = kept.iter().map(|t| tf.open_of(t.ts).0).collect();
                opens.dedup();
                prop_assert_eq!(found.iter().map(|c| c.open_ns).collect::<Vec<_>>(), opens);
                for c in found {
                    let of: Vec<&Trade> = kept.iter().filter(|t| tf.open_of(t.ts).0 == c.open_ns).collect();
                    let prices: Vec<_> = of.iter().map(|t| t.price.price(SCALE)).collect();
                    let qty = |t: &&Trade| t.size.qty(SCALE);
                    let buys = || of.iter().copied().filter(|t| t.side == Side::Buy);
                    prop_assert_eq!((c.open, c.close), (prices[0], *prices.last().unwrap()));
                    prop_assert_eq!((c.high, c.low), (*prices.iter().max().unwrap(), *prices.iter().min().unwrap()));
                    prop_assert_eq!(c.volume, of.iter().map(qty).sum::<Qty>());
                    prop_assert_eq!(c.buy_volume, buys().map(|t| t.size.qty(SCALE)).sum::<Qty>());
                    prop_assert_eq!(c.quote_volume, of.iter().map(|t| t.price.price(SCALE) * t.size.qty(SCALE)).sum::<Notional>());
                    prop_assert_eq!((c.trades, c.buy_trades), (of.len() as u64, buys().count() as u64));
                    prop_assert_eq!((c.first_id, c.last_id), (Some(of[0].id), Some(of.last().unwrap().id)));
                }
            }
            let told = out.iter().filter(|o| matches!(o, Out::Late(l) if l.symbol == name)).count();
            prop_assert_eq!(told, late);
        }
    }
}

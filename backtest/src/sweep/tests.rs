use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::options::Sizing;

/// Candles whose prices wander from a seed, a row a minute.
fn candles(seed: u64, n: i64) -> tempfile::NamedTempFile {
    let (mut state, mut cents) = (seed, 10_000i64);
    let mut text = String::from("open_ts_ms,open,high,low,close,volume\n");
    for i in 0..n {
        let open = cents;
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        cents = (cents + (state >> 33) as i64 % 41 - 20).max(1_000);
        let [o, h, l, c] = [open, open.max(cents), open.min(cents), cents].map(|v| Decimal::new(v, 2));
        text += &format!("{},{o},{h},{l},{c},1\n", i * 60_000);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn play(path: &Path) -> Play {
    Play::Candles(CandleOptions {
        candles: path.to_owned(),
        strategy: "ema_cross".parse().unwrap(),
        sizing: Some("equity:0.5".parse::<Sizing>().unwrap()),
        fee_bps: Decimal::ONE,
        slippage_bps: Decimal::ZERO,
        initial_cash: Decimal::from(10_000),
        user: None,
    })
}

fn axes(texts: &[&str]) -> Vec<Axis> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn an_axis_is_a_range_or_a_list() {
    let values = |text: &str| text.parse::<Axis>().unwrap().values.iter().map(shown).collect::<Vec<_>>().join(" ");
    assert_eq!(values("fast=5..20..5"), "5 10 15 20");
    assert_eq!(values("low=0.1..0.35..0.1"), "0.1 0.2 0.3");
    assert_eq!(values("slow=20, 40"), "20 40");
    assert_eq!(values("mode=both,long"), "both long");
    assert_eq!("fast=5..6..1".parse::<Axis>().unwrap().values[0], Value::Integer(5));
    assert_eq!("low=1..2..0.5".parse::<Axis>().unwrap().values[0], Value::Float(1.0));
    for text in [
        "fast",
        "=1",
        "fast=",
        "fast=1..5",
        "fast=5..1..1",
        "fast=1..5..0",
        "fast=1,,2",
        "fast=0..9..0.001",
        "fast=a b",
    ] {
        assert!(text.parse::<Axis>().unwrap_err().to_string().contains("--param"), "{text}");
    }
}

#[test]
fn a_grid_is_every_combination_in_order_and_has_a_bound() {
    let axes = axes(&["fast=1,2", "slow=5..7..1"]);
    let texts: Vec<String> = grid(&axes, 6).unwrap().iter().map(|p| format!("{}{}", p["fast"], p["slow"])).collect();
    assert_eq!(texts, ["15", "16", "17", "25", "26", "27"]);
    let error = grid(&axes, 5).unwrap_err().to_string();
    assert!(error.contains("6 combinations") && error.contains("--trials-max"), "{error}");
}

#[test]
fn trials_do_not_depend_on_the_number_of_threads_and_bad_combinations_say_why() {
    let file = candles(5, 600);
    let (play, grid) = (play(file.path()), grid(&axes(&["fast=2,5,9", "slow=5,9"]), 100).unwrap());
    let done = AtomicUsize::new(0);
    let one = run(&play, &grid, 1, |_| {
        done.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!((one.clone(), done.into_inner()), (run(&play, &grid, 3, |_| ()), 6));
    // fast 5 slow 5, fast 9 slow 5, fast 9 slow 9 are no crossings.
    let wrong: Vec<&String> = one.iter().filter_map(|t| t.outcome.as_ref().err()).collect();
    assert_eq!(wrong.len(), 3);
    assert!(wrong.iter().all(|why| why.contains("slow")), "{wrong:?}");
    let alone = play.run(&grid[0]).unwrap();
    assert_eq!(one[0].outcome.as_ref().unwrap().hash, alone.hash);
    let best = ranked(&one, "total_return");
    let scores: Vec<f64> = best.iter().filter_map(|i| one[*i].score("total_return")).collect();
    assert!(scores.len() == 3 && scores.windows(2).all(|w| w[0] >= w[1]), "{scores:?}");
    assert!(best[3..].iter().all(|i| one[*i].outcome.is_err()));
    // Small is good with a minus.
    let shallow = ranked(&one, "-max_drawdown");
    let drawdowns: Vec<f64> = shallow.iter().filter_map(|i| one[*i].score("max_drawdown")).collect();
    assert!(drawdowns.len() == 3 && drawdowns.windows(2).all(|w| w[0] <= w[1]), "{drawdowns:?}");
}

#[test]
fn a_sweep_over_noise_is_warned_of() {
    let file = candles(11, 1_500);
    let grid = grid(&axes(&["fast=2..12..2", "slow=15..45..10"]), 100).unwrap();
    let trials = run(&play(file.path()), &grid, 2, |_| ());
    let verdict = verdict(&trials, ranked(&trials, "sharpe_bar")[0]);
    assert_eq!((verdict.trials, verdict.periods), (24, 1_500));
    let (deflated, plain) = (verdict.deflated_sharpe.unwrap(), verdict.probabilistic_sharpe.unwrap());
    assert!(deflated < plain && deflated < 0.95, "{verdict:?}");
    assert!(verdict.warnings[0].contains("24 trials: the deflated Sharpe ratio"), "{:?}", verdict.warnings);
}

#[test]
fn a_page_shows_the_map_and_escapes_what_it_is_given() {
    let file = candles(3, 300);
    let axes = axes(&["fast=2,3", "slow=5,7"]);
    let trials = run(&play(file.path()), &grid(&axes, 9).unwrap(), 2, |_| ());
    let verdict = verdict(&trials, 0);
    let sweep = page::Sweep {
        title: "a <b>",
        about: "x & y",
        axes: &axes,
        trials: &trials,
        by: "sharpe_bar",
        verdict: &verdict,
        walk: None,
        initial_cash: 1.0,
    };
    let html = page::html(&sweep);
    assert!(html.contains("a &lt;b&gt;") && !html.contains("a <b>"));
    assert_eq!(html.matches("--tint").count(), 4 + 1, "four cells and the style's rule");
    assert!(!html.contains("http://") && !html.contains("https://"));
}

proptest! {
    #[test]
    fn a_range_holds_its_steps(from in 0i64..50, steps in 0i64..20, step in 1i64..9, rest in 0i64..9) {
        let to = from + steps * step + rest % step;
        let axis: Axis = format!("k={from}..{to}..{step}").parse().unwrap();
        let want: Vec<Value> = (0..=steps).map(|i| Value::Integer(from + i * step)).collect();
        prop_assert_eq!(axis.values, want);
    }
}

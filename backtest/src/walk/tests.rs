use schemas::Decimal;

use super::*;
use crate::options::CandleOptions;

const MINUTE_MS: i64 = 60_000;

/// Minute candles that wander from a seed; from row `changed` on from another one.
fn candles(n: i64, changed: i64) -> tempfile::NamedTempFile {
    let (mut state, mut cents) = (17u64, 10_000i64);
    let mut text = String::from("open_ts_ms,open,high,low,close,volume\n");
    for i in 0..n {
        if i == changed {
            state = 99;
        }
        let open = cents;
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        cents = (cents + (state >> 33) as i64 % 61 - 30).max(1_000);
        let [o, h, l, c] = [open, open.max(cents), open.min(cents), cents].map(|v| Decimal::new(v, 2));
        text += &format!("{},{o},{h},{l},{c},1\n", i * MINUTE_MS);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn play(path: &Path, sizing: &str) -> Play {
    Play::Candles(CandleOptions {
        candles: path.to_owned(),
        strategy: "ema_cross".parse().unwrap(),
        sizing: Some(sizing.parse().unwrap()),
        fee_bps: Decimal::ONE,
        slippage_bps: Decimal::ZERO,
        initial_cash: Decimal::from(10_000),
        user: None,
    })
}

fn grid() -> Vec<Table> {
    let axes: Vec<sweep::Axis> = ["fast=2,4,7", "slow=9,14"].iter().map(|t| t.parse().unwrap()).collect();
    sweep::grid(&axes, 100).unwrap()
}

const LENGTHS: Lengths = Lengths { train_ms: 300 * MINUTE_MS, test_ms: 100 * MINUTE_MS };

fn walked(path: &Path, sizing: &str) -> WalkForward {
    walk(&play(path, sizing), &grid(), LENGTHS, "total_return", 2, |_, _| ()).unwrap()
}

#[test]
fn windows_roll_by_the_test_length_and_the_last_may_be_shorter() {
    let lengths: Lengths = "train=10s,test=4s".parse().unwrap();
    assert_eq!(lengths, Lengths { train_ms: 10_000, test_ms: 4_000 });
    let found: Vec<_> =
        windows(0, 21_000, lengths).unwrap().iter().map(|w| (w.train_from_ms, w.test_from_ms, w.test_to_ms)).collect();
    assert_eq!(found, [(0, 10_000, 14_000), (4_000, 14_000, 18_000), (8_000, 18_000, 21_000)]);
    assert!(format!("{:#}", windows(0, 10_000, lengths).unwrap_err()).contains("nothing is left to test"));
    for text in ["train=1d", "test=1d", "train=1w,test=1d", "train=0s,test=1s", "train=-1d,test=1d", ""] {
        assert!(text.parse::<Lengths>().unwrap_err().to_string().contains("train=30d,test=10d"), "{text}");
    }
}

#[test]
fn test_windows_follow_each_other_without_a_hole() {
    let file = candles(900, 900);
    let mut seen = std::sync::Mutex::new(0);
    let found = walk(&play(file.path(), "equity:0.5"), &grid(), LENGTHS, "total_return", 2, |done, all| {
        assert!(done <= all);
        *seen.lock().unwrap() += 1;
    })
    .unwrap();
    assert_eq!((found.steps.len(), found.idle, *seen.get_mut().unwrap()), (6, 0, 36));
    let times: Vec<i64> = found.equity.iter().map(|(ms, _)| *ms).collect();
    assert_eq!(times, (300..900).map(|i| i * MINUTE_MS).collect::<Vec<_>>());
    let product: f64 = found.steps.iter().map(|s| 1.0 + s.test_return).product();
    assert!((product - 1.0 - found.total_return).abs() < 1e-12);
    assert!(found.test_trades > 5, "{found:?}");
}

#[test]
fn the_future_changes_neither_choices_nor_equity_before_it() {
    // Everything from row 600 on differs: the fourth test window and what follows.
    let (a, b) = (candles(900, 900), candles(900, 600));
    for sizing in ["equity:0.5", "fixed:3"] {
        let (a, b) = (walked(a.path(), sizing), walked(b.path(), sizing));
        let same = |w: &WalkForward| (w.steps[..3].to_vec(), w.equity[..300].to_vec());
        assert_eq!(same(&a), same(&b), "{sizing}");
        // The fourth choice saw only the past as well; what it made differs.
        assert_eq!(a.steps[3].params, b.steps[3].params, "{sizing}");
        assert_ne!(a.equity[300..], b.equity[300..], "{sizing}");
    }
}

#[test]
fn the_choice_is_the_best_of_the_train_window_and_not_of_the_test_window() {
    let file = candles(900, 900);
    let found = walked(file.path(), "equity:0.5");
    let text = std::fs::read_to_string(file.path()).unwrap();
    let rows: Vec<&str> = text.lines().collect();
    let best_of = |from: usize, to: usize| {
        let part = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(part.path(), [&rows[..1], &rows[1 + from..1 + to]].concat().join("\n")).unwrap();
        let trials = sweep::run(&play(part.path(), "equity:0.5"), &grid(), 2, |_| ());
        trials[sweep::ranked(&trials, "total_return")[0]].params.clone()
    };
    let mut surprises = 0;
    for (k, step) in found.steps.iter().enumerate() {
        assert_eq!(step.params, best_of(k * 100, k * 100 + 300), "window {k}");
        surprises += usize::from(step.params != best_of(k * 100 + 300, k * 100 + 400));
    }
    // Had the choice seen its test window, some window would have been chosen otherwise.
    assert!(surprises > 0);
}

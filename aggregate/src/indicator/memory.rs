//! How long an output remembers a bar: measured on the kernels themselves, so that no second list can disagree.
//!
//! A bar in the middle of a written-down market is changed, and the outputs with and without the change are laid beside
//! each other. A moving window forgets it when it leaves; an average that decays remembers it until the difference is a
//! hundredth of what it was at most; a running sum never forgets.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::{Ohlcv, Set};

/// Nothing is remembered for longer in the marks of `Indicators::gaps`. Above the longest decaying average
/// (`ema.ema_200`: 461), so what reaches it never forgets.
pub const MEMORY_BARS_MAX: u32 = 640;
/// Bars in front of the changed one: every output has a value by then.
const WARM_UP_BARS: usize = 320;
/// A difference below this share of the largest one counts as forgotten.
const FORGOTTEN: f64 = 0.01;
/// A difference below this share of the value is no difference.
const ROUNDING: f64 = 1e-9;
/// Which bars are changed, behind the warm-up: outputs that turn (SuperTrend, extremes) remember some bars longer.
const CHANGED: [usize; 4] = [0, 17, 41, 101];
/// By how much: the close, and a range that follows it; and the volume.
const CHANGES: [(f64, f64); 3] = [(1.02, 1.0), (0.98, 1.0), (1.0, 3.0)];

/// Bars that an output looks back on, its own included, from 1 to [`MEMORY_BARS_MAX`]; 1 for a name that is no output.
/// Measured once, when it is asked for first: some ten milliseconds.
pub fn memory_bars(output: &str) -> u32 {
    static MEASURED: LazyLock<BTreeMap<&'static str, u32>> = LazyLock::new(measure);
    MEASURED.get(output).copied().unwrap_or(1)
}

fn measure() -> BTreeMap<&'static str, u32> {
    let fresh = || Set::new(None, 60).expect("Invariant: every output is known");
    let bars = market(WARM_UP_BARS + CHANGED[CHANGED.len() - 1] + MEMORY_BARS_MAX as usize);
    let before = fresh().run(&bars).0;
    let mut memory: BTreeMap<&'static str, u32> = before.iter().map(|(name, _)| (*name, 1)).collect();
    for at in CHANGED.map(|behind| WARM_UP_BARS + behind) {
        for (price, volume) in CHANGES {
            let mut changed = bars.clone();
            let bar = &mut changed[at];
            bar.close *= price;
            (bar.high, bar.low) = (bar.high.max(bar.close), bar.low.min(bar.close));
            bar.volume *= volume;
            for ((name, is), (_, was)) in fresh().run(&changed).0.iter().zip(&before) {
                let differences = || is[at..].iter().zip(&was[at..]).map(|(is, was)| difference(*is, *was));
                let most = differences().filter(|d| d.is_finite()).fold(0.0, f64::max);
                let newest = differences().rposition(|d| d > most * FORGOTTEN);
                let bars = newest.map_or(1, |i| u32::try_from(i + 1).unwrap_or(MEMORY_BARS_MAX));
                let longest = memory.entry(name).or_insert(1);
                *longest = (*longest).max(bars.min(MEMORY_BARS_MAX));
            }
        }
    }
    memory
}

/// Without bound where a value is there in one run only, nothing where it is the arithmetic's own rounding.
fn difference(a: f64, b: f64) -> f64 {
    match (a.is_finite(), b.is_finite()) {
        (true, true) if (a - b).abs() <= ROUNDING * b.abs() => 0.0,
        (true, true) => (a - b).abs(),
        (false, false) => 0.0,
        _ => f64::INFINITY,
    }
}

/// A market that moves every bar and trades in each, within one UTC day; the generator is a linear one, written down.
fn market(len: usize) -> Vec<Ohlcv> {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut dice = move |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % sides) as f64
    };
    let mut close = 1000.0;
    let bars = (0..len).map(|i| {
        let open = close;
        close = (open + dice(21) - 10.0).clamp(900.0, 1100.0);
        let (up, down) = (1.0 + dice(5), 1.0 + dice(5));
        Ohlcv {
            open_ns: i as i64 * 60_000_000_000,
            open,
            high: open.max(close) + up,
            low: open.min(close) - down,
            close,
            volume: 1.0 + dice(9),
        }
    });
    bars.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_forget_when_a_bar_leaves_them_averages_decay_and_sums_never_forget() {
        assert_eq!(memory_bars("sma.sma_20"), 20);
        assert_eq!(memory_bars("sma.sma_200"), 200);
        assert_eq!(memory_bars("bbands.upper"), 20);
        assert_eq!(memory_bars("donchian.upper_20"), 20);
        // (1 - 2 / (n + 1))^k falls below a hundredth at k = 21, 47 and 461.
        assert_eq!(["ema.ema_9", "ema.ema_20", "ema.ema_200"].map(memory_bars), [21, 47, 461]);
        assert_eq!(memory_bars("macd.hist"), 51);
        assert_eq!(memory_bars("atr.tr"), 2);
        assert_eq!(memory_bars("adx.dx_14"), 81);
        assert_eq!(memory_bars("obv.obv"), MEMORY_BARS_MAX);
        assert_eq!(memory_bars("vwap.vwap_session_utc"), MEMORY_BARS_MAX);
    }
}

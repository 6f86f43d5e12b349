//! Directional movement: DI, DX, ADX, ADXR.

use serde::{Deserialize, Serialize};

use super::smooth::Smooth;
use super::window::Tape;
use super::{Kernel, Ohlcv};

/// Below this a sum counts as nothing.
const STILL: f64 = 1e-14;

/// A sum that loses its `n`-th part with each new value; it starts as the plain sum of the first n - 1.
#[derive(Clone, Serialize, Deserialize)]
struct Fading {
    n: f64,
    sum: f64,
}

impl Fading {
    fn push(&mut self, x: f64, seed: bool) -> f64 {
        if !seed {
            self.sum -= self.sum / self.n;
        }
        self.sum += x;
        self.sum
    }
}

/// adx, plus_di, minus_di, dx, adxr, all 0..100: Wilder's sums from the first n - 1 moves; DI from bar n + 1, ADX
/// (mean of the first `n` DX) from bar 2n, ADXR (mean of ADX now and n - 1 bars ago) from bar 3n - 1.
#[derive(Clone, Serialize, Deserialize)]
pub struct Adx {
    n: u32,
    moves: u32,
    before: Option<Ohlcv>,
    plus: Fading,
    minus: Fading,
    range: Fading,
    dx: f64,
    adx: Smooth,
    /// The newest ADX; stays while there is no DX to take in.
    adx_now: f64,
    past: Tape,
}

impl Adx {
    pub fn new(n: u32) -> Self {
        let sum = Fading { n: n as f64, sum: 0.0 };
        Self {
            n,
            moves: 0,
            before: None,
            plus: sum.clone(),
            minus: sum.clone(),
            range: sum,
            dx: 0.0,
            adx: Smooth::wilder(n),
            adx_now: f64::NAN,
            past: Tape::new(n as usize - 1),
        }
    }
}
impl Kernel<5> for Adx {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 5] {
        let Some(before) = self.before.replace(*bar) else {
            return [f64::NAN; 5];
        };
        let (up, down) = (bar.high - before.high, before.low - bar.low);
        let range = (bar.high - bar.low).max((bar.high - before.close).abs()).max((bar.low - before.close).abs());
        self.moves = self.moves.saturating_add(1);
        let seed = self.moves < self.n;
        let plus = self.plus.push(if up > 0.0 && up > down { up } else { 0.0 }, seed);
        let minus = self.minus.push(if down > 0.0 && up < down { down } else { 0.0 }, seed);
        let range = self.range.push(range, seed);
        if seed {
            return [f64::NAN; 5];
        }

        let (plus_di, minus_di) =
            if range < STILL { (0.0, 0.0) } else { (100.0 * (plus / range), 100.0 * (minus / range)) };
        let both = plus_di + minus_di;
        // Without any direction DX keeps its value, a seeding ADX counts a zero and a running one stands still.
        let directed = both >= STILL;
        if directed {
            self.dx = 100.0 * ((plus_di - minus_di).abs() / both);
        }
        if directed || self.adx_now.is_nan() {
            self.adx_now = self.adx.push(if directed { self.dx } else { 0.0 });
        }
        let adx = self.adx_now;
        let past = if adx.is_nan() { None } else { self.past.push(adx) };
        [adx, plus_di, minus_di, self.dx, past.map_or(f64::NAN, |past| (adx + past) / 2.0)]
    }
}

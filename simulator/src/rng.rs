//! The one source of chance: xoshiro256++ seeded through splitmix64, written out here so that a seed means the same
//! bytes in every release and on every machine. Only additions, multiplications and square roots touch floats
//! (they are exact by IEEE 754); `ln`, `exp` and `cos` differ between math libraries and are not used.

/// Xoshiro256++ of Blackman and Vigna; its reference output is a test below.
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    /// An independent stream for `label` under `seed`: another label's draws never move it.
    pub fn new(seed: u64, label: &str) -> Self {
        // FNV-1a folds the label into the seed.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in label.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self::from_u64(seed ^ hash)
    }

    fn from_u64(mut state: u64) -> Self {
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self([next(), next(), next(), next()])
    }

    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in `0.0..1.0`, 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `0..n`; 0 for `n` = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Nearly normal with mean 0 and deviation 1: the sum of twelve uniforms, so never beyond 6.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // Splitmix64 from 0 begins e220a8397b1dcdaf; xoshiro256++ from state 1 2 3 4 begins 41943041, 58720359.
        assert_eq!(Rng::from_u64(0).0[0], 0xe220_a839_7b1d_cdaf);
        let mut rng = Rng([1, 2, 3, 4]);
        assert_eq!([rng.next_u64(), rng.next_u64()], [41_943_041, 58_720_359]);
    }

    #[test]
    fn labels_give_streams_of_their_own() {
        assert_ne!(Rng::new(1, "BTC").next_u64(), Rng::new(1, "ETH").next_u64());
        assert_eq!(Rng::new(1, "BTC").next_u64(), Rng::new(1, "BTC").next_u64());
    }

    #[test]
    fn the_normal_has_mean_zero_and_deviation_one() {
        let mut rng = Rng::new(7, "normal");
        let draws: Vec<f64> = (0..20_000).map(|_| rng.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}

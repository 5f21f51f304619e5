//! A random permutation of `0..n` that is computed point by point, in constant memory: a Feistel network over the
//! smallest square power of two that holds `n`, walked along its cycles until it lands below `n`.

use rand::RngCore;
use rand_chacha::ChaCha8Rng;

/// Four rounds make a Feistel network of random functions pseudorandom (Luby and Rackoff); eight leave a margin for
/// the small domains, in which a round function has few values.
const ROUNDS: usize = 8;

/// Half the bits of the smallest domain. Below this a network reaches too few of the permutations.
const MIN_HALF_BITS: u32 = 4;

/// A permutation of `0..n`.
#[derive(Clone, Debug)]
pub(crate) struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// Draws the permutation's keys from `rng`. `n` is at most 2^62.
    pub(crate) fn draw(n: u64, rng: &mut ChaCha8Rng) -> Self {
        assert!(n <= 1 << 62, "a permutation of {n} is too large");
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Permutation { n, half_bits: bits.div_ceil(2).max(MIN_HALF_BITS), keys: std::array::from_fn(|_| rng.next_u64()) }
    }

    /// The image of `index`, which is below `n`.
    pub(crate) fn get(&self, index: u64) -> u64 {
        assert!(index < self.n, "{index} is outside a permutation of {}", self.n);
        let mut at = index;
        loop {
            at = self.encipher(at);
            if at < self.n {
                return at;
            }
        }
    }

    fn encipher(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit of the result depends on every bit of `x`.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};
    use proptest::prelude::*;

    fn permutation(n: u64, seed: u64) -> Vec<u64> {
        let p = Permutation::draw(n, &mut stream(Purpose::Order, seed, 0, 0, 0));
        (0..n).map(|i| p.get(i)).collect()
    }

    proptest! {
        #[test]
        fn every_value_once(n in 1u64..3000, seed: u64) {
            let mut values = permutation(n, seed);
            values.sort_unstable();
            prop_assert_eq!(values, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_element_is_everywhere_equally_often() {
        // Chi-square of where element 0 goes, and of which element lands at 1, over 20,000 keys: 6 degrees of
        // freedom, 99.9% quantile 22.5.
        const N: u64 = 7;
        const DRAWS: u64 = 20_000;
        let (mut of_first, mut pairs) = ([0u64; N as usize], [0u64; (N * N) as usize]);
        for seed in 0..DRAWS {
            let p = permutation(N, seed);
            of_first[p[0] as usize] += 1;
            pairs[(p[2] * N + p[5]) as usize] += 1;
        }
        let chi = |counts: &mut dyn Iterator<Item = u64>, expected: f64| {
            counts.map(|c| (c as f64 - expected).powi(2) / expected).sum::<f64>()
        };
        assert!(chi(&mut of_first.iter().copied(), DRAWS as f64 / N as f64) < 22.5);
        // Two elements together: 42 possible pairs, 41 degrees of freedom, 99.9% quantile 74.7.
        let expected = DRAWS as f64 / (N * (N - 1)) as f64;
        assert!(chi(&mut pairs.iter().copied().filter(|c| *c > 0), expected) < 74.7);
        assert_eq!(pairs.iter().filter(|c| **c == 0).count(), N as usize);
    }

    #[test]
    fn neighbours_are_torn_apart() {
        let n = 10_000;
        let p = permutation(n, 3);
        let mean = p.windows(2).map(|w| w[0].abs_diff(w[1]) as f64).sum::<f64>() / (n - 1) as f64;
        assert!((mean / n as f64 - 1.0 / 3.0).abs() < 0.02, "{mean}"); // the mean distance of two random points is n/3
        assert_ne!(p, permutation(n, 4));
    }

    #[test]
    fn large_domains_work() {
        let p = Permutation::draw(1 << 62, &mut stream(Purpose::Order, 1, 0, 0, 0));
        assert_ne!(p.get(0), p.get((1 << 62) - 1));
    }
}

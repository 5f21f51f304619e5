//! Seeds: one for each purpose of each step, so that resuming needs no generator's state.

use tch::{Device, Kind, Tensor};

/// A seed for one purpose of one step: resuming needs no generator's state.
pub fn step_seed(seed: u64, step: u64, purpose: u64) -> u64 {
    // SplitMix64's finaliser over the three numbers.
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    mix(mix(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)).wrapping_add(step)).wrapping_add(purpose))
}

/// What to seed torch's generator with, drawn from it.
pub fn draw_seed() -> i64 {
    Tensor::randint(i64::MAX, [1], (Kind::Int64, Device::Cpu)).int64_value(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_by_step_and_purpose() {
        let mut seeds: Vec<u64> =
            (0..50).flat_map(|step| (0..4).map(move |purpose| step_seed(1, step, purpose))).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 200);
    }
}

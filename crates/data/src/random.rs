//! Seeded randomness: every choice is a pure function of a few numbers, so that it depends neither on the number of
//! workers nor on where a run was resumed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What a random stream is for; two streams of the same numbers but different purposes are independent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// The order of the records.
    Order = 1,
    /// What replaces a bad record.
    Substitute = 2,
    /// Caption, crop, augmentation and masks of one sample.
    Sample = 3,
    /// Which records are looked at before a run.
    Preflight = 4,
}

/// The generator for `(seed, a, b)`, e.g. a seed, an epoch and a position.
pub(crate) fn stream(purpose: Purpose, seed: u64, a: u64, b: u64, attempt: u32) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, value) in key.chunks_exact_mut(8).zip([seed, a, b, u64::from(attempt)]) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(purpose as u64);
    rng
}

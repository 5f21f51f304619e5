//! Patch masks for MIM (SIMLA 2.3, equation 7): BEiT's block-wise masking.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Patches masked of [`PAPER_PATCHES`] in the paper.
pub const PAPER_MASKED: usize = 75;
/// Patches of the paper's image: 16 x 16.
pub const PAPER_PATCHES: usize = 256;
/// Smallest area of a block in the paper's grid; scaled with the number of patches in others.
const PAPER_MIN_AREA: f64 = 16.0;
/// Aspect ratios are log-uniform between this and its inverse.
const MIN_ASPECT: f64 = 0.3;
/// Tries a block.
const TRIES: usize = 10;

/// The number of masked patches for a grid of `side` x `side`: the paper's share, rounded, at least one.
pub fn masked_count(side: usize) -> usize {
    ((side * side * PAPER_MASKED + PAPER_PATCHES / 2) / PAPER_PATCHES).max(1)
}

/// Sets exactly `count` patches of `grid` (`[side * side]`, all false on entry, `count` at most its length) to true.
///
/// Until `count` are masked: draw an area in `[min area, remaining]`, an aspect ratio and a position, at most ten
/// times; a block that adds between 1 and `remaining` patches is taken. Like BEiT's, a block is smaller than the grid in
/// both directions. Where ten tries fail, one free patch is masked instead, so that the count is always reached.
pub fn mask(side: usize, count: usize, grid: &mut [bool], rng: &mut ChaCha8Rng) {
    assert!(grid.len() == side * side && count <= grid.len(), "{count} of {} patches, side {side}", grid.len());
    let min_area = (PAPER_MIN_AREA * grid.len() as f64 / PAPER_PATCHES as f64).max(1.0);
    let mut remaining = count;
    while remaining > 0 {
        let added = block(side, min_area, remaining, grid, rng);
        remaining -= if added > 0 { added } else { single(grid, rng) };
    }
}

/// Masks one block; returns how many patches it added, 0 when every try failed.
fn block(side: usize, min_area: f64, remaining: usize, grid: &mut [bool], rng: &mut ChaCha8Rng) -> usize {
    // Fewer may remain than the smallest area: the ends then change places, as in BEiT.
    let (low, high) = (min_area.min(remaining as f64), min_area.max(remaining as f64));
    for _ in 0..TRIES {
        let area = rng.random_range(low..=high);
        let log_aspect = rng.random_range(MIN_ASPECT.ln()..=-MIN_ASPECT.ln());
        let height = (area * log_aspect.exp()).sqrt().round() as usize;
        let width = (area / log_aspect.exp()).sqrt().round() as usize;
        if height == 0 || width == 0 || height >= side || width >= side {
            continue;
        }
        let (top, left) = (rng.random_range(0..=side - height), rng.random_range(0..=side - width));
        let rows = || (top..top + height).map(move |y| y * side + left..y * side + left + width);
        let added = rows().flatten().filter(|&i| !grid[i]).count();
        if (1..=remaining).contains(&added) {
            rows().for_each(|row| grid[row].fill(true));
            return added;
        }
    }
    0
}

/// Masks one free patch; there is one.
fn single(grid: &mut [bool], rng: &mut ChaCha8Rng) -> usize {
    let free = grid.iter().filter(|masked| !**masked).count();
    let nth = rng.random_range(0..free);
    if let Some(patch) = grid.iter_mut().filter(|masked| !**masked).nth(nth) {
        *patch = true;
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};
    use proptest::prelude::*;

    fn draw(side: usize, count: usize, seed: u64) -> Vec<bool> {
        let mut grid = vec![false; side * side];
        mask(side, count, &mut grid, &mut stream(Purpose::Sample, seed, 0, 0, 0));
        grid
    }

    proptest! {
        #[test]
        fn exactly_the_asked_count(side in 1usize..24, share in 0.0f64..=1.0, seed: u64) {
            let count = (share * (side * side) as f64) as usize;
            prop_assert_eq!(draw(side, count, seed).iter().filter(|m| **m).count(), count);
        }
    }

    #[test]
    fn the_papers_count() {
        assert_eq!(masked_count(16), 75);
        assert_eq!(masked_count(24), 169);
        assert_eq!(masked_count(8), 19);
        assert_eq!(masked_count(4), 5);
        assert_eq!(masked_count(1), 1);
    }

    #[test]
    fn masks_come_in_blocks() {
        // Share of masked patches whose right neighbour is masked too. Single patches at random would give
        // 75/256 = 0.29; blocks of at least 16 patches give far more.
        let (mut both, mut all) = (0, 0);
        for seed in 0..500 {
            let grid = draw(16, 75, seed);
            for i in (0..256).filter(|i| i % 16 < 15 && grid[*i]) {
                all += 1;
                both += usize::from(grid[i + 1]);
            }
        }
        assert!(both as f64 / all as f64 > 0.7, "{both} of {all}");
    }

    #[test]
    fn every_patch_is_masked_now_and_then() {
        let mut times = vec![0; 256];
        for seed in 0..2_000 {
            draw(16, 75, seed).iter().zip(&mut times).for_each(|(masked, n)| *n += i32::from(*masked));
        }
        assert_eq!(times.iter().sum::<i32>(), 75 * 2_000);
        let (min, max) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        // Corners are reached by few blocks, the centre by many, but none is left out and none is certain.
        assert!(*min > 20 && *max < 1_400, "{min} {max}");
    }
}

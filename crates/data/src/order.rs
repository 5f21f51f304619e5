//! In which order records are seen: a pure function of seed, epoch and position, computed point by point.
//!
//! - A source whose records are read one by one (JSON, CSV) is permuted as a whole.
//! - Of a source of shards, the shards are permuted, and then the records within each window of consecutive shards, so
//!   that reads stay within a few files.
//! - A source with weight w gives w times its number of records an epoch. Whatever the weight, every record is seen once
//!   before any is seen again: draws are counted through all epochs.
//! - Several sources are mixed evenly: each block of positions holds every source's share, in random order.

use crate::permutation::Permutation;
use crate::random::{Purpose, stream};

/// Shards that are read at the same time.
pub const WINDOW_SHARDS: usize = 8;
/// Positions over which the sources' shares are kept.
const MIX_BLOCK: u64 = 1024;
/// Key, in place of a source's number, of the permutation that mixes the sources.
const MIX_KEY: u64 = u64::MAX;

/// One source's part of an epoch.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Number of the source's first record in the data set.
    pub first: u64,
    /// Records of the source, at least one.
    pub records: u64,
    /// Records of the source that an epoch shows, at least one.
    pub draws: u64,
    /// The first record of each shard, counted in the source; empty for a source without shards.
    pub shards: Vec<u64>,
}

/// The order of a data set.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    seed: u64,
    parts: Vec<Part>,
}

/// The order of one epoch.
#[derive(Clone, Debug)]
pub(crate) struct EpochOrder {
    seed: u64,
    epoch: u64,
    len: u64,
    parts: Vec<EpochPart>,
}

#[derive(Clone, Debug)]
struct EpochPart {
    part: Part,
    /// The passes through the source that the epoch touches, from pass `first_pass` on.
    passes: Vec<Pass>,
    first_pass: u64,
}

/// One pass through a source: a permutation of its records.
#[derive(Clone, Debug)]
enum Pass {
    Whole(Permutation),
    Windows {
        /// First position and permutation of each window.
        windows: Vec<(u64, Permutation)>,
        /// First position and first record of each shard, in the order of this pass.
        shards: Vec<(u64, u64)>,
    },
}

impl Order {
    /// Of parts in the order of the sources.
    pub(crate) fn new(seed: u64, parts: Vec<Part>) -> Self {
        Order { seed, parts }
    }

    /// Positions of an epoch.
    pub(crate) fn len(&self) -> u64 {
        self.parts.iter().map(|p| p.draws).sum()
    }

    /// The order of one epoch, from 0.
    pub(crate) fn epoch(&self, epoch: u64) -> EpochOrder {
        let parts = self.parts.iter().zip(0..).map(|(part, source)| {
            let first_pass = epoch * part.draws / part.records;
            let last_pass = ((epoch + 1) * part.draws - 1) / part.records;
            let passes = (first_pass..=last_pass).map(|pass| Pass::draw(part, self.seed, source, pass)).collect();
            EpochPart { part: part.clone(), passes, first_pass }
        });
        EpochOrder { seed: self.seed, epoch, len: self.len(), parts: parts.collect() }
    }
}

impl EpochOrder {
    /// The record (counted through the data set) at `position`, which is below the order's length.
    pub(crate) fn record(&self, position: u64) -> u64 {
        assert!(position < self.len, "position {position} of {}", self.len);
        let (source, nth) = self.source_of(position);
        let EpochPart { part, passes, first_pass } = &self.parts[source];
        let draw = self.epoch * part.draws + nth;
        let pass = &passes[(draw / part.records - first_pass) as usize];
        part.first + pass.record(draw % part.records)
    }

    /// The source that `position` shows, and how many of the source's draws of this epoch come before.
    fn source_of(&self, position: u64) -> (usize, u64) {
        if self.parts.len() == 1 {
            return (0, position);
        }
        let block = position / MIX_BLOCK;
        let (start, end) = (block * MIX_BLOCK, ((block + 1) * MIX_BLOCK).min(self.len));
        let mut rng = stream(Purpose::Order, self.seed, MIX_KEY, self.epoch, block as u32);
        let mut slot = Permutation::draw(end - start, &mut rng).get(position - start);
        // Of the positions before x, source 0 has its share rounded down; of the others, source 1 has its share among
        // the sources from 1 on, and so forth. Each count grows by 0 or 1 with x.
        let (mut start, mut end, mut total) = (start, end, self.len);
        for (source, EpochPart { part, .. }) in self.parts.iter().enumerate() {
            let share = |x: u64| (u128::from(x) * u128::from(part.draws) / u128::from(total)) as u64;
            let (before, until) = (share(start), share(end));
            if slot < until - before {
                return (source, before + slot);
            }
            slot -= until - before;
            (start, end, total) = (start - before, end - until, total - part.draws);
        }
        unreachable!("the last source has all the positions that are left")
    }
}

impl Pass {
    fn draw(part: &Part, seed: u64, source: u64, pass: u64) -> Self {
        let mut rng = stream(Purpose::Order, seed, source, pass, 0);
        if part.shards.is_empty() {
            return Pass::Whole(Permutation::draw(part.records, &mut rng));
        }
        let count = part.shards.len();
        let order = Permutation::draw(count as u64, &mut rng);
        let (mut at, mut shards, mut windows) = (0, Vec::with_capacity(count), Vec::new());
        for nth in 0..count {
            if nth % WINDOW_SHARDS == 0 {
                windows.push(at);
            }
            let shard = order.get(nth as u64) as usize;
            shards.push((at, part.shards[shard]));
            at += part.shards.get(shard + 1).unwrap_or(&part.records) - part.shards[shard];
        }
        let ends: Vec<u64> = windows.iter().skip(1).copied().chain([at]).collect();
        let windows = windows.into_iter().zip(ends);
        Pass::Windows {
            windows: windows.map(|(start, end)| (start, Permutation::draw(end - start, &mut rng))).collect(),
            shards,
        }
    }

    fn record(&self, position: u64) -> u64 {
        match self {
            Pass::Whole(permutation) => permutation.get(position),
            Pass::Windows { windows, shards } => {
                // The last one that starts at or before a position: of several with the same start, only the last has records.
                let (start, permutation) = &windows[windows.partition_point(|(start, _)| *start <= position) - 1];
                let position = start + permutation.get(position - start);
                let (start, record) = shards[shards.partition_point(|(start, _)| *start <= position) - 1];
                record + position - start
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn part(first: u64, records: u64, draws: u64, shards: &[u64]) -> Part {
        Part { first, records, draws, shards: shards.to_vec() }
    }

    fn records(order: &Order, epoch: u64) -> Vec<u64> {
        let epoch = order.epoch(epoch);
        (0..order.len()).map(|p| epoch.record(p)).collect()
    }

    proptest! {
        #[test]
        fn an_epoch_shows_every_record_once(seed: u64, epoch in 0u64..5, a in 1u64..3000, b in 1u64..500, sizes in prop::collection::vec(0u64..60, 1..40)) {
            let c: u64 = sizes.iter().sum::<u64>().max(1);
            let starts: Vec<u64> = sizes.iter().scan(0, |at, n| { *at += n; Some(*at - n) }).collect();
            let parts = vec![part(0, a, a, &[]), part(a, b, b, &[]), part(a + b, c, c, &starts)];
            let mut seen = records(&Order::new(seed, parts), epoch);
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..a + b + c).collect::<Vec<_>>());
        }

        #[test]
        fn weights_repeat_evenly(seed: u64, n in 1u64..50, draws in 1u64..120) {
            // Through any number of epochs no record is more than one showing ahead of another.
            let order = Order::new(seed, vec![part(0, n, draws, &[])]);
            let mut times = vec![0u64; n as usize];
            for epoch in 0..7 {
                records(&order, epoch).into_iter().for_each(|r| times[r as usize] += 1);
                prop_assert!(times.iter().max().unwrap() - times.iter().min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let order = |seed| Order::new(seed, vec![part(0, 500, 500, &[])]);
        assert_eq!(records(&order(1), 0), records(&order(1), 0));
        assert_ne!(records(&order(1), 0), records(&order(1), 1));
        assert_ne!(records(&order(1), 0), records(&order(2), 0));
    }

    #[test]
    fn sources_are_mixed_evenly() {
        let order = Order::new(5, vec![part(0, 9_000, 9_000, &[]), part(9_000, 1_000, 3_000, &[])]);
        let seen = records(&order, 2);
        assert_eq!(seen.len(), 12_000);
        for block in seen.chunks_exact(MIX_BLOCK as usize) {
            let second = block.iter().filter(|r| **r >= 9_000).count();
            assert!((255..=257).contains(&second), "a quarter of 1024, got {second}");
        }
        // Within a block the sources alternate at random: runs of the second source are short.
        let longest = seen.split(|r| *r < 9_000).map(<[u64]>::len).max().unwrap();
        assert!(longest < 12, "{longest}");
    }

    #[test]
    fn shards_are_read_a_window_at_a_time() {
        let starts: Vec<u64> = (0..40).map(|s| s * 100).collect();
        let seen = records(&Order::new(9, vec![part(0, 4_000, 4_000, &starts)]), 0);
        let mut first_window = BTreeSet::new();
        for window in seen.chunks(100 * WINDOW_SHARDS) {
            let shards: BTreeSet<u64> = window.iter().map(|r| r / 100).collect();
            assert_eq!(shards.len(), WINDOW_SHARDS);
            assert!(window.windows(2).filter(|w| w[1] == w[0] + 1).count() < 10, "shuffled within the window");
            first_window.extend(shards.iter().take(1).copied());
        }
        assert_ne!(seen[..800].iter().map(|r| r / 100).collect::<BTreeSet<_>>(), (0..8).collect());
        assert_eq!(first_window.len(), 5);
    }
}

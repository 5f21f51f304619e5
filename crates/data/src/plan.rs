//! The settings of a loader, and whether they fit the data.

use crate::blocks;
use crate::vocabulary::MAX_TOKENS;

/// What a loader is to deliver.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Pairs in a batch of this process.
    pub batch: usize,
    /// Decides the order and every random choice.
    pub seed: u64,
    /// The first step to deliver, counted from 0 through all epochs; where a resumed run goes on.
    pub first_step: u64,
    /// The steps of the whole run: the last one delivered is `steps - 1`.
    pub steps: u64,
    /// Threads that decode; 0 takes one for each core.
    pub workers: usize,
    /// Batches that may be ready before they are asked for.
    pub prefetch: usize,
    /// This process among ...
    pub rank: usize,
    /// ... so many of a distributed run, each of which gets its own part of every step.
    pub world: usize,
    /// Pieces of a caption at most, `[CLS]` and `[SEP]` included.
    pub max_tokens: usize,
    /// Patches along a side of the view.
    pub patch_grid: usize,
    /// Patches that are hidden for MIM; 0 without it.
    pub masked_patches: usize,
    /// Records that are tried before the first batch.
    pub preflight: usize,
}

/// The paper's recipe for one process, no steps yet.
impl Default for Plan {
    fn default() -> Self {
        Plan {
            batch: 512,
            seed: 0,
            first_step: 0,
            steps: 0,
            workers: 0,
            prefetch: 4,
            rank: 0,
            world: 1,
            max_tokens: MAX_TOKENS,
            patch_grid: 16,
            masked_patches: blocks::PAPER_MASKED,
            preflight: 256,
        }
    }
}

/// A setting that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("setting `{field}` = {value}: expected {expected}")]
#[allow(missing_docs)]
pub struct SettingError {
    pub field: &'static str,
    pub value: u64,
    pub expected: String,
}

impl Plan {
    /// Steps of an epoch that shows `records` records; what is left over at its end is not shown.
    pub fn steps_per_epoch(&self, records: u64) -> u64 {
        records / (self.batch * self.world).max(1) as u64
    }

    /// Checks the plan for an epoch of `records` records and views of `side` pixels.
    pub(crate) fn check(&self, records: u64, side: u32) -> Result<(), SettingError> {
        let patches = self.patch_grid * self.patch_grid;
        let refuse = |field, value: usize, expected: String| Err(SettingError { field, value: value as u64, expected });
        if self.batch < 2 {
            return refuse(
                "batch",
                self.batch,
                "at least 2 pairs, since each needs another one as its negative".into(),
            );
        }
        if self.world < 1 {
            return refuse("world", self.world, "at least 1 process".into());
        }
        if self.rank >= self.world {
            return refuse("rank", self.rank, format!("a number below the {} processes", self.world));
        }
        if self.steps_per_epoch(records) == 0 {
            let shared =
                if self.world > 1 { format!(" for all {} processes together", self.world) } else { String::new() };
            return refuse("batch", self.batch, format!("at most the {records} records of the data set{shared}"));
        }
        if self.max_tokens < 3 {
            return refuse("max_tokens", self.max_tokens, "at least 3: [CLS], a word and [SEP]".into());
        }
        if self.patch_grid == 0 || !(side as usize).is_multiple_of(self.patch_grid) {
            return refuse("patch_grid", self.patch_grid, format!("a divisor of the view's {side} pixels"));
        }
        if self.masked_patches > patches {
            return refuse("masked_patches", self.masked_patches, format!("at most the {patches} patches of a view"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_with_field_and_value() {
        let good = Plan { batch: 4, ..Plan::default() };
        assert!(good.check(4, 256).is_ok());
        for (plan, records, side, message) in [
            (Plan { batch: 1, ..good.clone() }, 9, 256, "setting `batch` = 1: expected at least 2"),
            (Plan { batch: 10, ..good.clone() }, 9, 256, "setting `batch` = 10: expected at most the 9 records"),
            (
                Plan { world: 3, ..good.clone() },
                9,
                256,
                "setting `batch` = 4: expected at most the 9 records of the data set for all 3",
            ),
            (Plan { world: 0, ..good.clone() }, 9, 256, "setting `world` = 0"),
            (Plan { rank: 1, ..good.clone() }, 9, 256, "setting `rank` = 1"),
            (Plan { max_tokens: 2, ..good.clone() }, 9, 256, "setting `max_tokens` = 2"),
            (Plan { patch_grid: 15, ..good.clone() }, 9, 256, "setting `patch_grid` = 15"),
            (Plan { masked_patches: 257, ..good.clone() }, 9, 256, "setting `masked_patches` = 257"),
        ] {
            let error = plan.check(records, side).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn an_epoch_drops_what_is_left_over() {
        let plan = Plan { batch: 4, world: 2, ..Plan::default() };
        assert_eq!([7, 8, 15, 16].map(|n| plan.steps_per_epoch(n)), [0, 1, 1, 2]);
    }
}

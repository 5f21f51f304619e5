//! The settings of a loader, and whether they fit the data.

/// What a loader is to deliver.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderPlan {
    /// Rows in a batch.
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
    /// ... so many of one run, which share the batches out among themselves: of the steps from the first on, each process gets every
    /// `world`th, as one process alone would get it.
    pub world: usize,
    /// Whether views are also given at half the side, for the visual tokenizer.
    pub halves: bool,
    /// Records that are tried before the first batch.
    pub preflight: usize,
}

/// The paper's, for one process; no steps yet.
impl Default for LoaderPlan {
    fn default() -> Self {
        LoaderPlan {
            batch: 512,
            seed: 0,
            first_step: 0,
            steps: 0,
            workers: 0,
            prefetch: 4,
            rank: 0,
            world: 1,
            halves: true,
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

impl LoaderPlan {
    /// Steps of an epoch that shows `records` records; what is left over at its end is not shown.
    pub fn steps_per_epoch(&self, records: u64) -> u64 {
        records / self.batch.max(1) as u64
    }

    /// Checks the plan for an epoch of `records` records.
    pub(super) fn check(&self, records: u64) -> Result<(), SettingError> {
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
            return refuse("batch", self.batch, format!("at most the {records} records of the data set"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_with_field_and_value() {
        let good = LoaderPlan { batch: 4, ..LoaderPlan::default() };
        assert!(good.check(4).is_ok());
        for (plan, records, message) in [
            (LoaderPlan { batch: 1, ..good.clone() }, 9, "setting `batch` = 1: expected at least 2"),
            (LoaderPlan { batch: 10, ..good.clone() }, 9, "setting `batch` = 10: expected at most the 9 records"),
            (LoaderPlan { world: 0, ..good.clone() }, 9, "setting `world` = 0"),
            (LoaderPlan { rank: 1, ..good.clone() }, 9, "setting `rank` = 1"),
        ] {
            let error = plan.check(records).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn an_epoch_drops_what_is_left_over() {
        let plan = LoaderPlan { batch: 8, world: 2, ..LoaderPlan::default() };
        assert_eq!([7, 8, 15, 16].map(|n| plan.steps_per_epoch(n)), [0, 1, 1, 2]);
    }
}

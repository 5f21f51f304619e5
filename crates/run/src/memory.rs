//! What a run takes of its device's memory, before it takes it.

use simla::config::SpecialIds;
use simla::memory::{How, Memory};
use simla_data::masks::words::MASKED_SHARE;
use simla_train::torch::memory::{GIB, free_gib};
use tch::Device;

use crate::settings::Settings;

/// Batches of a GPU's own size, where there are so many pairs.
const MULTIPLE: u64 = 8;

/// A run's steps on a device, of which so much is free before anything is taken.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    device: Device,
    free_gib: Option<f64>,
}

impl Room {
    /// Now.
    pub fn of(device: Device) -> Self {
        Self { device, free_gib: free_gib(device) }
    }

    fn of_step(&self, s: &Settings, vocab_size: i64, recompute: bool) -> Memory {
        let how = How {
            device: self.device,
            kind: s.train.dtype.kind(),
            objectives: s.recipe.objectives,
            tokens: s.data.max_tokens as i64,
            masked_words: MASKED_SHARE,
            masked_patches: s.recipe.masked_share,
            recompute,
        };
        Memory::of_step(&s.model(vocab_size, SpecialIds::default()), how)
    }

    /// The largest batch that fits, of a round number of pairs; none where the system does not say what is free, or two pairs do not fit.
    pub fn largest_batch(&self, s: &Settings, vocab_size: i64) -> Option<u64> {
        self.largest(s, vocab_size, s.train.recompute)
    }

    fn largest(&self, s: &Settings, vocab_size: i64, recompute: bool) -> Option<u64> {
        let pairs = self.of_step(s, vocab_size, recompute).largest_batch(self.free_gib? * GIB)?;
        Some(if pairs < MULTIPLE { pairs } else { pairs / MULTIPLE * MULTIPLE })
    }

    /// What a step of these settings takes, for people, and whether it fits.
    pub fn told(&self, s: &Settings, vocab_size: i64) -> String {
        let takes = self.of_step(s, vocab_size, s.train.recompute).of(s.train.batch_size) / GIB;
        let batch = s.train.batch_size;
        match self.free_gib {
            None => format!("a batch of {batch} takes about {takes:.1} GiB"),
            Some(free) if takes <= free => {
                format!("a batch of {batch} takes about {takes:.1} GiB of {free:.1} that are free")
            }
            Some(free) => format!(
                "warning: a batch of {batch} takes about {takes:.1} GiB, but {free:.1} are free; {}",
                self.advice(s, vocab_size)
            ),
        }
    }

    /// What would fit.
    pub fn advice(&self, s: &Settings, vocab_size: i64) -> String {
        let fits = |recompute| {
            let batch = self.largest(s, vocab_size, recompute)?;
            let accumulate = s.train.pairs_per_step().div_ceil(batch);
            let recompute = if recompute { " recompute=true" } else { "" };
            Some(format!("batch_size={batch} accumulate={accumulate}{recompute}"))
        };
        match (fits(false).filter(|_| !s.train.recompute), fits(true)) {
            (Some(kept), Some(again)) => format!("{kept} would fit, and so would {again}"),
            (None, Some(again)) => format!("{again} would fit"),
            _ => "not even two pairs would fit: choose a smaller model".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simla::config::Preset;

    #[test]
    fn what_fits_is_named_and_what_does_not_is_warned_of() {
        let mut s = Settings::preset(Preset::Base);
        let room = |free| Room { device: Device::Cuda(0), free_gib: free };
        let told = |s: &Settings, free| room(free).told(s, 30_522);
        assert!(told(&s, None).starts_with("a batch of 64 takes about 2"), "{}", told(&s, None));
        assert!(told(&s, Some(78.0)).ends_with("GiB of 78.0 that are free"));
        let small = told(&s, Some(16.0));
        for words in
            ["warning: a batch of 64", "but 16.0 are free", "batch_size=24 accumulate=3 would fit", "recompute=true"]
        {
            assert!(small.contains(words), "{words}: {small}");
        }
        s.train.recompute = true;
        assert!(!told(&s, Some(8.0)).contains("and so would"));
        assert!(told(&s, Some(2.0)).contains("choose a smaller model"));
        assert_eq!(room(Some(2.0)).largest_batch(&s, 30_522), None);
    }
}

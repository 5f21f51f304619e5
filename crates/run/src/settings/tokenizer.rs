//! The visual tokenizer that a run trains where none is given.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use simla::config::Preset;

/// The visual tokenizer (a discrete VAE), where none is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tokenizer {
    /// steps of training a visual tokenizer, where none is given
    #[schemars(range(min = 1), extend("x-fixed" = "run", "x-only" = "pretraining"))]
    pub dvae_steps: u64,
    /// pictures in a batch of it
    #[schemars(range(min = 2), extend("x-fixed" = "run", "x-only" = "pretraining"))]
    pub dvae_batch_size: u64,
    /// batches that make one optimiser step of it
    #[schemars(range(min = 1), extend("x-fixed" = "run", "x-only" = "pretraining"))]
    pub dvae_accumulate: u64,
    /// features of the tokenizer's first layer (DALL-E's: 256, with visual_vocab=8192)
    #[schemars(range(min = 4, max = 4096), extend("x-fixed" = "run", "x-only" = "pretraining"))]
    pub dvae_width: i64,
    /// its learning rate
    #[schemars(extend("exclusiveMinimum" = 0, "x-only" = "pretraining"))]
    pub dvae_lr: f64,
}

impl Tokenizer {
    pub(super) fn of(preset: Preset) -> Self {
        let base = Self { dvae_steps: 20_000, dvae_batch_size: 64, dvae_accumulate: 1, dvae_width: 128, dvae_lr: 1e-3 };
        match preset {
            Preset::Base => base,
            Preset::Small => Self { dvae_steps: 8000, dvae_width: 64, ..base },
            Preset::Tiny => Self { dvae_steps: 1200, dvae_batch_size: 32, dvae_width: 16, dvae_lr: 3e-3, ..base },
        }
    }
}

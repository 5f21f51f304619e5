//! What a run keeps, and how often it is looked at.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Checkpoints, and looks at how the run goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Saving {
    /// steps between checkpoints; 0 for none but by time and the last
    pub save_every_steps: u64,
    /// minutes between checkpoints; 0 for none but by steps and the last
    #[schemars(range(min = 0))]
    pub save_every_minutes: f64,
    /// checkpoints that stay, newest first; the best stays too
    #[schemars(range(min = 1))]
    pub keep: u64,
    /// steps between retrievals on the held-out file; 0 for one at the end
    pub eval_every_steps: u64,
    /// steps between samples of what it makes of held-out pairs; 0 for one at the end
    #[schemars(extend("x-only" = "pretraining"))]
    pub samples_every_steps: u64,
}

impl Default for Saving {
    fn default() -> Self {
        Self { save_every_steps: 0, save_every_minutes: 15.0, keep: 3, eval_every_steps: 0, samples_every_steps: 0 }
    }
}

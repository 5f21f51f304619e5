//! Where a run's data and starting weights come from, as RUN/run.json has it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a run's data come from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Inputs {
    pub data: Vec<String>,
    pub image_root: Option<PathBuf>,
    pub vocabulary: Option<PathBuf>,
    pub dvae: Option<PathBuf>,
    /// Folders of weights to start from, the later ones over the earlier ones.
    #[serde(default)]
    pub init: Vec<PathBuf>,
    /// The model that is fine-tuned; none in pre-training.
    pub fine_tuned: Option<PathBuf>,
    /// Held-out pairs, for retrieval while the run goes on.
    pub held_out: Option<PathBuf>,
}

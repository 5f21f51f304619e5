//! What is learned.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use simla::config::Preset;
use simla::objectives::Objectives;

/// What is learned: where sizes and defaults come from, and the losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// sizes to start from: tiny, small or base (the paper's)
    pub preset: Preset,
    /// losses that take part, of itc, itm, mlm, mim, psl
    #[schemars(extend("x-only" = "alignment"))]
    pub objectives: Objectives,
    /// weight of the momentum model's targets, reached after the first epoch
    #[schemars(range(min = 0, max = 1))]
    pub alpha: f64,
    /// share of patches hidden for reconstruction (the paper's 75 of 256)
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0, "x-only" = "pretraining"))]
    pub masked_share: f64,
    /// keywords are words that name something: none of English's function words, no parts of words. The paper takes any word
    #[schemars(extend("x-only" = "pretraining", "x-before" = false))]
    pub content_keywords: bool,
    /// divides the keywords' loss by their number in place of the size of the vocabulary (the paper's), of which the encoders feel next to
    /// nothing
    #[schemars(extend("x-only" = "pretraining", "x-before" = false))]
    pub psl_per_keyword: bool,
}

impl Recipe {
    pub(super) fn of(preset: Preset) -> Self {
        Self {
            preset,
            objectives: Objectives::default(),
            alpha: 0.4,
            masked_share: 75.0 / 256.0,
            content_keywords: true,
            psl_per_keyword: true,
        }
    }
}

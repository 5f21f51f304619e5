//! What a model that answers questions chooses among.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answers to questions, to choose among.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// questions whose commonest answer it is at least, for an answer to be one of those to choose among
    #[schemars(range(min = 1), extend("x-only" = "vqa"))]
    pub min_answer_count: u64,
    /// answers to choose among at most: the commonest of the questions
    #[schemars(range(min = 1), extend("x-only" = "vqa"))]
    pub max_answers: u64,
}

impl Default for Answers {
    fn default() -> Self {
        Self { min_answer_count: 1, max_answers: 3128 }
    }
}

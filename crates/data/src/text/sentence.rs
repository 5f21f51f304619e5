//! How the sentences of a task become pieces.

use std::sync::Arc;

use super::vocabulary::{MAX_TOKENS, Vocabulary};
use crate::loader::SettingError;

/// How cleaned sentences become pieces.
#[derive(Clone, Debug)]
pub struct Sentences {
    /// Cuts them.
    pub vocabulary: Arc<Vocabulary>,
    /// Pieces at most, `[CLS]` and `[SEP]` included.
    pub max_tokens: usize,
    /// Whether `[SEP]` stands at the end, as in BERT. The authors' checkpoints have seen none.
    pub closed: bool,
}

impl Sentences {
    /// With `[SEP]`, and as many pieces as in pre-training.
    pub fn new(vocabulary: Arc<Vocabulary>) -> Self {
        Self { vocabulary, max_tokens: MAX_TOKENS, closed: true }
    }

    /// The pieces of a sentence, `[CLS]` first.
    pub fn encode(&self, sentence: &str) -> Vec<i64> {
        self.vocabulary.cut(sentence, self.max_tokens, self.closed)
    }

    /// Refuses a limit that leaves no room for a word.
    pub(crate) fn check(&self) -> Result<(), SettingError> {
        match self.max_tokens {
            0..3 => {
                let expected = "at least 3: [CLS], a word and [SEP]".into();
                Err(SettingError { field: "max_tokens", value: self.max_tokens as u64, expected })
            }
            _ => Ok(()),
        }
    }
}

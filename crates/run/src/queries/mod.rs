//! What is asked of a trained model, for a command line and a page alike: a phrase in a picture ([`ground`]), its concepts
//! ([`keywords`]), where the encoder looks ([`attention`]), and pictures by phrases and pictures ([`search`]).
//!
//! Answers are plain values that can be written as JSON. What draws or prints them is elsewhere.

pub mod attention;
pub mod ground;
pub mod keywords;
pub mod search;

use simla::tasks::search::{PhraseError, phrase};
use simla_data::Vocabulary;

/// Words, as the model reads them.
#[derive(Debug, Clone, PartialEq)]
pub struct Phrase {
    /// As it was asked.
    pub text: String,
    /// Token ids, with [CLS] and [SEP].
    pub ids: Vec<i64>,
    /// Words of it that the model does not know.
    pub unknown: usize,
}

impl Phrase {
    /// A phrase of at most `max_tokens` pieces, of which the vocabulary knows at least one word.
    ///
    /// # Errors
    /// If there is no word in it, or none that is known.
    pub fn new(text: &str, vocabulary: &Vocabulary, max_tokens: usize) -> Result<Self, PhraseError> {
        let ids = phrase(vocabulary, text, max_tokens)?;
        let unk = vocabulary.special().unk;
        let unknown = ids.iter().filter(|&&id| id == unk).count();
        Ok(Self { text: text.into(), ids, unknown })
    }

    /// What to say of words that are unknown, if some are.
    pub fn note(&self) -> Option<String> {
        let Self { text, unknown, .. } = self;
        (*unknown > 0).then(|| format!("the phrase {text:?}: {unknown} of its words are unknown to the model"))
    }
}

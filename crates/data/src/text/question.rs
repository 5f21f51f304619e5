//! Questions as the authors clean them.

use super::caption::without_marks;

/// Words of a question that are kept in training ...
pub const TRAINING_WORDS: usize = 30;
/// ... and in testing.
pub const TEST_WORDS: usize = 50;

/// A question as the encoders see it: lower case, punctuation removed, `-` and `/` to spaces, spaces cut from the end, the first
/// `max_words`. Unlike in a [caption](super::caption::clean), runs of spaces stay, and between two of them lies an empty word that
/// counts.
pub fn clean(question: &str, max_words: usize) -> String {
    let plain = without_marks(question);
    let plain = plain.trim_end_matches(' ');
    match plain.match_indices(' ').nth(max_words.saturating_sub(1)) {
        Some((end, _)) => plain[..end].to_owned(),
        None => plain.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::text::caption;

    #[derive(Deserialize)]
    struct Cases {
        questions: Vec<Case>,
        captions: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        text: String,
        words: usize,
        out: String,
    }

    /// What the authors' two functions give.
    #[test]
    fn cleans_as_the_authors_do() {
        let cases: Cases = serde_json::from_str(include_str!("../../tests/fixtures/cleaning.json")).unwrap();
        for Case { text, words, out } in &cases.questions {
            assert_eq!(clean(text, *words), *out, "{text:?}");
        }
        for Case { text, words, out } in &cases.captions {
            assert_eq!(*words, caption::MAX_WORDS);
            // The same words: of white space, pieces know nothing.
            let ours = caption::clean(text);
            assert!(ours.split(' ').eq(out.split_whitespace()) || out.trim().is_empty() && ours.is_empty(), "{text:?}");
        }
        assert!(cases.questions.len() > 15 && cases.captions.len() > 15);
    }
}

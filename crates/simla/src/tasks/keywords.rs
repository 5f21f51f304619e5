//! The concepts that the image encoder sees (figure 5): the concept head's probabilities, and what the captions say of them.

use serde::Serialize;
use simla_data::{Vocabulary, caption};
use tch::{Tensor, no_grad};

use crate::model::Simla;
use crate::tasks::samples::{Guess, ranked_words};
use simla_train::torch::guard::{TorchError, guarded};

/// A recommended word.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Keyword {
    pub word: String,
    /// Its probability, from 0 to 1.
    pub score: f32,
    /// A caption of the picture says it.
    pub in_caption: bool,
}

/// The `count` most probable concepts of each image, given as E_v's output `[n, 1 + P, D]`, best first; words of several pieces have
/// none.
///
/// # Errors
/// What libtorch could not do.
pub fn concepts(
    model: &Simla,
    vocabulary: &Vocabulary,
    image_embeds: &Tensor,
    count: usize,
) -> Result<Vec<Vec<Guess>>, TorchError> {
    guarded(|| {
        no_grad(|| {
            let (towers, w) = (&model.towers, &model.online);
            let feat = towers.image_feat(w, image_embeds);
            let scores = towers.concept_logits(w, &feat).sigmoid();
            let (scores, ids) = ranked_words(&scores, vocabulary, count as i64);
            let guess = |(id, probability): (i64, f32)| Guess { word: vocabulary.word(id).to_owned(), probability };
            ids.into_iter().zip(scores).map(|(ids, scores)| ids.into_iter().zip(scores).map(guess).collect()).collect()
        })
    })
}

/// Concepts beside what the captions of their picture say.
pub fn compared(concepts: Vec<Guess>, captions: &[String]) -> Vec<Keyword> {
    let said: Vec<String> = captions.iter().map(|text| caption::clean(text)).collect();
    concepts
        .into_iter()
        .map(|Guess { word, probability }| Keyword {
            in_caption: said.iter().any(|text| text.split(' ').any(|said| said == word)),
            word,
            score: probability,
        })
        .collect()
}

/// Share of the recommended words that a caption of their picture says, in percent.
pub fn said_share<'a>(keywords: impl Iterator<Item = &'a Keyword>) -> f64 {
    let (said, all) =
        keywords.fold((0u32, 0u32), |(said, all), keyword| (said + u32::from(keyword.in_caption), all + 1));
    100.0 * f64::from(said) / f64::from(all.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_said_where_it_stands_whole_in_a_caption() {
        let guess = |word: &str| Guess { word: word.into(), probability: 0.5 };
        let captions = ["A Red, circle!".to_owned(), "squares".to_owned()];
        let found = compared(["red", "circle", "square", "a"].map(guess).into(), &captions);
        let said: Vec<bool> = found.iter().map(|keyword| keyword.in_caption).collect();
        assert_eq!(said, [true, true, false, true]);
        assert_eq!(said_share(found.iter()), 75.0);
        assert_eq!(said_share([].iter()), 0.0);
    }
}

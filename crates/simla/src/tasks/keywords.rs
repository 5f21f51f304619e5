//! The concepts that the image encoder sees (figure 5): the concept head's probabilities, and what the captions say of them.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use simla_data::{Vocabulary, caption, names_something};
use tch::{Tensor, no_grad};

use crate::model::Simla;
use crate::tasks::samples::{Guess, ranked_words};
use simla_train::torch::guard::{TorchError, guarded};

/// A recommended word.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Keyword {
    /// A word piece that begins a word.
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
    let feat = guarded(|| no_grad(|| model.towers.image_feat(&model.online, image_embeds)))?;
    concepts_of(model, vocabulary, &feat, count)
}

/// As [`concepts`], of images given as their contrastive features `[n, E]`.
///
/// # Errors
/// What libtorch could not do.
pub fn concepts_of(
    model: &Simla,
    vocabulary: &Vocabulary,
    image_feat: &Tensor,
    count: usize,
) -> Result<Vec<Vec<Guess>>, TorchError> {
    guarded(|| {
        no_grad(|| {
            let scores = model.towers.concept_logits(&model.online, image_feat).sigmoid();
            let (scores, ids) = ranked_words(&scores, vocabulary, count as i64);
            let guess = |(id, probability): (i64, f32)| Guess { word: vocabulary.word(id).to_owned(), probability };
            ids.into_iter().zip(scores).map(|(ids, scores)| ids.into_iter().zip(scores).map(guess).collect()).collect()
        })
    })
}

/// The words of a picture's captions.
pub fn said(captions: &[String]) -> HashSet<String> {
    captions.iter().flat_map(|text| caption::clean(text).split(' ').map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Concepts beside what the captions of their picture say.
pub fn compared(concepts: Vec<Guess>, captions: &[String]) -> Vec<Keyword> {
    let said = said(captions);
    concepts
        .into_iter()
        .map(|Guess { word, probability }| Keyword { in_caption: said.contains(&word), word, score: probability })
        .collect()
}

/// How many of the words that are recommended for pictures are in a caption of theirs, in percent, and what that is to be compared with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Precision {
    /// The model's own.
    pub said: f64,
    /// The same of one list for all pictures: the content words that most of these very pictures have in a caption.
    pub constant: f64,
    /// The same of the recommended lists, dealt to the pictures by chance: what knowing their frequency is worth.
    pub dealt: f64,
    /// Different words among all that are recommended.
    pub different: usize,
}

impl Precision {
    /// Of the words recommended for each picture, and those [`said`] of it.
    pub fn new<'a>(recommended: &[Vec<&str>], said: impl Iterator<Item = &'a HashSet<String>> + Clone) -> Self {
        let pictures = recommended.len().max(1) as f64;
        let each = recommended.iter().map(Vec::len).max().unwrap_or(0);
        let mut frequency: HashMap<&str, usize> = HashMap::new();
        for word in said.clone().flatten() {
            *frequency.entry(word).or_default() += 1;
        }
        let all = || recommended.iter().flatten();
        let share = |words: f64| 100.0 * words / all().count().max(1) as f64;
        let right =
            recommended.iter().zip(said).map(|(words, said)| words.iter().filter(|word| said.contains(**word)).count());
        let dealt = all().map(|word| frequency.get(word).copied().unwrap_or(0) as f64 / pictures);
        let mut most: Vec<usize> =
            frequency.iter().filter(|(word, _)| names_something(word)).map(|(_, n)| *n).collect();
        most.sort_unstable_by(|a, b| b.cmp(a));
        Self {
            said: share(right.sum::<usize>() as f64),
            constant: 100.0 * most.iter().take(each).sum::<usize>() as f64 / (pictures * each.max(1) as f64),
            dealt: share(dealt.sum()),
            different: all().collect::<HashSet<_>>().len(),
        }
    }

    /// As they are kept and shown, of five words a picture.
    pub fn named(&self) -> [(&'static str, f64); 4] {
        [
            ("held_out/keywords_p5", self.said),
            ("held_out/keywords_p5/constant", self.constant),
            ("held_out/keywords_p5/chance", self.dealt),
            ("held_out/keywords_different", self.different as f64),
        ]
    }

    /// In a sentence.
    pub fn summary(&self) -> String {
        format!(
            "{:.0} % of the recommended words are in a caption of their picture ({} different ones); of the best constant list it is {:.0} %, of \
             the same lists dealt by chance {:.0} %.",
            self.said, self.different, self.constant, self.dealt
        )
    }
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
    }

    #[test]
    fn precision_stands_beside_a_constant_list_and_chance() {
        let captions = [["a dog runs"], ["a dog on grass"], ["a boy runs"], ["the sea"]];
        let said: Vec<HashSet<String>> = captions.iter().map(|[text]| super::said(&[(*text).to_owned()])).collect();
        let recommended = [vec!["dog", "grass"], vec!["dog", "grass"], vec!["boy", "runs"], vec!["dog", "boy"]];
        let found = Precision::new(&recommended, said.iter());
        // 1 + 2 + 2 + 0 of 8. `dog` and `runs` are said of two pictures each, `a` of three and names nothing: 4 of 8.
        // Dealt: dog 3 x 2/4, grass 2 x 1/4, boy 2 x 1/4, runs 2/4 of 8.
        let expected = Precision { said: 62.5, constant: 50.0, dealt: 37.5, different: 4 };
        assert_eq!(found, expected);
        assert_eq!(Precision::new(&[], [].iter()), Precision::default());
    }
}

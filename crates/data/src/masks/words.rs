//! Word masks for MLM (SIMLA 2.3, equation 6): BERT's masking.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::text::vocabulary::{Special, Vocabulary};

/// Share of the pieces that are to be predicted.
pub const MASKED_SHARE: f64 = 0.15;
/// Of those, the share that `[MASK]` replaces ...
pub const REPLACED_BY_MASK: f64 = 0.8;
/// ... and the share that a random word replaces; the rest stays as it is.
pub const REPLACED_BY_RANDOM: f64 = 0.1;
/// The label of a piece that is not to be predicted.
pub const NOT_MASKED: i64 = -100;

/// Masks the pieces `ids` of one caption (`[tokens]`, `[CLS]` first, no padding).
///
/// Returns the masked pieces and the labels, both `[tokens]`; a label is [`NOT_MASKED`] where nothing is to be
/// predicted. Each piece but `[CLS]` is chosen with probability [`MASKED_SHARE`] (`[SEP]` too, as the authors do). Where
/// the draw chose none, one word is chosen, so that no loss is a mean over nothing; a caption without words stays whole.
/// Random words are drawn from the vocabulary without its special pieces.
pub fn mask(ids: &[i64], vocabulary: &Vocabulary, rng: &mut ChaCha8Rng) -> (Vec<i64>, Vec<i64>) {
    let Special { pad, cls, sep, mask, .. } = vocabulary.special();
    let mut chosen: Vec<usize> =
        (0..ids.len()).filter(|&i| ids[i] != cls && ids[i] != pad).filter(|_| rng.random_bool(MASKED_SHARE)).collect();
    if chosen.is_empty() {
        let words: Vec<usize> = (0..ids.len()).filter(|&i| ![cls, pad, sep].contains(&ids[i])).collect();
        chosen.extend(words.choose(rng));
    }
    let (mut masked, mut labels) = (ids.to_vec(), vec![NOT_MASKED; ids.len()]);
    for i in chosen {
        labels[i] = ids[i];
        let draw: f64 = rng.random();
        if draw < REPLACED_BY_MASK {
            masked[i] = mask;
        } else if draw < REPLACED_BY_MASK + REPLACED_BY_RANDOM {
            masked[i] = *vocabulary.words().choose(rng).unwrap_or(&mask);
        }
    }
    (masked, labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};
    use crate::text::vocabulary::tests::numbered;

    fn draws(words: usize, times: u64, mut each: impl FnMut(&[i64], &[i64], &[i64])) {
        let vocabulary = numbered(200);
        let text: Vec<String> = (0..words).map(|i| format!("w{i}")).collect();
        let ids = vocabulary.encode(&text.join(" "), 64);
        assert_eq!(ids.len(), words + 2);
        for seed in 0..times {
            let (masked, labels) = mask(&ids, &vocabulary, &mut stream(Purpose::Sample, seed, 0, 0, 0));
            each(&ids, &masked, &labels);
        }
    }

    #[test]
    fn proportions_are_berts() {
        // 27 words and [SEP]: no draw is empty but one in 95 (0.85^28), which adds 0.0004 to the share.
        let (mut chosen, mut by_mask, mut by_random, mut kept, mut all, mut sep) = (0, 0, 0, 0, 0, 0);
        draws(27, 20_000, |ids, masked, labels| {
            assert_eq!((masked[0], labels[0]), (ids[0], NOT_MASKED));
            for i in 1..ids.len() {
                all += 1;
                if labels[i] == NOT_MASKED {
                    assert_eq!(masked[i], ids[i]);
                    continue;
                }
                assert_eq!(labels[i], ids[i]);
                chosen += 1;
                sep += usize::from(i == ids.len() - 1);
                match masked[i] {
                    4 => by_mask += 1,
                    id if id == ids[i] => kept += 1,
                    id => {
                        assert!(id > 4, "a random word is no special piece, got {id}");
                        by_random += 1;
                    }
                }
            }
        });
        let share = |part: usize, whole: usize| part as f64 / whole as f64;
        assert!((share(chosen, all) - 0.15).abs() < 0.003, "{}", share(chosen, all));
        assert!((share(by_mask, chosen) - 0.8).abs() < 0.006, "{}", share(by_mask, chosen));
        assert!((share(by_random, chosen) - 0.1).abs() < 0.005, "{}", share(by_random, chosen));
        assert!((share(kept, chosen) - 0.1).abs() < 0.005, "{}", share(kept, chosen));
        assert!((share(sep, 20_000) - 0.15).abs() < 0.01, "[SEP] is masked like any piece: {sep}");
    }

    #[test]
    fn a_short_caption_always_has_one() {
        let mut at = [0; 3];
        draws(1, 2_000, |_, _, labels| {
            assert!(labels.iter().any(|l| *l != NOT_MASKED));
            (0..3).filter(|&i| labels[i] != NOT_MASKED).for_each(|i| at[i] += 1);
        });
        assert_eq!(at[0], 0);
        assert!(at[1] > 1600 && at[2] < 400, "{at:?}");
    }

    #[test]
    fn a_caption_without_words_stays_whole_or_loses_its_end() {
        draws(0, 200, |ids, _, labels| assert!(labels[0] == NOT_MASKED && ids.len() == 2));
    }

    #[test]
    fn random_words_cover_the_vocabulary() {
        let mut seen = std::collections::BTreeSet::new();
        draws(20, 20_000, |_, masked, labels| {
            (0..22).filter(|&i| labels[i] != NOT_MASKED).for_each(|i| {
                seen.insert(masked[i]);
            });
        });
        assert_eq!(seen.len(), 1 + 200 + 1, "[MASK], every word, and [SEP] when it is kept");
    }
}

//! Learning a WordPiece vocabulary: from single characters, the most frequent pair of neighbours is joined, again and
//! again. (The trainer of the `tokenizers` crate iterates over hash maps with random seeds, so that ids and ties differ
//! from run to run; a run must be repeatable bit for bit.)

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::tokenizer::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::caption;
use super::vocabulary::{SPECIAL_PIECES, VocabularyError, normalizer};

/// Characters that get a piece of their own, the most frequent ones; the others are unknown.
const MAX_CHARACTERS: usize = 1000;
/// WordPiece gives up on longer words.
const MAX_WORD_CHARACTERS: usize = 100;
/// Different words that are counted at a time; when there are more, those seen least are forgotten.
const MAX_DISTINCT_WORDS: usize = 2_000_000;

/// The pieces of a vocabulary of at most `size`, in the order of their ids.
pub(crate) fn pieces(captions: impl Iterator<Item = String>, size: usize) -> Result<Vec<String>, VocabularyError> {
    let words = count_words(captions);
    if words.is_empty() {
        return Err(VocabularyError::NoWords);
    }
    let mut learner = Learner::start(&words);
    let least = SPECIAL_PIECES.len() + learner.pieces.len();
    if size < least {
        return Err(VocabularyError::TooSmall { size, least });
    }
    while SPECIAL_PIECES.len() + learner.pieces.len() < size && learner.join_most_frequent() {}
    Ok(SPECIAL_PIECES.iter().map(|p| p.to_string()).chain(learner.pieces).collect())
}

fn count_words(captions: impl Iterator<Item = String>) -> BTreeMap<String, u64> {
    let mut words: HashMap<String, u64> = HashMap::new();
    let mut least = 1;
    for caption in captions {
        let mut text = NormalizedString::from(caption::clean(&caption));
        let mut parts = match normalizer().normalize(&mut text) {
            Ok(()) => PreTokenizedString::from(text),
            Err(_) => continue,
        };
        if BertPreTokenizer.pre_tokenize(&mut parts).is_err() {
            continue;
        }
        for (word, _, _) in parts.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            if !word.is_empty() && word.chars().count() <= MAX_WORD_CHARACTERS {
                match words.get_mut(word) {
                    Some(count) => *count += 1,
                    None => drop(words.insert(word.to_string(), 1)),
                }
            }
        }
        while words.len() > MAX_DISTINCT_WORDS {
            words.retain(|_, count| *count > least);
            least *= 2;
        }
    }
    words.into_iter().collect()
}

/// A pair of neighbouring pieces in the queue: the most frequent first, ties to the alphabetically first.
type Candidate = (u64, std::cmp::Reverse<(String, String)>, (usize, usize));

struct Learner {
    pieces: Vec<String>,
    ids: HashMap<String, usize>,
    /// Every word as pieces, with its count.
    words: Vec<(Vec<usize>, u64)>,
    /// How often a pair occurs and in which words (some of these may have lost it).
    pairs: HashMap<(usize, usize), (u64, BTreeSet<usize>)>,
    queue: BinaryHeap<Candidate>,
}

impl Learner {
    fn start(counts: &BTreeMap<String, u64>) -> Self {
        let mut characters: BTreeMap<char, u64> = BTreeMap::new();
        for (word, count) in counts {
            word.chars().for_each(|c| *characters.entry(c).or_default() += count);
        }
        let mut kept: Vec<(char, u64)> = characters.into_iter().collect();
        kept.sort_by_key(|(c, count)| (std::cmp::Reverse(*count), *c));
        kept.truncate(MAX_CHARACTERS);
        let kept: BTreeSet<char> = kept.into_iter().map(|(c, _)| c).collect();

        let split = |word: &str| -> Vec<String> {
            word.chars().enumerate().map(|(i, c)| if i == 0 { c.to_string() } else { format!("##{c}") }).collect()
        };
        let known = || counts.iter().filter(|(word, _)| word.chars().all(|c| kept.contains(&c)));
        let alphabet: BTreeSet<String> = known().flat_map(|(word, _)| split(word)).collect();
        let pieces: Vec<String> = alphabet.into_iter().collect();
        let ids: HashMap<String, usize> = pieces.iter().cloned().zip(0..).collect();
        let words = known().map(|(word, count)| (split(word).iter().map(|p| ids[p]).collect(), *count)).collect();
        let mut learner = Learner { pieces, ids, words, pairs: HashMap::new(), queue: BinaryHeap::new() };
        let mut changed = BTreeSet::new();
        for word in 0..learner.words.len() {
            learner.add_pairs(word, &mut changed);
        }
        learner.enqueue(changed);
        learner
    }

    /// Joins the most frequent pair everywhere; false when no pair is left.
    fn join_most_frequent(&mut self) -> bool {
        while let Some((count, _, pair)) = self.queue.pop() {
            let Some((current, _)) = self.pairs.get(&pair) else {
                continue;
            };
            if *current != count {
                continue; // a newer entry of this pair is in the queue
            }
            let Some((_, places)) = self.pairs.remove(&pair) else {
                continue;
            };
            let joined = self.join_name(pair);
            // Two ways of splitting can give the same piece (a+bc, ab+c).
            let id = *self.ids.entry(joined.clone()).or_insert(self.pieces.len());
            if id == self.pieces.len() {
                self.pieces.push(joined);
            }
            let mut changed = BTreeSet::new();
            for word in places {
                self.remove_pairs(word, &mut changed);
                let pieces = &mut self.words[word].0;
                let mut at = 0;
                while at + 1 < pieces.len() {
                    if (pieces[at], pieces[at + 1]) == pair {
                        pieces[at] = id;
                        pieces.remove(at + 1);
                    }
                    at += 1;
                }
                self.add_pairs(word, &mut changed);
            }
            self.enqueue(changed);
            return true;
        }
        false
    }

    fn join_name(&self, (a, b): (usize, usize)) -> String {
        let b = &self.pieces[b];
        format!("{}{}", self.pieces[a], b.strip_prefix("##").unwrap_or(b))
    }

    fn add_pairs(&mut self, word: usize, changed: &mut BTreeSet<(usize, usize)>) {
        let (pieces, count) = &self.words[word];
        for pair in pieces.windows(2).map(|w| (w[0], w[1])) {
            let entry = self.pairs.entry(pair).or_default();
            entry.0 += count;
            entry.1.insert(word);
            changed.insert(pair);
        }
    }

    fn remove_pairs(&mut self, word: usize, changed: &mut BTreeSet<(usize, usize)>) {
        let (pieces, count) = &self.words[word];
        for pair in pieces.windows(2).map(|w| (w[0], w[1])) {
            if let Some(entry) = self.pairs.get_mut(&pair) {
                entry.0 -= count;
                entry.1.remove(&word);
                changed.insert(pair);
            }
        }
    }

    fn enqueue(&mut self, changed: BTreeSet<(usize, usize)>) {
        for pair in changed {
            match self.pairs.get(&pair) {
                Some((0, _)) => drop(self.pairs.remove(&pair)),
                Some((count, _)) => {
                    let names = (self.pieces[pair.0].clone(), self.pieces[pair.1].clone());
                    self.queue.push((*count, std::cmp::Reverse(names), pair));
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::vocabulary::Vocabulary;

    fn learn(captions: &[&str], size: usize) -> Vec<String> {
        pieces(captions.iter().map(|c| c.to_string()), size).unwrap()
    }

    #[test]
    fn joins_by_hand() {
        // Characters: a ##b (x5), a ##b ##c (x2), d ##b (x1). Pairs: a+##b 7, ##b+##c 2, d+##b 1.
        let captions = ["ab ab", "ab ab ab abc", "abc db"];
        let start = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##b", "##c", "a", "d"];
        let expected: Vec<&str> = start.into_iter().chain(["ab", "abc", "db"]).collect();
        assert_eq!(learn(&captions, 100), expected, "ab (7), then ab+##c (2), then d+##b (1)");
        assert_eq!(learn(&captions, 10), expected[..10]);
        assert_eq!(learn(&captions, 9), expected[..9]);
    }

    #[test]
    fn a_repeated_pair_in_one_word_counts_and_joins_twice() {
        // a ##a ##a ##a: the pair (##a, ##a) occurs twice, (a, ##a) once.
        let learned = learn(&["aaaa"], 100);
        assert_eq!(
            learned[5..],
            ["##a", "a", "##aa", "##aaa", "aaaa"],
            "(##aa, ##a) ties with (a, ##aa) and is alphabetically first"
        );
    }

    #[test]
    fn ties_go_to_the_alphabet() {
        assert_eq!(learn(&["zy xw"], 100)[5..], ["##w", "##y", "x", "z", "xw", "zy"]);
    }

    #[test]
    fn the_same_captions_give_the_same_vocabulary() {
        let words = ["dog", "dogs", "running", "runs", "cat", "catching", "ball", "balls", "snow", "snowy", "été"];
        let captions: Vec<String> = (0..200usize)
            .map(|i| (0..6).map(|j| words[(i * 7 + j * i * 3 + j) % words.len()]).collect::<Vec<_>>().join(" "))
            .collect();
        let first = pieces(captions.iter().cloned(), 60).unwrap();
        for _ in 0..5 {
            assert_eq!(pieces(captions.iter().cloned(), 60).unwrap(), first);
            assert_eq!(pieces(captions.iter().rev().cloned(), 60).unwrap(), first);
        }
        let vocabulary = Vocabulary::learn(captions.into_iter(), 60).unwrap();
        let text = vocabulary.decode(&vocabulary.encode("Dogs RUNNING, snowy balls!", 25));
        assert_eq!(text, "dogs running snowy balls");
    }

    #[test]
    fn refuses_what_cannot_be() {
        assert!(matches!(pieces(["!", ""].iter().map(|s| s.to_string()), 100), Err(VocabularyError::NoWords)));
        let error = pieces(["abc"].iter().map(|s| s.to_string()), 7).unwrap_err();
        assert!(error.to_string().contains("a size of 7 was asked for, at least 8"), "{error}");
    }
}

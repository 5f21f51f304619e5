//! Pseudo-labelled keywords (equations 8 and 9, appendix 3): which concepts does the image show?

use tch::{Kind, Tensor};

/// What may be a keyword and how much the loss weighs. The default is the paper's; few pictures need more (benchmarks/learning).
#[derive(Debug, Default)]
pub struct Rule {
    /// `[vocab]`: true at words that are no keyword, whatever attends to them.
    pub never: Option<Tensor>,
    /// The loss of a pair is divided by the number of keywords in place of the size of the vocabulary: of a mean over thousands of words,
    /// the encoders feel next to nothing.
    pub per_keyword: bool,
}

impl Rule {
    /// The factor of [`loss`], for `k` keywords of a vocabulary.
    pub fn weight(&self, k: i64, vocab: i64) -> f64 {
        if self.per_keyword { vocab as f64 / k as f64 } else { 1.0 }
    }
}

/// Log-odds at which the concept head's biases start: of each word being one of `k` keywords that are drawn among the `candidates` of a
/// caption, each list being a caption's. So the head need not learn first how frequent words are, one step of the optimiser after the
/// other and all words alike (Lin et al. 2017, section 4.1, of rare classes).
pub fn prior(candidates: impl Iterator<Item = Vec<i64>>, k: i64, vocab: i64) -> Vec<f32> {
    let (mut expected, mut captions) = (vec![0.0; vocab as usize], 0.0);
    for mut words in candidates {
        words.sort_unstable();
        words.dedup();
        let share = (k as f64 / words.len() as f64).min(1.0);
        words.iter().for_each(|&word| expected[word as usize] += share);
        captions += 1.0;
    }
    // Half a caption more that has the word, and half a one that has not: no odds are infinite.
    expected.into_iter().map(|share: f64| ((share + 0.5) / (captions - share + 0.5)).ln() as f32).collect()
}

/// The `k` words of each caption that the multimodal [CLS] attends to most: each head votes for its k best positions, `barred` ones
/// aside; most votes first, ties to the larger attention summed over heads.
///
/// `attention` `[B, H, L]` is the [CLS] row of the last layer's self-attention, `barred` `[B, L]` is true at special tokens, padding and
/// what else is no keyword, `ids` `[B, L]`. Returns 0/1 over the vocabulary, `[B, vocab]`.
pub fn keyword_targets(attention: &Tensor, barred: &Tensor, ids: &Tensor, k: i64, vocab: i64) -> Tensor {
    let (batch, heads, length) = attention.size3().expect("[B, H, L]");
    let k = k.min(length);
    let row = attention.masked_fill(&barred.unsqueeze(1), -1.0);
    let votes = row.zeros_like().scatter_value(2, &row.topk(k, -1, true, true).1, 1.0).sum_dim_intlist(
        [1].as_slice(),
        false,
        Kind::Float,
    );
    // Attention sums to at most the number of heads: a vote always outweighs it.
    let attended = row.clamp_min(0.0).sum_dim_intlist([1].as_slice(), false, Kind::Float) / (heads + 1);
    let (score, positions) = (votes + attended).masked_fill(barred, -1.0).topk(k, -1, true, true);
    // A caption with fewer words than k: the surplus points at barred ones, which add nothing.
    let chosen = score.ge(0.0).to_kind(Kind::Float);
    let target = Tensor::zeros([batch, vocab], (Kind::Float, attention.device()));
    target.scatter_add(1, &ids.gather(1, &positions, false), &chosen).clamp_max(1.0)
}

/// Binary cross-entropy with logits over the vocabulary, `(1 - alpha)` with the hard targets and `alpha` with the momentum
/// model's `recommended` probabilities (all `[B, vocab]`). Linear in the target, hence one pass over the mixed one.
pub fn loss(logits: &Tensor, keywords: &Tensor, recommended: Option<&Tensor>, alpha: f64) -> Tensor {
    let target = match recommended {
        Some(recommended) if alpha > 0.0 => keywords * (1.0 - alpha) + recommended * alpha,
        _ => keywords.shallow_clone(),
    };
    logits.binary_cross_entropy_with_logits::<Tensor>(&target, None, None, tch::Reduction::Mean)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const VOCAB: i64 = 20;

    /// Ids of the chosen words; tokens at positions marked `special` are not words.
    fn chosen(attention: &[&[f32]], special: &[bool], ids: &[i64], k: i64) -> Vec<i64> {
        let length = ids.len() as i64;
        let rows: Vec<f32> = attention.concat();
        let attention = Tensor::from_slice(&rows).view([1, attention.len() as i64, length]);
        let special = Tensor::from_slice(special).view([1, length]);
        let target = keyword_targets(&attention, &special, &Tensor::from_slice(ids).view([1, length]), k, VOCAB);
        assert!(target.le(1.0).all().int64_value(&[]) == 1);
        Vec::try_from(target.get(0).nonzero().flatten(0, 1)).unwrap()
    }

    #[test]
    fn votes_come_first_and_attention_breaks_ties() {
        let special = [true, false, false, false, false, true];
        let ids = [1, 10, 11, 12, 13, 2];
        // Every head has two votes. Word 11 gets two, 10 and 13 one each; 13 has more attention in sum, 12 has none.
        let heads: [&[f32]; 2] = [&[0.9, 0.20, 0.3, 0.0, 0.10, 0.0], &[0.0, 0.05, 0.3, 0.0, 0.60, 0.9]];
        assert_eq!(chosen(&heads, &special, &ids, 2), [11, 13]);
        // One vote a head: 11 and 13 have one each, and 13 has more attention.
        assert_eq!(chosen(&heads, &special, &ids, 1), [13]);
    }

    #[test]
    fn one_vote_outweighs_any_attention() {
        let ids = [10, 11, 12];
        // 10 has one vote of each of two heads; 11 has one vote, of a head that looks nowhere else.
        let heads: [&[f32]; 3] = [&[0.4, 0.3, 0.3], &[0.4, 0.3, 0.3], &[0.0, 1.0, 0.0]];
        assert_eq!(chosen(&heads, &[false; 3], &ids, 1), [10]);
    }

    #[test]
    fn special_tokens_and_padding_are_never_chosen() {
        let ids = [1, 10, 2, 0, 0];
        let special = [true, false, true, true, true];
        assert_eq!(chosen(&[&[0.5, 0.01, 0.4, 0.05, 0.04]], &special, &ids, 4), [10], "a caption shorter than k");
        assert_eq!(chosen(&[&[0.5, 0.3, 0.2, 0.0, 0.0]], &[true; 5], &ids, 2), [0i64; 0], "no word at all");
    }

    #[test]
    fn a_word_that_stands_twice_counts_once() {
        assert_eq!(chosen(&[&[0.4, 0.4, 0.2]], &[false; 3], &[7, 7, 8], 2), [7]);
    }

    #[test]
    fn the_prior_is_the_share_of_captions_that_a_word_is_drawn_in() {
        // Two of four words: each with one half. The only word of a caption: surely. A word that stands twice is one.
        let captions = [vec![5, 6, 7, 8], vec![5, 5], vec![]];
        let prior = prior(captions.into_iter(), 2, 10);
        let odds = |share: f32| ((share + 0.5) / (3.0 - share + 0.5)).ln();
        for (word, share) in [(5, 1.5), (6, 0.5), (8, 0.5), (9, 0.0)] {
            assert!((prior[word] - odds(share)).abs() < 1e-6, "{word}: {}", prior[word]);
        }
    }

    #[test]
    fn a_loss_per_keyword_does_not_fade_with_the_vocabulary() {
        // Three keywords missed at even odds, all other words surely absent: ln 2 a keyword.
        let of = |vocab: i64| {
            let keywords = Tensor::arange(vocab, (Kind::Float, Device::Cpu)).lt(3).to_kind(Kind::Float).unsqueeze(0);
            let logits = (&keywords - 1.0) * 100.0;
            let rule = Rule { per_keyword: true, ..Rule::default() };
            (loss(&logits, &keywords, None, 0.0) * rule.weight(3, vocab)).double_value(&[])
        };
        assert!((of(20) - 2f64.ln()).abs() < 1e-6 && (of(5000) - 2f64.ln()).abs() < 1e-5);
        assert_eq!(Rule::default().weight(3, 5000), 1.0, "the paper's mean");
    }

    #[test]
    fn mixing_targets_is_mixing_losses() {
        let random = || Tensor::rand([3, VOCAB], (Kind::Float, Device::Cpu));
        let (logits, hard, soft) = (random(), random().round(), random());
        let of = |target: &Tensor| loss(&logits, target, None, 0.0).double_value(&[]);
        let mixed = loss(&logits, &hard, Some(&soft), 0.4).double_value(&[]);
        assert!((mixed - (0.6 * of(&hard) + 0.4 * of(&soft))).abs() < 1e-6);
    }
}

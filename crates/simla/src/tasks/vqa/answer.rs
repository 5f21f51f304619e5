//! From a question's states to an answer: the likeliest of a list, or one that the decoder makes up.

use simla_data::{AnswerList, Vocabulary};
use tch::{Device, Kind, Tensor, no_grad};

use super::{Answerer, Asked, Told};
use crate::text::KeysValues;
use simla_train::torch::device::upload;
use simla_train::torch::operations::sums_by;

/// Answers that are kept apart by the probability of their first piece alone, of the paper's list of 3,128.
pub const K_TEST: usize = 128;
/// Hypotheses of the search for an answer that is not in a list.
pub const BEAM: usize = 3;
/// Pieces of such an answer at most.
pub const MAX_PIECES: usize = 10;

/// E_mm's states of some questions, as the decoder reads them.
#[derive(Debug)]
pub struct States(KeysValues);

/// Answers to choose among, as the decoder reads them.
#[derive(Debug)]
pub struct Candidates {
    /// From `[CLS]` to `[SEP]`.
    pieces: Vec<Vec<i64>>,
    /// The first piece of each, `[N]`.
    first: Tensor,
}

impl Candidates {
    /// The answers of a list, for `model`.
    pub fn new(list: &AnswerList, vocabulary: &Vocabulary, model: &Answerer) -> Self {
        Self::of(list.pieces(vocabulary), model)
    }

    /// `pieces` of each answer are from `[CLS]` to `[SEP]`.
    pub fn of(pieces: Vec<Vec<i64>>, model: &Answerer) -> Self {
        let first: Vec<i64> = pieces.iter().map(|pieces| pieces[1]).collect();
        Self { first: upload(&Tensor::from_slice(&first), model.weights.online.device()), pieces }
    }
}

/// The best candidates of some questions.
#[derive(Debug)]
pub struct Ranking {
    /// Probability of each candidate's first piece, in f32: `[Q, N]`.
    pub first_token: Tensor,
    /// The k of them with the likeliest, a tie to the lower index: `[Q, k]`.
    pub chosen: Tensor,
    /// The same, the likeliest as a whole first: `[Q, k]`.
    pub ids: Tensor,
    /// Log-likelihood of all their pieces and `[SEP]`: `[Q, k]`.
    pub log_likelihood: Tensor,
    /// Its softmax over the k: `[Q, k]`.
    pub scores: Tensor,
}

impl Answerer {
    /// E_mm of questions, as the decoder reads it.
    pub fn read(&self, asked: &Asked) -> States {
        no_grad(|| {
            let w = &self.weights.online;
            let states = self.parts.question_states(w, asked, 0.0);
            States(self.parts.decoder.keys_values(w, &states, Some(&asked.mask)))
        })
    }

    /// Ranks candidates: the `k` whose first piece is likeliest, by the log-likelihood of the whole, which is not divided by the length.
    pub fn rank(&self, states: &States, candidates: &Candidates, k: usize) -> Ranking {
        no_grad(|| {
            let first = self.next(&states.0, &vec![vec![]; states.0.items() as usize]).exp();
            let first_token = first.index_select(1, &candidates.first);
            let k = k.min(candidates.pieces.len()) as i64;
            let chosen = first_token.sort_stable(true, 1, true).1.narrow(1, 0, k);
            let of_each = Vec::<Vec<i64>>::try_from(chosen.to(Device::Cpu)).expect("rows of integers");
            let likelihoods = (0i64..).zip(of_each).map(|(question, chosen)| {
                let pieces: Vec<&[i64]> = chosen.iter().map(|&i| candidates.pieces[i as usize].as_slice()).collect();
                self.log_likelihood(&self.of_one(states, question), &pieces)
            });
            let likelihoods = Tensor::stack(&likelihoods.collect::<Vec<_>>(), 0);
            let (log_likelihood, order) = likelihoods.sort_stable(true, 1, true);
            Ranking {
                ids: chosen.gather(1, &order, false),
                scores: log_likelihood.softmax(1, Kind::Float),
                first_token,
                chosen,
                log_likelihood,
            }
        })
    }

    /// Makes up answers to one question of several: pieces without `[CLS]` and `[SEP]`, with their log-likelihoods, the likeliest first.
    pub fn make_up(&self, states: &States, question: i64) -> Vec<(Vec<i64>, f64)> {
        let context = self.of_one(states, question);
        let special = self.config.special;
        let never =
            upload(&Tensor::from_slice(&[special.pad, special.cls, special.mask]), self.weights.online.device());
        let next = |said: &[Vec<i64>]| -> Vec<Vec<f32>> {
            no_grad(|| {
                let log_p = self.next(&context, said).index_fill(1, &never, f64::NEG_INFINITY);
                Vec::try_from(log_p.to(Device::Cpu)).expect("[beam, vocabulary]")
            })
        };
        search(next, special.sep, BEAM, MAX_PIECES)
    }

    fn of_one(&self, states: &States, question: i64) -> KeysValues {
        states.0.gather(&upload(&Tensor::from_slice(&[question]), self.weights.online.device()))
    }

    /// Log-probabilities of the piece after each of `said` (all of one length, `[CLS]` not among them), in f32: `[n, vocabulary]`.
    fn next(&self, context: &KeysValues, said: &[Vec<i64>]) -> Tensor {
        let special = self.config.special;
        // What stands where the next piece will be is not looked at.
        let rows = said.iter().map(|said| [&[special.cls][..], said, &[special.sep]].concat());
        let rows: Vec<Vec<i64>> = rows.collect();
        let told = Told::new(rows.iter().map(|row| (row.as_slice(), 0)), special.pad, self.weights.online.device());
        let last = said.first().map_or(0, Vec::len) as i64;
        let logits = self.parts.tell(&self.weights.online, &told, context, 0.0);
        logits.view([said.len() as i64, last + 1, -1]).select(1, last).log_softmax(-1, Kind::Float)
    }

    /// Log-likelihoods of answers to the question of `context`, `[SEP]` included: `[n]`.
    fn log_likelihood(&self, context: &KeysValues, answers: &[&[i64]]) -> Tensor {
        let told =
            Told::new(answers.iter().map(|&pieces| (pieces, 0)), self.config.special.pad, self.weights.online.device());
        let log_p = self.parts.tell(&self.weights.online, &told, context, 0.0).log_softmax(-1, Kind::Float);
        let each = log_p.gather(1, &told.labels.unsqueeze(-1), false).squeeze_dim(1);
        sums_by(&each, &told.answer, answers.len() as i64)
    }
}

/// Beam search: the likeliest sequences of 1 to `longest` pieces before `end`, the likeliest first; not divided by the length, as
/// candidates are not. `next` gives the log-probabilities of the piece after each of some sequences. Ties go to the better hypothesis, then
/// to the lower piece: nothing is drawn.
fn search(
    mut next: impl FnMut(&[Vec<i64>]) -> Vec<Vec<f32>>,
    end: i64,
    beam: usize,
    longest: usize,
) -> Vec<(Vec<i64>, f64)> {
    let (mut said, mut likelihoods) = (vec![vec![]], vec![0.0]);
    let mut ended: Vec<(Vec<i64>, f64)> = Vec::new();
    for length in 0..=longest {
        let mut longer: Vec<(usize, i64, f64)> = Vec::new();
        for (hypothesis, log_p) in next(&said).into_iter().enumerate() {
            for (piece, log_p) in (0..).zip(log_p) {
                let likelihood = likelihoods[hypothesis] + f64::from(log_p);
                // An answer that says nothing is none.
                if piece == end && length > 0 && likelihood.is_finite() {
                    ended.push((said[hypothesis].clone(), likelihood));
                } else if piece != end && likelihood.is_finite() {
                    longer.push((hypothesis, piece, likelihood));
                }
            }
        }
        ended.sort_by(|a, b| b.1.total_cmp(&a.1));
        longer.sort_by(|a, b| b.2.total_cmp(&a.2));
        longer.truncate(beam);
        // A longer answer is less likely than what it begins with.
        let enough = ended.get(beam - 1).is_some_and(|worst| longer.first().is_none_or(|best| best.2 <= worst.1));
        if longer.is_empty() || enough {
            break;
        }
        let more = |&(hypothesis, piece, _): &(usize, i64, f64)| [said[hypothesis].as_slice(), &[piece]].concat();
        (said, likelihoods) = (longer.iter().map(more).collect(), longer.iter().map(|l| l.2).collect());
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: i64 = 0;

    /// After nothing: a 0.5, b 0.4, the end 0.1. After a: the end 0.3, a 0.35, b 0.35. After b: the end 0.9, a 0.1. After two: the end.
    fn tiny(said: &[Vec<i64>]) -> Vec<Vec<f32>> {
        let probabilities = |said: &Vec<i64>| match said.as_slice() {
            [] => [0.1, 0.5, 0.4],
            [1] => [0.3, 0.35, 0.35],
            [2] => [0.9, 0.1, 0.0],
            _ => [1.0, 0.0, 0.0],
        };
        said.iter().map(|said| probabilities(said).map(|p: f32| p.ln()).to_vec()).collect()
    }

    fn found(beam: usize, longest: usize) -> Vec<(Vec<i64>, f64)> {
        let rounded = |p: f64| (p.exp() * 1000.0).round() / 1000.0;
        search(tiny, END, beam, longest).into_iter().map(|(said, p)| (said, rounded(p))).collect()
    }

    #[test]
    fn a_search_by_hand() {
        // b 0.36, then aa and ab with 0.175 each, a tie to the lower piece; a 0.15; ba 0.04.
        let best = [(vec![2], 0.36), (vec![1, 1], 0.175), (vec![1, 2], 0.175), (vec![1], 0.15)];
        let all = found(3, 10);
        assert_eq!(all[..4], best);
        assert_eq!(found(3, 10), all, "nothing is drawn");
        // One hypothesis begins with a, which is likelier than b, and never comes back.
        assert_eq!(found(1, 10)[0], (vec![1, 1], 0.175));
        // Of one piece alone.
        assert_eq!(found(3, 1), [(vec![2], 0.36), (vec![1], 0.15)]);
    }
}

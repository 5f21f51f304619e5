//! Image-text matching (equation 5).

use tch::{Kind, Tensor};

/// Index of "these belong together" among the two logits.
pub const MATCH: i64 = 1;

/// Cross-entropy of `logits` `[3 B, 2]`: B matched pairs, then 2 B that do not belong together.
pub fn loss(logits: &Tensor) -> Tensor {
    let matched = logits.size()[0] / 3;
    let log_p = logits.log_softmax(-1, Kind::Float);
    let right = log_p.narrow(0, 0, matched).select(1, MATCH).sum(Kind::Float);
    let wrong = log_p.narrow(0, matched, 2 * matched).select(1, 1 - MATCH).sum(Kind::Float);
    -(right + wrong) / (3 * matched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_over_one_matched_and_two_wrong_pairs_by_hand() {
        let logits = Tensor::from_slice2(&[[0.0f32, 1.0], [0.0, 1.0], [3.0, 0.0]]);
        let surprise = |right: f64, wrong: f64| (1.0 + (wrong - right).exp()).ln();
        let expected = (surprise(1.0, 0.0) + surprise(0.0, 1.0) + surprise(3.0, 0.0)) / 3.0;
        assert!((loss(&logits).double_value(&[]) - expected).abs() < 1e-6);
    }

    #[test]
    fn vanishes_where_every_pair_is_judged_right() {
        let logits = Tensor::from_slice2(&[[-50.0f32, 50.0], [50.0, -50.0], [50.0, -50.0]]);
        assert!(loss(&logits).double_value(&[]) < 1e-6);
    }
}

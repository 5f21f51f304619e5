//! Answers that are told piece by piece (VQA): every piece counts for itself, an answer as much as people gave it.

use tch::{Kind, Tensor};

/// Sum over pieces of `weights` x ((1 - `alpha`) cross-entropy with the piece + `alpha` cross-entropy with the momentum model's softmax)
/// over the number of questions. `logits` and `teacher` are `[n, vocabulary]`, `labels` and `weights` `[n]`: each piece has its answer's
/// weight. `teacher` may be absent only where `alpha` is 0.
///
/// # Panics
/// If `alpha` is positive and there is no teacher.
pub fn loss(
    logits: &Tensor,
    labels: &Tensor,
    teacher: Option<&Tensor>,
    alpha: f64,
    weights: &Tensor,
    questions: i64,
) -> Tensor {
    (each(logits, labels, teacher, alpha) * weights).sum(Kind::Float) / questions
}

/// The same of each piece, neither weighted nor summed: `[n]`.
fn each(logits: &Tensor, labels: &Tensor, teacher: Option<&Tensor>, alpha: f64) -> Tensor {
    let log_p = logits.log_softmax(-1, Kind::Float);
    let hard = -log_p.gather(1, &labels.unsqueeze(-1), false).squeeze_dim(1);
    if alpha == 0.0 {
        return hard;
    }
    let teacher = teacher.expect("distillation needs the momentum model's logits");
    let soft = -(log_p * teacher.softmax(-1, Kind::Float)).sum_dim_intlist([-1].as_slice(), false, Kind::Float);
    hard * (1.0 - alpha) + soft * alpha
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_answers_of_two_questions_by_hand() {
        // An answer of two pieces and weight 0.7, one of one piece and weight 1.
        let logits = Tensor::from_slice2(&[[1.0f32, 0.0, 2.0], [0.0, 0.0, 0.0], [5.0, 5.0, 5.0]]);
        let labels = Tensor::from_slice(&[0i64, 2, 1]);
        let weights = Tensor::from_slice(&[0.7f32, 0.7, 1.0]);
        let teacher = Tensor::from_slice2(&[[0.0f32, 0.0, f32::NEG_INFINITY], [5.0, 5.0, 5.0], [1.0, 2.0, 3.0]]);
        let log_sum = (1f64.exp() + 1.0 + 2f64.exp()).ln();
        let uniform = 3f64.ln();
        let hard = (0.7 * (log_sum - 1.0 + uniform) + uniform) / 2.0;
        let soft = (0.7 * (log_sum - 0.5 + uniform) + uniform) / 2.0;
        let found = |alpha| loss(&logits, &labels, Some(&teacher), alpha, &weights, 2).double_value(&[]);
        assert!((found(0.0) - hard).abs() < 1e-6);
        assert!((found(0.4) - (0.6 * hard + 0.4 * soft)).abs() < 1e-6);
    }
}

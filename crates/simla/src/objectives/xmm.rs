//! Symmetric cross-modality reconstruction (equations 6 and 7): masked words from the image (MLM) and masked patches' visual
//! tokens from the caption (MIM) are the same loss over different vocabularies.

use tch::{Kind, Tensor};

/// `(1 - alpha)` cross-entropy with the truth `labels` `[n]` plus `alpha` cross-entropy with the momentum model's softmax, mean
/// over the masked positions; `logits` and `teacher` are `[n, vocabulary]`. `teacher` may be absent only where `alpha` is 0.
///
/// # Panics
/// If `alpha` is positive and there is no teacher.
pub fn loss(logits: &Tensor, labels: &Tensor, teacher: Option<&Tensor>, alpha: f64) -> Tensor {
    let log_p = logits.log_softmax(-1, Kind::Float);
    let hard = -log_p.gather(1, &labels.unsqueeze(-1), false).mean(Kind::Float);
    if alpha == 0.0 {
        return hard;
    }
    let teacher = teacher.expect("distillation needs the momentum model's logits");
    let soft = -(log_p * teacher.softmax(-1, Kind::Float))
        .sum_dim_intlist([-1].as_slice(), false, Kind::Float)
        .mean(Kind::Float);
    hard * (1.0 - alpha) + soft * alpha
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn truth_and_teacher_by_hand() {
        let logits = Tensor::from_slice2(&[[1.0f32, 0.0, 2.0], [0.0, 0.0, 0.0]]);
        let labels = Tensor::from_slice(&[0i64, 2]);
        let teacher = Tensor::from_slice2(&[[0.0f32, 0.0, f32::NEG_INFINITY], [5.0, 5.0, 5.0]]);
        let log_sum = (1f64.exp() + 1.0 + 2f64.exp()).ln();
        let hard = ((log_sum - 1.0) + 3f64.ln()) / 2.0;
        let soft = ((log_sum - 0.5) + 3f64.ln()) / 2.0;
        let found = |alpha| loss(&logits, &labels, Some(&teacher), alpha).double_value(&[]);
        assert!((found(0.0) - hard).abs() < 1e-6);
        assert!((found(0.4) - (0.6 * hard + 0.4 * soft)).abs() < 1e-6);
    }

    #[test]
    fn the_gradient_vanishes_where_the_prediction_is_the_mixed_target() {
        let teacher = Tensor::randn([5, 7], (Kind::Float, Device::Cpu));
        let labels = Tensor::randint(7, [5], (Kind::Int64, Device::Cpu));
        let target = labels.one_hot(7) * 0.6 + teacher.softmax(-1, Kind::Float) * 0.4;
        let logits = target.log().to_kind(Kind::Float).set_requires_grad(true);
        let value = loss(&logits, &labels, Some(&teacher), 0.4);
        let gradient = Tensor::run_backward(&[value], &[&logits], false, false).remove(0);
        assert!(gradient.abs().max().double_value(&[]) < 1e-6);
    }
}

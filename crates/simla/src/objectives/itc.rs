//! Image-text contrast (equations 1 to 4).

use tch::{Device, Kind, Tensor};

use super::soft_cross_entropy;
use simla_train::torch::operations::product;

/// Similarities over the temperature, of each image to all texts and of each text to all images: `[B, B + queue]`. The batch
/// comes first, then the queue.
#[derive(Debug)]
pub struct Similarities {
    /// Of images to texts.
    pub i2t: Tensor,
    /// Of texts to images.
    pub t2i: Tensor,
}

impl Similarities {
    /// Features `[B, E]` against momentum features `[E, B + queue]`.
    pub fn new(image_feat: &Tensor, text_feat: &Tensor, image_all: &Tensor, text_all: &Tensor, temp: &Tensor) -> Self {
        // A temperature of 0.01 makes a hundred of every error.
        Self { i2t: product(image_feat, text_all) / temp, t2i: product(text_feat, image_all) / temp }
    }
}

/// Hard targets of `n` pairs among `columns` candidates: each row's own pair.
pub fn own_pair(n: i64, columns: i64, device: Device) -> Tensor {
    Tensor::eye_m(n, columns, (Kind::Float, device))
}

/// Which candidates `[m]` show the same image as each pair `[n]`, from the images of both: `[n, m]`.
pub fn shared_image(images: &Tensor, candidates: &Tensor) -> Tensor {
    images.unsqueeze(1).eq_tensor(&candidates.unsqueeze(0))
}

/// Hard targets of fine-tuning (3.1): each row spread over all candidates of the pair's image, from the images `[B]` of the pairs
/// and `[B + queue]` of the candidates, the batch first. Rows sum to one.
pub fn same_image(images: &Tensor, candidates: &Tensor) -> Tensor {
    let same = shared_image(images, candidates).to_kind(Kind::Float);
    &same / same.sum_dim_intlist([1].as_slice(), true, Kind::Float)
}

/// `(1 - alpha) hard + alpha softmax(teacher)`: the target of one direction, from the momentum model's similarities, all `[B, B + queue]`.
pub fn target(hard: &Tensor, teacher: &Tensor, alpha: f64) -> Tensor {
    match alpha {
        0.0 => hard.shallow_clone(),
        _ => hard * (1.0 - alpha) + teacher.softmax(-1, Kind::Float) * alpha,
    }
}

/// Mean of both directions of the cross-entropy with their [`target`]s.
/// `hard` is `[B, B + queue]`, rows that sum to one, the same for both directions.
pub fn loss(online: &Similarities, momentum: &Similarities, hard: &Tensor, alpha: f64) -> Tensor {
    let target = |teacher: &Tensor| target(hard, teacher, alpha);
    let i2t = soft_cross_entropy(&online.i2t, &target(&momentum.i2t));
    let t2i = soft_cross_entropy(&online.t2i, &target(&momentum.t2i));
    (i2t + t2i) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(x: &Tensor) -> f64 {
        x.double_value(&[])
    }

    #[test]
    fn two_pairs_and_one_queued_feature_by_hand() {
        let online = Similarities {
            i2t: Tensor::from_slice2(&[[2.0f32, 0.0, 1.0], [0.0, 1.0, 0.0]]),
            t2i: Tensor::from_slice2(&[[1.0f32, 0.0, 0.0], [0.0, 3.0, 0.0]]),
        };
        let momentum =
            Similarities { i2t: Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)), t2i: online.t2i.zeros_like() };
        let own = own_pair(2, 3, Device::Cpu);
        let log_sum = |x: [f64; 3]| x.map(f64::exp).iter().sum::<f64>().ln();
        let (a, b) = (log_sum([2.0, 0.0, 1.0]), log_sum([0.0, 1.0, 0.0]));
        let (c, d) = (log_sum([1.0, 0.0, 0.0]), log_sum([0.0, 3.0, 0.0]));
        let hard = ((a - 2.0) + (b - 1.0) + (c - 1.0) + (d - 3.0)) / 4.0;
        assert!((scalar(&loss(&online, &momentum, &own, 0.0)) - hard).abs() < 1e-6);
        // The momentum model is undecided: its share of the target is a third each.
        let soft = ((a - 1.0) + (b - 1.0 / 3.0) + (c - 1.0 / 3.0) + (d - 1.0)) / 4.0;
        assert!((scalar(&loss(&online, &momentum, &own, 0.4)) - (0.6 * hard + 0.4 * soft)).abs() < 1e-6);
    }

    #[test]
    fn targets_of_fine_tuning_are_shared_by_all_pairs_of_an_image() {
        let images = Tensor::from_slice(&[5i64, 8, 5]);
        let candidates = Tensor::from_slice(&[5i64, 8, 5, -100, 8, 5, 5, -100]);
        let found = same_image(&images, &candidates);
        let (q, h) = (0.25f32, 0.5f32);
        let expected = Tensor::from_slice2(&[
            [q, 0.0, q, 0.0, 0.0, q, q, 0.0],
            [0.0, h, 0.0, 0.0, h, 0.0, 0.0, 0.0],
            [q, 0.0, q, 0.0, 0.0, q, q, 0.0],
        ]);
        assert!(found.equal(&expected), "{found}");

        // A momentum model without an opinion moves each target to (1 - alpha) target + alpha / 8.
        let flat = || Tensor::zeros([3, 8], (Kind::Float, Device::Cpu));
        let momentum = Similarities { i2t: flat(), t2i: flat() };
        let online = Similarities {
            i2t: Tensor::randn([3, 8], (Kind::Float, Device::Cpu)),
            t2i: Tensor::randn([3, 8], (Kind::Float, Device::Cpu)),
        };
        let mixed = &expected * 0.6 + 0.4 / 8.0;
        let surprise = |x: &Tensor| scalar(&-(x.log_softmax(-1, Kind::Float) * &mixed).sum(Kind::Float));
        let by_hand = (surprise(&online.i2t) + surprise(&online.t2i)) / 6.0;
        assert!((scalar(&loss(&online, &momentum, &found, 0.4)) - by_hand).abs() < 1e-5);
    }

    #[test]
    fn smallest_where_pairs_meet() {
        let features = Tensor::eye(4, (Kind::Float, Device::Cpu));
        let temp = Tensor::from(0.07f32);
        let own = own_pair(4, 4, Device::Cpu);
        let of = |text: &Tensor| {
            let s = Similarities::new(&features, text, &features, &features, &temp);
            scalar(&loss(&s, &s, &own, 0.0))
        };
        let together = of(&features);
        for shift in 1..4 {
            assert!(of(&features.roll([shift], [0])) > together + 1.0);
        }
    }
}

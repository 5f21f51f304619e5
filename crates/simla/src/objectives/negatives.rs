//! Hard negatives for matching (equation 5): sampled within the batch in proportion to softmax(similarity), never the pair
//! itself. The random part comes from outside, so that a step can be repeated and compared.

use rand::Rng;
use tch::{Device, Kind, Tensor};

use simla_train::torch::device::upload;

/// Where the negatives of a step come from.
#[derive(Debug)]
#[allow(missing_docs)] // of the fields, which the variants tell
pub enum Negatives {
    /// `[B]` each: the wrong image for every text, the wrong text for every image.
    Given { image: Tensor, text: Tensor },
    /// Standard Gumbel noise `[B, B]` each: the negatives are drawn on the device, when the similarities are known.
    Drawn { image: Tensor, text: Tensor },
}

impl Negatives {
    /// Noise for a batch of `n` pairs.
    pub fn noise(n: i64, rng: &mut impl Rng, device: Device) -> Self {
        Self::Drawn { image: gumbel(n, rng, device), text: gumbel(n, rng, device) }
    }
}

/// Standard Gumbel noise `[n, n]`.
pub fn gumbel(n: i64, rng: &mut impl Rng, device: Device) -> Tensor {
    // The open unit interval: neither logarithm may be infinite.
    let draw = |_| -(-rng.random_range(f64::MIN_POSITIVE..1.0).ln()).ln() as f32;
    let noise: Vec<f32> = (0..n * n).map(draw).collect();
    upload(&Tensor::from_slice(&noise).view([n, n]), device)
}

/// One negative for every row of `similarity` `[B, B]`, distributed as softmax over the row's allowed columns: adding Gumbel
/// noise and taking the largest is an exact draw. The diagonal is never taken; a column that `positive` `[B, B]` marks only when
/// a row has no other. Returns `[B]`.
pub fn sample(similarity: &Tensor, noise: &Tensor, positive: Option<&Tensor>) -> Tensor {
    /// Larger than any similarity over a temperature of 0.001, small enough to leave the order of what it is added to.
    const DISCOURAGED: f64 = 1e5;
    let n = similarity.size()[0];
    let mut score = similarity.detach().to_kind(Kind::Float) + noise;
    if let Some(positive) = positive {
        score -= positive.to_kind(Kind::Float) * DISCOURAGED;
    }
    let own = Tensor::eye(n, (Kind::Bool, similarity.device()));
    score.masked_fill(&own, f64::NEG_INFINITY).argmax(1, false)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn drawn(similarity: &Tensor, positive: Option<&Tensor>, rng: &mut ChaCha8Rng) -> Vec<i64> {
        let Negatives::Drawn { image, .. } = Negatives::noise(similarity.size()[0], rng, Device::Cpu) else {
            unreachable!()
        };
        Vec::try_from(sample(similarity, &image, positive)).unwrap()
    }

    #[test]
    fn follows_the_similarities_and_never_takes_the_pair_itself() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let similarity = Tensor::from_slice(&[9.0f32, 0.0, 1.0, 2.0]).repeat([4, 1]);
        let draws = 20_000;
        let mut counts = [[0u32; 4]; 4];
        for _ in 0..draws {
            for (row, column) in drawn(&similarity, None, &mut rng).into_iter().enumerate() {
                counts[row][column as usize] += 1;
            }
        }
        let weights = [9.0f64, 0.0, 1.0, 2.0].map(f64::exp);
        for (row, counts) in counts.iter().enumerate() {
            assert_eq!(counts[row], 0);
            let total: f64 = (0..4).filter(|&c| c != row).map(|c| weights[c]).sum();
            for column in (0..4).filter(|&c| c != row) {
                let p = weights[column] / total;
                // Five standard deviations of a binomial share.
                let allowed = 5.0 * (p * (1.0 - p) / f64::from(draws)).sqrt() + 1e-9;
                let share = f64::from(counts[column]) / f64::from(draws);
                assert!((share - p).abs() < allowed, "row {row} column {column}: {share} against {p}");
            }
        }
    }

    #[test]
    fn never_fails_where_probabilities_underflow() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let similarity = Tensor::eye(2, (Kind::Float, Device::Cpu)) * 2000.0 - 1000.0;
        assert_eq!(drawn(&similarity, None, &mut rng), [1, 0]);
    }

    #[test]
    fn avoids_other_positives_while_it_can() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        // Items 0 and 1 share an image; 2 stands alone. In the second case all three share one.
        let similarity = Tensor::from_slice2(&[[0.0f32, 50.0, 0.0], [50.0, 0.0, 0.0], [0.0, 0.0, 0.0]]);
        let same = Tensor::from_slice2(&[[1i64, 1, 0], [1, 1, 0], [0, 0, 1]]);
        let all = Tensor::ones([3, 3], (Kind::Int64, Device::Cpu));
        for _ in 0..50 {
            assert_eq!(drawn(&similarity, Some(&same), &mut rng)[..2], [2, 2]);
            let forced = drawn(&similarity, Some(&all), &mut rng);
            assert!(forced.iter().enumerate().all(|(row, &column)| row as i64 != column));
        }
    }
}

//! AdamW over flat parameters, and the schedules of 2.5.

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::thread;

use multiversion::multiversion;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::torch::operations::{Step, adamw};
use crate::torch::values::values;
use crate::weights::{Flat, Gradients, Weights, WeightsError, check};

/// AdamW's constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Shares of the old value that the two moments keep each step.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Of matrices; vectors are not decayed.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.02 }
    }
}

/// AdamW with decoupled weight decay.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    exp_avg: Flat,
    exp_avg_sq: Flat,
    steps: i64,
}

impl AdamW {
    /// Moments of zero for these weights.
    pub fn new(config: AdamWConfig, weights: &Weights) -> Self {
        let zeros = || Flat::zeros(weights.layout(), Kind::Float, weights.device());
        Self { config, exp_avg: zeros(), exp_avg_sq: zeros(), steps: 0 }
    }

    /// One step at learning rate `lr`, with every gradient scaled by `scale` (1, or what clipping asks for).
    pub fn step(&mut self, weights: &mut Weights, gradients: &mut Gradients, lr: f64, scale: f64) {
        self.steps += 1;
        let AdamWConfig { betas, eps, weight_decay } = self.config;
        let buffers = weights.master().buffers().into_iter().zip(gradients.flat().buffers());
        let moments = self.exp_avg.buffers().into_iter().zip(self.exp_avg_sq.buffers());
        for (((parameter, gradient), (m, v)), decay) in buffers.zip(moments).zip([weight_decay, 0.0]) {
            let step = Step { number: self.steps, scale, lr, betas, weight_decay: decay, eps };
            match parameter.device() {
                Device::Cpu => Update(step).in_one_pass([parameter, gradient, m, v]),
                _ => adamw([parameter, gradient, m, v], step),
            }
        }
        weights.refresh();
    }

    /// The moments under their parameters' names, prefixed with `exp_avg.` and `exp_avg_sq.`, and `steps`.
    pub fn named(&self, weights: &Weights) -> BTreeMap<String, Tensor> {
        let mut named = BTreeMap::from([("steps".to_owned(), Tensor::from_slice(&[self.steps]))]);
        for (kind, moments) in [("exp_avg", &self.exp_avg), ("exp_avg_sq", &self.exp_avg_sq)] {
            let tensors = moments.named(weights.layout());
            named.extend(tensors.into_iter().map(|(name, tensor)| (format!("{kind}.{name}"), tensor)));
        }
        named
    }

    /// Takes back what [`AdamW::named`] gave.
    ///
    /// # Errors
    /// The first tensor that is missing, of another shape or not finite.
    pub fn load(&mut self, weights: &Weights, source: &BTreeMap<String, Tensor>) -> Result<(), WeightsError> {
        for (name, mut target) in self.named(weights) {
            let value = source.get(&name).ok_or_else(|| WeightsError::Missing(name.clone()))?;
            check(&name, value, &target.size())?;
            tch::no_grad(|| target.copy_(value));
            if name == "steps" {
                self.steps = target.int64_value(&[0]);
            }
        }
        Ok(())
    }
}

/// A step of AdamW on the CPU:
/// m += (1 - beta1) (g - m), v += (1 - beta2) (g^2 - v), parameter -= lr (m / bias1 / (sqrt(v / bias2) + eps) + decay x parameter).
struct Update(Step);

impl Update {
    /// The factor of the old parameter, the step's size and epsilon, where the root is taken of v itself.
    fn folded(&self) -> (f64, f64, f64) {
        let Step { number, lr, betas, weight_decay, eps, .. } = self.0;
        let bias = |beta: f64| 1.0 - beta.powi(number as i32);
        let root = bias(betas.1).sqrt();
        let size = lr / bias(betas.0) * root;
        (1.0 - lr * weight_decay, size, eps * root)
    }

    /// Of parameter, gradient, m and v each is read and written once, where operations come back to them ten times.
    fn in_one_pass(&self, tensors: [&mut Tensor; 4]) {
        let [parameter, gradient, m, v] = tensors.map(values);
        let share = parameter.len().div_ceil(tch::get_num_threads().max(1) as usize).max(1);
        let shares =
            parameter.chunks_mut(share).zip(gradient.chunks(share)).zip(m.chunks_mut(share).zip(v.chunks_mut(share)));
        thread::scope(|threads| {
            for ((parameter, gradient), (m, v)) in shares {
                threads.spawn(move || update(self, parameter, gradient, m, v));
            }
        });
    }
}

/// [`Update`] of some values, compiled for several processors: roots and divisions of four values at a time would be slower than memory.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn update(by: &Update, parameter: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32]) {
    let (kept, size, eps) = by.folded();
    let Step { scale, betas, .. } = by.0;
    let [kept, size, eps, scale] = [kept, size, eps, scale].map(|x| x as f32);
    let (towards1, towards2) = ((1.0 - betas.0) as f32, (1.0 - betas.1) as f32);
    let moments = m.iter_mut().zip(v);
    for ((parameter, gradient), (m, v)) in parameter.iter_mut().zip(gradient).zip(moments) {
        let gradient = gradient * scale;
        *m += towards1 * (gradient - *m);
        *v += towards2 * (gradient * gradient - *v);
        *parameter = *parameter * kept - size * *m / (v.sqrt() + eps);
    }
}

/// Global norm of all gradients, as a scalar on their device. Not finite where any gradient is not.
pub fn norm(gradients: &mut Gradients) -> Tensor {
    let squares = gradients.flat().buffers().map(|buffer| buffer.norm().square());
    (&squares[0] + &squares[1]).sqrt()
}

/// Linear warm-up from `warmup_lr` to `lr` over `warmup_steps`, then a cosine down to `min_lr` at `steps` (2.5).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest learning rate.
    pub lr: f64,
    /// That of the first step.
    pub warmup_lr: f64,
    /// That of the last.
    pub min_lr: f64,
    /// Steps of the warm-up.
    pub warmup_steps: u64,
    /// All steps, the warm-up's included.
    pub steps: u64,
}

impl Schedule {
    /// The learning rate of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.warmup_lr + (self.lr - self.warmup_lr) * step as f64 / self.warmup_steps as f64;
        }
        let length = self.steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / length as f64).min(1.0);
        self.min_lr + (self.lr - self.min_lr) * 0.5 * (1.0 + (PI * progress).cos())
    }
}

/// The distillation weight: 0 to `alpha`, linear over the first epoch, then constant.
pub fn alpha_at(alpha: f64, step: u64, steps_per_epoch: u64) -> f64 {
    alpha * (step as f64 / steps_per_epoch.max(1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use tch::no_grad;

    use super::*;
    use crate::weights::{Init, Layout};

    #[test]
    fn three_steps_are_torchs_with_decay_on_matrices_only() {
        let mut layout = Layout::default();
        let matrix = layout.leaf("matrix", &[2, 2], Init::Constant(0.0));
        let vector = layout.leaf("vector", &[2], Init::Constant(0.0));
        let mut weights = Weights::new(&layout, Kind::Float, Device::Cpu, true);
        no_grad(|| {
            let start = [1f32, -2.0, 3.0, 4.0];
            weights.value(matrix).flatten(0, 1).copy_(&Tensor::from_slice(&start));
            weights.value(vector).copy_(&Tensor::from_slice(&[0.5f32, -1.0]));
        });
        let config = AdamWConfig { weight_decay: 0.5, ..AdamWConfig::default() };
        let mut optimizer = AdamW::new(config, &weights);
        let mut gradients = Gradients::new(&weights);
        for (of_matrix, of_vector) in [
            ([0.1f32, -0.2, 0.3, 0.0], [0.01f32, -1.0]),
            ([-0.5, 0.4, 0.2, 0.1], [0.02, 1.0]),
            ([1.0, 2.0, -3.0, 0.0], [0.0, 3.0]),
        ] {
            // A loss whose gradient is the given one, twice as large: the scale halves it.
            let times = |leaf, by: &[f32]| (weights[leaf].flatten(0, -1) * Tensor::from_slice(by)).sum(Kind::Float);
            let loss = (times(matrix, &of_matrix) + times(vector, &of_vector)) * 2.0;
            gradients.clear();
            gradients.backward(&loss, &weights);
            optimizer.step(&mut weights, &mut gradients, 0.1, 0.5);
        }
        // torch.optim.AdamW(lr=0.1) with weight_decay 0.5 for the matrix and 0 for the vector, torch 2.11.
        let expected = [
            (matrix, vec![0.788_054_5, -1.727_795_4, 2.444_174_3, 3.301_284_8]),
            (vector, vec![0.228_873_15, -0.964_787_66]),
        ];
        for (leaf, expected) in expected {
            let found: Vec<f64> = Vec::try_from(weights.value(leaf).flatten(0, -1).to_kind(Kind::Double)).unwrap();
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{found} against {expected}");
            }
        }
    }

    #[test]
    fn one_pass_is_libtorchs_operation() {
        tch::manual_seed(4);
        const SIZE: i64 = 100_003;
        let random = || Tensor::randn([SIZE], (Kind::Float, Device::Cpu));
        let start = [random(), random(), random(), random().square()];
        for scale in [1.0, 0.3] {
            let step = Step { number: 7, scale, lr: 0.01, betas: (0.9, 0.999), weight_decay: 0.1, eps: 1e-8 };
            let mut one = start.each_ref().map(Tensor::copy);
            Update(step).in_one_pass(one.each_mut());
            let other = start.each_ref().map(Tensor::copy);
            adamw(other.each_ref(), step);
            for i in [0, 2, 3] {
                assert!(one[i].allclose(&other[i], 1e-5, 1e-6, false), "{i}");
            }
            assert!(!one[0].allclose(&start[0], 1e-3, 1e-3, false), "it moved");
        }
    }

    #[test]
    fn schedule_at_its_corners() {
        let schedule = Schedule { lr: 1e-4, warmup_lr: 1e-5, min_lr: 1e-5, warmup_steps: 2000, steps: 10_000 };
        let close = |step: u64, expected: f64| assert!((schedule.at(step) - expected).abs() < 1e-12, "step {step}");
        close(0, 1e-5);
        close(1000, 5.5e-5);
        close(2000, 1e-4);
        close(6000, 5.5e-5);
        close(10_000, 1e-5);
        close(20_000, 1e-5);
        let none = Schedule { warmup_steps: 0, steps: 0, ..schedule };
        assert_eq!(none.at(0), 1e-4);
    }

    #[test]
    fn alpha_ramps_over_the_first_epoch() {
        assert_eq!(alpha_at(0.4, 0, 100), 0.0);
        assert_eq!(alpha_at(0.4, 50, 100), 0.2);
        assert_eq!(alpha_at(0.4, 100, 100), 0.4);
        assert_eq!(alpha_at(0.4, 5000, 100), 0.4);
    }
}

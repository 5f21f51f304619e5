//! Training a tokenizer: Gumbel-softmax relaxation, temperature annealed 1 to 1/16, reconstruction by squared error, and a KL that
//! keeps the codes in use (docs/paper.md, 'Visual tokenizer').
//!
//! - The KL is that of the *batch's* distribution over codes to the uniform prior: it asks that all codes are used, not that
//!   each place be undecided, and so never pulls against the reconstruction of a single patch.
//! - Codes that fall out of use are restarted beside codes that are used much.

use std::collections::BTreeMap;

use serde_json::Value;
use simla_data::{Batch, Pair};
use tch::{Kind, Tensor, no_grad};

use crate::dvae::{Dvae, TASK};
use crate::inputs::tokenizer_pixels;
use simla_train::weights::{Gradients, Weights, WeightsError, check};
use simla_train::{At, Scores, Task, Team, TeamError};

/// Temperature of the relaxation at the end of the annealing.
const COLDEST: f64 = 1.0 / 16.0;
/// Share of the run after which the temperature stays.
const ANNEALED: f64 = 0.7;
/// Weight of the KL against the squared error, which is in units of the pixels' variance.
const KL_WEIGHT: f64 = 0.1;
/// Share of itself that the running usage keeps each step.
const USAGE_DECAY: f64 = 0.99;
/// A code is dead below this share of the use that it would have if all were used alike.
const DEAD: f64 = 0.05;
/// Steps between restarts; none in the last part of a run, so that every code has time to settle.
const RESTART_EVERY: u64 = 50;
const LAST_RESTART: f64 = 0.8;
/// How far from its model a restarted code begins, as a share of its size.
const RESTART_NOISE: f64 = 0.1;

/// A tokenizer that is being trained.
#[derive(Debug)]
pub struct Training {
    /// As it is so far.
    pub dvae: Dvae,
    steps: u64,
    step: u64,
    /// `[vocab]`: running share of places that took each code.
    usage: Tensor,
    /// `[vocab]`: how many places of the step took each code.
    counts: Tensor,
}

impl Training {
    /// For a run of `steps`.
    pub fn new(dvae: Dvae, steps: u64) -> Self {
        let vocab = dvae.vocab();
        let device = dvae.weights.device();
        let usage = Tensor::full([vocab], 1.0 / vocab as f64, (Kind::Float, device));
        let counts = Tensor::zeros([vocab], (Kind::Int64, device));
        Self { dvae, steps, step: 0, usage, counts }
    }

    fn temperature(&self, step: u64) -> f64 {
        let progress = (step as f64 / (self.steps as f64 * ANNEALED).max(1.0)).min(1.0);
        COLDEST.powf(progress)
    }

    /// Gives dead codes the weights of much used ones, slightly changed: encoder output rows, decoder input columns.
    fn restart_dead_codes(&mut self, team: &Team) -> Result<(), TeamError> {
        const CODES: [(&str, i64); 3] =
            [("encoder.blocks.output.conv.w", 0), ("encoder.blocks.output.conv.b", 0), ("decoder.blocks.input.w", 1)];
        no_grad(|| {
            let dead = self.usage.lt(DEAD / self.dvae.vocab() as f64).nonzero().flatten(0, 1);
            let count = dead.numel() as i64;
            if count == 0 {
                return Ok(());
            }
            let models = self.usage.multinomial(count, true);
            let named = self.dvae.named();
            let began = CODES.map(|(name, dim)| {
                let model = named[name].index_select(dim, &models);
                let noise = model.randn_like() * (model.square().mean(Kind::Float).sqrt() * RESTART_NOISE);
                (name.to_owned(), model + noise)
            });
            // All processes draw the same, but a mean is that of a number of threads.
            let began = team.tensors_of_first(began.into())?;
            for (name, dim) in CODES {
                let _ = named[name].shallow_clone().index_copy_(dim, &dead, &began[name]);
            }
            // Neither dead again before it has been tried, nor a model for others.
            let _ = self.usage.index_fill_(0, &dead, 2.0 * DEAD / self.dvae.vocab() as f64);
            Ok(())
        })?;
        self.dvae.weights.refresh();
        Ok(())
    }
}

impl Task for Training {
    type Batch = Batch<Pair>;

    fn records(batch: &Batch<Pair>) -> &[String] {
        &batch.records
    }

    fn name(&self) -> &'static str {
        TASK
    }

    fn config(&self) -> Value {
        serde_json::to_value(self.dvae.config).expect("a configuration is JSON")
    }

    fn weights(&mut self) -> &mut Weights {
        &mut self.dvae.weights
    }

    fn begin_step(&mut self) {
        let _ = self.counts.zero_();
    }

    fn backward(&mut self, batch: &Batch<Pair>, at: At, gradients: &mut Gradients) -> Scores {
        let pixels = tokenizer_pixels(batch, self.dvae.config.image_size / 2, self.dvae.weights.device());
        let logits = self.dvae.logits(&pixels);
        // Standard Gumbel noise by two logarithms; the clamp keeps both finite.
        let noise = -(-logits.rand_like().clamp(1e-20, 1.0 - 1e-7).log()).log();
        let codes = ((&logits + noise) / self.temperature(at.step)).softmax(1, Kind::Float);
        let restored = self.dvae.decode(&codes).expect("a tokenizer in training has a decoder");
        let variance = pixels.var(true).clamp_min(1e-4);
        let error = (restored - &pixels).square().mean(Kind::Float) / variance;
        let vocab = self.dvae.vocab() as f64;
        let shares = logits.softmax(1, Kind::Float).mean_dim([0, 2, 3].as_slice(), false, Kind::Float);
        let kl = (&shares * (&shares * vocab + 1e-9).log()).sum(Kind::Float);
        let loss = &error + &kl * KL_WEIGHT;
        gradients.backward(&loss, &self.dvae.weights);
        self.step = at.step;
        no_grad(|| {
            // Not `bincount`, for which the host waits to learn how many there are.
            let codes = logits.argmax(1, false).flatten(0, -1);
            let _ = self.counts.scatter_add_(0, &codes, &codes.ones_like());
            Scores {
                losses: vec![("loss/reconstruction", error.detach()), ("loss/kl", kl.detach() * KL_WEIGHT)],
                others: vec![],
            }
        })
    }

    fn exchange(&mut self, team: &Team) -> Result<Vec<(&'static str, Tensor)>, TeamError> {
        team.sum(&self.counts, Kind::Int64)?;
        Ok(no_grad(|| {
            let counts = self.counts.to_kind(Kind::Float);
            let _ = self.usage.lerp_(&(&counts / counts.sum(Kind::Float)), 1.0 - USAGE_DECAY);
            let entropy = -(&self.usage * (&self.usage + 1e-12).log()).sum(Kind::Float);
            let used = self.usage.gt(DEAD / self.dvae.vocab() as f64).to_kind(Kind::Float).mean(Kind::Float);
            vec![("batch/perplexity", entropy.exp()), ("batch/codes_used", used)]
        }))
    }

    fn end_step(&mut self, _applied: bool, team: &Team) -> Result<(), TeamError> {
        let last = (self.steps as f64 * LAST_RESTART) as u64;
        if self.step > 0 && self.step.is_multiple_of(RESTART_EVERY) && self.step < last {
            self.restart_dead_codes(team)?;
        }
        Ok(())
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = self.dvae.named();
        tensors.insert("usage".into(), self.usage.shallow_clone());
        tensors
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), WeightsError> {
        let usage = tensors.get("usage").ok_or_else(|| WeightsError::Missing("usage".into()))?;
        check("usage", usage, &self.usage.size())?;
        no_grad(|| self.usage.copy_(usage));
        self.dvae.weights.load(tensors, str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::dvae::DvaeConfig;
    use crate::dvae::encoder::EncoderConfig;

    const STEPS: u64 = 10 * RESTART_EVERY;

    /// Eight codes, of which the last has all the use, `step` steps into a run.
    fn with_seven_dead_codes(step: u64) -> Training {
        let encoder = EncoderConfig { width: 4, groups: 2, blocks_per_group: 1, vocab: 8 };
        let config = DvaeConfig { encoder, image_size: 8, decoder: true };
        let dvae = Dvae::new(config, Kind::Float, Device::Cpu, true, 0);
        let mut training = Training::new(dvae, STEPS);
        training.step = step;
        no_grad(|| {
            let _ = training.usage.zero_();
            let _ = training.usage.get(7).fill_(1.0);
        });
        training
    }

    /// What makes a code: its row of the encoder's last layer, its column of the decoder's first.
    fn code(training: &Training, index: i64) -> [Tensor; 2] {
        let named = training.dvae.named();
        let row = named["encoder.blocks.output.conv.w"].select(0, index);
        let column = named["decoder.blocks.input.w"].select(1, index);
        [row.copy(), column.copy()]
    }

    #[test]
    fn dead_codes_begin_anew_beside_a_used_one() {
        let mut training = with_seven_dead_codes(RESTART_EVERY);
        let (before, model) = (code(&training, 3), code(&training, 7));
        training.end_step(true, &Team::alone()).unwrap();
        assert_eq!(code(&training, 7), model, "a used code stays");
        for ((new, old), model) in code(&training, 3).iter().zip(&before).zip(&model) {
            let far = |other: &Tensor| (new - other).norm().double_value(&[]);
            let size = model.norm().double_value(&[]);
            assert!(far(model) > 0.0 && far(model) < 0.5 * size, "{}", far(model));
            assert!(far(old) > far(model));
        }
        // It is given time before it may be dead again.
        let usage: Vec<f64> = Vec::try_from(training.usage.to_kind(Kind::Double)).unwrap();
        assert!(usage.iter().all(|&share| share > DEAD / 8.0), "{usage:?}");
    }

    #[test]
    fn codes_are_restarted_now_and_then_and_not_at_the_end() {
        for step in [0, RESTART_EVERY + 1, STEPS - RESTART_EVERY] {
            let mut training = with_seven_dead_codes(step);
            let before = code(&training, 3);
            training.end_step(true, &Team::alone()).unwrap();
            assert_eq!(code(&training, 3), before, "step {step}");
        }
    }

    #[test]
    fn the_relaxation_cools_to_a_sixteenth() {
        let training = with_seven_dead_codes(0);
        let temperature = |step| training.temperature(step);
        assert_eq!(temperature(0), 1.0);
        assert!(temperature(STEPS / 2) < temperature(STEPS / 4));
        assert_eq!(temperature(STEPS), COLDEST);
    }
}

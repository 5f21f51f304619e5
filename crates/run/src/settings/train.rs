//! How it is learned: batches, steps and the optimiser.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use simla::config::Preset;
use simla_train::optim::{AdamWConfig, Schedule};
use tch::Kind;

/// The type in which products run; weights, losses and the optimiser are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // docs would be text of the settings' help
pub enum Dtype {
    F32,
    Bf16,
}

impl Dtype {
    /// As libtorch calls it.
    pub fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

/// How it is learned: batches, steps, learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// times that every pair is seen
    pub epochs: u64,
    /// optimiser steps in all; 0 takes them from epochs
    pub steps: u64,
    /// pairs in a micro-batch: negatives come from it; `simla pretrain` takes `--set batch_size=auto` for as many as fit into memory
    #[schemars(range(min = 2), extend("x-fixed" = "run"))]
    pub batch_size: u64,
    /// micro-batches that make one optimiser step
    #[schemars(range(min = 1), extend("x-fixed" = "run"))]
    pub accumulate: u64,
    /// decides every random choice of the run
    #[schemars(extend("x-fixed" = "run"))]
    pub seed: u64,
    /// type of the matrix products: f32 or bf16
    pub dtype: Dtype,
    /// products in f32 are in TF32 on a GPU: several times faster, with three digits of each factor; the contrast's stay whole
    pub tf32: bool,
    /// type in which gradients go from process to process: f32, or bf16 for half the bytes
    pub wire: Dtype,
    /// computes activations again in the backward pass: much less memory, a fifth more time, the same numbers
    pub recompute: bool,
    /// threads that calculate; 0 is one a core, adapted to what the machine does besides: a number repeats a run bit for bit beside other
    /// work, too
    pub threads: u64,
    /// learning rate at the top of the schedule
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: f64,
    /// learning rate of the first step
    #[schemars(range(min = 0))]
    pub warmup_lr: f64,
    /// learning rate of the last step
    #[schemars(range(min = 0))]
    pub min_lr: f64,
    /// steps of linear warm-up (at most a tenth of the run)
    pub warmup_steps: u64,
    /// AdamW's decay, of matrices only
    #[schemars(range(min = 0))]
    pub weight_decay: f64,
    /// gradients are scaled down to this global norm; 0 leaves them
    #[schemars(range(min = 0))]
    pub clip_norm: f64,
    /// steps in a row with a loss or gradient that is not finite, before the run stops
    #[schemars(range(min = 1))]
    pub max_bad_steps: u64,
}

impl Train {
    pub(super) fn of(preset: Preset) -> Self {
        let base = Self {
            epochs: 30,
            steps: 0,
            batch_size: 64,
            accumulate: 1,
            seed: 0,
            dtype: Dtype::F32,
            tf32: false,
            wire: Dtype::F32,
            recompute: false,
            threads: 0,
            lr: 1e-4,
            warmup_lr: 1e-5,
            min_lr: 1e-5,
            warmup_steps: 2000,
            weight_decay: 0.02,
            clip_norm: 0.0,
            max_bad_steps: 20,
        };
        match preset {
            Preset::Base => base,
            Preset::Small => Self { lr: 3e-4, ..base },
            Preset::Tiny => Self { batch_size: 32, lr: 1e-3, clip_norm: 1.0, ..base },
        }
    }

    /// Pairs of one optimiser step.
    pub fn pairs_per_step(&self) -> u64 {
        self.batch_size * self.accumulate
    }

    /// Optimiser steps of the run, for an epoch of so many.
    pub fn total_steps(&self, steps_per_epoch: u64) -> u64 {
        if self.steps > 0 { self.steps } else { self.epochs * steps_per_epoch }
    }

    /// The learning rate of a run of so many steps.
    pub fn schedule(&self, steps: u64) -> Schedule {
        Schedule {
            lr: self.lr,
            warmup_lr: self.warmup_lr.min(self.lr),
            min_lr: self.min_lr.min(self.lr),
            // A short run would otherwise end before it is warm.
            warmup_steps: self.warmup_steps.min(steps / 10),
            steps,
        }
    }

    /// AdamW's constants.
    pub fn optimizer(&self) -> AdamWConfig {
        AdamWConfig { weight_decay: self.weight_decay, ..AdamWConfig::default() }
    }
}

//! Pre-training (2.2 to 2.5) as a task of the trainer.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use simla_data::{Batch, Vocabulary};
use tch::{Device, Kind, Tensor, no_grad};
use thiserror::Error;

use crate::config::{ConfigError, ModelConfig, SpecialIds};
use crate::dvae::Dvae;
use crate::inputs::{step_seed, tokenizer_pixels};
use crate::model::Simla;
use crate::objectives::{Objectives, itm};
use crate::optim::alpha_at;
use crate::step::{Alignment, Inputs};
use crate::train::checkpoint::{Checkpoint, CheckpointError};
use crate::train::{At, Scores, Task};
use crate::weights::{Gradients, Weights, WeightsError};

/// What a checkpoint of pre-training calls its task.
pub const TASK: &str = "pretrain";
/// The vocabulary's file in a checkpoint.
pub const VOCABULARY: &str = "vocabulary.json";

/// Why a checkpoint is not a usable model.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("{path}: a checkpoint of task `{task}`, expected a model (`simla pretrain` makes one)")]
    Task { path: String, task: String },
    #[error("{path}: configuration: {reason}")]
    Config { path: String, reason: String },
    #[error(transparent)]
    Size(#[from] ConfigError),
    #[error("{path}: vocabulary: {reason}")]
    Vocabulary { path: String, reason: String },
}

/// The special tokens of a vocabulary, as the model knows them.
pub fn special_ids(vocabulary: &Vocabulary) -> SpecialIds {
    let special = vocabulary.special();
    SpecialIds {
        pad: special.pad,
        cls: special.cls,
        sep: special.sep,
        mask: special.mask,
    }
}

/// A trained model with its vocabulary.
#[derive(Debug)]
pub struct Model {
    pub simla: Simla,
    pub vocabulary: Vocabulary,
    pub checkpoint: Checkpoint,
}

impl Model {
    /// The model in a run's folder or a checkpoint's, to be used.
    ///
    /// # Errors
    /// If there is none, or it is damaged, or of another kind.
    pub fn open(path: &Path, kind: Kind, device: Device) -> Result<Self, OpenError> {
        let checkpoint = Checkpoint::open(path)?;
        let shown = checkpoint.path.display().to_string();
        if [crate::dvae::TASK, crate::import::TASK].contains(&checkpoint.state.task.as_str()) {
            return Err(OpenError::Task {
                path: shown,
                task: checkpoint.state.task,
            });
        }
        let config: ModelConfig =
            serde_json::from_value(checkpoint.state.config.clone()).map_err(|e| {
                OpenError::Config {
                    path: shown.clone(),
                    reason: e.to_string(),
                }
            })?;
        config.validate()?;
        let vocabulary =
            Vocabulary::open(&checkpoint.extra(VOCABULARY)).map_err(|e| OpenError::Vocabulary {
                path: shown.clone(),
                reason: e.to_string(),
            })?;
        if vocabulary.len() as i64 != config.vocab_size
            || special_ids(&vocabulary) != config.special
        {
            let reason = format!(
                "{} pieces, the model has {}",
                vocabulary.len(),
                config.vocab_size
            );
            return Err(OpenError::Vocabulary {
                path: shown,
                reason,
            });
        }
        let mut simla = Simla::new(config, kind, device, 0);
        simla
            .load(&checkpoint.model()?)
            .map_err(|e| checkpoint.blame(e))?;
        Ok(Self {
            simla,
            vocabulary,
            checkpoint,
        })
    }
}

/// A model in pre-training, with the tokenizer that labels its patches.
#[derive(Debug)]
pub struct Pretraining {
    pub simla: Simla,
    pub dvae: Dvae,
    objectives: Objectives,
    alpha: f64,
    /// The vocabulary as it goes into checkpoints.
    vocabulary: Vec<u8>,
    /// Momentum features of the step's batches so far.
    features: Vec<(Tensor, Tensor)>,
}

impl Pretraining {
    pub fn new(
        simla: Simla,
        dvae: Dvae,
        objectives: Objectives,
        alpha: f64,
        vocabulary: Vec<u8>,
    ) -> Self {
        Self {
            simla,
            dvae,
            objectives,
            alpha,
            vocabulary,
            features: Vec::new(),
        }
    }
}

impl Task for Pretraining {
    fn name(&self) -> &'static str {
        TASK
    }

    fn config(&self) -> Value {
        serde_json::to_value(&self.simla.config).expect("a configuration is JSON")
    }

    fn weights(&mut self) -> &mut Weights {
        &mut self.simla.online
    }

    fn begin_step(&mut self) {
        self.simla.begin_step();
    }

    fn backward(&mut self, batch: &Batch, at: At, gradients: &mut Gradients) -> Scores {
        let device = self.simla.online.device();
        let alpha = alpha_at(self.alpha, at.step, at.steps_per_epoch);
        let tokenize = || self.dvae.tokens(&tokenizer_pixels(batch, device));
        let tokens = self.objectives.mim.then(tokenize);
        const NEGATIVES: u64 = 1;
        let inputs = Inputs::new(
            batch,
            tokens.as_ref(),
            step_seed(at.seed, at.step, NEGATIVES),
            device,
        );
        let (losses, seen) = self.simla.step(&inputs, alpha, self.objectives, gradients);
        let mut others = no_grad(|| observations(&seen, batch.size as i64));
        if let Some(tokens) = &tokens {
            others.push(("codes_in_batch", codes_used(tokens, self.dvae.vocab())));
        }
        others.push(("temperature", self.simla.temp().detach()));
        others.push(("alpha", Tensor::from(alpha).to(device)));
        self.features.push((seen.image_feat_m, seen.text_feat_m));
        Scores {
            losses: losses.named(),
            others,
        }
    }

    fn end_step(&mut self, applied: bool) {
        for (image, text) in self.features.drain(..) {
            // Features of a skipped step may not be finite: they must not stay for 65,536 pairs.
            if applied {
                self.simla.queues.push(&image, &text);
            }
        }
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.simla.named()
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), WeightsError> {
        self.simla.load(tensors)
    }

    fn extra(&self) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([(VOCABULARY.to_owned(), self.vocabulary.clone())])
    }
}

/// ITM accuracy and in-batch retrieval: shares of right answers.
fn observations(seen: &Alignment, batch: i64) -> Vec<(&'static str, Tensor)> {
    let right = |answers: Tensor, truth: &Tensor| {
        answers
            .eq_tensor(truth)
            .to_kind(Kind::Float)
            .mean(Kind::Float)
    };
    let own = Tensor::arange(batch, (Kind::Int64, seen.image_feat.device()));
    let first = |similarity: &Tensor| similarity.narrow(1, 0, batch).argmax(1, false);
    let mut observed = vec![
        ("batch_txt_r1", right(first(&seen.similarities.i2t), &own)),
        ("batch_img_r1", right(first(&seen.similarities.t2i), &own)),
    ];
    if let Some(logits) = &seen.itm_logits {
        let matched = Tensor::arange(3 * batch, (Kind::Int64, logits.device()))
            .lt(batch)
            .to_kind(Kind::Int64)
            * itm::MATCH;
        observed.push(("itm_accuracy", right(logits.argmax(1, false), &matched)));
    }
    observed
}

/// Share of the codes that occur in `tokens`.
fn codes_used(tokens: &Tensor, vocab: i64) -> Tensor {
    tokens
        .flatten(0, -1)
        .bincount::<Tensor>(None, vocab)
        .gt(0)
        .to_kind(Kind::Float)
        .mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;
    use crate::dvae::DvaeConfig;
    use crate::dvae::encoder::EncoderConfig;

    const SIDE: usize = 32;
    const PATCHES: usize = 16;

    fn task() -> Pretraining {
        let config = ModelConfig {
            image_size: SIDE as i64,
            patch_size: 8,
            vision_depth: 1,
            text_depth: 2,
            visual_vocab: 8,
            queue_size: 10,
            ..ModelConfig::preset(Preset::Tiny, 20, SpecialIds::FIRST)
        };
        let encoder = EncoderConfig {
            width: 4,
            groups: 3,
            blocks_per_group: 1,
            vocab: 8,
        };
        let dvae = DvaeConfig {
            encoder,
            image_size: 16,
            decoder: false,
        };
        let dvae = Dvae::new(dvae, Kind::Float, Device::Cpu, false, 1);
        let simla = Simla::new(config, Kind::Float, Device::Cpu, 2);
        Pretraining::new(simla, dvae, Objectives::default(), 0.4, vec![])
    }

    /// Two pairs; `shade` makes batches differ.
    fn batch(shade: u8) -> Batch {
        let pixels = |side: usize| {
            (0..2 * side * side * 3)
                .map(|i| (i as u8).wrapping_mul(shade))
                .collect()
        };
        let word = i64::from(shade % 8) + 5;
        Batch {
            step: 0,
            epoch: 0,
            size: 2,
            side: SIDE,
            length: 4,
            patches: PATCHES,
            images: pixels(SIDE),
            halves: pixels(SIDE / 2),
            ids: vec![1, word, 9, 2, 1, 12, word, 2],
            mask: vec![1; 8],
            mlm_ids: vec![1, 3, 9, 2, 1, 12, 3, 2],
            mlm_labels: vec![-100, word, -100, -100, -100, -100, word, -100],
            masked_patches: (0..2 * PATCHES).map(|i| i % 4 == 0).collect(),
            image_ids: vec![0, 1],
            records: vec![],
        }
    }

    #[test]
    fn queues_and_momentum_model_move_once_a_step_with_all_its_batches() {
        let mut task = task();
        let mut gradients = Gradients::new(task.weights());
        let at = At {
            step: 3,
            steps_per_epoch: 4,
            seed: 5,
        };
        let copy = |task: &Pretraining, name: &str| task.tensors()[name].copy();
        let names = ["image_queue", "text_queue", "queue_ptr"];
        let mut step = |task: &mut Pretraining, applied: bool| {
            task.begin_step();
            let before = names.map(|name| copy(task, name));
            let teacher = copy(task, "vision_proj_m.weight");
            let similarities = [7, 50].map(|shade| {
                let scores = task.backward(&batch(shade), at, &mut gradients);
                scores.losses[0].1.double_value(&[])
            });
            assert_ne!(similarities[0], similarities[1], "the batches differ");
            for (name, before) in names.iter().zip(&before) {
                assert!(copy(task, name).equal(before), "{name} within a step");
            }
            assert!(copy(task, "vision_proj_m.weight").equal(&teacher));
            let features: Vec<Tensor> = task
                .features
                .iter()
                .map(|(image, _)| image.copy())
                .collect();
            task.end_step(applied);
            (before, features)
        };
        let (_, features) = step(&mut task, true);
        assert_eq!(
            copy(&task, "queue_ptr").int64_value(&[0]),
            4,
            "two batches of two"
        );
        let pushed = copy(&task, "image_queue").narrow(1, 0, 4).transpose(0, 1);
        assert!(pushed.equal(&Tensor::cat(&features, 0)), "in their order");

        let (before, _) = step(&mut task, false);
        for (name, before) in names.iter().zip(&before) {
            assert!(
                copy(&task, name).equal(before),
                "{name} after a skipped step"
            );
        }
        assert!(
            task.features.is_empty(),
            "a skipped step leaves nothing for the next"
        );
    }
}

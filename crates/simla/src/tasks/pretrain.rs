//! Pre-training (2.2 to 2.5) as a task of the trainer; and fine-tuning on retrieval (3.1), which is its contrast and matching with
//! pairs that may share an image.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use simla_data::{Batch, Pair, Vocabulary};
use tch::{Device, Kind, Tensor, no_grad};
use thiserror::Error;

use crate::config::{ConfigError, ModelConfig, SpecialIds};
use crate::dvae::Dvae;
use crate::import::{PositionsError, fit_positions};
use crate::inputs::{image_ids, tokenizer_pixels};
use crate::model::Simla;
use crate::objectives::{Objectives, itm};
use crate::step::{Alignment, Inputs};
use simla_train::checkpoint::{Checkpoint, CheckpointError};
use simla_train::optim::alpha_at;
use simla_train::seed::step_seed;
use simla_train::torch::device::upload;
use simla_train::torch::guard::{TorchError, guarded};
use simla_train::weights::{Gradients, Weights, WeightsError};
use simla_train::{At, Scores, Task, Team, TeamError};

/// What a checkpoint of pre-training calls its task.
pub const TASK: &str = "pretrain";
/// What one of fine-tuning on retrieval does.
pub const FINE_TUNING: &str = "finetune-retrieval";
/// The vocabulary's file in a checkpoint.
pub const VOCABULARY: &str = "vocabulary.json";

/// Why a checkpoint is not a usable model.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum OpenError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("{path}: a checkpoint of task `{task}`, expected {expected}")]
    Task { path: String, task: String, expected: &'static str },
    #[error("{path}: configuration: {reason}")]
    Config { path: String, reason: String },
    #[error(transparent)]
    Size(#[from] ConfigError),
    #[error("{path}: vocabulary: {reason}")]
    Vocabulary { path: String, reason: String },
    #[error("{path}: tensor visual_encoder.pos_embed: {source}")]
    Positions { path: String, source: PositionsError },
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// The special tokens of a vocabulary, as the model knows them.
pub fn special_ids(vocabulary: &Vocabulary) -> SpecialIds {
    let special = vocabulary.special();
    SpecialIds { pad: special.pad, cls: special.cls, sep: special.sep, mask: special.mask }
}

/// A trained model on disk: all of it but its tensors.
#[derive(Debug)]
pub struct Saved {
    /// Its sizes.
    pub config: ModelConfig,
    /// Its word pieces.
    pub vocabulary: Vocabulary,
    /// Where its tensors are.
    pub checkpoint: Checkpoint,
}

impl Saved {
    /// The model in a run's folder or a checkpoint's.
    ///
    /// # Errors
    /// If there is none, or it is damaged, or of another kind.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::of(path, &[TASK, FINE_TUNING], "a model (`simla pretrain` makes one)")
    }

    /// The same of a model of one of these `tasks`; a message says that it `expected` one.
    ///
    /// # Errors
    /// If there is none, or it is damaged, or of another kind.
    pub fn of(path: &Path, tasks: &[&str], expected: &'static str) -> Result<Self, OpenError> {
        let checkpoint = Checkpoint::open(path)?;
        let shown = checkpoint.path.display().to_string();
        if !tasks.contains(&checkpoint.state.task.as_str()) {
            return Err(OpenError::Task { path: shown, task: checkpoint.state.task, expected });
        }
        let config: ModelConfig = serde_json::from_value(checkpoint.state.config.clone())
            .map_err(|e| OpenError::Config { path: shown.clone(), reason: e.to_string() })?;
        config.validate()?;
        let vocabulary = Vocabulary::open(&checkpoint.extra(VOCABULARY))
            .map_err(|e| OpenError::Vocabulary { path: shown.clone(), reason: e.to_string() })?
            .closing(config.closing_sep);
        if vocabulary.len() as i64 != config.vocab_size || special_ids(&vocabulary) != config.special {
            let reason = format!("{} pieces, the model has {}", vocabulary.len(), config.vocab_size);
            return Err(OpenError::Vocabulary { path: shown, reason });
        }
        Ok(Self { config, vocabulary, checkpoint })
    }

    /// Puts it into `simla`: what that has of online and momentum model and, where it is of the same size, the queue. For another size of
    /// the image, positions are resampled; the other sizes have to be the same.
    ///
    /// # Errors
    /// The first tensor that is missing, of another shape or not finite; or what libtorch could not do.
    pub fn load(&self, simla: &mut Simla) -> Result<(), OpenError> {
        let wanted = simla.named();
        let mut tensors = self.checkpoint.model_where(|name| wanted.contains_key(name))?;
        if simla.config.patches() != self.config.patches() {
            fit_positions(&mut tensors, simla.config.patches())
                .map_err(|source| OpenError::Positions { path: self.checkpoint.path.display().to_string(), source })?;
        }
        if simla.config.queue_size != self.config.queue_size {
            tensors.extend(simla.queues.named());
        }
        let loaded = guarded(|| simla.load(&tensors))?;
        Ok(loaded.map_err(|e| self.checkpoint.blame(e))?)
    }
}

/// A trained model with its vocabulary.
#[derive(Debug)]
pub struct Model {
    /// To be used; without what only training needs.
    pub simla: Simla,
    /// Its word pieces.
    pub vocabulary: Vocabulary,
    /// Where it was read.
    pub checkpoint: Checkpoint,
}

impl Model {
    /// The model in a run's folder or a checkpoint's, to be used: not to be trained further.
    ///
    /// # Errors
    /// As [`Saved::open`] and [`Saved::load`].
    pub fn open(path: &Path, kind: Kind, device: Device) -> Result<Self, OpenError> {
        let saved = Saved::open(path)?;
        let mut simla = guarded(|| Simla::for_use(saved.config.clone(), kind, device))?;
        saved.load(&mut simla)?;
        Ok(Self { simla, vocabulary: saved.vocabulary, checkpoint: saved.checkpoint })
    }
}

/// A model in pre-training or in fine-tuning on retrieval.
#[derive(Debug)]
pub struct Pretraining {
    /// As it is so far.
    pub simla: Simla,
    /// The tokenizer that labels its patches, where MIM takes part.
    pub dvae: Option<Dvae>,
    /// Fine-tuning: pairs of one image are positives of each other.
    by_image: bool,
    objectives: Objectives,
    alpha: f64,
    /// The vocabulary as it goes into checkpoints.
    vocabulary: Vec<u8>,
    /// Momentum features of the step's batches so far, of images and texts, and their images in fine-tuning; at the step's end those of
    /// all processes, as of one batch.
    features: [Vec<Tensor>; 3],
}

impl Pretraining {
    /// Pre-training; `alpha` is the teacher's share of a target, `vocabulary` what goes into checkpoints.
    pub fn new(simla: Simla, dvae: Option<Dvae>, objectives: Objectives, alpha: f64, vocabulary: Vec<u8>) -> Self {
        Self { simla, dvae, by_image: false, objectives, alpha, vocabulary, features: Default::default() }
    }

    /// Fine-tuning on retrieval: `objectives` are of [`Objectives::RETRIEVAL`].
    pub fn fine_tuning(mut simla: Simla, objectives: Objectives, alpha: f64, vocabulary: Vec<u8>) -> Self {
        simla.queues.remember_images();
        Self { by_image: true, ..Self::new(simla, None, objectives, alpha, vocabulary) }
    }

    /// Which losses take part.
    pub fn objectives(&self) -> Objectives {
        self.objectives
    }
}

impl Task for Pretraining {
    type Batch = Batch<Pair>;

    fn records(batch: &Batch<Pair>) -> &[String] {
        &batch.records
    }

    fn name(&self) -> &'static str {
        if self.by_image { FINE_TUNING } else { TASK }
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

    fn backward(&mut self, batch: &Batch<Pair>, at: At, gradients: &mut Gradients) -> Scores {
        let device = self.simla.online.device();
        let alpha = alpha_at(self.alpha, at.step, at.steps_per_epoch);
        let tokens = self.dvae.as_ref().map(|dvae| {
            let tokens = dvae.tokens(&tokenizer_pixels(batch, dvae.side_of(self.simla.config.grid()), device));
            (tokens, dvae.vocab())
        });
        const NEGATIVES: u64 = 1;
        let inputs = Inputs {
            image_ids: self.by_image.then(|| image_ids(batch, device)),
            ..Inputs::new(
                batch,
                tokens.as_ref().map(|(tokens, _)| tokens),
                step_seed(at.seed, at.step, NEGATIVES),
                self.simla.config.special.pad,
                device,
            )
        };
        let (losses, seen) = self.simla.step(&inputs, alpha, self.objectives, gradients);
        let image_ids = inputs.image_ids;
        let mut others = no_grad(|| observations(&seen, batch.len() as i64, image_ids.as_ref()));
        if let Some((tokens, vocab)) = &tokens {
            others.push(("batch/codes", codes_used(tokens, *vocab)));
        }
        others.push(("schedule/temperature", self.simla.temp().detach()));
        others.push(("schedule/alpha", upload(&Tensor::from(alpha), device)));
        for (features, new) in
            self.features.iter_mut().zip([Some(seen.image_feat_m), Some(seen.text_feat_m), image_ids])
        {
            features.extend(new);
        }
        Scores { losses: losses.named(), others }
    }

    fn exchange(&mut self, team: &Team) -> Result<Vec<(&'static str, Tensor)>, TeamError> {
        for features in self.features.iter_mut().filter(|features| !features.is_empty()) {
            *features = vec![team.gather_batches(features)?];
        }
        Ok(Vec::new())
    }

    fn end_step(&mut self, applied: bool, _team: &Team) -> Result<(), TeamError> {
        let features = std::mem::take(&mut self.features);
        // Features of a skipped step may not be finite: they must not stay for 65,536 pairs.
        if let [[image], [text], ids] = features.each_ref().map(Vec::as_slice)
            && applied
        {
            self.simla.queues.push(image, text, ids.first());
        }
        Ok(())
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

/// ITM accuracy and in-batch retrieval: shares of right answers. Right is the pair itself, or one of its image where `image_ids` say.
fn observations(seen: &Alignment, batch: i64, image_ids: Option<&Tensor>) -> Vec<(&'static str, Tensor)> {
    let right = |answers: Tensor, truth: &Tensor| answers.eq_tensor(truth).to_kind(Kind::Float).mean(Kind::Float);
    let pairs = Tensor::arange(batch, (Kind::Int64, seen.image_feat.device()));
    let own = image_ids.unwrap_or(&pairs);
    let first = |similarity: &Tensor| {
        let first = similarity.narrow(1, 0, batch).argmax(1, false);
        own.index_select(0, &first)
    };
    let mut observed = vec![
        ("batch/txt_r1", right(first(&seen.similarities.i2t), own)),
        ("batch/img_r1", right(first(&seen.similarities.t2i), own)),
    ];
    if let Some(logits) = &seen.itm_logits {
        let matched =
            Tensor::arange(3 * batch, (Kind::Int64, logits.device())).lt(batch).to_kind(Kind::Int64) * itm::MATCH;
        observed.push(("batch/itm_accuracy", right(logits.argmax(1, false), &matched)));
    }
    observed
}

/// Share of the codes that occur in `tokens`.
fn codes_used(tokens: &Tensor, vocab: i64) -> Tensor {
    Tensor::zeros([vocab], (Kind::Float, tokens.device())).index_fill(0, &tokens.flatten(0, -1), 1.0).mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;
    use crate::dvae::DvaeConfig;
    use crate::dvae::encoder::EncoderConfig;
    use crate::objectives::negatives::Negatives;

    const SIDE: usize = 32;
    const PATCHES: usize = 16;

    fn simla() -> Simla {
        let config = ModelConfig {
            image_size: SIDE as i64,
            patch_size: 8,
            vision_depth: 1,
            text_depth: 2,
            visual_vocab: 8,
            queue_size: 10,
            ..ModelConfig::preset(Preset::Tiny, 20, SpecialIds::FIRST)
        };
        Simla::new(config, Kind::Float, Device::Cpu, 2)
    }

    fn task() -> Pretraining {
        let encoder = EncoderConfig { width: 4, groups: 3, blocks_per_group: 1, vocab: 8 };
        let dvae = DvaeConfig { encoder, image_size: 16, decoder: false };
        let dvae = Dvae::new(dvae, Kind::Float, Device::Cpu, false, 1);
        Pretraining::new(simla(), Some(dvae), Objectives::default(), 0.4, vec![])
    }

    /// Two pairs; `shade` makes batches differ.
    fn batch(shade: u8) -> Batch<Pair> {
        let pixels = |side: usize| (0..2 * side * side * 3).map(|i| (i as u8).wrapping_mul(shade)).collect();
        let word = i64::from(shade % 8) + 5;
        let pair = |image_id, ids: [i64; 4], mlm_ids: [i64; 4], mlm_labels: [i64; 4]| Pair {
            ids: ids.into(),
            mlm_ids: mlm_ids.into(),
            mlm_labels: mlm_labels.into(),
            masked_patches: (0..PATCHES).map(|i| i % 4 == 0).collect(),
            image_id,
        };
        Batch {
            step: 0,
            epoch: 0,
            side: SIDE,
            rows: vec![
                pair(0, [1, word, 9, 2], [1, 3, 9, 2], [-100, word, -100, -100]),
                pair(1, [1, 12, word, 2], [1, 12, 3, 2], [-100, -100, word, -100]),
            ],
            records: vec![],
            pictures: pixels(SIDE),
            halves: pixels(SIDE / 2),
        }
    }

    /// Three pairs without masked patches, two of them of one image.
    fn of_two_images() -> Batch<Pair> {
        let mut two = batch(7);
        two.rows.push(Pair {
            ids: vec![1, 6, 8, 2],
            mlm_ids: vec![1, 6, 3, 2],
            mlm_labels: vec![-100, -100, 8, -100],
            ..Pair::default()
        });
        for (pair, image_id) in two.rows.iter_mut().zip([40, 40, 70]) {
            (pair.masked_patches, pair.image_id) = (vec![false; PATCHES], image_id);
        }
        let pixel = |i: usize| (i as u8).wrapping_mul((i / (SIDE * SIDE * 3)) as u8 + 3);
        Batch { pictures: (0..3 * SIDE * SIDE * 3).map(pixel).collect(), halves: vec![], ..two }
    }

    #[test]
    fn words_that_are_no_keywords_are_never_chosen() {
        let batch = batch(7);
        let b = Inputs::new(&batch, None, 0, 0, Device::Cpu);
        let mut simla = simla();
        let psl = Objectives::try_from(vec!["psl".to_owned()]).unwrap();
        let look = |simla: &Simla| {
            let (losses, seen) = no_grad(|| simla.align(&b, 0.0, psl));
            let chosen =
                |pair| Vec::<i64>::try_from(seen.keywords.as_ref().unwrap().targets.get(pair).nonzero().view(-1));
            (losses.psl.unwrap().double_value(&[]), chosen(0).unwrap(), chosen(1).unwrap())
        };
        let (loss, first, second) = look(&simla);
        assert_eq!((first, second), (vec![9, 12], vec![12]));
        simla.psl.per_keyword = true;
        let weighed = look(&simla).0;
        assert!((weighed - loss * 20.0 / 3.0).abs() < 1e-5 * weighed, "of 20 words, 3 keywords: {loss}, {weighed}");
        simla.psl.never = Some(Tensor::arange(20, (Kind::Int64, Device::Cpu)).eq(12));
        let (_, first, second) = look(&simla);
        assert_eq!((first, second), (vec![9], vec![]));
    }

    #[test]
    fn fine_tuning_takes_no_negative_of_the_same_image() {
        let batch = of_two_images();
        let mut simla = simla();
        simla.queues.remember_images();
        let logits = |image_ids: Option<Tensor>, negatives: Option<Negatives>, seed: u64| {
            let b = Inputs::new(&batch, None, seed, 0, Device::Cpu);
            let b = Inputs { image_ids, negatives: negatives.unwrap_or(b.negatives), ..b };
            let (_, seen) = no_grad(|| simla.align(&b, 0.4, Objectives::RETRIEVAL));
            // Of pairs 0 and 1, with a wrong text and with a wrong image.
            let groups = seen.itm_logits.unwrap().view([3, 3, 2]);
            groups.narrow(0, 1, 2).narrow(1, 0, 2)
        };
        let other = || Tensor::from_slice(&[2i64, 2, 0]);
        let given = Negatives::Given { image: other(), text: other() };
        let expected = logits(None, Some(given), 0);
        let as_expected = |image_ids: Option<[i64; 3]>, seed: u64| {
            let image_ids = image_ids.map(|ids| Tensor::from_slice(&ids));
            logits(image_ids, None, seed).allclose(&expected, 1e-5, 1e-6, false)
        };
        assert!((0..10).all(|seed| as_expected(Some([40, 40, 70]), seed)));
        assert!(!(0..10).all(|seed| as_expected(None, seed)), "without images, 0 and 1 are negatives of each other");
    }

    #[test]
    fn fine_tuning_queues_the_images_of_its_pairs_and_pre_training_does_not() {
        let mut task = Pretraining::fine_tuning(simla(), Objectives::RETRIEVAL, 0.4, vec![]);
        let mut gradients = Gradients::new(task.weights());
        let at = At { step: 3, steps_per_epoch: 4, seed: 5 };
        let mut losses = |task: &mut Pretraining, batch: &Batch<Pair>| {
            task.begin_step();
            let scores = task.backward(batch, at, &mut gradients);
            task.exchange(&Team::alone()).unwrap();
            task.end_step(true, &Team::alone()).unwrap();
            let names: Vec<&str> = scores.losses.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, ["loss/itc", "loss/itm"]);
            scores.losses[0].1.double_value(&[])
        };
        losses(&mut task, &of_two_images());
        let ids = Vec::<i64>::try_from(task.tensors()["idx_queue"].get(0)).unwrap();
        assert_eq!(ids[..5], [40, 40, 70, -100, -100]);
        assert!(!self::task().tensors().contains_key("idx_queue"));

        // The queued pairs are positives or not, by their images alone.
        let state = task.tensors();
        let state: BTreeMap<_, _> = state.into_iter().map(|(k, t)| (k, t.copy())).collect();
        let [of_the_queue, of_another] = [40, 41].map(|id| {
            task.load(&state).unwrap();
            let mut batch = batch(50);
            batch.rows.iter_mut().for_each(|pair| pair.image_id = id);
            losses(&mut task, &batch)
        });
        assert_ne!(of_the_queue, of_another);
    }

    #[test]
    fn queues_and_momentum_model_move_once_a_step_with_all_its_batches() {
        let mut task = task();
        let mut gradients = Gradients::new(task.weights());
        let at = At { step: 3, steps_per_epoch: 4, seed: 5 };
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
            let features: Vec<Tensor> = task.features[0].iter().map(Tensor::copy).collect();
            task.exchange(&Team::alone()).unwrap();
            task.end_step(applied, &Team::alone()).unwrap();
            (before, features)
        };
        let (_, features) = step(&mut task, true);
        assert_eq!(copy(&task, "queue_ptr").int64_value(&[0]), 4, "two batches of two");
        let pushed = copy(&task, "image_queue").narrow(1, 0, 4).transpose(0, 1);
        assert!(pushed.equal(&Tensor::cat(&features, 0)), "in their order");

        let (before, _) = step(&mut task, false);
        for (name, before) in names.iter().zip(&before) {
            assert!(copy(&task, name).equal(before), "{name} after a skipped step");
        }
        assert!(task.features[0].is_empty(), "a skipped step leaves nothing for the next");
    }
}

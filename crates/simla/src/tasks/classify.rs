//! A sentence and its pictures put into one of some classes (3.1): a head on E_mm's [CLS], distilled by the momentum model. Here with one
//! picture and the classes of visual entailment (SNLI-VE); [`nlvr`](super::nlvr) has two pictures.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use simla_data::formats::entailment::LABELS;
use simla_data::{Batch, Entailment, LoadError, Vocabulary};
use tch::{Device, Kind, Tensor, no_grad};
use thiserror::Error;

use super::pretrain::{OpenError, Saved, VOCABULARY};
use super::score::Share;
use crate::averaged::Averaged;
use crate::config::ModelConfig;
use crate::encoders::Encoders;
use crate::import::{StartError, Tensors, fit_positions};
use crate::inputs::{normalized, padded, padding_mask};
use crate::layers::Linear;
use crate::objectives::xmm;
use crate::text::{Depth, Rows};
use simla_train::optim::alpha_at;
use simla_train::torch::device::upload;
use simla_train::torch::guard::{TorchError, guarded};
use simla_train::weights::{Gradients, Layout, Weights, WeightsError};
use simla_train::{At, Scores, Task};

/// A row that says a sentence, with the class that is to be found.
pub trait Classified: std::fmt::Debug {
    /// What a checkpoint calls the task.
    const TASK: &'static str;
    /// Such a checkpoint, for messages.
    const MODEL: &'static str;
    /// What the classes are called, by their numbers.
    const CLASSES: &'static [&'static str];
    /// How many pictures a row has, and how E_mm reads them.
    const DEPTH: Depth;
    /// Whether the teacher's share rises over the first epoch.
    const RAMP: bool;
    /// Whether the teacher starts from the pre-trained momentum model, or as a copy of the online one.
    const TAUGHT: bool;

    /// Its word pieces.
    fn ids(&self) -> &[i64];

    /// Its class, where it is known.
    fn label(&self) -> Option<i64>;
}

impl Classified for Entailment {
    const TASK: &'static str = "entailment";
    const MODEL: &'static str = "a model of visual entailment (`simla finetune entailment` makes one)";
    const CLASSES: &'static [&'static str] = &LABELS;
    const DEPTH: Depth = Depth::Single;
    const RAMP: bool = false;
    const TAUGHT: bool = true;

    fn ids(&self) -> &[i64] {
        &self.ids
    }

    fn label(&self) -> Option<i64> {
        self.label
    }
}

/// Sentences and their pictures on the device.
#[derive(Debug)]
pub struct Inputs {
    /// `[B x P, 3, S, S]`, normalised: the P pictures of a sentence one after the other.
    pub images: Tensor,
    /// `[B, L]`: token ids, padded.
    pub ids: Tensor,
    /// `[B, L]`: 1 where a token is.
    pub mask: Tensor,
}

impl Inputs {
    /// Sentences with the views (RGB bytes) of `pictures` of each, filled up with the piece `pad`.
    pub fn new<'a>(
        sentences: impl ExactSizeIterator<Item = &'a [i64]> + Clone,
        views: &[u8],
        pictures: usize,
        side: usize,
        pad: i64,
        device: Device,
    ) -> Self {
        Self {
            images: normalized(views, sentences.len() * pictures, side, device),
            mask: upload(&padding_mask(sentences.clone()), device),
            ids: upload(&padded(sentences, pad), device),
        }
    }
}

/// Linear, ReLU, linear.
#[derive(Debug)]
struct Head {
    hidden: Linear,
    classes: Linear,
}

impl Head {
    fn new(layout: &mut Layout, width: i64, classes: usize) -> Self {
        Self {
            hidden: Linear::new(layout, "cls_head.0", width, width),
            classes: Linear::new(layout, "cls_head.2", width, classes as i64),
        }
    }

    fn forward(&self, w: &Weights, x: &Tensor) -> Tensor {
        self.classes.forward(w, &self.hidden.forward(w, x).relu())
    }
}

/// A model that puts rows `R` into their classes.
#[derive(Debug)]
pub struct Classifier<R> {
    /// Its sizes.
    pub config: ModelConfig,
    /// E_v and E_mm.
    pub encoders: Encoders,
    head: Head,
    /// Online and momentum model.
    pub weights: Averaged,
    row: PhantomData<fn(R)>,
}

impl<R: Classified> Classifier<R> {
    /// A fresh model that computes in `kind` (f32 or bf16); a function of `seed` alone.
    pub fn new(config: ModelConfig, kind: Kind, device: Device, seed: i64) -> Self {
        let momentum = config.momentum;
        Self::with(config, |layout| Averaged::new(layout, momentum, kind, device, seed))
    }

    /// Memory for a model that will be loaded and used, but not trained.
    pub fn for_use(config: ModelConfig, kind: Kind, device: Device) -> Self {
        Self::with(config, |layout| Averaged::for_use(layout, kind, device))
    }

    fn with(config: ModelConfig, weights: impl FnOnce(&Layout) -> Averaged) -> Self {
        let mut layout = Layout::default();
        let encoders = Encoders::new(&mut layout, R::DEPTH, &config);
        let head = Head::new(&mut layout, config.text_width, R::CLASSES.len());
        Self { weights: weights(&layout), config, encoders, head, row: PhantomData }
    }

    /// The fine-tuned model in a run's folder or a checkpoint's, to be used, and its vocabulary.
    ///
    /// # Errors
    /// If there is none, or it is damaged, or of another task.
    pub fn open(path: &Path, kind: Kind, device: Device) -> Result<(Self, Vocabulary), OpenError> {
        let Saved { config, vocabulary, checkpoint } = Saved::of(path, &[R::TASK], R::MODEL)?;
        let mut model = guarded(|| Self::for_use(config, kind, device))?;
        guarded(|| model.weights.load_saved(&checkpoint))??;
        Ok((model, vocabulary))
    }

    /// Starts from a pre-trained model's tensors, or from those of a fine-tuned one with encoders of the same depth; the head is new.
    ///
    /// # Errors
    /// The first tensor that is missing, of another shape or not finite.
    pub fn start(&mut self, source: Tensors) -> Result<(), StartError> {
        start(&mut self.weights, source, &self.encoders, self.config.patches(), R::TAUGHT)
    }

    /// Logits of the classes, in f32: `[B, classes]`. `w` are the online weights or the teacher's.
    pub fn logits(&self, w: &Weights, b: &Inputs, p: f64) -> Tensor {
        let embeds = self.encoders.image_embeds(w, &b.images);
        let (_, tokens, width) = embeds.size3().expect("[B x P, tokens, width]");
        let images = embeds.view([b.ids.size()[0], -1, tokens, width]).unbind(1);
        let images: Vec<&Tensor> = images.iter().collect();
        let states = self.encoders.states(w, &b.ids, &b.mask, &images, Rows::Cls, p);
        self.head.forward(w, &states.select(1, 0)).to_kind(Kind::Float)
    }

    /// What the model thinks of each class, `[B, classes]`; the largest is its prediction.
    pub fn probabilities(&self, b: &Inputs) -> Tensor {
        no_grad(|| self.logits(&self.weights.online, b, 0.0).softmax(-1, Kind::Float))
    }

    /// Adds the gradients of one step's loss (with the truth `labels` `[B]`), and gives it and the logits.
    pub fn step(&self, b: &Inputs, labels: &Tensor, alpha: f64, gradients: &mut Gradients) -> (Tensor, Tensor) {
        let p = self.config.dropout;
        // Dropout is on in the teacher too, as in the authors' code.
        let teacher = (alpha > 0.0).then(|| no_grad(|| self.logits(&self.weights.teacher, b, p)));
        let logits = self.logits(&self.weights.online, b, p);
        let loss = xmm::loss(&logits, labels, teacher.as_ref(), alpha);
        gradients.backward(&loss, &self.weights.online);
        (loss.detach(), logits.detach())
    }

    /// The probabilities of the classes for one sentence, whose pieces are `ids`, and its pictures: views of the model's size, RGB bytes,
    /// one after the other.
    ///
    /// # Errors
    /// What libtorch could not do.
    pub fn judge(&self, ids: &[i64], views: &[u8]) -> Result<Vec<f32>, TorchError> {
        let (side, device) = (self.config.image_size as usize, self.weights.online.device());
        guarded(|| {
            let sentences = [ids].into_iter();
            let b = Inputs::new(sentences, views, R::DEPTH.contexts(), side, self.config.special.pad, device);
            Vec::try_from(self.probabilities(&b).get(0)).expect("a number a class")
        })
    }

    /// A batch on the model's device.
    pub fn inputs(&self, batch: &Batch<R>) -> Inputs {
        let ids = batch.rows.iter().map(R::ids);
        let device = self.weights.online.device();
        Inputs::new(ids, &batch.pictures, R::DEPTH.contexts(), batch.side, self.config.special.pad, device)
    }
}

/// The start of any model that consists of encoders and new heads; see [`Classifier::start`].
///
/// # Errors
/// The first tensor that is missing, of another shape or not finite, or positions that are of no square.
pub fn start(
    weights: &mut Averaged,
    mut source: Tensors,
    encoders: &Encoders,
    patches: i64,
    taught: bool,
) -> Result<(), StartError> {
    fit_positions(&mut source, patches)?;
    let same_names = source.contains_key("text_encoder.embeddings.word_embeddings.weight");
    let origin = |name: &str| encoders.origin(name).map(|origin| if same_names { name.to_owned() } else { origin });
    Ok(weights.start(&source, origin, taught)?)
}

/// A [`Classifier`] in training.
#[derive(Debug)]
pub struct Tuning<R> {
    /// As it is so far.
    pub model: Classifier<R>,
    /// The teacher's share of the target.
    pub alpha: f64,
    /// Whether pictures are hidden: what can be told from the words alone.
    pub blind: bool,
    /// The vocabulary as it goes into checkpoints.
    pub vocabulary: Vec<u8>,
}

impl<R: Classified> Task for Tuning<R> {
    type Batch = Batch<R>;

    fn records(batch: &Batch<R>) -> &[String] {
        &batch.records
    }

    fn name(&self) -> &'static str {
        R::TASK
    }

    fn config(&self) -> Value {
        serde_json::to_value(&self.model.config).expect("a configuration is JSON")
    }

    fn weights(&mut self) -> &mut Weights {
        &mut self.model.weights.online
    }

    fn begin_step(&mut self) {
        self.model.weights.begin_step();
    }

    fn backward(&mut self, batch: &Batch<R>, at: At, gradients: &mut Gradients) -> Scores {
        let device = self.model.weights.online.device();
        let alpha = if R::RAMP { alpha_at(self.alpha, at.step, at.steps_per_epoch) } else { self.alpha };
        let mut inputs = self.model.inputs(batch);
        if self.blind {
            inputs.images = inputs.images.zeros_like();
        }
        let labels: Vec<i64> =
            batch.rows.iter().map(|row| row.label().expect("a format that asks for labels")).collect();
        let labels = upload(&Tensor::from_slice(&labels), device);
        let (loss, logits) = self.model.step(&inputs, &labels, alpha, gradients);
        let right = logits.argmax(1, false).eq_tensor(&labels).to_kind(Kind::Float).mean(Kind::Float);
        let others = vec![("batch/accuracy", right), ("schedule/alpha", upload(&Tensor::from(alpha), device))];
        Scores { losses: vec![("loss/classes", loss)], others }
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.model.weights.named()
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), WeightsError> {
        self.model.weights.load(tensors)
    }

    fn extra(&self) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([(VOCABULARY.to_owned(), self.vocabulary.clone())])
    }
}

/// How rows with a known class were put into classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// `confusion[truth][predicted]`.
    pub confusion: Vec<Vec<u64>>,
}

impl Outcome {
    /// Of no row yet.
    pub fn new(classes: usize) -> Self {
        Self { confusion: vec![vec![0; classes]; classes] }
    }

    /// With the rows of another part.
    pub fn and(mut self, other: &Self) -> Self {
        let ours = self.confusion.iter_mut().flatten();
        ours.zip(other.confusion.iter().flatten()).for_each(|(ours, theirs)| *ours += theirs);
        self
    }

    /// Share of the rows that are right.
    pub fn accuracy(&self) -> Share {
        let of = self.confusion.iter().flatten().sum();
        Share { right: self.confusion.iter().enumerate().map(|(class, predicted)| predicted[class]).sum(), of }
    }

    /// Share of the commonest class: what is right without a look at a row.
    pub fn commonest(&self) -> Share {
        let rows: Vec<u64> = self.confusion.iter().map(|predicted| predicted.iter().sum()).collect();
        Share { right: rows.iter().copied().max().unwrap_or_default(), of: rows.iter().sum() }
    }

    /// The same of the rows whose class is `class`.
    pub fn accuracy_of(&self, class: usize) -> Share {
        Share { right: self.confusion[class][class], of: self.confusion[class].iter().sum() }
    }
}

/// Why an evaluation ended early.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum EvaluationError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// Puts every row of `batches` (of [`Loader::once`](simla_data::Loader::once)) into a class; `blind` hides the pictures. `each` is
/// told the row and the probabilities of the classes.
///
/// # Errors
/// What the loader or libtorch could not do.
pub fn evaluate<R: Classified>(
    model: &Classifier<R>,
    batches: impl Iterator<Item = Result<Batch<R>, LoadError>>,
    blind: bool,
    mut each: impl FnMut(&R, &[f32]),
) -> Result<Outcome, EvaluationError> {
    let mut outcome = Outcome::new(R::CLASSES.len());
    let (mut rows, mut found) = (Vec::new(), Vec::new());
    for batch in batches {
        let batch = batch?;
        found.push(guarded(|| {
            let mut inputs = model.inputs(&batch);
            if blind {
                inputs.images = inputs.images.zeros_like();
            }
            model.probabilities(&inputs)
        })?);
        rows.extend(batch.rows);
    }
    if rows.is_empty() {
        return Ok(outcome);
    }
    // To the host at once: it does not wait for each batch.
    let found = guarded(|| Tensor::cat(&found, 0).to(Device::Cpu))?;
    let found = Vec::<Vec<f32>>::try_from(found).expect("[rows, classes]");
    for (row, probabilities) in rows.iter().zip(&found) {
        if let Some(label) = row.label() {
            outcome.confusion[label as usize][largest(probabilities)] += 1;
        }
        each(row, probabilities);
    }
    Ok(outcome)
}

/// The class with the largest probability; the first of equal ones.
pub fn largest(probabilities: &[f32]) -> usize {
    (1..probabilities.len()).fold(0, |best, i| if probabilities[i] > probabilities[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use simla_train::optim::{AdamW, AdamWConfig};

    use super::*;
    use crate::config::{Preset, SpecialIds};

    fn tiny() -> ModelConfig {
        ModelConfig { vision_depth: 1, text_depth: 2, ..ModelConfig::preset(Preset::Tiny, 20, SpecialIds::FIRST) }
    }

    fn batch(labels: &[i64]) -> Batch<Entailment> {
        let side = tiny().image_size as usize;
        let row = |&label: &i64| Entailment {
            ids: vec![1, 5 + label, 2],
            label: Some(label),
            sentence: String::new(),
            pair_id: None,
        };
        Batch {
            step: 0,
            epoch: 0,
            side,
            rows: labels.iter().map(row).collect(),
            records: labels.iter().map(i64::to_string).collect(),
            pictures: (0..labels.len() * side * side * 3).map(|i| (i * 7 % 251) as u8).collect(),
            halves: vec![],
        }
    }

    fn tuning(blind: bool) -> Tuning<Entailment> {
        let model = Classifier::new(tiny(), Kind::Float, Device::Cpu, 3);
        Tuning { model, alpha: 0.4, blind, vocabulary: vec![] }
    }

    /// Takes steps on one batch whose sentences tell their class.
    fn trained(task: &mut Tuning<Entailment>) -> Outcome {
        let mut optimizer = AdamW::new(AdamWConfig::default(), task.weights());
        let mut gradients = Gradients::new(task.weights());
        let seen = batch(&[0, 1, 2, 2]);
        for step in 0..40 {
            gradients.clear();
            task.begin_step();
            task.backward(&seen, At { step, steps_per_epoch: 10, seed: 0 }, &mut gradients);
            optimizer.step(task.weights(), &mut gradients, 1e-3, 1.0);
        }
        evaluate(&task.model, [Ok(seen)].into_iter(), task.blind, |_, _| ()).unwrap()
    }

    #[test]
    fn what_the_words_tell_is_learned_with_and_without_pictures() {
        for blind in [false, true] {
            let outcome = trained(&mut tuning(blind));
            assert_eq!(outcome.confusion, [[1, 0, 0], [0, 1, 0], [0, 0, 2]], "blind: {blind}");
            assert_eq!(outcome.accuracy(), Share { right: 4, of: 4 });
            assert_eq!(outcome.accuracy_of(2), Share { right: 2, of: 2 });
        }
    }

    #[test]
    fn a_blind_model_says_the_same_of_any_picture() {
        let task = tuning(true);
        let said = |shift: u8, blind| {
            let mut batch = batch(&[0, 1]);
            batch.pictures.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(shift));
            let mut said = Vec::new();
            evaluate(&task.model, [Ok(batch)].into_iter(), blind, |_, p| said.push(p.to_vec())).unwrap();
            said
        };
        assert_eq!(said(1, true), said(9, true));
        assert_ne!(said(1, false), said(9, false));
    }

    #[test]
    fn one_sentence_is_judged_as_in_a_batch() {
        let model = tuning(false).model;
        let one = batch(&[1]);
        let mut said = Vec::new();
        let judged = model.judge(&one.rows[0].ids, &one.pictures).unwrap();
        evaluate(&model, [Ok(one)].into_iter(), false, |_, p| said.push(p.to_vec())).unwrap();
        assert_eq!(said, [judged]);
    }
}

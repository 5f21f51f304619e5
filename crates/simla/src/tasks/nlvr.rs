//! NLVR2 (3.1): whether a statement about two pictures is true, [`classify`](super::classify)'s model over a text encoder whose upper
//! layers are doubled; its score by the official rules; and text assignment, the further pre-training that it starts from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use simla_data::{Batch, LoadError, Pair, Statement};
use simla_files::{advice, write_atomically};
use tch::{Device, Kind, Tensor, no_grad};
use thiserror::Error;

use super::classify::{Classified, Classifier, EvaluationError, Inputs, evaluate as classify, largest};
use super::pretrain::VOCABULARY;
use super::score::Share;
use crate::averaged::take;
use crate::config::ModelConfig;
use crate::encoders::Encoders;
use crate::import::{StartError, Tensors, fit_positions};
use crate::layers::Linear;
use crate::model::normalize;
use crate::objectives::negatives::gumbel;
use crate::objectives::xmm;
use crate::text::{Depth, Rows};
use simla_train::seed::step_seed;
use simla_train::torch::device::upload;
use simla_train::torch::operations::select;
use simla_train::weights::{Gradients, Layout, Weights, WeightsError};
use simla_train::{At, Scores, Task};

impl Classified for Statement {
    const TASK: &'static str = "nlvr2";
    const MODEL: &'static str = "a model of NLVR2 (`simla finetune nlvr2` makes one)";
    const CLASSES: &'static [&'static str] = &["False", "True"];
    const DEPTH: Depth = Depth::Doubled;
    const RAMP: bool = true;
    const TAUGHT: bool = false;

    fn ids(&self) -> &[i64] {
        &self.ids
    }

    fn label(&self) -> Option<i64> {
        self.label
    }
}

/// What a checkpoint of text assignment calls its task.
pub const TEXT_ASSIGNMENT: &str = "text-assignment";

/// Where the wrong images of a text assignment come from.
#[derive(Debug)]
pub enum Wrong {
    /// `[B, 2]`: two other images for each caption.
    Given(Tensor),
    /// Standard Gumbel noise `[B, B]`: they are drawn on the device, when the similarities are known.
    Drawn(Tensor),
}

/// The model that says whether a caption fits the first of two images (0), the second (1) or neither (2).
#[derive(Debug)]
pub struct TextAssignment {
    /// Its sizes.
    pub config: ModelConfig,
    /// E_v and E_mm with doubled layers.
    pub encoders: Encoders,
    head: Linear,
    vision_proj: Linear,
    /// Weights that train; there is no momentum model.
    pub online: Weights,
    /// The projection by which wrong images are drawn stays as pre-trained.
    frozen: Weights,
    /// The vocabulary as it goes into checkpoints.
    vocabulary: Vec<u8>,
}

impl TextAssignment {
    /// Pairs of a batch at least: a caption, and two images that are not its own.
    pub const LEAST_BATCH: usize = 3;
    const TEMPERATURE: f64 = 0.07;
    const CHOICES: i64 = 3;

    /// A fresh model that computes in `kind` (f32 or bf16); a function of `seed` alone.
    pub fn new(config: ModelConfig, kind: Kind, device: Device, seed: i64, vocabulary: Vec<u8>) -> Self {
        tch::manual_seed(seed);
        let (mut layout, mut still) = (Layout::default(), Layout::default());
        let encoders = Encoders::new(&mut layout, Depth::Doubled, &config);
        let head = Linear::new(&mut layout, "ta_head", config.text_width, Self::CHOICES);
        let vision_proj = Linear::new(&mut still, "vision_proj", config.vision_width, config.embed_dim);
        let online = Weights::new(&layout, kind, device, true);
        let frozen = Weights::new(&still, kind, device, false);
        Self { config, encoders, head, vision_proj, online, frozen, vocabulary }
    }

    /// Starts from a pre-trained model's tensors; the head is new.
    ///
    /// # Errors
    /// The first tensor that is missing, of another shape or not finite.
    pub fn start(&mut self, mut source: Tensors) -> Result<(), StartError> {
        fit_positions(&mut source, self.config.patches())?;
        take(&mut self.online, &source, &|name| self.encoders.origin(name))?;
        Ok(self.frozen.load(&source, str::to_owned)?)
    }

    /// Similarities over the temperature of images `[B, 1 + P, D]` with each other, in f32: `[B, B]`.
    pub fn similarities(&self, image_embeds: &Tensor) -> Tensor {
        let feat = normalize(&self.vision_proj.forward(&self.frozen, &image_embeds.detach().select(1, 0)));
        feat.matmul(&feat.transpose(0, 1)) / Self::TEMPERATURE
    }

    /// Logits `[B, 3]` in f32, with their graph, for captions with their own images in `b`; `labels` `[B]` say where the own image goes.
    pub fn logits(&self, b: &Inputs, labels: &Tensor, wrong: &Wrong) -> Tensor {
        let (w, p) = (&self.online, self.config.dropout);
        let embeds = self.encoders.image_embeds(w, &b.images);
        let wrong = match wrong {
            Wrong::Given(wrong) => wrong.shallow_clone(),
            Wrong::Drawn(noise) => no_grad(|| {
                // The largest after Gumbel noise are an exact draw without replacement.
                let own = Tensor::eye(noise.size()[0], (Kind::Bool, noise.device()));
                let score = (self.similarities(&embeds) + noise).masked_fill(&own, f64::NEG_INFINITY);
                score.topk(2, 1, true, true).1
            }),
        };
        let own = Tensor::arange(labels.size()[0], (Kind::Int64, labels.device()));
        let other = wrong.select(1, 0);
        let first = own.where_self(&labels.eq(0), &other);
        let second = own.where_self(&labels.eq(1), &other.where_self(&labels.eq(0), &wrong.select(1, 1)));
        let images = [&first, &second].map(|rows| select(&embeds, rows));
        let states = self.encoders.states(w, &b.ids, &b.mask, &[&images[0], &images[1]], Rows::Cls, p);
        self.head.forward(w, &states.select(1, 0)).to_kind(Kind::Float)
    }

    /// Adds the gradients of one step's loss, and gives it and the logits.
    pub fn step(&self, b: &Inputs, labels: &Tensor, wrong: &Wrong, gradients: &mut Gradients) -> (Tensor, Tensor) {
        let logits = self.logits(b, labels, wrong);
        let loss = xmm::loss(&logits, labels, None, 0.0);
        gradients.backward(&loss, &self.online);
        (loss.detach(), logits.detach())
    }
}

impl Task for TextAssignment {
    type Batch = Batch<Pair>;

    fn records(batch: &Batch<Pair>) -> &[String] {
        &batch.records
    }

    fn name(&self) -> &'static str {
        TEXT_ASSIGNMENT
    }

    fn config(&self) -> Value {
        serde_json::to_value(&self.config).expect("a configuration is JSON")
    }

    fn weights(&mut self) -> &mut Weights {
        &mut self.online
    }

    /// The batch has at least [`TextAssignment::LEAST_BATCH`] pairs.
    fn backward(&mut self, batch: &Batch<Pair>, at: At, gradients: &mut Gradients) -> Scores {
        const ASSIGNMENTS: u64 = 1;
        let device = self.online.device();
        let mut rng = ChaCha8Rng::seed_from_u64(step_seed(at.seed, at.step, ASSIGNMENTS));
        let labels: Vec<i64> = batch.rows.iter().map(|_| rng.random_range(0..Self::CHOICES)).collect();
        let labels = upload(&Tensor::from_slice(&labels), device);
        let wrong = Wrong::Drawn(gumbel(batch.len() as i64, &mut rng, device));
        let captions = batch.rows.iter().map(|row| row.ids.as_slice());
        let inputs = Inputs::new(captions, &batch.pictures, 1, batch.side, self.config.special.pad, device);
        let (loss, logits) = self.step(&inputs, &labels, &wrong, gradients);
        let right = logits.argmax(1, false).eq_tensor(&labels).to_kind(Kind::Float).mean(Kind::Float);
        Scores { losses: vec![("loss/text_assignment", loss)], others: vec![("batch/accuracy", right)] }
    }

    fn tensors(&self) -> Tensors {
        let mut named = self.online.named();
        named.extend(self.frozen.named());
        named
    }

    fn load(&mut self, tensors: &Tensors) -> Result<(), WeightsError> {
        self.online.load(tensors, str::to_owned)?;
        self.frozen.load(tensors, str::to_owned)
    }

    fn extra(&self) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([(VOCABULARY.to_owned(), self.vocabulary.clone())])
    }
}

/// The official score: shares of statements that are right, and of groups (one sentence about up to four pairs of pictures) that are
/// right in every statement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reasoning {
    /// Statements that are judged rightly.
    pub accuracy: Share,
    /// Groups all of whose statements are.
    pub consistency: Share,
}

impl Reasoning {
    /// From the group of each statement and whether it is right.
    pub fn new<'a>(statements: impl IntoIterator<Item = (&'a str, bool)>) -> Self {
        let (mut accuracy, mut groups) = (Share::default(), BTreeMap::new());
        for (group, right) in statements {
            accuracy.count(right);
            *groups.entry(group).or_insert(true) &= right;
        }
        let mut consistency = Share::default();
        groups.into_values().for_each(|right| consistency.count(right));
        Self { accuracy, consistency }
    }
}

/// Judges every statement of `batches` (of [`Loader::once`](simla_data::Loader::once)) that says whether it is true; `blind` hides the
/// pictures. `each` is told every statement and the probability that it is true.
///
/// # Errors
/// What the loader or libtorch could not do.
pub fn evaluate(
    model: &Classifier<Statement>,
    batches: impl Iterator<Item = Result<Batch<Statement>, LoadError>>,
    blind: bool,
    each: impl FnMut(&Statement, f32),
) -> Result<Reasoning, EvaluationError> {
    let judged = judge(model, batches, blind, each)?;
    Ok(Reasoning::new(judged.iter().map(|(group, right)| (group.as_str(), *right))))
}

/// As [`evaluate`], before anything is counted: the group of every statement, and whether it was judged rightly.
///
/// # Errors
/// As [`evaluate`].
pub fn judge(
    model: &Classifier<Statement>,
    batches: impl Iterator<Item = Result<Batch<Statement>, LoadError>>,
    blind: bool,
    mut each: impl FnMut(&Statement, f32),
) -> Result<Vec<(String, bool)>, EvaluationError> {
    let mut judged = Vec::new();
    classify(model, batches, blind, |statement, probabilities| {
        if let Some(label) = statement.label {
            judged.push((statement.group.clone(), label == largest(probabilities) as i64));
        }
        each(statement, probabilities[1]);
    })?;
    Ok(judged)
}

/// Why a file of predictions cannot be judged.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum PredictionsError {
    #[error("{path}: {source}{}", advice(.source))]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}, line {line}: `{found}`, expected IDENTIFIER,True or IDENTIFIER,False, like dev-850-0-1,True")]
    Line { path: PathBuf, line: usize, found: String },
    #[error("{path}, line {line}: a second prediction for {identifier}; keep one")]
    Twice { path: PathBuf, line: usize, identifier: String },
    #[error("no prediction for {0}: the official rules want one for every statement of the split")]
    Missing(String),
    #[error("the statement `{0}` has no identifier, by which predictions are found: use NLVR2's own files")]
    Nameless(String),
    #[error("the statement {0} does not say whether it is true (field `label`), so no prediction of it can be judged")]
    Unlabelled(String),
    #[error("no statement to judge")]
    Nothing,
}

/// Predictions by identifier, from lines of `identifier,True|False` in any case.
///
/// # Errors
/// A file that cannot be read, or its first line that is no prediction or repeats one.
pub fn read_predictions(path: &Path) -> Result<BTreeMap<String, bool>, PredictionsError> {
    let text = fs::read_to_string(path).map_err(|source| PredictionsError::Io { path: path.into(), source })?;
    let mut predictions = BTreeMap::new();
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        let truth = |said: &str| match said.trim().to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        let read = text.split_once(',').and_then(|(identifier, said)| Some((identifier.trim(), truth(said)?)));
        let Some((identifier, said)) = read else {
            return Err(PredictionsError::Line { path: path.into(), line, found: text.into() });
        };
        if predictions.insert(identifier.to_owned(), said).is_some() {
            return Err(PredictionsError::Twice { path: path.into(), line, identifier: identifier.into() });
        }
    }
    Ok(predictions)
}

/// Writes them as [`read_predictions`] reads them.
///
/// # Errors
/// The path and what the system said.
pub fn write_predictions(path: &Path, predictions: &BTreeMap<String, bool>) -> Result<(), PredictionsError> {
    let line = |(identifier, said): (&String, &bool)| {
        let said = Statement::CLASSES[usize::from(*said)];
        format!("{identifier},{said}\n")
    };
    let text: String = predictions.iter().map(line).collect();
    write_atomically(path, text.as_bytes()).map_err(|source| PredictionsError::Io { path: path.into(), source })
}

/// The official score of predictions, over all statements of a split. Predictions for others are not looked at.
///
/// # Errors
/// A statement without a prediction, an identifier or a label, or no statement at all.
pub fn score(predictions: &BTreeMap<String, bool>, statements: &[Statement]) -> Result<Reasoning, PredictionsError> {
    let judge = |statement: &'_ Statement| {
        let nameless = || PredictionsError::Nameless(statement.sentence.clone());
        let identifier = statement.identifier.as_ref().ok_or_else(nameless)?;
        let label = statement.label.ok_or_else(|| PredictionsError::Unlabelled(identifier.clone()))?;
        let said = predictions.get(identifier).ok_or_else(|| PredictionsError::Missing(identifier.clone()))?;
        Ok(i64::from(*said) == label)
    };
    let right: Vec<bool> = statements.iter().map(judge).collect::<Result<_, PredictionsError>>()?;
    if right.is_empty() {
        return Err(PredictionsError::Nothing);
    }
    Ok(Reasoning::new(statements.iter().map(|statement| statement.group.as_str()).zip(right)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.csv");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn predictions_are_read_as_they_were_written() {
        let predictions = BTreeMap::from([("dev-1-0-0".to_owned(), true), ("dev-1-1-0".to_owned(), false)]);
        let (_folder, path) = file("");
        write_predictions(&path, &predictions).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "dev-1-0-0,True\ndev-1-1-0,False\n");
        assert_eq!(read_predictions(&path).unwrap(), predictions);
        assert_eq!(read_predictions(&file("dev-1-0-0,TRUE\r\n\n dev-1-1-0 , false ").1).unwrap(), predictions);
    }

    #[test]
    fn what_is_no_prediction_is_named() {
        for (text, message) in [
            ("dev-1-0-0,True\ndev-1-1-0;False", "line 2: `dev-1-1-0;False`, expected IDENTIFIER,True"),
            ("dev-1-0-0,maybe", "line 1: `dev-1-0-0,maybe`"),
            ("a,True\na,True", "line 2: a second prediction for a"),
        ] {
            let (_folder, path) = file(text);
            let error = read_predictions(&path).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    /// One sentence on two pairs of pictures, another on two, a third on one: right, right; right, wrong; right. Four of five statements, and two
    /// of three sentences with all that is said of them.
    #[test]
    fn a_sentence_is_consistent_where_it_is_right_on_all_its_pictures() {
        let judged = [("dev-1-0", true), ("dev-1-1", true), ("dev-1-0", true), ("dev-1-1", false), ("dev-2-0", true)];
        let share = |right, of| Share { right, of };
        assert_eq!(Reasoning::new(judged), Reasoning { accuracy: share(4, 5), consistency: share(2, 3) });
    }

    fn statement(identifier: Option<&str>, label: Option<i64>) -> Statement {
        let identifier = identifier.map(str::to_owned);
        Statement { ids: vec![], label, sentence: "both".into(), identifier, group: "g".into() }
    }

    #[test]
    fn every_statement_needs_a_name_a_truth_and_a_prediction() {
        let predictions = BTreeMap::from([("a".to_owned(), true)]);
        let judged = |statements: &[Statement]| score(&predictions, statements).map_err(|e| e.to_string());
        let share = |right, of| Share { right, of };
        let right = judged(&[statement(Some("a"), Some(1))]).unwrap();
        assert_eq!(right, Reasoning { accuracy: share(1, 1), consistency: share(1, 1) });
        let refused = |statement| judged(&[statement]).unwrap_err();
        assert!(refused(statement(Some("b"), Some(1))).starts_with("no prediction for b"));
        assert!(refused(statement(Some("a"), None)).starts_with("the statement a does not say"));
        assert!(refused(statement(None, Some(1))).starts_with("the statement `both` has no identifier"));
        assert!(judged(&[]).is_err());
    }
}

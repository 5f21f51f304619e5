//! Visual question answering (3.1): E_mm reads a question and its picture, a decoder tells the answer from all of E_mm's states.
//!
//! - The decoder is BERT with half the layers and a causal bias; it starts from E_mm's upper half with its cross-attention, which turns from
//!   patches to the question's states. It ends in the head that guesses words in pre-training.
//! - Answers are told, not chosen: [`answer`] ranks the candidates of a list by what the decoder says of them, or makes an answer up.
//! - [`evaluate`] answers a split, or one question about one photograph; [`heat`] shows where the words looked.

pub mod answer;
pub mod evaluate;
pub mod heat;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use simla_data::{AnswerList, Batch, OpenError, Question, Vocabulary};
use tch::{Device, Kind, Tensor, no_grad};
use thiserror::Error;

use crate::averaged::Averaged;
use crate::config::ModelConfig;
use crate::encoders::Encoders;
use crate::import::{StartError, Tensors, fit_positions};
use crate::inputs::{normalized, padded, padding_mask};
use crate::layers::causal_bias;
use crate::objectives::answers;
use crate::tasks::pretrain::{self, Saved, VOCABULARY};
use crate::text::{Depth, KeysValues, Reading, Rows, TextEncoder, WordHead};
use simla_train::checkpoint::Checkpoint;
use simla_train::optim::alpha_at;
use simla_train::torch::device::upload;
use simla_train::torch::guard::guarded;
use simla_train::weights::{Gradients, Layout, Weights, WeightsError};
use simla_train::{At, Scores, Task};

/// What a checkpoint of it calls its task.
pub const TASK: &str = "vqa";
/// Such a checkpoint, for messages.
pub const MODEL: &str = "a model that answers questions (`simla finetune vqa` makes one)";
/// The file of a checkpoint with the answers that the model was trained to choose among.
pub const ANSWERS: &str = "answers.json";

/// Questions with pictures on the device.
#[derive(Debug)]
pub struct Asked {
    /// `[Q, 3, S, S]`.
    pub image: Tensor,
    /// Word pieces, `[Q, L]`.
    pub ids: Tensor,
    /// 1 where a piece counts, `[Q, L]`.
    pub mask: Tensor,
}

impl Asked {
    /// The pictures and questions of a batch; of a `blind` one all pictures are the mean of all pictures.
    pub fn new(batch: &Batch<Question>, pad: i64, blind: bool, device: Device) -> Self {
        let questions = || batch.rows.iter().map(|row| row.ids.as_slice());
        let image = normalized(&batch.pictures, batch.len(), batch.side, device);
        Self {
            image: if blind { image.zeros_like() } else { image },
            ids: upload(&padded(questions(), pad), device),
            mask: upload(&padding_mask(questions()), device),
        }
    }
}

/// Answers as rows of the decoder, those of all questions one after the other.
#[derive(Debug)]
pub struct Told {
    /// Pieces from `[CLS]` on, without the last: `[A, T]`.
    ids: Tensor,
    /// 1 where a piece counts, `[A, T]`.
    mask: Tensor,
    /// Which question each answers, `[A]`.
    question: Tensor,
    /// Positions of what is told in `[A x T]`, answer by answer: `[n]`.
    at: Tensor,
    /// The pieces there, `[SEP]` included: `[n]`.
    labels: Tensor,
    /// Which answer each of them is of, `[n]`.
    answer: Tensor,
}

impl Told {
    /// `answers` are pieces from `[CLS]` to `[SEP]` and which question they answer.
    pub fn new<'a>(
        answers: impl ExactSizeIterator<Item = (&'a [i64], usize)> + Clone,
        pad: i64,
        device: Device,
    ) -> Self {
        let seen = || answers.clone().map(|(pieces, _)| &pieces[..pieces.len() - 1]);
        let length = seen().map(<[i64]>::len).max().unwrap_or(0);
        let (mut at, mut labels, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (pieces, _)) in answers.clone().enumerate() {
            at.extend((row * length..).take(pieces.len() - 1).map(|position| position as i64));
            labels.extend_from_slice(&pieces[1..]);
            rows.resize(at.len(), row as i64);
        }
        let question: Vec<i64> = answers.clone().map(|(_, question)| question as i64).collect();
        let sent = |numbers: &[i64]| upload(&Tensor::from_slice(numbers), device);
        Self {
            ids: upload(&padded(seen(), pad), device),
            mask: upload(&padding_mask(seen()), device),
            question: sent(&question),
            at: sent(&at),
            labels: sent(&labels),
            answer: sent(&rows),
        }
    }
}

/// The parts of the model; the online and the momentum model are these over different [`Weights`].
#[derive(Debug)]
struct Parts {
    encoders: Encoders,
    decoder: TextEncoder,
    head: WordHead,
}

impl Parts {
    fn new(c: &ModelConfig) -> (Layout, Self) {
        let mut layout = Layout::default();
        let upper_half = ModelConfig { text_depth: c.text_depth - c.text_depth / 2, ..c.clone() };
        let encoders = Encoders::new(&mut layout, Depth::Single, c);
        let decoder = TextEncoder::new(&mut layout, "text_decoder.bert", Depth::Single, &upper_half);
        let head = WordHead::new(&mut layout, "text_decoder.cls.predictions", &decoder, c);
        (layout, Self { encoders, decoder, head })
    }

    /// The pre-trained parameter that `name` starts from: layer n of the decoder from layer n + `half` of the text encoder, its head from
    /// that of masked words.
    fn origin(&self, name: &str, half: i64) -> Option<String> {
        let Some(rest) = name.strip_prefix("text_decoder.") else {
            return self.encoders.origin(name);
        };
        const LAYER: &str = "bert.encoder.layer.";
        let layer = rest.strip_prefix(LAYER).and_then(|rest| rest.split_once('.'));
        Some(match layer.and_then(|(number, rest)| Some((number.parse::<i64>().ok()?, rest))) {
            Some((number, rest)) => format!("text_encoder.{LAYER}{}.{rest}", number + half),
            None => format!("text_encoder.{rest}"),
        })
    }

    /// E_mm over questions and their pictures, all states: `[Q, L, D]`.
    fn question_states(&self, w: &Weights, asked: &Asked, p: f64) -> Tensor {
        let patches = self.encoders.image_embeds(w, &asked.image);
        self.encoders.states(w, &asked.ids, &asked.mask, &[&patches], Rows::All, p)
    }

    /// What the decoder says of each piece, from those before it: `[n, vocabulary]`, in f32. `context` are keys and values of the
    /// questions' states, one for each answer or one for all.
    fn tell(&self, w: &Weights, told: &Told, context: &KeysValues, p: f64) -> Tensor {
        let bias = causal_bias(&told.mask, w.kind());
        let pieces = self.decoder.embed_words(w, &told.ids, p);
        let hidden = self.decoder.encode(w, &pieces, Rows::All, Some(&bias), Some(Reading::own(context)), p);
        self.head.logits(w, &hidden.flatten(0, 1).index_select(0, &told.at))
    }
}

/// A model that answers questions, with its momentum model.
#[derive(Debug)]
pub struct Answerer {
    /// Its sizes.
    pub config: ModelConfig,
    parts: Parts,
    /// Online and momentum model.
    pub weights: Averaged,
}

impl Answerer {
    /// A fresh model that computes in `kind` (f32 or bf16). The start is a function of `seed` alone.
    pub fn new(config: ModelConfig, kind: Kind, device: Device, seed: i64) -> Self {
        let (layout, parts) = Parts::new(&config);
        let weights = Averaged::new(&layout, config.momentum, kind, device, seed);
        Self { config, parts, weights }
    }

    /// Memory for a model that will be loaded and used, but not trained: without a momentum model.
    pub fn for_use(config: ModelConfig, kind: Kind, device: Device) -> Self {
        let (layout, parts) = Parts::new(&config);
        Self { config, parts, weights: Averaged::for_use(&layout, kind, device) }
    }

    /// The fine-tuned model in a run's folder or a checkpoint's, to be used, with its vocabulary and where it was found.
    ///
    /// # Errors
    /// If there is none, or it is damaged, or of another task.
    pub fn open(
        path: &Path,
        kind: Kind,
        device: Device,
    ) -> Result<(Self, Vocabulary, Checkpoint), pretrain::OpenError> {
        let Saved { config, vocabulary, checkpoint } = Saved::of(path, &[TASK], MODEL)?;
        let mut model = guarded(|| Self::for_use(config, kind, device))?;
        guarded(|| model.weights.load_saved(&checkpoint))??;
        Ok((model, vocabulary, checkpoint))
    }

    /// Starts from a pre-trained model's tensors, online and momentum, under the names of pre-training, or from those of a model that
    /// answers questions. Positions are resampled to the model's patches.
    ///
    /// # Errors
    /// The first tensor that is missing, of another shape or not finite.
    pub fn start(&mut self, mut source: Tensors) -> Result<(), StartError> {
        fit_positions(&mut source, self.config.patches())?;
        let half = self.config.text_depth / 2;
        let answers = source.contains_key("text_decoder.bert.embeddings.word_embeddings.weight");
        let origin = |name: &str| if answers { Some(name.to_owned()) } else { self.parts.origin(name, half) };
        self.weights.start(&source, origin, true)?;
        Ok(())
    }

    /// E_mm's states of questions `[Q, L, D]`, and the logits of what is told in f32 `[n, vocabulary]`, answer by answer.
    pub fn tell(&self, w: &Weights, asked: &Asked, told: &Told, p: f64) -> (Tensor, Tensor) {
        let states = self.parts.question_states(w, asked, p);
        let questions = self.parts.decoder.keys_values(w, &states, Some(&asked.mask));
        let logits = self.parts.tell(w, told, &questions.gather(&told.question), p);
        (states, logits)
    }

    /// The loss of answers to questions, whose gradients are added, and their logits. `weights` `[A]` are those of the answers.
    pub fn step(
        &self,
        asked: &Asked,
        told: &Told,
        weights: &Tensor,
        alpha: f64,
        gradients: &mut Gradients,
    ) -> (Tensor, Tensor) {
        let Averaged { online, teacher, .. } = &self.weights;
        let p = self.config.dropout;
        let taught = (alpha > 0.0).then(|| no_grad(|| self.tell(teacher, asked, told, p).1));
        let (_, logits) = self.tell(online, asked, told, p);
        let weights = weights.index_select(0, &told.answer);
        let questions = asked.ids.size()[0];
        let loss = answers::loss(&logits, &told.labels, taught.as_ref(), alpha, &weights, questions);
        gradients.backward(&loss, online);
        (loss.detach(), logits.detach())
    }
}

/// A model in fine-tuning on questions.
#[derive(Debug)]
pub struct Answering {
    /// As it is so far.
    pub model: Answerer,
    alpha: f64,
    /// Whether pictures are hidden: what can be told from the words alone.
    blind: bool,
    /// The vocabulary as it goes into checkpoints.
    vocabulary: Vec<u8>,
    /// Kept beside the model: what it chooses among when it is used.
    pub candidates: Option<AnswerList>,
}

impl Answering {
    /// `alpha` is the distillation's weight after its ramp; `blind` hides pictures.
    pub fn new(model: Answerer, alpha: f64, blind: bool, vocabulary: Vec<u8>, candidates: Option<AnswerList>) -> Self {
        Self { model, alpha, blind, vocabulary, candidates }
    }
}

/// Why a model cannot answer from a list.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum ListError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(
        "answers {list}: not the list that {model} was trained with ({problem}); leave it out to answer from that one"
    )]
    Other { list: String, model: String, problem: String },
}

/// The answers that a saved model chooses among: its own, or those of the file `given`, which have to be the same where it has some; none
/// where it has been given none.
///
/// # Errors
/// A file that is not a list of answers, or that of another model.
pub fn answer_list(checkpoint: &Checkpoint, given: Option<&Path>) -> Result<Option<AnswerList>, ListError> {
    let kept = checkpoint.extra(ANSWERS);
    let own = kept.exists().then(|| AnswerList::open(&kept)).transpose()?;
    let Some(path) = given else { return Ok(own) };
    let given = AnswerList::open(path)?;
    let Some(own) = own.filter(|own| *own != given) else { return Ok(Some(given)) };
    let (ours, theirs) = (own.answers(), given.answers());
    let problem = match theirs.iter().zip(ours).position(|(a, b)| a != b) {
        Some(place) => format!("answer {} is {:?}, there {:?}", place + 1, theirs[place], ours[place]),
        None => format!("{} answers, there {}", theirs.len(), ours.len()),
    };
    let shown = |path: &Path| path.display().to_string();
    Err(ListError::Other { list: shown(path), model: shown(&checkpoint.path), problem })
}

impl Task for Answering {
    type Batch = Batch<Question>;

    fn records(batch: &Batch<Question>) -> &[String] {
        &batch.records
    }

    fn name(&self) -> &'static str {
        TASK
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

    fn backward(&mut self, batch: &Batch<Question>, at: At, gradients: &mut Gradients) -> Scores {
        let device = self.model.weights.online.device();
        let pad = self.model.config.special.pad;
        let alpha = alpha_at(self.alpha, at.step, at.steps_per_epoch);
        let rows: Vec<(&[i64], usize)> = batch
            .rows
            .iter()
            .enumerate()
            .flat_map(|(question, row)| row.answers.iter().map(move |(pieces, _)| (pieces.as_slice(), question)))
            .collect();
        let weights: Vec<f32> =
            batch.rows.iter().flat_map(|row| row.answers.iter().map(|(_, weight)| *weight)).collect();
        let told = Told::new(rows.iter().copied(), pad, device);
        let weights = upload(&Tensor::from_slice(&weights), device);
        let asked = Asked::new(batch, pad, self.blind, device);
        let (loss, logits) = self.model.step(&asked, &told, &weights, alpha, gradients);
        let right = logits.argmax(-1, false).eq_tensor(&told.labels).to_kind(Kind::Float).mean(Kind::Float);
        let others = vec![("batch/piece_accuracy", right), ("schedule/alpha", upload(&Tensor::from(alpha), device))];
        Scores { losses: vec![("loss/answers", loss)], others }
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.model.weights.named()
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), WeightsError> {
        self.model.weights.load(tensors)
    }

    fn extra(&self) -> BTreeMap<String, Vec<u8>> {
        let list = self.candidates.iter();
        let list = list.map(|list| (ANSWERS, serde_json::to_vec(list.answers()).expect("strings are JSON")));
        let all = list.chain([(VOCABULARY, self.vocabulary.clone())]);
        all.map(|(name, bytes)| (name.to_owned(), bytes)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use simla_train::checkpoint::{Checkpoints, Contents};

    use super::*;

    fn saved(run: &Path, extra: BTreeMap<String, Vec<u8>>) -> Checkpoint {
        let contents = Contents {
            step: 1,
            epoch: 1.0,
            steps_per_epoch: 1,
            seed: 0,
            best: None,
            task: TASK.into(),
            config: Value::Null,
            model: BTreeMap::new(),
            optimizer: BTreeMap::new(),
            extra,
        };
        Checkpoints::open(run, 1).unwrap().save(contents, false).unwrap();
        Checkpoint::open(run).unwrap()
    }

    #[test]
    fn the_list_of_another_model_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.json");
        let own = br#"["yes","no"]"#.to_vec();
        let checkpoint = saved(&folder.path().join("with"), BTreeMap::from([(ANSWERS.to_owned(), own)]));
        let answers = |found: Option<AnswerList>| found.map(|list| list.answers().join(" "));
        assert_eq!(answers(answer_list(&checkpoint, None).unwrap()).unwrap(), "yes no");
        for (text, problem) in [
            (r#"["yes", "no"]"#, None),
            (r#"["yes", "maybe"]"#, Some("answer 2 is \"maybe\", there \"no\"")),
            (r#"["yes", "no", "2"]"#, Some("3 answers, there 2")),
            ("[]", Some("no answer in it")),
        ] {
            fs::write(&list, text).unwrap();
            let found = answer_list(&checkpoint, Some(&list)).map_err(|e| e.to_string());
            match problem {
                None => assert_eq!(answers(found.unwrap()).unwrap(), "yes no"),
                Some(problem) => {
                    let error = found.unwrap_err();
                    assert!(error.contains(problem) && error.contains("list.json"), "{error}");
                }
            }
        }
        fs::write(&list, r#"["2"]"#).unwrap();
        let without = saved(&folder.path().join("without"), BTreeMap::new());
        assert!(answer_list(&without, None).unwrap().is_none());
        assert_eq!(answers(answer_list(&without, Some(&list)).unwrap()).unwrap(), "2");
    }
}

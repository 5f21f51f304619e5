//! What a fine-tuned model is asked by hand: a question about a photograph, whether a photograph entails a sentence, whether a statement
//! about two photographs is true. Photographs are the bytes of their files.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use simla::inputs::normalized;
use simla::tasks::classify::{Classified, Classifier};
use simla::tasks::gradcam::{Map, PhraseMaps, default_layer};
use simla::tasks::vqa::evaluate::{Answer, ask};
use simla::tasks::vqa::heat::of_answer;
use simla::tasks::vqa::{Answerer, answer_list};
use simla_data::text::{caption, question};
use simla_data::{AnswerList, Sentences, Vocabulary};
use simla_train::torch::guard::guarded;
use tch::{Device, Kind};

use crate::downstream::sentences;
use crate::photo::view;

/// A model that answers questions.
pub struct Asker {
    /// The weights.
    pub model: Answerer,
    /// Its word pieces.
    pub vocabulary: Arc<Vocabulary>,
    /// What it chooses among; without, it makes answers up.
    pub answers: Option<AnswerList>,
    sentences: Sentences,
}

/// Where the words of a question looked for an answer.
pub struct Looked {
    /// Of the question as a whole, and of each piece.
    pub maps: PhraseMaps,
    /// The words of the question with their maps.
    pub words: Vec<(String, Map)>,
    /// Of E_mm's cross-attention.
    pub layer: usize,
}

impl Asker {
    /// The fine-tuned model in a run's folder or a checkpoint's. It answers from its own list, or that of the file `answers`, which has to be
    /// the same.
    ///
    /// # Errors
    /// If there is none, or it is damaged, or of another task; or a list that is not the model's.
    pub fn open(path: &Path, answers: Option<&Path>, kind: Kind, device: Device) -> Result<Self> {
        let (model, vocabulary, checkpoint) = guarded(|| Answerer::open(path, kind, device))??;
        let (answers, vocabulary) = (answer_list(&checkpoint, answers)?, Arc::new(vocabulary));
        Ok(Self { sentences: sentences(&vocabulary, model.config.max_positions), model, vocabulary, answers })
    }

    /// The best five answers: from the list, `k` of which are ranked as a whole, or made up where there is none or `make_up` asks for it.
    ///
    /// # Errors
    /// A file that is no picture, a question without words, or what libtorch could not do.
    pub fn ask(&self, photo: &[u8], asked: &str, make_up: bool, k: usize) -> Result<Vec<Answer>> {
        let answers = self.answers.as_ref().filter(|_| !make_up);
        Ok(ask(&self.model, photo, asked, &self.sentences, answers, k)?)
    }

    /// Where the words of the question looked for `answer`, one of those that [`Asker::ask`] gave.
    ///
    /// # Errors
    /// As [`Asker::ask`].
    pub fn look(&self, photo: &[u8], asked: &str, answer: &str) -> Result<Looked> {
        let side = self.model.config.image_size as usize;
        let view = view(photo, side)?;
        let ids = self.sentences.encode(&question::clean(asked, question::TEST_WORDS));
        let answer = self.vocabulary.cut(answer, usize::MAX, true);
        let layer = default_layer(self.model.config.text_depth);
        let image = guarded(|| normalized(&view, 1, side, self.model.weights.online.device()))?;
        let maps = of_answer(&self.model, &image, &ids, &answer, layer)?;
        Ok(Looked { words: maps.words(&self.vocabulary, &ids), maps, layer })
    }
}

/// A model that puts a sentence and its pictures into a class.
pub struct Judge<R> {
    /// The weights.
    pub model: Classifier<R>,
    /// Its word pieces.
    pub vocabulary: Arc<Vocabulary>,
    sentences: Sentences,
}

/// A class and its probability.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Class {
    /// As data files have it.
    pub label: &'static str,
    /// From 0 to 1.
    pub probability: f32,
}

impl<R: Classified> Judge<R> {
    /// The fine-tuned model in a run's folder or a checkpoint's.
    ///
    /// # Errors
    /// If there is none, or it is damaged, or of another task.
    pub fn open(path: &Path, kind: Kind, device: Device) -> Result<Self> {
        let (model, vocabulary) = guarded(|| Classifier::<R>::open(path, kind, device))??;
        let vocabulary = Arc::new(vocabulary);
        Ok(Self { sentences: sentences(&vocabulary, model.config.max_positions), model, vocabulary })
    }

    /// The probability of each class, for a sentence and the pictures that it is about, each with its name for messages.
    ///
    /// # Errors
    /// A file that is no picture, a sentence without words, or what libtorch could not do.
    pub fn judge(&self, photos: &[(&str, &[u8])], sentence: &str) -> Result<Vec<Class>> {
        let cleaned = caption::clean(sentence);
        if cleaned.is_empty() {
            bail!("the sentence {sentence:?} says nothing; expected words, like \"a dog is asleep\"");
        }
        let side = self.model.config.image_size as usize;
        let mut views = Vec::new();
        for (name, photo) in photos {
            views.extend(view(photo, side).with_context(|| (*name).to_owned())?);
        }
        let probabilities = self.model.judge(&self.sentences.encode(&cleaned), &views)?;
        let each = R::CLASSES.iter().zip(probabilities);
        Ok(each.map(|(&label, probability)| Class { label, probability }).collect())
    }
}

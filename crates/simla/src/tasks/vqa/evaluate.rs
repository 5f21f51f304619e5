//! Questions of a split, or one about one photograph, answered.

use serde::Serialize;
use simla_data::text::question;
use simla_data::{Annotation, AnswerList, Batch, LoadError, Question, Sentences};
use simla_image::{ImageError, Limits, evaluation_view};
use tch::{Kind, Tensor};
use thiserror::Error;

use super::answer::Candidates;
use super::{Answerer, Asked};
use crate::inputs::normalized;
use crate::tasks::vqa_score::Prediction;
use simla_train::torch::device::upload;
use simla_train::torch::guard::{TorchError, guarded};

/// Why questions could not be answered.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum AnswerError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Torch(#[from] TorchError),
    #[error("photograph: {0}")]
    Image(#[from] ImageError),
    #[error("the question {0:?} says nothing; expected words, like \"what is the dog doing?\"")]
    Question(String),
}

/// The answers to a split.
#[derive(Debug, Default)]
pub struct Evaluated {
    /// What a result file holds.
    pub predictions: Vec<Prediction>,
    /// What people answered, where it is known.
    pub truth: Vec<Annotation>,
}

/// Answers every question of `batches` (of [`Loader::once`](simla_data::Loader::once)): with one of the `candidates`, `k` of which are ranked as a whole, or with
/// what the model makes up. `blind` hides the pictures.
///
/// # Errors
/// If the data cannot be read, or what libtorch could not do.
pub fn evaluate(
    model: &Answerer,
    batches: impl Iterator<Item = Result<Batch<Question>, LoadError>>,
    vocabulary: &simla_data::Vocabulary,
    candidates: Option<&AnswerList>,
    k: usize,
    blind: bool,
) -> Result<Evaluated, AnswerError> {
    let list = candidates.map(|list| (list, Candidates::new(list, vocabulary, model)));
    let mut evaluated = Evaluated::default();
    for batch in batches {
        let batch = batch?;
        let answers = guarded(|| -> Vec<String> {
            let asked = Asked::new(&batch, model.config.special.pad, blind, model.weights.online.device());
            let states = model.read(&asked);
            match &list {
                Some((list, candidates)) => {
                    let best = model.rank(&states, candidates, k).ids.select(1, 0);
                    let best: Vec<i64> = Vec::try_from(best).expect("integers");
                    best.into_iter().map(|id| list.answers()[id as usize].clone()).collect()
                }
                None => (0..batch.len() as i64)
                    .map(|question| {
                        let best = model.make_up(&states, question).into_iter().next();
                        best.map_or_else(String::new, |(pieces, _)| vocabulary.decode(&pieces))
                    })
                    .collect(),
            }
        })?;
        for ((row, name), answer) in batch.rows.into_iter().zip(batch.records).zip(answers) {
            evaluated.predictions.push(Prediction { question_id: row.question_id, answer });
            if !row.given.is_empty() {
                evaluated.truth.push(Annotation {
                    question_id: row.question_id,
                    question_type: row.question_type,
                    answer_type: row.answer_type,
                    answers: row.given,
                    name,
                });
            }
        }
    }
    Ok(evaluated)
}

/// An answer, and how sure the model is of it: of a list, the share among the `k` that were ranked; made up, its probability among all that
/// could be said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// In words.
    pub answer: String,
    /// From 0 to 1.
    pub probability: f64,
}

/// Answers shown.
const SHOWN: usize = 5;

/// The best five answers to a question about a photograph (the bytes of its file): of a list, `k` of which are ranked as a whole, or made up.
/// `sentences` cut the question as in training.
///
/// # Errors
/// A file that is no picture, a question without words, or what libtorch could not do.
pub fn ask(
    model: &Answerer,
    photo: &[u8],
    asked: &str,
    sentences: &Sentences,
    candidates: Option<&AnswerList>,
    k: usize,
) -> Result<Vec<Answer>, AnswerError> {
    let cleaned = question::clean(asked, question::TEST_WORDS);
    if cleaned.trim().is_empty() {
        return Err(AnswerError::Question(asked.into()));
    }
    let side = model.config.image_size as usize;
    let mut view = vec![0; side * side * 3];
    evaluation_view(photo, side as u32, &Limits::default(), &mut view)?;
    let ids = sentences.encode(&cleaned);
    let vocabulary = &sentences.vocabulary;
    let answers = guarded(|| {
        let device = model.weights.online.device();
        let ids = upload(&Tensor::from_slice(&ids).unsqueeze(0), device);
        let asked = Asked { image: normalized(&view, 1, side, device), mask: ids.ones_like(), ids };
        let states = model.read(&asked);
        match candidates {
            Some(list) => {
                let ranking = model.rank(&states, &Candidates::new(list, vocabulary, model), k);
                let ids: Vec<i64> = Vec::try_from(ranking.ids.get(0)).expect("integers");
                let scores: Vec<f64> = Vec::try_from(ranking.scores.get(0).to_kind(Kind::Double)).expect("floats");
                let named = |(id, probability): (i64, f64)| (list.answers()[id as usize].clone(), probability);
                ids.into_iter().zip(scores).map(named).collect::<Vec<_>>()
            }
            None => {
                let made_up = model.make_up(&states, 0).into_iter();
                made_up.map(|(pieces, likelihood)| (vocabulary.decode(&pieces), likelihood.exp())).collect()
            }
        }
    })?;
    let shown = answers.into_iter().take(SHOWN);
    Ok(shown.map(|(answer, probability)| Answer { answer, probability }).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use simla_data::{Dataset, Loader, Options, Questions, Source, Vocabulary};
    use simla_train::optim::{AdamW, AdamWConfig};
    use simla_train::weights::Gradients;
    use simla_train::{At, Task};
    use tch::Device;

    use super::*;
    use crate::config::{ModelConfig, Preset};
    use crate::tasks::pretrain::special_ids;
    use crate::tasks::vqa::{ANSWERS, Answering};

    const RED: &[u8] = include_bytes!("../../../tests/fixtures/tasks/red.png");
    const BLUE: &[u8] = include_bytes!("../../../tests/fixtures/tasks/blue.png");
    const QUESTIONS: &str = r#"[
        {"image": "red.png", "question": "What color is it?", "question_id": 7, "answer": ["red", "red", "dark red"]},
        {"image": "none.png", "question": "What is missing?", "question_id": 8, "answer": "all"},
        {"image": "blue.png", "question": "What color is it?", "question_id": 5, "answer": "deep blue", "dataset": "vg"}]"#;

    fn sentences() -> Sentences {
        let words = ["what color is it", "dark red", "deep blue", "green"].map(String::from);
        Sentences::new(Arc::new(Vocabulary::learn(words.into_iter(), 60).unwrap()))
    }

    fn model(vocabulary: &Vocabulary) -> Answerer {
        let config = ModelConfig {
            image_size: 16,
            vision_depth: 1,
            text_depth: 2,
            ..ModelConfig::preset(Preset::Tiny, vocabulary.len() as i64, special_ids(vocabulary))
        };
        Answerer::new(config, Kind::Float, Device::Cpu, 4)
    }

    fn loader(folder: &Path, format: Questions) -> Loader<Questions> {
        for (name, bytes) in [("red.png", RED), ("blue.png", BLUE), ("q.json", QUESTIONS.as_bytes())] {
            fs::write(folder.join(name), bytes).unwrap();
        }
        let options = Options { max_bad_share: 0.5, ..Options::default() };
        let dataset = Dataset::of(&[Source::from(folder.join("q.json"))], &options, &mut |_, _, _| ()).unwrap();
        Loader::once(Arc::new(dataset), format, 16, 4, 1).unwrap()
    }

    #[test]
    fn what_was_learned_is_answered_and_what_is_hidden_is_not_seen() {
        let sentences = sentences();
        let vocabulary = &sentences.vocabulary;
        let list = AnswerList::of(["green", "red", "dark red", "deep blue"].map(String::from).into()).unwrap();
        let mut task = Answering::new(model(vocabulary), 0.4, false, vec![], Some(list.clone()));
        assert_eq!(task.extra()[ANSWERS], br#"["green","red","dark red","deep blue"]"#);
        let folder = tempfile::tempdir().unwrap();
        let batch = loader(folder.path(), Questions::training(sentences.clone())).next().unwrap().unwrap();
        assert_eq!(batch.len(), 2, "one has no picture");
        let mut optimizer = AdamW::new(AdamWConfig::default(), task.weights());
        let mut gradients = Gradients::new(task.weights());
        let mut losses = Vec::new();
        for step in 0..60 {
            gradients.clear();
            task.begin_step();
            let scores = task.backward(&batch, At { step, steps_per_epoch: 60, seed: 0 }, &mut gradients);
            losses.push(scores.losses[0].1.double_value(&[]));
            optimizer.step(task.weights(), &mut gradients, 1e-3, 1.0);
        }
        assert!(losses[59] < 0.5 * losses[0], "{losses:?}");

        let evaluated = |candidates, blind| {
            let loader = loader(folder.path(), Questions::evaluation(sentences.clone()));
            evaluate(&task.model, loader, vocabulary, candidates, 3, blind).unwrap()
        };
        let predictions = |answers: [&str; 2]| -> Vec<Prediction> {
            let each = [7, 5].into_iter().zip(answers);
            each.map(|(question_id, answer)| Prediction { question_id, answer: answer.into() }).collect()
        };
        let found = evaluated(Some(&list), false);
        assert_eq!(found.predictions, predictions(["red", "deep blue"]));
        assert_eq!(found.truth[0].answers, ["red", "red", "dark red"]);
        assert_eq!(evaluated(None, false).predictions, found.predictions, "made up");
        let blind = evaluated(Some(&list), true).predictions;
        assert_eq!(blind[0].answer, blind[1].answer, "the same question about nothing");

        let asked = |photo, candidates| ask(&task.model, photo, "what color is it", &sentences, candidates, 9).unwrap();
        let ranked = asked(BLUE, Some(&list));
        assert_eq!((ranked.len(), ranked[0].answer.as_str()), (4, "deep blue"));
        assert!((ranked.iter().map(|answer| answer.probability).sum::<f64>() - 1.0).abs() < 1e-6);
        let made_up = asked(RED, None);
        assert_eq!(made_up[0].answer, "red");
        assert!(made_up.len() <= SHOWN && made_up.is_sorted_by(|a, b| a.probability >= b.probability));
    }

    #[test]
    fn no_picture_and_no_question_are_refused() {
        let sentences = sentences();
        let model = model(&sentences.vocabulary);
        let asked = |photo, question| ask(&model, photo, question, &sentences, None, 1).unwrap_err().to_string();
        assert!(asked(RED, " ?!").contains("says nothing"));
        assert!(asked(b"no picture", "what is it?").starts_with("photograph: "));
    }
}

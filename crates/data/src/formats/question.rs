//! Questions about pictures with the answers that people gave (VQA). Three layouts are read:
//!
//! - the authors': `[{"image", "question", "question_id", "answer"?: str | [str], "dataset"?: "vqa" | "vg"}]`;
//! - VQA v2's own: `{"questions": [{"image_id", "question", "question_id"}]}`, with the answers in files of `{"annotations": [{"question_id",
//!   "question_type", "answer_type", "answers": [{"answer"}]}]}` ([`Options::annotations`]);
//! - Visual Genome's: `[{"qas": [{"qa_id", "image_id", "question", "answer"}]}]`.

use std::collections::HashMap;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Format, Place};
use crate::loader::SettingError;
use crate::record::{Location, RecordError};
use crate::sources::{self, OpenError, Options, Records, Watch, fields};
use crate::text::{Sentences, question};

/// Weight of Visual Genome's answers, of which each question has one, against 1 for the ten of VQA together.
const GENOME_WEIGHT: f32 = 0.5;

/// How questions become rows.
#[derive(Clone, Debug)]
pub struct Questions {
    /// Cuts questions. Answers are never cut off, and always closed.
    pub sentences: Sentences,
    /// Words of a question that are kept.
    pub max_words: usize,
    /// Whether a question without answers is refused.
    pub answered: bool,
}

impl Questions {
    /// Of training: answers are needed, 30 words are kept.
    pub fn training(sentences: Sentences) -> Self {
        Self { sentences, max_words: question::TRAINING_WORDS, answered: true }
    }

    /// Of evaluation: answers may be unknown, 50 words are kept, and as many pieces as `sentences` says.
    pub fn evaluation(sentences: Sentences) -> Self {
        Self { sentences, max_words: question::TEST_WORDS, answered: false }
    }
}

/// A question and its picture.
#[derive(Clone, Debug)]
pub struct AskedQuestion {
    /// The picture.
    pub image: Location,
    /// The words as they are in the data.
    pub question: String,
    /// What the question is known by.
    pub question_id: i64,
    /// What people answered: mostly ten of them, or one; none where it is not known.
    pub answers: Vec<String>,
    /// Whether the question is of Visual Genome.
    pub genome: bool,
    /// How it begins (`what color is the`, ...), where the data say so.
    pub question_type: Option<String>,
    /// `yes/no`, `number` or `other`, where the data say so.
    pub answer_type: Option<String>,
    /// File and position.
    pub name: String,
}

impl AskedQuestion {
    /// The distinct answers in the order in which they come first, with their weights: the share of the people who gave them, 0.5 in
    /// all of Visual Genome. They are not normalised.
    pub fn weighted_answers(&self) -> Vec<(&str, f32)> {
        let each = if self.genome { GENOME_WEIGHT } else { 1.0 } / self.answers.len() as f32;
        let mut weighted: Vec<(&str, f32)> = Vec::new();
        for answer in &self.answers {
            match weighted.iter_mut().find(|(known, _)| known == answer) {
                Some((_, weight)) => *weight += each,
                None => weighted.push((answer, each)),
            }
        }
        weighted
    }

    /// The answer that most people gave, the first of equals.
    pub fn commonest_answer(&self) -> Option<&str> {
        let weighted = self.weighted_answers().into_iter();
        weighted.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(answer, _)| answer)
    }
}

/// A question as a step reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// What the question is known by.
    pub question_id: i64,
    /// The question as it is in the data.
    pub question: String,
    /// Its word pieces, `[L]`.
    pub ids: Vec<i64>,
    /// The word pieces of each distinct answer, from `[CLS]` to `[SEP]`, and its weight.
    pub answers: Vec<(Vec<i64>, f32)>,
    /// The answers as people gave them.
    pub given: Vec<String>,
    /// See [`AskedQuestion::question_type`].
    pub question_type: Option<String>,
    /// See [`AskedQuestion::answer_type`].
    pub answer_type: Option<String>,
}

/// The fields of a record that matter; others are allowed.
#[derive(Deserialize)]
struct Fields {
    image: Option<Value>,
    image_id: Option<Value>,
    question: Option<Value>,
    question_id: Option<Value>,
    qa_id: Option<Value>,
    answer: Option<Value>,
    dataset: Option<Value>,
    question_type: Option<Value>,
    answer_type: Option<Value>,
    qas: Option<Vec<Fields>>,
}

impl Fields {
    fn read(self, place: &Place) -> Result<AskedQuestion, RecordError> {
        let genome = match &self.dataset {
            None | Some(Value::Null) => self.qa_id.is_some(),
            Some(Value::String(dataset)) if dataset == "vqa" || dataset == "vg" => dataset == "vg",
            other => return Err(fields::wrong(&place.name, "dataset", r#""vqa" or "vg""#, other.as_ref())),
        };
        let names = match (&self.image, &self.image_id) {
            (None, Some(_)) => {
                let id = fields::integer("image_id", self.image_id.as_ref(), place)?;
                if genome { genome_names(id) } else { coco_names(id) }
            }
            (image, _) => vec![fields::image(image.as_ref(), place)?.to_owned()],
        };
        let question = fields::words("question", self.question.as_ref(), place)?.to_owned();
        let (id_field, id) = match &self.qa_id {
            Some(_) => ("qa_id", self.qa_id.as_ref()),
            None => ("question_id", self.question_id.as_ref()),
        };
        let question_id = fields::integer(id_field, id, place)?;
        Ok(AskedQuestion {
            image: place.picture(&names)?.0,
            question,
            question_id,
            answers: answers(self.answer, place)?,
            genome,
            question_type: fields::optional_string("question_type", self.question_type.as_ref(), place)?,
            answer_type: fields::optional_string("answer_type", self.answer_type.as_ref(), place)?,
            name: place.name.clone(),
        })
    }
}

/// The authors' field of one answer or several.
fn answers(answer: Option<Value>, place: &Place) -> Result<Vec<String>, RecordError> {
    match answer {
        None | Some(Value::Null) => Ok(vec![]),
        Some(Value::String(answer)) => Ok(vec![answer]),
        Some(Value::Array(answers)) => {
            answers.iter().map(|a| Ok(fields::string("answer", Some(a), place)?.to_owned())).collect()
        }
        other => Err(fields::wrong(&place.name, "answer", "a string or a list of strings", other.as_ref())),
    }
}

/// How COCO calls the files of its pictures, of 2014 and of 2017, which share their numbers.
fn coco_names(id: i64) -> Vec<String> {
    let plain = format!("{id:012}.jpg");
    let split = |split: &str| {
        let file = format!("COCO_{split}_{plain}");
        [format!("{split}/{file}"), file]
    };
    let old = ["train2014", "val2014", "test2015"].map(split).into_iter().flatten();
    let new = ["train2017", "val2017", "test2017"].map(|split| format!("{split}/{plain}"));
    std::iter::once(plain.clone()).chain(old).chain(new).collect()
}

fn genome_names(id: i64) -> Vec<String> {
    let file = format!("{id}.jpg");
    vec![file.clone(), format!("VG_100K/{file}"), format!("VG_100K_2/{file}"), format!("image/{file}")]
}

impl Format for Questions {
    type Entry = AskedQuestion;
    type Row = Question;
    const EXAMPLE: &'static str = r#"[{"image": "1.jpg", "question": "what is the dog doing?", "question_id": 1, "answer": ["running", "playing"]}]"#;
    const LIST: Option<&'static str> = Some("questions");

    fn open(path: &Path, options: &Options, watch: Watch) -> Result<Box<dyn Records<AskedQuestion>>, OpenError> {
        let questions = sources::open_json::<Self>(path, options, watch)?;
        match options.annotations.is_empty() {
            true => Ok(questions),
            false => Ok(Box::new(Annotated::of(questions, options, watch)?)),
        }
    }

    fn read(json: &[u8], place: &Place) -> Result<Vec<AskedQuestion>, RecordError> {
        let mut record: Fields = place.fields::<Self, _>(json)?;
        match record.qas.take() {
            // Only Visual Genome has these, which need not say so.
            Some(qas) => qas.into_iter().map(|qa| qa.read(place)).collect(),
            None => Ok(vec![record.read(place)?]),
        }
    }

    fn name(entry: &AskedQuestion) -> &str {
        &entry.name
    }

    fn texts(entry: AskedQuestion) -> Vec<String> {
        std::iter::once(entry.question).chain(entry.answers).collect()
    }

    fn pictures(entry: &AskedQuestion) -> Vec<Location> {
        vec![entry.image.clone()]
    }

    fn check(&self, _: u32) -> Result<(), SettingError> {
        self.sentences.check()
    }

    fn row(&self, entry: AskedQuestion, _: &mut ChaCha8Rng) -> Result<Question, RecordError> {
        if self.answered && entry.answers.is_empty() {
            let expected = "at least one answer (of VQA v2, the annotations have them)";
            return Err(fields::wrong(&entry.name, "answer", expected, None));
        }
        let pieces = |answer: &str| self.sentences.vocabulary.cut(answer, usize::MAX, true);
        let answers = entry.weighted_answers().into_iter().map(|(answer, weight)| (pieces(answer), weight)).collect();
        Ok(Question {
            question_id: entry.question_id,
            ids: self.sentences.encode(&question::clean(&entry.question, self.max_words)),
            answers,
            question: entry.question,
            given: entry.answers,
            question_type: entry.question_type,
            answer_type: entry.answer_type,
        })
    }
}

/// Questions with the answers from files of annotations: found by their ids, read when they are asked for.
#[derive(Debug)]
struct Annotated {
    questions: Box<dyn Records<AskedQuestion>>,
    files: Vec<Box<dyn Records<Annotation>>>,
    /// File and record of each question's annotation.
    places: HashMap<i64, (usize, u64)>,
}

impl Annotated {
    fn of(questions: Box<dyn Records<AskedQuestion>>, options: &Options, watch: Watch) -> Result<Self, OpenError> {
        let (mut files, mut places) = (Vec::new(), HashMap::new());
        for path in &options.annotations {
            let annotations = sources::open_json::<Annotations>(path, options, watch)?;
            for record in 0..annotations.len() {
                // One that cannot be used is missed where its question is met.
                if let Ok(annotation) = annotations.entry(record) {
                    places.insert(annotation.question_id, (files.len(), record));
                }
            }
            files.push(annotations);
        }
        Ok(Self { questions, files, places })
    }
}

impl Records<AskedQuestion> for Annotated {
    fn len(&self) -> u64 {
        self.questions.len()
    }

    fn entry(&self, index: u64) -> Result<AskedQuestion, RecordError> {
        let mut asked = self.questions.entry(index)?;
        if !asked.answers.is_empty() {
            return Ok(asked); // Visual Genome's beside VQA's
        }
        let Some((file, record)) = self.places.get(&asked.question_id) else {
            let problem = format!("question_id {}: the files of annotations have none of it", asked.question_id);
            return Err(RecordError::Malformed { name: asked.name, problem });
        };
        let Annotation { question_type, answer_type, answers, .. } = self.files[*file].entry(*record)?;
        (asked.question_type, asked.answer_type, asked.answers) = (question_type, answer_type, answers);
        Ok(asked)
    }

    fn warnings(&self) -> Vec<String> {
        self.questions.warnings()
    }
}

/// The answers alone, without pictures: VQA v2's files of them, or the authors' questions.
#[derive(Debug)]
pub struct Annotations;

/// What people answered to a question.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Annotation {
    /// What the question is known by.
    pub question_id: i64,
    /// See [`AskedQuestion::question_type`].
    pub question_type: Option<String>,
    /// See [`AskedQuestion::answer_type`].
    pub answer_type: Option<String>,
    /// See [`AskedQuestion::answers`].
    pub answers: Vec<String>,
    /// File and position.
    pub name: String,
}

#[derive(Deserialize)]
struct AnnotationFields {
    question_id: Option<Value>,
    question_type: Option<Value>,
    answer_type: Option<Value>,
    answers: Option<Vec<AnswerFields>>,
    answer: Option<Value>,
}

#[derive(Deserialize)]
struct AnswerFields {
    answer: String,
}

impl Format for Annotations {
    type Entry = Annotation;
    type Row = Annotation;
    const PICTURES: usize = 0;
    const EXAMPLE: &'static str =
        r#"[{"question_id": 1, "question_type": "what", "answer_type": "other", "answers": [{"answer": "running"}]}]"#;
    const LIST: Option<&'static str> = Some("annotations");

    fn read(json: &[u8], place: &Place) -> Result<Vec<Annotation>, RecordError> {
        let record: AnnotationFields = place.fields::<Self, _>(json)?;
        Ok(vec![Annotation {
            question_id: fields::integer("question_id", record.question_id.as_ref(), place)?,
            question_type: fields::optional_string("question_type", record.question_type.as_ref(), place)?,
            answer_type: fields::optional_string("answer_type", record.answer_type.as_ref(), place)?,
            answers: match record.answers {
                Some(answers) => answers.into_iter().map(|answer| answer.answer).collect(),
                None => answers(record.answer, place)?,
            },
            name: place.name.clone(),
        }])
    }

    fn name(entry: &Annotation) -> &str {
        &entry.name
    }

    fn texts(entry: Annotation) -> Vec<String> {
        entry.answers
    }

    fn pictures(_: &Annotation) -> Vec<Location> {
        vec![]
    }

    fn row(&self, entry: Annotation, _: &mut ChaCha8Rng) -> Result<Annotation, RecordError> {
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;
    use crate::dataset::{Dataset, Source};
    use crate::formats::check::{examples, opened, refusals};
    use crate::text::vocabulary::tests::numbered;

    fn training() -> Questions {
        Questions::training(Sentences::new(Arc::new(numbered(9))))
    }

    #[test]
    fn the_authors_layout() {
        let text = r#"[
            {"image": "a.png", "question": "W1 w2?", "question_id": 5, "answer": ["w3", "w4", "w3", "W3"], "dataset": "vqa"},
            {"image": "b.png", "question": "w1", "question_id": 6, "answer": "w5 w6", "dataset": "vg"}]"#;
        let rows = examples(training(), "q.json", text, &["a.png", "b.png"]);
        assert_eq!((rows[0].question_id, rows[0].ids.as_slice()), (5, [2, 6, 7, 3].as_slice()));
        // "W3" is another string, of the same pieces: answers are not normalised.
        assert_eq!(rows[0].answers, [(vec![2, 8, 3], 0.5), (vec![2, 9, 3], 0.25), (vec![2, 8, 3], 0.25)]);
        assert_eq!(rows[1].answers, [(vec![2, 10, 11, 3], 0.5)]);
        assert_eq!(rows[0].given, ["w3", "w4", "w3", "W3"]);
    }

    #[test]
    fn as_the_authors_checkpoints_know_them() {
        let sentences = Sentences { closed: false, max_tokens: 3, ..Sentences::new(Arc::new(numbered(9))) };
        let text = r#"[{"image": "a.png", "question": "w1 w2 w3", "question_id": 5}]"#;
        let rows = examples(Questions::evaluation(sentences), "q.json", text, &["a.png"]);
        assert_eq!((rows[0].ids.as_slice(), rows[0].answers.len()), ([2, 6, 7].as_slice(), 0));
    }

    #[test]
    fn vqas_own_files_gzipped_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("val2014")).unwrap();
        let questions = r#"{"info": {"questions": [1], "a": "\\\"questions\\\":["}, "task_type": "Open-Ended", "questions": [
            {"image_id": 42, "question": "w1?", "question_id": 420}, {"image_id": 7, "question": "w2?", "question_id": 70}], "license": {}}"#;
        let annotations = r#"{"annotations": [{"question_type": "what", "answer_type": "other", "image_id": 42, "question_id": 420,
            "multiple_choice_answer": "w3", "answers": [{"answer": "w3", "answer_confidence": "yes", "answer_id": 1}, {"answer": "w4"}]}]}"#;
        let zipped = |name: &str, text: &str| {
            let mut file = flate2::write::GzEncoder::new(std::fs::File::create(at(name)).unwrap(), Default::default());
            file.write_all(text.as_bytes()).unwrap();
            file.finish().unwrap();
        };
        std::fs::write(at("q.json"), questions).unwrap();
        std::fs::write(at("a.json"), annotations).unwrap();
        zipped("q.json.gz", questions);
        zipped("a.json.gz", annotations);
        std::fs::write(at("000000000007.jpg"), "").unwrap();
        std::fs::write(at("val2014/COCO_val2014_000000000042.jpg"), "").unwrap();
        for (questions, annotations) in [("q.json", "a.json.gz"), ("q.json.gz", "a.json")] {
            let options = Options { annotations: vec![at(annotations)], ..Options::default() };
            let data = Dataset::<Questions>::of(&[Source::from(at(questions))], &options, &mut |_, _, _| ()).unwrap();
            let asked = data.entry(0).unwrap();
            assert_eq!((asked.question_id, asked.answers), (420, vec!["w3".into(), "w4".into()]));
            assert_eq!((asked.question_type, asked.answer_type), (Some("what".into()), Some("other".into())));
            assert!(asked.image.to_string().ends_with("val2014/COCO_val2014_000000000042.jpg"), "{}", asked.image);
            let error = data.entry(1).unwrap_err().to_string();
            assert!(error.contains("record 2: question_id 70: the files of annotations have none"), "{error}");
        }
        let alone = opened::<Questions>(&at("q.json")).unwrap();
        let asked = alone.entry(1).unwrap();
        assert!(asked.answers.is_empty() && asked.image.to_string().ends_with("/000000000007.jpg"));
    }

    #[test]
    fn visual_genomes_questions() {
        let text = r#"[{"id": 3, "qas": [{"qa_id": 9, "image_id": 3, "question": "w1?", "answer": "w2."}, {"qa_id": 10, "image_id": 3,
            "question": "w4", "answer": "w5"}]}, {"id": 4, "qas": []}, {"id": 5, "qas": [{"qa_id": 11, "image_id": 3, "question": "w1", "answer": "w1"}]}]"#;
        let rows = examples(training(), "q.json", text, &["3.jpg"]);
        assert_eq!(rows.iter().map(|row| row.question_id).collect::<Vec<_>>(), [9, 10, 11]);
        assert_eq!(rows[1].answers, [(vec![2, 10, 3], 0.5)]);
    }

    #[test]
    fn what_is_no_question_is_named() {
        refusals::<Questions>(&[
            (
                r#"{"image": "a.png", "question": "?", "question_id": 1}"#,
                "field `question`: expected a string with words",
            ),
            (
                r#"{"image": "a.png", "question": "w1", "question_id": "x"}"#,
                "field `question_id`: expected a whole number",
            ),
            (
                r#"{"question": "w1", "question_id": 1}"#,
                "field `image`: expected the path of an image file, found nothing",
            ),
            (r#"{"image_id": "x", "question": "w1", "question_id": 1}"#, "field `image_id`: expected a whole number"),
            (
                r#"{"image": "a.png", "question": "w1", "question_id": 1, "answer": [1]}"#,
                "field `answer`: expected a string",
            ),
            (
                r#"{"image": "a.png", "question": "w1", "question_id": 1, "dataset": "gqa"}"#,
                "field `dataset`: expected \"vqa\" or \"vg\"",
            ),
        ]);
        let text = r#"{"questions": 3}"#;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.json");
        std::fs::write(&path, text).unwrap();
        let error = opened::<Questions>(&path).unwrap_err().to_string();
        assert!(error.contains("q.json: record 1: an object without a list `questions`"), "{error}");
    }
}

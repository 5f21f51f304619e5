//! The official VQA score: an answer is right as far as people agree with it.
//!
//! Its normalisation is VQA v2's evaluator's, odd places included: numbers are compared with those that others report.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use simla_data::Annotation;
use thiserror::Error;

/// A line of a result file, as the evaluation server takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// As the split has it.
    pub question_id: i64,
    /// What the model says.
    pub answer: String,
}

/// Why predictions could not be judged.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum ScoreError {
    #[error("predictions {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("predictions {path}: {source}; expected [{{\"question_id\": 1, \"answer\": \"yes\"}}, ...]")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("predictions: question {0} is not answered; every question of the split has to be, once")]
    Missing(i64),
    #[error("predictions: question {0} is answered, but it is none of the split's: is this the file of another split?")]
    Extra(i64),
    #[error("predictions: question {0} is answered twice; expected once")]
    Twice(i64),
    #[error("data: question {0} is there twice; expected one set of answers to each question")]
    AskedTwice(i64),
    #[error("data: question {0} has no answers to compare with; is this a test split? Its score comes from the server")]
    Unanswered(i64),
    #[error("data: no questions")]
    Empty,
}

/// Reads a result file.
///
/// # Errors
/// A file that cannot be read, or that holds something else: with the line.
pub fn read_predictions(path: &Path) -> Result<Vec<Prediction>, ScoreError> {
    let bytes = fs::read(path).map_err(|source| ScoreError::Io { path: path.into(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| ScoreError::Json { path: path.into(), source })
}

/// A mean over questions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// 100 x the mean, to two decimals.
    pub accuracy: f64,
    /// Of the mean, in the same units: what another draw of as many questions would change.
    pub standard_error: f64,
    /// How many.
    pub questions: usize,
}

impl Score {
    fn of(scores: &[f64]) -> Self {
        let n = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / n;
        let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
        // Of one question, nothing is known of the spread.
        let standard_error = if scores.len() > 1 { (squares / (n - 1.0) / n).sqrt() } else { 0.0 };
        let percent = |x: f64| (x * 10_000.0).round() / 100.0;
        Self { accuracy: percent(mean), standard_error: percent(standard_error), questions: scores.len() }
    }
}

/// The score of a split, in all and by kind of question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scores {
    /// Of all questions.
    pub overall: Score,
    /// `yes/no`, `number`, `other`; empty where the data do not say.
    pub answer_types: BTreeMap<String, Score>,
    /// By how the question begins; empty where the data do not say.
    pub question_types: BTreeMap<String, Score>,
}

/// To every question the answer that is given most often to all of them: what is right without a look at picture or question.
pub fn commonest(truth: &[Annotation]) -> Vec<Prediction> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for answer in truth.iter().flat_map(|asked| &asked.answers) {
        *counts.entry(answer).or_default() += 1;
    }
    let commonest = counts.into_iter().max_by_key(|(_, count)| *count).map_or("", |(answer, _)| answer);
    let said = |asked: &Annotation| Prediction { question_id: asked.question_id, answer: commonest.to_owned() };
    truth.iter().map(said).collect()
}

/// Judges predictions, which have to be of exactly the questions in `truth`.
///
/// # Errors
/// The first question that is missing, there twice, or none of the split's.
pub fn score(predictions: &[Prediction], truth: &[Annotation]) -> Result<Scores, ScoreError> {
    let mut answers = HashMap::new();
    for Prediction { question_id, answer } in predictions {
        if answers.insert(*question_id, answer.as_str()).is_some() {
            return Err(ScoreError::Twice(*question_id));
        }
    }
    let mut all = Vec::with_capacity(truth.len());
    let (mut answer_types, mut question_types) = (BTreeMap::new(), BTreeMap::new());
    for (place, asked) in truth.iter().enumerate() {
        let id = asked.question_id;
        let Some(answer) = answers.remove(&id) else {
            let before = truth[..place].iter().any(|other| other.question_id == id);
            return Err(if before { ScoreError::AskedTwice(id) } else { ScoreError::Missing(id) });
        };
        if asked.answers.is_empty() {
            return Err(ScoreError::Unanswered(id));
        }
        let score = accuracy(answer, &asked.answers);
        all.push(score);
        for (types, kind) in [(&mut answer_types, &asked.answer_type), (&mut question_types, &asked.question_type)] {
            if let Some(kind) = kind {
                types.entry(kind.clone()).or_insert_with(Vec::new).push(score);
            }
        }
    }
    if let Some(extra) = predictions.iter().find(|prediction| answers.contains_key(&prediction.question_id)) {
        return Err(ScoreError::Extra(extra.question_id));
    }
    if all.is_empty() {
        return Err(ScoreError::Empty);
    }
    let each = |types: BTreeMap<String, Vec<f64>>| {
        types.into_iter().map(|(kind, scores)| (kind, Score::of(&scores))).collect::<BTreeMap<_, _>>()
    };
    Ok(Scores { overall: Score::of(&all), answer_types: each(answer_types), question_types: each(question_types) })
}

/// How far people agree with a prediction, from 0 to 1: the mean over the ten of min(1, others among the nine that say so / 3). Where one
/// answer is all there is, it is right or wrong.
pub fn accuracy(prediction: &str, answers: &[String]) -> f64 {
    let mut prediction = trimmed(prediction);
    let mut answers: Vec<String> = answers.iter().map(|answer| trimmed(answer)).collect();
    // Where all are the same, the evaluator leaves both sides as they are.
    if answers.iter().any(|answer| *answer != answers[0]) {
        prediction = normalised(&prediction);
        answers = answers.iter().map(|answer| normalised(answer)).collect();
    }
    let agreeing = answers.iter().filter(|answer| **answer == prediction).count();
    if answers.len() <= 1 {
        return agreeing as f64;
    }
    let left_out = |answer: &String| (agreeing - usize::from(*answer == prediction)) as f64;
    answers.iter().map(|answer| (left_out(answer) / 3.0).min(1.0)).sum::<f64>() / answers.len() as f64
}

fn trimmed(answer: &str) -> String {
    answer.replace(['\n', '\t'], " ").trim().to_owned()
}

/// An answer, trimmed, as it is compared with others.
pub fn normalised(answer: &str) -> String {
    let lower = without_full_stops(&without_marks(answer)).to_lowercase();
    let words = lower.split_whitespace().map(number).filter(|word| !["a", "an", "the"].contains(word));
    words.map(|word| CONTRACTIONS.get(word).map_or(word, String::as_str)).collect::<Vec<_>>().join(" ")
}

/// A mark next to a space anywhere is removed everywhere, another becomes a space; a comma between digits removes all marks. Where each
/// stands is seen in the answer as it came.
fn without_marks(answer: &str) -> String {
    const MARKS: [char; 21] =
        [';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',', '?', '!'];
    let digit = u8::is_ascii_digit;
    let thousands = answer.as_bytes().windows(3).any(|w| digit(&w[0]) && w[1] == b',' && digit(&w[2]));
    let removed =
        |mark: char| thousands || answer.contains(&format!("{mark} ")) || answer.contains(&format!(" {mark}"));
    MARKS.iter().fold(answer.to_owned(), |text, &mark| {
        if !text.contains(mark) {
            return text;
        }
        text.replace(mark, if removed(mark) { "" } else { " " })
    })
}

/// Full stops that no digit follows are removed, the first 32 of them.
fn without_full_stops(answer: &str) -> String {
    // The evaluator passes a flag of its pattern, of this value, where the number of replacements is expected.
    let mut left = 32;
    let mut kept = String::with_capacity(answer.len());
    let mut characters = answer.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '.' && left > 0 && !characters.peek().is_some_and(char::is_ascii_digit) {
            left -= 1;
        } else {
            kept.push(c);
        }
    }
    kept
}

fn number(word: &str) -> &str {
    match word {
        "none" | "zero" => "0",
        "one" => "1",
        "two" => "2",
        "three" => "3",
        "four" => "4",
        "five" => "5",
        "six" => "6",
        "seven" => "7",
        "eight" => "8",
        "nine" => "9",
        "ten" => "10",
        _ => word,
    }
}

/// What English contracts, by what is left of the second word. The evaluator knows no others (`it's`, `she'd`, `i'm`).
const CONTRACTED: [(&str, &str); 10] = [
    ("n't", "ai are ca could did does do had has have is might must need ought sha should was were wo would"),
    ("n't've", "could had might should would"),
    ("'ve", "could might must not should they we what where who would you"),
    ("'d", "he how it someone something there they where who you"),
    ("'d've", "he it she somebody someone something there they we who you y'all"),
    ("'ll", "how it somebody someone something they what who why you y'all"),
    ("'s", "he how somebody someone that there what when where who why"),
    ("'re", "there they what why you"),
    ("'s'at", "'ow"),
    ("", "ma'am o'clock 'twas y'all"),
];

/// What is written for each contraction, by how it is written with one of its apostrophes left out; and the one that the evaluator has the
/// wrong way round.
static CONTRACTIONS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let words = CONTRACTED.iter().flat_map(|(end, starts)| starts.split(' ').map(move |start| format!("{start}{end}")));
    let mut written: HashMap<String, String> = HashMap::from([("somebody'd".into(), "somebodyd".into())]);
    for word in words {
        for (place, _) in word.match_indices('\'') {
            written.insert(format!("{}{}", &word[..place], &word[place + 1..]), word.clone());
        }
    }
    written
});

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Cases {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        rule: String,
        prediction: String,
        answers: Vec<String>,
        accuracy: f64,
        prediction_normalised: String,
    }

    /// What the official evaluator says. `SIMLA_TASKS_DIR` may name the folder of more cases, and of its table of contractions.
    #[test]
    fn as_the_official_evaluator() {
        let more = std::env::var_os("SIMLA_TASKS_DIR").map(|dir| Path::new(&dir).join("vqa-score"));
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tasks/vqa-score");
        for dir in [Some(own), more].into_iter().flatten() {
            let cases: Cases = serde_json::from_slice(&fs::read(dir.join("cases.json")).unwrap()).unwrap();
            for case in &cases.cases {
                let found = accuracy(&case.prediction, &case.answers);
                assert!((found - case.accuracy).abs() < 1e-9, "{}: {found}, expected {}", case.rule, case.accuracy);
                assert_eq!(normalised(&trimmed(&case.prediction)), case.prediction_normalised, "{}", case.rule);
            }
            assert!(cases.cases.len() > 80);
            let Ok(table) = fs::read(dir.join("contractions.json")) else { continue };
            let table: BTreeMap<String, String> = serde_json::from_slice(&table).unwrap();
            for (word, expected) in &table {
                // Those with a capital are never met: answers are in lower case by then.
                if *word == word.to_lowercase() {
                    let found = CONTRACTIONS.get(word).unwrap_or(word);
                    assert_eq!(found, expected);
                }
            }
            for word in CONTRACTIONS.keys() {
                assert!(table.contains_key(word), "{word} is not the evaluator's");
            }
        }
    }

    fn asked(question_id: i64, answers: &[&str], answer_type: &str, question_type: &str) -> Annotation {
        Annotation {
            question_id,
            question_type: Some(question_type.into()),
            answer_type: Some(answer_type.into()),
            answers: answers.iter().map(|&answer| answer.into()).collect(),
            name: String::new(),
        }
    }

    fn predictions(answers: &[(i64, &str)]) -> Vec<Prediction> {
        answers.iter().map(|&(question_id, answer)| Prediction { question_id, answer: answer.into() }).collect()
    }

    #[test]
    fn by_type_with_what_so_few_questions_leave_open() {
        let red = ["red", "red", "a", "b", "c", "d", "e", "f", "g", "h"];
        let truth =
            [asked(1, &["yes"; 10], "yes/no", "is"), asked(2, &red, "other", "what"), asked(3, &["2"], "other", "how")];
        let scores = score(&predictions(&[(3, "3"), (1, "yes"), (2, "the red")]), &truth).unwrap();
        // 1, 0.6 and 0: their deviation is 0.50332, over the root of three 0.29059.
        assert_eq!(scores.overall, Score { accuracy: 53.33, standard_error: 29.06, questions: 3 });
        assert_eq!(scores.answer_types["yes/no"], Score { accuracy: 100.0, standard_error: 0.0, questions: 1 });
        assert_eq!(scores.answer_types["other"], Score { accuracy: 30.0, standard_error: 30.0, questions: 2 });
        assert_eq!(scores.question_types.keys().collect::<Vec<_>>(), ["how", "is", "what"]);
    }

    #[test]
    fn the_commonest_answer_is_what_a_guess_gets() {
        let truth = [asked(1, &["yes"; 3], "", ""), asked(2, &["no", "no"], "", ""), asked(3, &["yes", "no"], "", "")];
        assert_eq!(commonest(&truth), predictions(&[(1, "yes"), (2, "yes"), (3, "yes")]));
        assert_eq!(commonest(&[]), []);
    }

    /// Of ten people n say so. Left out one by one, each of those n leaves n - 1 that agree, each of the others leaves n: the mean of
    /// min(1, agreeing / 3) is (n min(1, (n - 1) / 3) + (10 - n) min(1, n / 3)) / 10.
    #[test]
    fn people_who_agree_by_hand() {
        let people = ["red", "red", "red", "red", "blue", "blue", "blue", "green", "green", "pink"].map(String::from);
        for (said, expected) in [
            ("red", 1.0),          // (4 x 1 + 6 x 1) / 10
            ("blue", 0.9),         // (3 x 2/3 + 7 x 1) / 10
            ("green", 0.6),        // (2 x 1/3 + 8 x 2/3) / 10
            ("pink", 0.3),         // (1 x 0 + 9 x 1/3) / 10
            ("The red.", 1.0),     // as both are compared: without article, full stop and capitals
            ("red and blue", 0.0), // no one says so
        ] {
            assert!((accuracy(said, &people) - expected).abs() < 1e-12, "{said}");
        }
    }

    #[test]
    fn one_answer_is_all_there_is() {
        assert_eq!(accuracy("two", &["two".into()]), 1.0);
        assert_eq!(accuracy("three", &["two".into()]), 0.0);
    }

    #[test]
    fn exactly_the_splits_questions() {
        let truth = [asked(4, &["yes"; 10], "yes/no", "is"), asked(2, &["no"; 10], "yes/no", "is")];
        let judged = |answers: &[(i64, &str)]| score(&predictions(answers), &truth).map_err(|e| e.to_string());
        for (answers, problem) in [
            (vec![(7, "no"), (2, "no")], "question 4 is not answered"),
            (vec![(4, "no"), (9, "no"), (2, "no"), (7, "no")], "question 9 is answered, but"),
            (vec![(4, "no"), (2, "no"), (4, "yes")], "question 4 is answered twice"),
            (vec![], "question 4 is not answered"),
        ] {
            let error = judged(&answers).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        assert!(matches!(score(&[], &[]), Err(ScoreError::Empty)));
        let twice = [asked(4, &["yes"], "", ""), asked(4, &["yes"], "", "")];
        assert!(matches!(score(&predictions(&[(4, "yes")]), &twice), Err(ScoreError::AskedTwice(4))));
        let test_split = [asked(4, &[], "", "")];
        assert!(matches!(score(&predictions(&[(4, "yes")]), &test_split), Err(ScoreError::Unanswered(4))));
    }

    #[test]
    fn other_files_are_refused_with_what_is_expected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        assert!(matches!(read_predictions(&path), Err(ScoreError::Io { .. })));
        fs::write(&path, r#"[{"question_id": 1, "answer": "a"}]"#).unwrap();
        assert_eq!(read_predictions(&path).unwrap(), predictions(&[(1, "a")]));
        for text in ["", "{}", "[3]", r#"[{"question_id": "x", "answer": "a"}]"#, r#"[{"question_id": 1}]"#, "\u{0}"] {
            fs::write(&path, text).unwrap();
            let error = read_predictions(&path).unwrap_err().to_string();
            assert!(error.contains("result.json") && error.contains("expected [{"), "{error}");
        }
    }
}

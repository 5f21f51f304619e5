//! The answers that a model chooses among: given as `["yes", "no", ...]`, or made from the questions of training.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::Serialize;

use super::question::Questions;
use super::refer::read_json;
use crate::dataset::Dataset;
use crate::sources::OpenError;
use crate::text::vocabulary::Vocabulary;

/// A list of answers, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerList(Vec<String>);

/// Of how many questions an answer list has the answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Coverage {
    /// Questions with answers.
    pub questions: u64,
    /// Those whose commonest answer is in the list.
    pub covered: u64,
}

impl Coverage {
    /// The covered share, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.covered as f64 / self.questions.max(1) as f64
    }
}

impl AnswerList {
    /// Reads a list of strings.
    ///
    /// # Errors
    /// A file that holds something else, nothing, or an answer twice.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let answers: Vec<String> = read_json(path, r#"a list of answers: ["yes", "no", "2"]"#)?;
        Self::of(answers).map_err(|problem| OpenError::Answers { path: path.into(), problem })
    }

    /// A list of these answers; the error says what is wrong.
    ///
    /// # Errors
    /// No answer, or one that is there twice or says nothing.
    pub fn of(answers: Vec<String>) -> Result<Self, String> {
        let mut seen = HashSet::new();
        match answers.iter().enumerate().find(|(_, a)| a.trim().is_empty() || !seen.insert(a.as_str())) {
            Some((place, answer)) if answer.trim().is_empty() => Err(format!("answer {} says nothing", place + 1)),
            Some((place, answer)) => Err(format!("answer {}, {answer:?}, was there before", place + 1)),
            None if answers.is_empty() => Err("no answer in it".into()),
            None => Ok(Self(answers)),
        }
    }

    /// The commonest answers of the questions of `dataset`: of those that at least `min_count` questions have for their commonest, at most
    /// `max`, the most frequent first, of equals the alphabetically first. `watch` is told how many questions came before.
    ///
    /// # Errors
    /// Where no answer is left.
    pub fn learn(
        dataset: &Dataset<Questions>,
        min_count: u64,
        max: usize,
        mut watch: impl FnMut(u64),
    ) -> Result<(Self, Coverage), OpenError> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for index in 0..dataset.len() {
            watch(index);
            if let Ok(asked) = dataset.entry(index)
                && let Some(answer) = asked.commonest_answer().filter(|answer| !answer.trim().is_empty())
            {
                *counts.entry(answer.to_owned()).or_default() += 1;
            }
        }
        let questions = counts.values().sum();
        let mut kept: Vec<(String, u64)> = counts.into_iter().filter(|(_, count)| *count >= min_count).collect();
        kept.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        kept.truncate(max);
        let covered = kept.iter().map(|(_, count)| count).sum();
        let problem = |problem| OpenError::Answers {
            path: dataset.sources().next().map(|s| s.0.into()).unwrap_or_default(),
            problem,
        };
        let list = Self::of(kept.into_iter().map(|(answer, _)| answer).collect());
        let list = list.map_err(|_| match questions {
            0 => problem("no question in it has an answer; of VQA v2, the annotations have them".into()),
            _ => problem(format!("none of the answers to {questions} questions is the commonest of {min_count}")),
        })?;
        Ok((list, Coverage { questions, covered }))
    }

    /// The answers.
    pub fn answers(&self) -> &[String] {
        &self.0
    }

    /// The word pieces of each, from `[CLS]` to `[SEP]`.
    pub fn pieces(&self, vocabulary: &Vocabulary) -> Vec<Vec<i64>> {
        self.0.iter().map(|answer| vocabulary.cut(answer, usize::MAX, true)).collect()
    }

    /// Of how many questions of `dataset` the list has the commonest answer.
    pub fn coverage(&self, dataset: &Dataset<Questions>) -> Coverage {
        let known: HashSet<&str> = self.0.iter().map(String::as_str).collect();
        let entries = (0..dataset.len()).filter_map(|index| dataset.entry(index).ok());
        let has = entries.filter_map(|asked| asked.commonest_answer().map(|answer| known.contains(answer)));
        has.fold(Coverage { questions: 0, covered: 0 }, |sum, has| Coverage {
            questions: sum.questions + 1,
            covered: sum.covered + u64::from(has),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::check::opened;

    #[test]
    fn learned_by_count_then_alphabet() {
        let answers = [vec!["b"], vec!["a", "b", "a"], vec!["c", "c"], vec!["b", "a"], vec!["a"], vec!["d"], vec![]];
        let record =
            |(id, answer)| serde_json::json!({"image": "1.jpg", "question": "q", "question_id": id, "answer": answer});
        let records: Vec<_> = answers.iter().enumerate().map(record).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.json");
        std::fs::write(&path, serde_json::to_vec(&records).unwrap()).unwrap();
        let data = opened::<Questions>(&path).unwrap();
        let learn = |min_count, max| {
            AnswerList::learn(&data, min_count, max, |_| ()).map(|(list, coverage)| (list.0.join(""), coverage))
        };
        assert_eq!(learn(1, 9).unwrap(), ("abcd".into(), Coverage { questions: 6, covered: 6 }));
        assert_eq!(learn(2, 9).unwrap(), ("ab".into(), Coverage { questions: 6, covered: 4 }));
        assert_eq!(learn(1, 3).unwrap(), ("abc".into(), Coverage { questions: 6, covered: 5 }));
        assert_eq!(AnswerList::of(vec!["c".into(), "d".into()]).unwrap().coverage(&data).covered, 2);
        let error = learn(5, 9).unwrap_err().to_string();
        assert!(error.contains("q.json: none of the answers to 6 questions"), "{error}");
    }

    #[test]
    fn a_given_list_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.json");
        let open = |text: &str| {
            std::fs::write(&path, text).unwrap();
            AnswerList::open(&path).map_err(|e| e.to_string())
        };
        assert_eq!(open(r#"["yes", "no"]"#).unwrap().answers(), ["yes", "no"]);
        for (text, problem) in [
            ("[]", "no answer in it"),
            (r#"["a", "b", "a"]"#, "answer 3, \"a\", was there before"),
            (r#"["a", " "]"#, "answer 2 says nothing"),
            (r#"{"a": 1}"#, "expected a list of answers"),
            ("[1]", "expected a list of answers"),
        ] {
            let error = open(text).unwrap_err();
            assert!(error.contains(problem) && error.contains("answers.json"), "{error}");
        }
    }
}

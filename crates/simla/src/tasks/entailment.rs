//! Predictions of visual entailment (SNLI-VE), which has no official file of them: `[{"pair_id": "1.jpg#0r1e", "label": "entailment"}]`. Where
//! the data name no pairs, a record's number stands for it, from 1.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use simla_data::Entailment;
use simla_files::{advice, write_atomically};
use thiserror::Error;

use super::classify::{Classified, Outcome};

/// What is said of a sentence and its picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// Which sentence and picture ([`pair_id`]).
    pub pair_id: String,
    /// `contradiction`, `neutral` or `entailment`.
    pub label: String,
}

/// Why a file of predictions cannot be judged.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum PredictionsError {
    #[error("{path}: {source}{}", advice(.source))]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {source}; expected [{{\"pair_id\": \"1.jpg#0r1e\", \"label\": \"entailment\"}}, ...]")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("predictions: {pair_id}: label {label:?}, expected contradiction, neutral or entailment")]
    Label { pair_id: String, label: String },
    #[error("predictions: a second one for {0}; keep one")]
    Twice(String),
    #[error("no prediction for {0}; every record of the split needs one")]
    Missing(String),
    #[error("the record {0} has no label, so no prediction of it can be judged")]
    Unlabelled(String),
    #[error("no record to judge")]
    Nothing,
}

/// What the record at `place` (from 0) is known by.
pub fn pair_id(record: Option<&str>, place: usize) -> String {
    record.map_or_else(|| (place + 1).to_string(), str::to_owned)
}

/// Reads a file of predictions.
///
/// # Errors
/// A file that cannot be read, or that holds something else: with the line.
pub fn read_predictions(path: &Path) -> Result<Vec<Prediction>, PredictionsError> {
    let bytes = fs::read(path).map_err(|source| PredictionsError::Io { path: path.into(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| PredictionsError::Json { path: path.into(), source })
}

/// Writes them as [`read_predictions`] reads them.
///
/// # Errors
/// The path and what the system said.
pub fn write_predictions(path: &Path, predictions: &[Prediction]) -> Result<(), PredictionsError> {
    let text = serde_json::to_vec_pretty(predictions).expect("strings are JSON");
    write_atomically(path, &text).map_err(|source| PredictionsError::Io { path: path.into(), source })
}

/// How predictions put the records of a split (each with its pair's name, where it has one, and its class) into classes. Those of other
/// records are not looked at.
///
/// # Errors
/// A label that is none of the three, a pair twice, or a record without prediction or class.
pub fn score(predictions: &[Prediction], truth: &[(Option<String>, Option<i64>)]) -> Result<Outcome, PredictionsError> {
    let mut said = BTreeMap::new();
    for Prediction { pair_id, label } in predictions {
        let class = Entailment::CLASSES.iter().position(|class| class == label);
        let unknown = || PredictionsError::Label { pair_id: pair_id.clone(), label: label.clone() };
        if said.insert(pair_id.as_str(), class.ok_or_else(unknown)?).is_some() {
            return Err(PredictionsError::Twice(pair_id.clone()));
        }
    }
    let mut outcome = Outcome::new(Entailment::CLASSES.len());
    for (place, (record, label)) in truth.iter().enumerate() {
        let pair_id = pair_id(record.as_deref(), place);
        let label = label.ok_or_else(|| PredictionsError::Unlabelled(pair_id.clone()))?;
        let predicted = said.get(pair_id.as_str()).ok_or(PredictionsError::Missing(pair_id))?;
        outcome.confusion[label as usize][*predicted] += 1;
    }
    match truth {
        [] => Err(PredictionsError::Nothing),
        _ => Ok(outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::score::Share;

    #[test]
    fn every_record_is_found_by_its_name_or_its_number() {
        let said = |pair_id: &str, label: &str| Prediction { pair_id: pair_id.into(), label: label.into() };
        let truth = [(Some("a".to_owned()), Some(2)), (None, Some(0)), (None, Some(1))];
        let all = [said("3", "entailment"), said("a", "entailment"), said("2", "contradiction"), said("9", "neutral")];
        let found = score(&all, &truth).unwrap();
        assert_eq!(found.confusion, [[1, 0, 0], [0, 0, 1], [0, 0, 1]]);
        assert_eq!(found.commonest(), Share { right: 1, of: 3 });
        let refused = |predictions: &[Prediction]| score(predictions, &truth).unwrap_err().to_string();
        assert!(refused(&all[1..]).contains("no prediction for 3"));
        assert!(refused(&[said("a", "maybe")]).contains("a: label \"maybe\""));
        assert!(refused(&[said("a", "neutral"), said("a", "neutral")]).contains("second one for a"));
        assert!(score(&all, &[(Some("a".into()), None)]).unwrap_err().to_string().contains("no label"));
        assert!(score(&all, &[]).is_err());

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("said.json");
        write_predictions(&path, &all).unwrap();
        assert_eq!(read_predictions(&path).unwrap(), all);
        fs::write(&path, "[{\"pair_id\": 1}]").unwrap();
        assert!(read_predictions(&path).unwrap_err().to_string().contains("line 1"));
    }
}

//! `metrics.jsonl` and its like: one JSON line a step. A resumed run goes on where its checkpoint stands: no step twice, none
//! missing.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use simla_files::advice;

/// What a step gave. Each number is called `group/name`, here and wherever it is shown; the names without groups are of older runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps done, this one included.
    pub step: u64,
    /// Epochs done.
    #[serde(rename = "schedule/epoch", alias = "epoch")]
    pub epoch: f64,
    /// Sum of the losses. Not a number where it was none; JSON has `null` for it.
    #[serde(rename = "loss/total", alias = "loss", deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// The losses and what else the task reports, by the names that it gave them: `loss/itc`.
    #[serde(flatten, deserialize_with = "nulls_are_nan")]
    pub scores: BTreeMap<String, f64>,
    /// The learning rate of the step.
    #[serde(rename = "schedule/lr", alias = "lr")]
    pub lr: f64,
    /// Global norm of the gradient, before clipping.
    #[serde(rename = "schedule/grad_norm", alias = "grad_norm", deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// Records a second, of all processes together.
    #[serde(rename = "machine/pairs_per_s", alias = "pairs_per_s")]
    pub pairs_per_s: f64,
    /// Seconds in which the step waited for data.
    #[serde(rename = "machine/waited_s", alias = "waited_s")]
    pub waited_s: f64,
    /// Memory at this moment: of the process, or held of the GPU that it computes on.
    #[serde(rename = "machine/memory_gib", alias = "memory_gib")]
    pub memory_gib: f64,
    /// Seconds in which the step exchanged with other processes, where there are some.
    #[serde(rename = "machine/exchange_s", default, skip_serializing_if = "Option::is_none")]
    pub exchange_s: Option<f64>,
    /// What this process sent in it, as a ring sends it.
    #[serde(rename = "machine/sent_gib", default, skip_serializing_if = "Option::is_none")]
    pub sent_gib: Option<f64>,
    /// Why the step was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// The records of a skipped step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<String>,
}

impl StepRecord {
    /// Every number by its name.
    pub fn numbers(&self) -> BTreeMap<String, f64> {
        let serde_json::Value::Object(all) = serde_json::to_value(self).expect("a record is JSON") else {
            unreachable!("a record is an object")
        };
        let others = all.into_iter().filter(|(name, _)| name.contains('/'));
        others.map(|(name, value)| (name, value.as_f64().unwrap_or(f64::NAN))).collect()
    }
}

fn null_is_nan<'de, D: serde::Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or(f64::NAN))
}

fn nulls_are_nan<'de, D: serde::Deserializer<'de>>(values: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let values = BTreeMap::<String, Option<f64>>::deserialize(values)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

/// Why the log could not be written or read.
#[derive(Debug, Error)]
#[error("{path}: {source}{}", advice(.source))]
pub struct MetricsError {
    path: PathBuf,
    source: io::Error,
}

/// The open log.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the log of a run that has done `step` steps: later lines, and a line that was never finished, are cut off.
    ///
    /// # Errors
    /// The path and what the system said.
    pub fn open(path: &Path, step: u64) -> Result<Self, MetricsError> {
        let io = |source| MetricsError { path: path.into(), source };
        let kept = if path.exists() { length_of(path, step).map_err(io)? } else { 0 };
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(io)?;
        file.set_len(kept).map_err(io)?;
        Ok(Self { path: path.into(), file })
    }

    /// Appends a line: `record` has a field `step`.
    ///
    /// # Errors
    /// The path and what the system said.
    pub fn write(&mut self, record: &impl Serialize) -> Result<(), MetricsError> {
        let mut line = serde_json::to_vec(record).expect("a record is JSON");
        line.push(b'\n');
        self.file.write_all(&line).map_err(|source| MetricsError { path: self.path.clone(), source })
    }

    /// The same log, for another thread.
    ///
    /// # Errors
    /// The path and what the system said.
    pub fn again(&self) -> Result<Self, MetricsError> {
        let file = self.file.try_clone().map_err(|source| MetricsError { path: self.path.clone(), source })?;
        Ok(Self { path: self.path.clone(), file })
    }

    /// Makes sure that all lines are on the disk.
    ///
    /// # Errors
    /// The path and what the system said.
    pub fn sync(&self) -> Result<(), MetricsError> {
        self.file.sync_all().map_err(|source| MetricsError { path: self.path.clone(), source })
    }
}

/// Bytes of the whole lines up to `step`.
fn length_of(path: &Path, step: u64) -> io::Result<u64> {
    #[derive(Deserialize)]
    struct Step {
        step: u64,
    }
    let mut reader = BufReader::new(File::open(path)?);
    let (mut kept, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        let whole = line.last() == Some(&b'\n');
        match serde_json::from_slice::<Step>(&line) {
            Ok(record) if whole && record.step <= step => kept += read as u64,
            _ => return Ok(kept),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record(step: u64) -> StepRecord {
        StepRecord {
            step,
            epoch: 0.5,
            loss: 1.0 / 3.0,
            scores: BTreeMap::from([("loss/itc".to_owned(), 0.1)]),
            lr: 1e-4,
            grad_norm: f64::INFINITY,
            pairs_per_s: 1.0,
            waited_s: 0.0,
            memory_gib: 1.0,
            exchange_s: None,
            sent_gib: None,
            skipped: None,
            records: vec![],
        }
    }

    fn steps(path: &Path) -> Vec<u64> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str::<StepRecord>(line).unwrap().step).collect()
    }

    #[test]
    fn a_resumed_log_has_no_step_twice_and_none_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = Metrics::open(&path, 0).unwrap();
        (1..=5).for_each(|step| log.write(&record(step)).unwrap());
        // Killed in the middle of a line, three steps after the checkpoint.
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"step\":6,\"lo").unwrap();
        let mut log = Metrics::open(&path, 2).unwrap();
        (3..=4).for_each(|step| log.write(&record(step)).unwrap());
        assert_eq!(steps(&path), [1, 2, 3, 4]);
    }

    #[test]
    fn losses_are_read_back_bit_for_bit() {
        let line = serde_json::to_string(&record(1)).unwrap();
        let back: StepRecord = serde_json::from_str(&line).unwrap();
        assert_eq!(back.loss.to_bits(), (1.0f64 / 3.0).to_bits());
        assert!(back.grad_norm.is_nan() && line.contains("\"loss/itc\":0.1"));
    }

    #[test]
    fn lines_of_older_runs_are_read() {
        let line = r#"{"step":3,"epoch":0.5,"loss":null,"itc":2.5,"lr":0.1,"grad_norm":1.0,"pairs_per_s":7.0,"waited_s":0.0,"memory_gib":1.0}"#;
        let old: StepRecord = serde_json::from_str(line).unwrap();
        assert!(old.loss.is_nan());
        assert_eq!((old.step, old.pairs_per_s, old.scores["itc"]), (3, 7.0, 2.5));
    }
}

//! Checkpoints that survive: written aside, synced, renamed, and only then pointed to.
//!
//! `RUN/checkpoints/step-00001200/` holds `model.safetensors`, `optimizer.safetensors`, whatever files the task adds, and
//! `state.json`, which is written last and lists length and checksum of all others: a folder without a valid one is not a
//! checkpoint. `RUN/checkpoints/latest` names the newest.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use simla_files::{sync_folder, write_atomically, write_synced};
use tch::Tensor;
use thiserror::Error;

use crate::tensors::{self, TensorsError};
use crate::weights::WeightsError;
use simla_files::advice;

const STATE: &str = "state.json";
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const LATEST: &str = "latest";
const BEST: &str = "best";
const UNFINISHED: &str = ".unfinished-";

/// The readable part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimiser steps done; the next step of the run has this number, counted from 0. Order of the data and all randomness
    /// are functions of it and the seed.
    pub step: u64,
    /// Epochs done, as a fraction.
    pub epoch: f64,
    /// Optimiser steps of an epoch.
    pub steps_per_epoch: u64,
    /// Of the run: order and every random choice follow from it and the step.
    pub seed: u64,
    /// The best score so far, where there was one.
    pub best: Option<f64>,
    /// Which task wrote it.
    pub task: String,
    /// The task's configuration: what is needed to build the model again.
    pub config: Value,
    /// Version of the program.
    pub version: String,
    /// Name to length and checksum of the other files.
    files: BTreeMap<String, Digest>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Digest {
    bytes: u64,
    blake3: String,
}

/// Why a checkpoint could not be written or used.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum CheckpointError {
    #[error("{path}: {source}{}", advice(.source))]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}: no checkpoint in here (expected a run's folder, or a checkpoint with state.json)")]
    None(PathBuf),
    #[error("{path}: incomplete checkpoint: {reason}{}", previous(.path))]
    Incomplete { path: PathBuf, reason: String },
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    #[error("{path}: {source}{}", previous(.path))]
    Weights { path: PathBuf, source: WeightsError },
}

fn previous(path: &Path) -> String {
    let older = path.parent().and_then(|folder| finished(folder).ok()).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match older.into_iter().rev().find(|other| other.as_str() < &*name) {
        Some(other) => {
            format!("; the one before it is {} (--allow-older goes back to it)", path.with_file_name(other).display())
        }
        None => String::new(),
    }
}

/// What goes into a checkpoint.
#[derive(Debug)]
pub struct Contents {
    /// Optimiser steps done.
    pub step: u64,
    /// Epochs done, as a fraction.
    pub epoch: f64,
    /// Optimiser steps of an epoch.
    pub steps_per_epoch: u64,
    /// Of the run.
    pub seed: u64,
    /// The best score so far, where there was one.
    pub best: Option<f64>,
    /// Which task writes it.
    pub task: String,
    /// The task's configuration.
    pub config: Value,
    /// The task's tensors by their names: weights, their average, queues.
    pub model: BTreeMap<String, Tensor>,
    /// The optimiser's tensors: moments and the number of steps.
    pub optimizer: BTreeMap<String, Tensor>,
    /// Small files of the task: name and bytes.
    pub extra: BTreeMap<String, Vec<u8>>,
}

/// The folder of a run's checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// In `run`, keeping the newest `keep` and the best.
    ///
    /// # Errors
    /// If the folder cannot be made, or what an interrupted run left there cannot be removed.
    pub fn open(run: &Path, keep: usize) -> Result<Self, CheckpointError> {
        let folder = run.join("checkpoints");
        let io = |source| CheckpointError::Io { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(io)?;
        for name in names(&folder).map_err(io)? {
            if name.starts_with(UNFINISHED) {
                fs::remove_dir_all(folder.join(name)).map_err(io)?;
            }
        }
        Ok(Self { folder, keep })
    }

    /// Writes a checkpoint; `best` marks it as the one to keep. Returns its folder.
    ///
    /// # Errors
    /// What the system said; the checkpoints before are whole then.
    pub fn save(&self, contents: Contents, best: bool) -> Result<PathBuf, CheckpointError> {
        let name = format!("step-{:08}", contents.step);
        let (aside, place) = (self.folder.join(format!("{UNFINISHED}{name}")), self.folder.join(&name));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| CheckpointError::Io { path, source }
        };
        let write = || -> Result<(), CheckpointError> {
            fs::create_dir_all(&aside).map_err(io(&aside))?;
            tensors::write(&aside.join(MODEL), contents.model)?;
            tensors::write(&aside.join(OPTIMIZER), contents.optimizer)?;
            for (name, bytes) in &contents.extra {
                write_synced(&aside.join(name), bytes).map_err(io(&aside.join(name)))?;
            }
            let mut files = BTreeMap::new();
            for name in names(&aside).map_err(io(&aside))? {
                let path = aside.join(&name);
                files.insert(name, digest(&path).map_err(io(&path))?);
            }
            let state = State {
                step: contents.step,
                epoch: contents.epoch,
                steps_per_epoch: contents.steps_per_epoch,
                seed: contents.seed,
                best: contents.best,
                task: contents.task,
                config: contents.config,
                version: env!("CARGO_PKG_VERSION").into(),
                files,
            };
            let json = serde_json::to_vec_pretty(&state).expect("a state is JSON");
            write_synced(&aside.join(STATE), &json).map_err(io(&aside))?;
            sync_folder(&aside).map_err(io(&aside))
        };
        if let Err(error) = write() {
            // Best effort: what is left is swept away at the next start.
            let _ = fs::remove_dir_all(&aside);
            return Err(error);
        }
        if place.exists() {
            fs::remove_dir_all(&place).map_err(io(&place))?;
        }
        fs::rename(&aside, &place).map_err(io(&place))?;
        sync_folder(&self.folder).map_err(io(&self.folder))?;
        for pointer in [Some(LATEST), best.then_some(BEST)].into_iter().flatten() {
            let path = self.folder.join(pointer);
            write_atomically(&path, name.as_bytes()).map_err(io(&path))?;
        }
        self.sweep(&name).map_err(io(&self.folder))?;
        Ok(place)
    }

    /// Removes all but the newest up to `latest`, and the best. What is newer than `latest` is from before the run went back to
    /// an older checkpoint.
    fn sweep(&self, latest: &str) -> io::Result<()> {
        let best = pointed(&self.folder, BEST);
        let (kept, overtaken): (Vec<_>, Vec<_>) =
            finished(&self.folder)?.into_iter().partition(|name| name.as_str() <= latest);
        let old = &kept[..kept.len().saturating_sub(self.keep)];
        let old = old.iter().filter(|name| best.as_ref() != Some(name));
        for name in old.chain(&overtaken) {
            fs::remove_dir_all(self.folder.join(name))?;
        }
        Ok(())
    }
}

/// A checkpoint on disk, whole as far as lengths tell.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// What its `state.json` says.
    pub state: State,
}

impl Checkpoint {
    /// The checkpoint at `path`: a run's folder (its latest), or a checkpoint's own. A run that was killed before it could point
    /// to its first checkpoint has that one.
    ///
    /// # Errors
    /// If there is none, or it is incomplete: with what is missing, and the one before it.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let folder = path.join("checkpoints");
        let latest = pointed(&folder, LATEST).or_else(|| finished(&folder).unwrap_or_default().pop());
        let path = match latest {
            Some(name) => folder.join(name),
            None if path.join(STATE).exists() => path.to_owned(),
            None => return Err(CheckpointError::None(path.into())),
        };
        Self::read(path)
    }

    /// The newest checkpoint of a run that is whole and `usable`, however far back.
    ///
    /// # Errors
    /// If there is none.
    pub fn newest(run: &Path, usable: impl FnMut(&Self) -> bool) -> Result<Self, CheckpointError> {
        let folder = run.join("checkpoints");
        let names = finished(&folder).map_err(|source| CheckpointError::Io { path: folder.clone(), source })?;
        let whole = |name: &String| Self::read(folder.join(name)).and_then(|found| found.verify().map(|()| found)).ok();
        names.iter().rev().filter_map(whole).find(usable).ok_or_else(|| CheckpointError::None(run.into()))
    }

    fn read(path: PathBuf) -> Result<Self, CheckpointError> {
        let incomplete = |reason: String| CheckpointError::Incomplete { path: path.clone(), reason };
        let bytes = fs::read(path.join(STATE)).map_err(|e| incomplete(format!("{STATE}: {e}")))?;
        let state: State = serde_json::from_slice(&bytes).map_err(|e| incomplete(format!("{STATE}: {e}")))?;
        for (name, expected) in &state.files {
            let found = fs::metadata(path.join(name)).map_err(|e| incomplete(format!("{name}: {e}")))?.len();
            if found != expected.bytes {
                return Err(incomplete(format!("{name} has {found} bytes, expected {}", expected.bytes)));
            }
        }
        Ok(Self { path, state })
    }

    /// The files that it is read from.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.files.keys().map(String::as_str).chain([STATE]).map(|name| self.path.join(name)).collect()
    }

    /// Compares every file with its checksum.
    ///
    /// # Errors
    /// The first file that has changed since it was written.
    pub fn verify(&self) -> Result<(), CheckpointError> {
        for (name, expected) in &self.state.files {
            let path = self.path.join(name);
            let found = digest(&path).map_err(|source| CheckpointError::Io { path: path.clone(), source })?;
            if found != *expected {
                let reason = format!("{name} has changed since it was written (its checksum differs)");
                return Err(CheckpointError::Incomplete { path: self.path.clone(), reason });
            }
        }
        Ok(())
    }

    /// Checksum of the model's file: two models with the same are the same.
    pub fn fingerprint(&self) -> &str {
        self.state.files.get(MODEL).map_or("", |file| &file.blake3)
    }

    /// Weights, momentum model and queues.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn model(&self) -> Result<BTreeMap<String, Tensor>, CheckpointError> {
        self.model_where(|_| true)
    }

    /// Those tensors of the model whose names are `wanted`.
    ///
    /// # Errors
    /// As [`Checkpoint::model`].
    pub fn model_where(&self, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Tensor>, CheckpointError> {
        Ok(tensors::read(&self.path.join(MODEL), wanted)?)
    }

    /// The optimiser's moments.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn optimizer(&self) -> Result<BTreeMap<String, Tensor>, CheckpointError> {
        Ok(tensors::read(&self.path.join(OPTIMIZER), |_| true)?)
    }

    /// One of the task's small files.
    pub fn extra(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Names this checkpoint in what is wrong with its tensors.
    pub fn blame(&self, source: WeightsError) -> CheckpointError {
        CheckpointError::Weights { path: self.path.clone(), source }
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Names of the checkpoints in a folder, oldest first.
fn finished(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = names(folder)?;
    names.retain(|name| name.starts_with("step-"));
    names.sort();
    Ok(names)
}

fn pointed(folder: &Path, pointer: &str) -> Option<String> {
    let name = fs::read_to_string(folder.join(pointer)).ok()?;
    // A name, not a path: the file may come from a stranger.
    (name.starts_with("step-") && !name.contains(['/', '\\'])).then_some(name)
}

fn digest(path: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap(path)?;
    Ok(Digest { bytes: fs::metadata(path)?.len(), blake3: hasher.finalize().to_hex().to_string() })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn contents(step: u64) -> Contents {
        let tensors =
            |value: f64| BTreeMap::from([("a".to_owned(), Tensor::full([3], value, (Kind::Float, Device::Cpu)))]);
        Contents {
            step,
            epoch: 0.5,
            steps_per_epoch: 10,
            seed: 7,
            best: None,
            task: "test".into(),
            config: Value::Null,
            model: tensors(step as f64),
            optimizer: tensors(0.0),
            extra: BTreeMap::from([("words.txt".to_owned(), b"a b".to_vec())]),
        }
    }

    #[test]
    fn keeps_the_newest_and_the_best() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(run.path(), 2).unwrap();
        for step in 1..=5 {
            checkpoints.save(contents(step), step == 2).unwrap();
        }
        assert_eq!(
            finished(&run.path().join("checkpoints")).unwrap(),
            ["step-00000002", "step-00000004", "step-00000005"]
        );
        let latest = Checkpoint::open(run.path()).unwrap();
        assert_eq!(latest.state.step, 5);
        assert_eq!(latest.model().unwrap()["a"].double_value(&[1]), 5.0);
        assert_eq!(fs::read_to_string(latest.extra("words.txt")).unwrap(), "a b");
        latest.verify().unwrap();
    }

    #[test]
    fn damage_is_found_and_the_one_before_is_named() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(run.path(), 5).unwrap();
        checkpoints.save(contents(1), false).unwrap();
        let newest = checkpoints.save(contents(2), false).unwrap();

        let model = newest.join(MODEL);
        let whole = fs::read(&model).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&model, &flipped).unwrap();
        let error = Checkpoint::open(run.path()).unwrap().verify().unwrap_err().to_string();
        assert!(error.contains(MODEL) && error.contains("checksum") && error.contains("step-00000001"), "{error}");

        fs::write(&model, &whole[..whole.len() - 1]).unwrap();
        let error = Checkpoint::open(run.path()).unwrap_err().to_string();
        assert!(error.contains("bytes, expected"), "{error}");
        let whole = Checkpoint::newest(run.path(), |_| true).unwrap();
        assert_eq!(whole.state.step, 1);
        assert!(Checkpoint::newest(run.path(), |_| false).is_err());

        fs::remove_file(newest.join(STATE)).unwrap();
        assert!(Checkpoint::open(run.path()).unwrap_err().to_string().contains(STATE));
    }

    #[test]
    fn a_run_that_goes_back_overtakes_what_was_newer() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join("checkpoints");
        let checkpoints = Checkpoints::open(run.path(), 1).unwrap();
        checkpoints.save(contents(4), false).unwrap();
        // Killed between renaming step 8 and pointing to it: the run goes on from step 4.
        fs::rename(folder.join("step-00000004"), folder.join("step-00000008")).unwrap();
        checkpoints.save(contents(4), false).unwrap();
        checkpoints.save(contents(6), false).unwrap();
        assert_eq!(finished(&folder).unwrap(), ["step-00000006"]);
        assert_eq!(Checkpoint::open(run.path()).unwrap().state.step, 6);
    }

    #[test]
    fn a_first_checkpoint_is_found_before_it_is_pointed_to() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(run.path(), 1).unwrap();
        checkpoints.save(contents(4), false).unwrap();
        fs::remove_file(run.path().join("checkpoints").join(LATEST)).unwrap();
        assert_eq!(Checkpoint::open(run.path()).unwrap().state.step, 4);
    }

    #[test]
    fn what_an_interrupted_save_left_is_swept_away() {
        let run = tempfile::tempdir().unwrap();
        let left = run.path().join("checkpoints").join(format!("{UNFINISHED}step-00000009"));
        fs::create_dir_all(&left).unwrap();
        Checkpoints::open(run.path(), 1).unwrap();
        assert!(!left.exists());
        assert!(matches!(Checkpoint::open(run.path()), Err(CheckpointError::None(_))));
    }
}

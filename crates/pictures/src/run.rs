//! What a run leaves in its folder, read with limits: anything in it may be missing, half-written
//! or of a stranger's making.

use crate::canvas::save_bytes;
use crate::error::PicturesError;
use crate::metrics::Metrics;
use crate::samples::SampleSet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest text file that is shown in whole, in bytes.
pub const MAX_TEXT: u64 = 1 << 20;
/// Largest picture that is shown, in bytes.
pub const MAX_PICTURE: u64 = 8 << 20;
/// Most pictures without a step (summaries) and most with one (periodic samples).
pub const MAX_PICTURES: usize = 12;
/// Most rows of evaluations: the newest.
pub const MAX_EVALUATIONS: usize = 50;
/// Most files in `samples/` whose names are looked at, and that are opened: the last by name.
const MAX_NAMES: usize = 100_000;
const MAX_SETS: usize = 2000;
/// Most bad records that are named.
pub const MAX_BAD_RECORDS: usize = 100;

/// A run that is said to go on but has not reported for this long seems dead.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// The folder that was the `--output` of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No status was written.
    #[default]
    Unknown,
    /// It goes on.
    Running,
    /// It was stopped and can be resumed.
    Stopped,
    /// It came to its end.
    Finished,
    /// It ended with an error.
    Failed,
}

/// `status.json`: how a run stands, written by it from time to time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Whether it goes on.
    pub state: State,
    /// Steps done.
    pub step: u64,
    /// Steps in all; 0: not known.
    pub steps: u64,
    /// Time left in seconds, where it can be said.
    pub seconds_left: Option<f64>,
    /// Training speed.
    pub pairs_per_s: Option<f64>,
    /// Name of the last checkpoint.
    pub checkpoint: Option<String>,
    /// Why it stopped or failed. Empty: nothing to say.
    pub message: String,
    /// Records that could not be used, in all.
    pub bad_records: u64,
    /// The first few of them: file, record and reason.
    pub first_bad_records: Vec<String>,
    /// Seconds since 1970 when this was written.
    pub updated: u64,
}

impl Status {
    /// Writes `status.json` into a run's folder, whole or not at all; `updated` is set to now.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), PicturesError> {
        let status = Self { updated: seconds(SystemTime::now()), ..self.clone() };
        let text = serde_json::to_vec_pretty(&status).expect("plain words and numbers are JSON");
        save_bytes(&text, &folder.join("status.json"))
    }

    /// The run says that it goes on but has been silent for long: it was killed, say.
    pub fn silent(&self, now: SystemTime) -> bool {
        let age = seconds(now).saturating_sub(self.updated);
        self.state == State::Running && age > SILENCE.as_secs()
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A picture of `samples/` with what its file says.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplePicture {
    /// File name without its ending.
    pub name: String,
    /// The PNG file's bytes; None: too large to show.
    pub png: Option<Vec<u8>>,
    /// What the model says, from the JSON file of the same name.
    pub set: SampleSet,
}

/// A row of `evaluation.jsonl`: numbers by name, and words that say what was evaluated.
pub type EvaluationRow = Map<String, Value>;

impl RunFolder {
    /// Opens a run's folder.
    ///
    /// # Errors
    /// When it is not there, or nothing in it is a run's.
    pub fn open(path: &Path) -> Result<Self, PicturesError> {
        fs::read_dir(path).map_err(PicturesError::read(path))?;
        let has = |name: &str| path.join(name).is_file();
        if has("metrics.jsonl") || has("config.toml") {
            let path = path.to_path_buf();
            Ok(Self { path })
        } else {
            let path = path.to_path_buf();
            Err(PicturesError::NotARun { path })
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's own name.
    pub fn name(&self) -> String {
        let absolute = self.path.canonicalize();
        let absolute = absolute.as_deref().unwrap_or(&self.path);
        let name = absolute.file_name().unwrap_or(absolute.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// `config.toml`, the resolved settings, as text; None: there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn configuration(&self) -> Result<Option<String>, PicturesError> {
        let bytes = read_some(&self.path.join("config.toml"), MAX_TEXT)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The curves in `metrics.jsonl`.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn metrics(&self) -> Result<Metrics, PicturesError> {
        Metrics::read(&self.path.join("metrics.jsonl"))
    }

    /// How the run stands; a missing or broken `status.json` counts as unknown.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn status(&self) -> Result<Status, PicturesError> {
        let bytes = read_some(&self.path.join("status.json"), MAX_TEXT)?;
        let status = bytes.and_then(|bytes| serde_json::from_slice::<Status>(&bytes).ok());
        let mut status = status.unwrap_or_default();
        status.first_bad_records.truncate(MAX_BAD_RECORDS);
        Ok(status)
    }

    /// The newest rows of `evaluation.jsonl`, oldest first; lines that are no object are passed.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn evaluations(&self) -> Result<Vec<EvaluationRow>, PicturesError> {
        let bytes = read_some(&self.path.join("evaluation.jsonl"), MAX_TEXT)?;
        let text = bytes.unwrap_or_default();
        let rows = text.split(|byte| *byte == b'\n');
        let rows: Vec<_> = rows.filter_map(|row| serde_json::from_slice(row).ok()).collect();
        Ok(rows[rows.len().saturating_sub(MAX_EVALUATIONS)..].to_vec())
    }

    /// The curves in `evaluation.jsonl`, by step.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn evaluation_curves(&self) -> Result<Metrics, PicturesError> {
        Metrics::read(&self.path.join("evaluation.jsonl"))
    }

    /// Pictures of `samples/`: first those of the run as a whole, then the periodic ones, newest
    /// first, with the very first to compare.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn samples(&self) -> Result<Vec<SamplePicture>, PicturesError> {
        let folder = self.path.join("samples");
        let mut names: Vec<String> = match fs::read_dir(&folder) {
            Ok(entries) => entries
                .take(MAX_NAMES)
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .filter_map(|name| name.strip_suffix(".png").map(str::to_string))
                .filter(|name| !name.starts_with('.'))
                .collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(PicturesError::read(&folder)(error)),
        };
        names.sort();
        names.drain(..names.len().saturating_sub(MAX_SETS));
        let mut sets = Vec::with_capacity(names.len());
        for name in names {
            let text = read_some(&folder.join(format!("{name}.json")), MAX_TEXT)?;
            let set: Option<SampleSet> = text.and_then(|text| serde_json::from_slice(&text).ok());
            sets.push((name, set.unwrap_or_default()));
        }
        let (mut periodic, mut summaries): (Vec<_>, Vec<_>) = sets.into_iter().partition(|(_, set)| set.step.is_some());
        periodic.sort_by_key(|(_, set)| std::cmp::Reverse(set.step));
        if periodic.len() > MAX_PICTURES {
            periodic.drain(MAX_PICTURES - 1..periodic.len() - 1);
        }
        summaries.truncate(MAX_PICTURES);
        let chosen = summaries.into_iter().chain(periodic);
        chosen
            .map(|(name, set)| {
                let path = folder.join(format!("{name}.png"));
                let size = fs::metadata(&path).map_err(PicturesError::read(&path))?;
                let shown = size.is_file() && size.len() <= MAX_PICTURE;
                let png = if shown { read_some(&path, MAX_PICTURE)? } else { None };
                Ok(SamplePicture { name, png, set })
            })
            .collect()
    }
}

/// Reads the end of a file, at most `limit` bytes; None: there is no such file.
fn read_some(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, PicturesError> {
    let read = || {
        use std::io::{Seek, SeekFrom};
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if std::io::Error::kind(&error) == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PicturesError::read(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::{blank, png_bytes};

    fn run(files: &[(&str, &[u8])]) -> (tempfile::TempDir, RunFolder) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("samples")).unwrap();
        fs::write(folder.path().join("config.toml"), "steps = 10").unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let run = RunFolder::open(folder.path()).unwrap();
        (folder, run)
    }

    #[test]
    fn only_a_run_is_a_run_folder() {
        let empty = tempfile::tempdir().unwrap();
        let error = RunFolder::open(empty.path()).unwrap_err().to_string();
        assert!(error.contains("is not a run folder") && error.contains("--output"));
        let missing = RunFolder::open(&empty.path().join("none")).unwrap_err();
        assert!(missing.to_string().starts_with("cannot read"));
    }

    #[test]
    fn status_survives_its_file_and_broken_ones_are_unknown() {
        let (folder, run) = run(&[]);
        assert_eq!(run.status().unwrap(), Status::default());
        let status = Status { state: State::Running, step: 7, steps: 10, ..Status::default() };
        status.save(folder.path()).unwrap();
        let read = run.status().unwrap();
        assert_eq!((read.state, read.step), (State::Running, 7));
        let now = SystemTime::now();
        assert!(!read.silent(now) && read.silent(now + SILENCE + SILENCE));
        fs::write(folder.path().join("status.json"), "{\"state\":").unwrap();
        assert_eq!(run.status().unwrap(), Status::default());
    }

    #[test]
    fn evaluations_are_the_newest_rows() {
        let rows: String = (0..90).map(|n| format!("{{\"step\":{n}}}\n")).collect();
        let (_folder, run) = run(&[("evaluation.jsonl", (rows + "{\"st").as_bytes())]);
        let rows = run.evaluations().unwrap();
        assert_eq!(rows.len(), MAX_EVALUATIONS);
        assert_eq!(rows[MAX_EVALUATIONS - 1]["step"], 89);
    }

    #[test]
    fn samples_are_summaries_then_the_newest_and_the_first() {
        let png = png_bytes(&blank(2, 2));
        let (folder, run) = run(&[("samples/grounding.png", &png), ("samples/broken.json", b"x")]);
        for step in 1..=30 {
            let set = SampleSet { step: Some(step), ..SampleSet::default() };
            let samples = folder.path().join("samples");
            set.save(&samples, &format!("step-{step:06}"), &blank(1, 1)).unwrap();
        }
        let large = File::create(folder.path().join("samples/large.png")).unwrap();
        large.set_len(MAX_PICTURE + 1).unwrap();

        let samples = run.samples().unwrap();
        let steps: Vec<_> = samples.iter().map(|sample| sample.set.step).collect();
        assert_eq!(samples[0].name, "grounding");
        assert_eq!(samples[0].png.as_ref(), Some(&png));
        assert_eq!((samples[1].name.as_str(), &samples[1].png), ("large", &None));
        assert_eq!(steps[2..5], [Some(30), Some(29), Some(28)]);
        assert_eq!((steps.len(), *steps.last().unwrap()), (2 + MAX_PICTURES, Some(1)));
    }
}

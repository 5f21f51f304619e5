//! Runs of the program on drawn scenes, for its tests.
#![allow(dead_code)] // each test takes what it needs

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tempfile::TempDir;

/// A model that trains in seconds.
pub const MICRO: &[&str] = &[
    "image_size=32",
    "vision_width=32",
    "vision_depth=2",
    "vision_heads=2",
    "text_width=32",
    "text_depth=2",
    "text_heads=2",
    "text_mlp=64",
    "embed_dim=16",
    "visual_vocab=32",
    "queue_size=40",
    "batch_size=8",
    "vocab_size=200",
    "dvae_steps=4",
    "dvae_batch_size=8",
    "dvae_width=4",
    "workers=2",
];

/// Drawn scenes, written once for a test.
pub struct Scenes {
    folder: TempDir,
    pub train: PathBuf,
    pub test: PathBuf,
}

impl Scenes {
    pub fn new() -> Self {
        // Checkpoints are synced: in memory, where there is such a folder, that takes no time.
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let folder = folder.unwrap();
        let files = simla_scenes::write(&folder.path().join("scenes"), 48, 12, 5, 32, |_| ()).unwrap();
        Self { train: files.train, test: files.test, folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn pretrain(&self, output: &str, more: &[&str]) -> Output {
        pretraining(&self.train, &self.path(output), more).output().unwrap()
    }
}

/// `simla pretrain` of a micro model.
pub fn pretraining(data: &Path, output: &Path, more: &[&str]) -> Command {
    let mut command = simla();
    command.arg("pretrain").arg("--data").arg(data);
    command.arg("--output").arg(output);
    for setting in MICRO {
        command.args(["--set", setting]);
    }
    command.args(more);
    command
}

/// Longest that a test waits for something to happen.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until it has, and fails where it does not.
#[track_caller]
pub fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "{what} does not happen");
        sleep(Duration::from_millis(5));
    }
}

/// The program, on one thread: tests run side by side.
pub fn simla() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simla"));
    command.env("OMP_NUM_THREADS", "1");
    command
}

/// The program with these arguments, to its end.
pub fn output_of(arguments: &[&str]) -> Output {
    simla().args(arguments).output().unwrap()
}

/// What a command that has to succeed printed.
#[track_caller]
pub fn printed(arguments: &[&str]) -> String {
    let output = output_of(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// It ended well.
#[track_caller]
pub fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

/// A copy of a folder with all that is in it, at `to`, which may be there.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        match file.file_type().unwrap().is_dir() {
            true => copy(&file.path(), &target),
            false => drop(fs::copy(file.path(), target).unwrap()),
        }
    }
}

/// What it was refused with, from the line of the error on; it must have been, and without a panic.
#[track_caller]
pub fn refusal(output: &Output) -> String {
    let said = said(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for defect in ["panicked", "defect"] {
        assert!(!said.contains(defect), "{said}");
    }
    let error: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("error: ")).collect();
    assert!(!error.is_empty(), "no line of error in: {said}");
    error.join("\n")
}

/// It was refused with all these words.
#[track_caller]
pub fn assert_refused(output: &Output, words: &[&str]) {
    let error = refusal(output);
    for word in words {
        assert!(error.contains(word), "{word} in: {error}");
    }
}

/// Says what was not tried, and why, also where a test that passes is not heard.
pub fn left_out(what: &str) {
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {what}");
}

/// What it said for people to read.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The lines of a run's metrics.jsonl, numbers by their names without the group: `itc` is `loss/itc`, and `loss` is `loss/total`.
pub fn metrics(run: &Path) -> Vec<Value> {
    let short = |(name, value): (String, Value)| match name.split_once('/') {
        Some(("loss", "total")) => ("loss".to_owned(), value),
        Some((_, short)) => (short.to_owned(), value),
        None => (name, value),
    };
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |line| serde_json::from_str::<Map<String, Value>>(line).unwrap();
    text.lines().map(|text| Value::Object(line(text).into_iter().map(short).collect())).collect()
}

/// What a run computed: its log without what a clock or the system says.
pub fn computed(run: &Path) -> Vec<Value> {
    let mut rows = metrics(run);
    for row in &mut rows {
        for measured in ["pairs_per_s", "waited_s", "memory_gib"] {
            row.as_object_mut().unwrap().remove(measured).unwrap();
        }
    }
    rows
}

/// Steps in its log so far.
pub fn lines(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

/// The text of a file that is there.
#[track_caller]
pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

//! Nothing is lost: runs that are killed, stopped, damaged, poisoned or starved.
//!
//! The soak runs for minutes and is asked for: `cargo test --test cli survival:: -- --ignored --nocapture`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use rand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{
    MICRO, Scenes, assert_done, computed, lines, metrics, pretraining, refusal, said, simla, wait_until,
};

/// Exit status of a run that was asked to stop, and of one that was asked twice.
const STOPPED: i32 = 75;
const INTERRUPTED: i32 = 130;

fn resuming(run: &Path, more: &[&str]) -> Command {
    let mut command = simla();
    command.args(["pretrain", "--resume"]).arg(run).args(more);
    command
}

fn resume(run: &Path, more: &[&str]) -> Output {
    resuming(run, more).output().unwrap()
}

fn quietly(mut command: Command) -> Child {
    command.stderr(Stdio::null()).spawn().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn latest(run: &Path) -> String {
    fs::read_to_string(run.join("checkpoints/latest")).unwrap()
}

fn checkpoints(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("step-")).collect();
    names.sort();
    names
}

fn state(run: &Path, checkpoint: &str) -> Value {
    let path = run.join("checkpoints").join(checkpoint).join("state.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Refused with one line that holds all these words.
#[track_caller]
fn assert_refused(output: &Output, words: &[&str]) {
    let error = refusal(output);
    let line = error.lines().next().unwrap_or_default();
    for word in words {
        assert!(line.contains(word), "{word} in: {line}");
    }
}

/// Kills of a run by `kill_now_and_then`.
const KILLS: usize = 7;

/// Starts or goes on with `run` by `again`, which lasts `duration`, kills it every time, and has it come to its end at last.
/// Gives when it was killed, for messages.
fn kill_now_and_then(run: &Path, duration: Duration, again: impl Fn() -> Command) -> String {
    let mut moments = Vec::new();
    let mut hits = 0;
    let mut rng = rand::rng();
    for _ in 0..KILLS {
        // Some steps and a moment later, whatever the machine does besides: none of them is set-up, the moment any part of a step.
        let (steps, moment) = (rng.random_range(0..5), duration.mul_f64(rng.random_range(0.0..0.05)));
        moments.push((steps, moment));
        let wanted = lines(run) + steps;
        let mut child = quietly(again());
        wait_until("the next step", || lines(run) >= wanted || child.try_wait().unwrap().is_some());
        sleep(moment);
        child.kill().unwrap();
        hits += usize::from(child.wait().unwrap().code().is_none());
    }
    let moments = format!("killed after {moments:?}");
    let last = again().output().unwrap();
    assert!(last.status.success(), "{}, {moments}", said(&last));
    assert!(hits >= 2, "{hits} of {KILLS} kills came before the end: {moments}");
    moments
}

/// The runs did the same `steps`, and wrote the same `files`.
fn assert_same(whole: &Path, killed: &Path, steps: usize, files: &[&str], moments: &str) {
    let (rows, expected) = (computed(killed), computed(whole));
    assert_eq!((rows.len(), expected.len()), (steps, steps), "{moments}");
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row, expected, "{moments}");
    }
    for name in files {
        let read = |run: &Path| fs::read(run.join(name)).unwrap();
        assert!(read(whole) == read(killed), "{name} differs, {moments}");
    }
    assert_eq!(checkpoints(whole), checkpoints(killed));
}

#[test]
fn killed_at_any_moment_a_run_computes_what_it_would_have() {
    let scenes = Scenes::new();
    let test = scenes.test.display().to_string();
    // A checkpoint a step: many a kill falls into its writing. An epoch has six steps: alpha rises, epochs begin.
    let mut more = vec!["--eval-data", &test];
    for setting in ["steps=40", "save_every_steps=1", "eval_every_steps=15", "dropout=0.1", "keep=2"] {
        more.extend(["--set", setting]);
    }
    let start = Instant::now();
    assert_done(&scenes.pretrain("whole", &more));
    let duration = start.elapsed();

    let (whole, killed) = (scenes.path("whole"), scenes.path("killed"));
    let again = || match killed.join("run.json").exists() {
        true => resuming(&killed, &[]),
        false => pretraining(&scenes.train, &killed, &more),
    };
    let moments = kill_now_and_then(&killed, duration, again);
    let files = [
        "evaluation.jsonl",
        "checkpoints/latest",
        "checkpoints/step-00000040/model.safetensors",
        "checkpoints/step-00000040/optimizer.safetensors",
    ];
    assert_same(&whole, &killed, 40, &files, &moments);
}

#[test]
fn a_tokenizer_that_is_killed_learns_what_it_would_have() {
    // With codes that die and begin anew at steps 50 and 100, and a look at held-out pictures on the way.
    const STEPS: usize = 130;
    let scenes = Scenes::new();
    let training = |output: &Path| {
        let mut command = simla();
        command.args(["dvae", "train", "--data"]).arg(&scenes.train);
        command.arg("--eval-data").arg(&scenes.test);
        command.arg("--output").arg(output);
        let steps = format!("dvae_steps={STEPS}");
        let own = [steps.as_str(), "visual_vocab=512", "save_every_steps=3", "eval_every_steps=40", "keep=2"];
        for setting in MICRO.iter().chain(&own) {
            command.args(["--set", setting]);
        }
        command
    };
    let (whole, killed) = (scenes.path("whole"), scenes.path("killed"));
    let start = Instant::now();
    assert_done(&training(&whole).output().unwrap());
    let moments = kill_now_and_then(&killed, start.elapsed(), || training(&killed));
    let files = ["checkpoints/latest", "checkpoints/step-00000130/model.safetensors", "samples/step-00000080.png"];
    assert_same(&whole, &killed, STEPS, &files, &moments);
}

#[test]
fn a_signal_finishes_the_step_saves_and_exits_with_its_own_status() {
    let scenes = Scenes::new();
    let run = scenes.path("run");
    let more = ["--set", "steps=100000"];
    let mut command = pretraining(&scenes.train, &run, &more);
    let mut stopped_at = 0;
    for asked in [Signal::INT, Signal::TERM] {
        let mut child = quietly(command);
        wait_until("a step", || lines(&run) > stopped_at);
        signal(&child, asked);
        assert_eq!(child.wait().unwrap().code(), Some(STOPPED));
        let saved = state(&run, &latest(&run));
        stopped_at = lines(&run);
        assert_eq!(saved["step"], stopped_at, "every step of the log is saved");
        let status: Value = serde_json::from_slice(&fs::read(run.join("status.json")).unwrap()).unwrap();
        assert_eq!(status["state"], "stopped");
        command = resuming(&run, &[]);
    }
    let steps = format!("steps={}", stopped_at + 1);
    assert_done(&resume(&run, &["--set", &steps]));
    assert_eq!(lines(&run), stopped_at + 1);
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    let scenes = Scenes::new();
    let run = scenes.path("run");
    assert_done(&scenes.pretrain("small", &["--set", "steps=1"]));
    let dvae = scenes.path("small/dvae").display().to_string();
    // A step of seconds.
    let mut more = vec!["--dvae", &dvae];
    for setting in ["batch_size=48", "vision_depth=60", "text_depth=60"] {
        more.extend(["--set", setting]);
    }
    let mut child = quietly(pretraining(&scenes.train, &run, &more));
    wait_until("the first step's start", || run.join("status.json").exists());
    signal(&child, Signal::INT);
    sleep(Duration::from_millis(50));
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(INTERRUPTED));
    assert_eq!(lines(&run), 0, "in the middle of the first step");
}

#[test]
fn a_checkpoint_that_is_damaged_or_does_not_fit_is_refused_and_an_older_one_used_if_asked() {
    let scenes = Scenes::new();
    let run = scenes.path("run");
    let more = ["--set", "steps=4", "--set", "save_every_steps=2"];
    assert_done(&scenes.pretrain("run", &more));
    let expected = computed(&run);
    assert_eq!(checkpoints(&run), ["step-00000002", "step-00000004"]);
    let model = run.join("checkpoints/step-00000004/model.safetensors");
    let whole = fs::read(&model).unwrap();

    fs::write(&model, &whole[..whole.len() / 2]).unwrap();
    let hint = ["step-00000004", "step-00000002", "--allow-older"];
    let truncated = resume(&run, &[]);
    assert_refused(&truncated, &[&hint[..], &["model.safetensors", "bytes, expected"]].concat());
    fs::remove_file(&model).unwrap();
    assert_refused(&resume(&run, &[]), &[&hint[..], &["model.safetensors"]].concat());
    let older = resume(&run, &["--allow-older"]);
    assert_done(&older);
    assert!(said(&older).contains("going on from"), "{}", said(&older));
    assert_eq!(computed(&run), expected, "the lost steps are computed again");
    assert!(fs::read(&model).unwrap() == whole);

    // The last checkpoint is that of a wider model.
    let dvae = run.join("dvae").display().to_string();
    let wider = ["--set", "steps=1", "--set", "text_mlp=80", "--dvae", &dvae];
    assert_done(&scenes.pretrain("wider", &wider));
    fs::rename(scenes.path("wider/checkpoints/step-00000001"), run.join("checkpoints/step-00000009")).unwrap();
    fs::write(run.join("checkpoints/latest"), "step-00000009").unwrap();
    let shapes = ["step-00000009", "intermediate.dense", "[80", "[64", "step-00000004"];
    assert_refused(&resume(&run, &["--set", "steps=5"]), &shapes);
    assert_done(&resume(&run, &["--set", "steps=5", "--allow-older"]));
    assert_eq!((lines(&run), latest(&run).as_str()), (5, "step-00000005"));
}

#[test]
fn what_may_change_on_resume_does_and_the_rest_is_refused() {
    let scenes = Scenes::new();
    let run = scenes.path("run");
    let test = scenes.test.display().to_string();
    let mut more = vec!["--eval-data", &test];
    for setting in ["steps=6", "eval_every_steps=1", "keep=1"] {
        more.extend(["--set", setting]);
    }
    assert_done(&scenes.pretrain("run", &more));
    let refused = |assignment: &str, words: &[&str]| {
        assert_refused(&resume(&run, &["--set", assignment]), words);
    };
    refused("batch_size=4", &["batch_size", "4", "began with 8"]);
    refused("seed=1", &["seed", "began with 0"]);
    refused("text_mlp=96", &["text_mlp", "96", "began with 64"]);
    refused("no_such=1", &["no_such", "unknown setting"]);
    assert_done(&resume(&run, &["--set", "steps=12", "--set", "lr=0.0005"]));
    let rows = metrics(&run);
    assert_eq!(rows.len(), 12);
    assert!(rows[6..].iter().all(|row| row["lr"].as_f64().unwrap() <= 0.0005));

    // The best of all evaluations, those before the resume among them, is kept beside the newest.
    let text = fs::read_to_string(run.join("evaluation.jsonl")).unwrap();
    let of = ["txt_r1", "txt_r5", "txt_r10", "img_r1", "img_r5", "img_r10"].map(|name| format!("held_out/{name}"));
    let names = of.each_ref().map(String::as_str);
    let mut best = (0, 0.0);
    for (i, line) in text.lines().enumerate() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(row["step"], i + 1);
        let mean = names.map(|name| row[name].as_f64().unwrap()).iter().sum::<f64>() / 6.0;
        if mean > best.1 {
            best = (i + 1, mean);
        }
    }
    assert_eq!(text.lines().count(), 12);
    let best_name = format!("step-{:08}", best.0);
    let pointer = fs::read_to_string(run.join("checkpoints/best")).unwrap();
    assert_eq!(pointer, best_name, "{text}");
    let kept = state(&run, "step-00000012")["best"].as_f64().unwrap();
    assert!((kept - best.1).abs() < 1e-9, "{kept} against {best:?}");
    let mut expected = vec![best_name, "step-00000012".to_owned()];
    expected.dedup();
    assert_eq!(checkpoints(&run), expected);
}

#[test]
fn steps_that_are_no_numbers_are_skipped_counted_and_end_the_run_before_they_are_saved() {
    let scenes = Scenes::new();
    let run = scenes.path("run");
    assert_done(&scenes.pretrain("run", &["--set", "steps=2"]));
    let mut poison = Vec::new();
    for setting in ["lr=1e30", "warmup_steps=0", "steps=20", "clip_norm=0", "save_every_steps=1", "max_bad_steps=3"] {
        poison.extend(["--set", setting]);
    }
    let output = resume(&run, &poison);
    assert_refused(&output, &["3 steps in a row", "at step 6", "lr"]);
    assert!(said(&output).contains("step 4 skipped"), "{}", said(&output));
    let rows = metrics(&run);
    assert_eq!(rows.len(), 6);
    assert!(rows[..3].iter().all(|row| row["skipped"].is_null()));
    for row in &rows[3..] {
        assert!(row["skipped"].is_string() && row["loss"].is_null(), "{row}");
        assert_eq!(row["records"].as_array().unwrap().len(), 8, "{row}");
    }
    // Step 3 went well and left weights that no checkpoint should hold.
    assert_eq!(checkpoints(&run), ["step-00000002"]);
    assert_done(&resume(&run, &["--set", "lr=0.001", "--set", "steps=4"]));
    assert!(metrics(&run).iter().all(|row| row["loss"].is_number()));
}

/// The command under a shell's limits, which the system then enforces.
fn limited(limits: &str, command: &Command) -> Output {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\""));
    shell.arg(command.get_program()).args(command.get_args());
    shell.env("OMP_NUM_THREADS", "1").output().unwrap()
}

#[test]
fn a_disk_that_takes_no_more_leaves_the_last_checkpoint_whole() {
    let scenes = Scenes::new();
    let run = scenes.path("run");
    assert_done(&scenes.pretrain("run", &["--set", "steps=2"]));
    let model = run.join("checkpoints/step-00000002/model.safetensors");
    const LIMIT: u64 = 128 << 10;
    assert!(fs::metadata(&model).unwrap().len() > LIMIT, "the test's limit is above the file");
    // In blocks of 512 bytes; without the signal, a write beyond it is an error as on a full disk.
    let limits = format!("trap '' XFSZ; ulimit -f {}", LIMIT / 512);
    let output = limited(&limits, &resuming(&run, &["--set", "steps=4"]));
    assert_refused(&output, &["step-00000004", "model.safetensors", "keep=N"]);
    assert_eq!(checkpoints(&run), ["step-00000002"]);
    assert_done(&resume(&run, &[]));
    assert_eq!((lines(&run), latest(&run).as_str()), (4, "step-00000004"));
}

#[test]
fn memory_that_is_not_there_is_an_error_that_says_what_to_change() {
    let scenes = Scenes::new();
    let more = ["--set", "text_mlp=16777216", "--set", "text_depth=40"];
    let command = pretraining(&scenes.train, &scenes.path("run"), &more);
    let output = limited("ulimit -v 32000000", &command);
    assert_refused(&output, &["out of memory", "batch_size"]);
}

/// Writes and syncs until it is dropped: every sync of the run waits for these.
struct SlowDisk(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl SlowDisk {
    fn new(file: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let write = move || {
            const CHUNK: usize = 8 << 20;
            while !stopped.load(Relaxed) {
                let mut file = fs::File::create(&file).unwrap();
                file.write_all(&vec![1; CHUNK]).unwrap();
                file.sync_all().unwrap();
            }
        };
        Self(stop, Some(spawn(write)))
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

#[test]
#[ignore = "minutes"]
fn soak() {
    const STEPS: usize = 2000;
    let steps = format!("steps={STEPS}");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let scenes = simla_scenes::write(&folder.path().join("scenes"), 120, 12, 5, 32, |_| ()).unwrap();
    // One record in ten cannot be used: torn, missing, without words.
    let mut records: Vec<Value> = serde_json::from_slice(&fs::read(&scenes.train).unwrap()).unwrap();
    let torn = scenes.train.with_file_name("torn.png");
    fs::write(torn, b"\x89PNG\r\n\x1a\n").unwrap();
    for (i, record) in records.iter_mut().step_by(10).enumerate() {
        match i % 3 {
            0 => record["image"] = "torn.png".into(),
            1 => record["image"] = "nowhere.png".into(),
            _ => record["caption"] = " ".into(),
        }
    }
    fs::write(&scenes.train, Value::from(records).to_string()).unwrap();
    let test = scenes.test.display().to_string();
    let mut more = vec!["--eval-data", &test];
    for setting in [
        &steps,
        "save_every_steps=25",
        "eval_every_steps=200",
        "samples_every_steps=400",
        "keep=2",
        "dropout=0.1",
        "max_bad_share=0.15",
    ] {
        more.extend(["--set", setting]);
    }
    let [quiet, soaked] = ["quiet", "soaked"].map(|name| folder.path().join(name));
    let start = Instant::now();
    assert_done(&pretraining(&scenes.train, &quiet, &more).output().unwrap());
    let duration = start.elapsed();
    println!("undisturbed: {STEPS} steps in {:.0} s", duration.as_secs_f64());

    let slow_disk = SlowDisk::new(folder.path().join("noise"));
    let mut lives = 0;
    loop {
        let command = match soaked.join("run.json").exists() {
            true => resuming(&soaked, &[]),
            false => pretraining(&scenes.train, &soaked, &more),
        };
        let mut child = quietly(command);
        let life = duration.mul_f64(rand::rng().random_range(0.05..0.25));
        let born = Instant::now();
        let ended = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if born.elapsed() > life => break None,
                None => sleep(Duration::from_millis(20)),
            }
        };
        lives += 1;
        if let Some(status) = ended {
            assert!(status.success(), "life {lives} ended with {status}");
            break;
        }
        let sent = if lives % 4 == 0 { Signal::TERM } else { Signal::KILL };
        signal(&child, sent);
        let status = child.wait().unwrap();
        println!("life {lives}: {:.1} s, at step {}, {status}", life.as_secs_f64(), lines(&soaked));
    }
    drop(slow_disk);
    println!("life {lives}: to the end, {:.0} s in all", start.elapsed().as_secs_f64() - duration.as_secs_f64());

    assert_eq!(computed(&soaked), computed(&quiet), "nothing lost, nothing twice, every bit the same");
    let last = format!("checkpoints/step-{STEPS:08}/model.safetensors");
    assert!(fs::read(quiet.join(&last)).unwrap() == fs::read(soaked.join(&last)).unwrap());
    println!(
        "{STEPS} of {STEPS} steps have the same numbers in both runs, bit for bit, and the last weights are the same"
    );
    let memory: Vec<f64> = metrics(&quiet).iter().map(|row| row["memory_gib"].as_f64().unwrap()).collect();
    let quarters = memory.chunks(STEPS / 4).map(|quarter| mean(quarter.iter().copied())).collect::<Vec<_>>();
    println!("memory of the undisturbed run, mean of each quarter in GiB: {quarters:.4?}");
    assert!(quarters[3] < 1.03 * quarters[1], "memory grows: {quarters:?}");
    let status: Value = serde_json::from_slice(&fs::read(soaked.join("status.json")).unwrap()).unwrap();
    println!("bad records replaced: {} of 120", status["bad_records"]);
    assert_eq!(status["bad_records"], 12);
    assert_eq!(checkpoints(&soaked), checkpoints(&quiet));
}

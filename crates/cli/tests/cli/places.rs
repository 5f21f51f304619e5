//! A run's folder belongs to one process at a time, and what a run is made of may be elsewhere when it goes on.

use std::fs;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::common::{MICRO, Scenes, assert_done, assert_refused, metrics, pretraining, simla};

fn resume(run: &Path, more: &[&str]) -> Output {
    simla().args(["pretrain", "--resume"]).arg(run).args(more).output().unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Waits for the lock of a run that has begun to train.
#[track_caller]
fn begun(mut child: Child, run: &Path) -> (Child, Value) {
    while fs::read(run.join("metrics.jsonl")).unwrap_or_default().is_empty() {
        assert_eq!(child.try_wait().unwrap(), None, "it has ended");
        sleep(Duration::from_millis(10));
    }
    (child, json(&run.join("lock")))
}

#[test]
fn a_second_start_is_told_who_has_the_folder_and_a_dead_one_has_it_no_more() {
    let scenes = Scenes::new();
    let (run, dvae) = (scenes.path("run"), scenes.path("tokenizer"));
    let started = pretraining(&scenes.train, &run, &["--set", "steps=100000"]).stderr(Stdio::null()).spawn().unwrap();
    let (mut child, lock) = begun(started, &run);
    let pid = format!("process {} on", child.id());
    let who = ["in use", &pid, lock["host"].as_str().unwrap(), lock["since"].as_str().unwrap()];
    assert_refused(&resume(&run, &[]), &who);
    child.kill().unwrap();
    child.wait().unwrap();
    let trained = metrics(&run).len();
    assert!(run.join("lock").exists(), "it had no time to take it away");
    assert_done(&resume(&run, &["--set", "steps=2"]));
    assert!(!run.join("lock").exists());
    assert!(trained > 0 && metrics(&run).len() <= trained.max(2));

    let tokenizing = || {
        let mut command = simla();
        command.args(["dvae", "train", "--output"]).arg(&dvae).arg("--data").arg(&scenes.train);
        for setting in MICRO.iter().chain(&["dvae_steps=100000"]) {
            command.args(["--set", setting]);
        }
        command
    };
    let (mut child, _) = begun(tokenizing().stderr(Stdio::null()).spawn().unwrap(), &dvae);
    assert_refused(&tokenizing().output().unwrap(), &["in use", &format!("process {} on", child.id())]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_goes_on_from_another_folder_and_with_data_that_have_moved() {
    let scenes = Scenes::new();
    let root = scenes.path("scenes").parent().unwrap().to_owned();
    // Relative paths, where the run began.
    let mut command = pretraining(Path::new("scenes/train.json"), Path::new("run"), &["--set", "steps=2"]);
    command.args(["--eval-data", "scenes/test.json"]).current_dir(&root);
    assert_eq!(root.join("scenes/train.json"), scenes.train);
    assert_done(&command.output().unwrap());
    let run = root.join("run");
    let made = json(&run.join("run.json"));
    assert_eq!(made["data"][0], scenes.train.display().to_string());
    assert_eq!(made["known_by"]["data"]["records"], 48);
    let elsewhere = tempfile::tempdir().unwrap();
    let output = simla().args(["pretrain", "--set", "steps=3", "--resume"]).arg(&run).current_dir(&elsewhere).output();
    assert_done(&output.unwrap());

    // A run of an earlier version, whose paths are relative and whose records are known by nothing.
    let mut old = made.clone();
    old["data"] = "scenes/train.json".into();
    old["data"] = vec![old["data"].clone()].into();
    old["held_out"] = "scenes/test.json".into();
    old.as_object_mut().unwrap().remove("known_by");
    fs::write(run.join("run.json"), old.to_string()).unwrap();
    let output = simla().args(["pretrain", "--set", "steps=4", "--resume", "run"]).current_dir(&root).output();
    assert_done(&output.unwrap());
    assert_eq!(json(&run.join("run.json")), made);

    // All of it has moved.
    fs::create_dir(root.join("archive")).unwrap();
    fs::rename(root.join("scenes"), root.join("archive/drawn")).unwrap();
    fs::rename(run.join("dvae"), root.join("archive/dvae")).unwrap();
    let place = |name: &str| root.join("archive").join(name).display().to_string();
    let [train, test, dvae] = ["drawn/train.json", "drawn/test.json", "dvae"].map(place);
    assert_refused(&resume(&run, &["--set", "steps=5"]), &["scenes/train.json"]);
    assert_done(&resume(&run, &["--data", &train, "--eval-data", &test, "--dvae", &dvae, "--set", "steps=5"]));
    assert_eq!(metrics(&run).len(), 5);
    assert_eq!(json(&run.join("run.json"))["data"][0], train);
    assert_done(&resume(&run, &["--set", "steps=6"]));

    // Other records.
    let refused = resume(&run, &["--data", &test, "--set", "steps=7"]);
    assert_refused(&refused, &["--data", "12 records", "48"]);
    let mut records = json(Path::new(&train));
    records.as_array_mut().unwrap().swap(3, 4);
    let swapped = place("drawn/swapped.json");
    fs::write(&swapped, records.to_string()).unwrap();
    assert_refused(&resume(&run, &["--data", &swapped]), &["--data", "same pictures in the same order"]);
    // Another tokenizer.
    let settings = ["--set", "dvae_steps=5", "--set", "seed=3", "--set", "steps=1"];
    assert_done(&pretraining(Path::new(&train), &root.join("other"), &settings).output().unwrap());
    let other = root.join("other/dvae").display().to_string();
    assert_refused(&resume(&run, &["--dvae", &other]), &["--dvae", "other weights"]);
    assert_eq!(metrics(&run).len(), 6);
}

#[test]
fn the_most_pixels_of_a_picture_are_a_setting_and_an_option() {
    let scenes = Scenes::new();
    let data = scenes.train.display().to_string();
    let output = simla().args(["data", "inspect", &data, "--json", "--max-pixels", "1000"]).output().unwrap();
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen["images"]["decoded"], 0);
    assert!(seen["report"].to_string().contains("max_pixels=1000 allows: if the picture is wanted, --max-pixels N"));
    let refused = scenes.pretrain("run", &["--set", "steps=1", "--set", "max_pixels=1000"]);
    assert_refused(&refused, &["max_pixels=1000", "--set max_pixels=N"]);
    assert_done(&scenes.pretrain("again", &["--set", "steps=1", "--set", "max_pixels=1024"]));
}

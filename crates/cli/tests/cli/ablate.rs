//! The ablation of table 1 through the program: on its own, killed and continued, and side by side.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::common::{MICRO, Scenes, assert_refused, metrics, read, said, simla, wait_until};

/// Exit status of a run that was asked to stop.
const STOPPED: i32 = 75;
const ROWS: [&str; 5] = ["1-itm", "2-itc", "3-mlm", "4-mim", "5-psl"];

/// `simla ablate` of a micro model into the folder `output`.
fn ablating(scenes: &Scenes, output: &str, more: &[&str]) -> Command {
    timed(scenes, output, &[&["--set", "steps=3"], more].concat())
}

/// As long as it is told.
fn timed(scenes: &Scenes, output: &str, more: &[&str]) -> Command {
    let mut command = simla();
    command.arg("ablate").arg("--data").arg(&scenes.train);
    command.arg("--eval-data").arg(&scenes.test);
    command.arg("--output").arg(scenes.path(output));
    for setting in MICRO.iter().chain(&["save_every_steps=1", "dropout=0.1"]) {
        command.args(["--set", setting]);
    }
    command.args(more);
    command
}

/// What was printed as JSON, without what a clock or the place says.
fn numbers(printed: &[u8]) -> Value {
    let mut report: Value = serde_json::from_slice(printed).unwrap();
    for row in report["rows"].as_array_mut().unwrap() {
        for run in row["runs"].as_array_mut().unwrap() {
            run["seconds"] = json!(null);
            run["folder"] = json!(null);
            for point in run["curve"].as_array_mut().unwrap() {
                point["seconds"] = json!(null);
            }
        }
    }
    report
}

#[test]
fn every_row_is_a_run_and_the_table_is_the_same_when_killed_shared_and_continued() {
    let scenes = Scenes::new();
    let both = ["--seeds", "0,3", "--top-k", "4", "--json"];
    let whole = ablating(&scenes, "whole", &both).output().unwrap();
    assert!(whole.status.success(), "{}", said(&whole));
    let report = numbers(&whole.stdout);
    let folder = scenes.path("whole");
    for (row, name) in ROWS.iter().enumerate() {
        let runs = report["rows"][row]["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2);
        for (run, seed) in runs.iter().zip([0, 3]) {
            assert_eq!(run["seed"], seed);
            let curve = run["curve"].as_array().unwrap();
            assert_eq!(curve.len(), 3, "an evaluation every step of three");
            let folder = folder.join(format!("seed-{seed}/{name}"));
            let steps = metrics(&folder);
            let taken = ["itm", "itc", "mlm", "mim", "psl"].map(|loss| steps[2][loss].is_number());
            assert_eq!(taken, [0, 1, 2, 3, 4].map(|loss| loss <= row), "{name}");
            assert_eq!(steps[2]["codes"].is_number(), row >= 3);
            assert!(!folder.join("dvae").exists(), "all share one tokenizer");
        }
    }
    let table = read(&folder.join("ablation.md"));
    let lines: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(lines.len(), 2 + 5 + 1, "{table}");
    assert!(lines[2].contains('±') && lines[7].contains("chance"), "{table}");
    assert_eq!(numbers(read(&folder.join("ablation.json")).as_bytes()), report);
    for picture in ["ablation.png", "curves.png"] {
        let bytes = fs::read(folder.join(picture)).unwrap();
        let picture = simla_image::decode(&bytes, &simla_image::Limits::default()).unwrap();
        assert!(picture.width() > 300);
    }
    let page = simla().arg("report").arg(folder.join("seed-3/4-mim")).output().unwrap();
    assert!(page.status.success(), "{}", said(&page));

    // Stopped in its first run, killed in a later one, finished by two processes at once, then only collected.
    let again = |more: &[&str]| ablating(&scenes, "again", more);
    let quietly = |more: &[&str]| {
        let mut command = again(more);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let in_run = |file: &str| scenes.path("again/seed-0").join(file);
    let mut child = quietly(&both);
    wait_until("a step", || in_run("1-itm/metrics.jsonl").exists());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(STOPPED));
    let mut child = quietly(&both);
    let checkpoint = in_run("3-mlm/checkpoints/latest");
    wait_until("a checkpoint", || checkpoint.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let mut all = quietly(&both);
    let mut last = quietly(&["--seeds", "3", "--top-k", "4"]);
    assert!(all.wait().unwrap().success() && last.wait().unwrap().success());
    let collected = again(&both).output().unwrap();
    assert!(collected.status.success(), "{}", said(&collected));
    assert!(!said(&collected).contains("runs are done"), "nothing is left to train");
    assert_eq!(numbers(&collected.stdout), report);
}

#[test]
fn baselines_have_the_same_time() {
    let scenes = Scenes::new();
    let baselines = ["--rows", "baselines", "--seeds", "4", "--top-k", "4", "--minutes", "0.01", "--json"];
    let output = timed(&scenes, "run", &baselines).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let named: Vec<&Value> = rows.iter().map(|row| &row["name"]).collect();
    assert_eq!(named, ["contrast alone", "ALBEF", "SIMLA"]);
    assert!(report["note"].as_str().unwrap().contains("about 0.01 minutes"), "{report}");
    for (row, folder) in rows.iter().zip(["1-contrast", "2-albef", "3-simla"]) {
        let folder = scenes.path("run/seed-4").join(folder);
        let steps = metrics(&folder).len() as u64;
        let last = row["runs"][0]["curve"].as_array().unwrap().last().unwrap();
        assert_eq!(last["pairs"], 8 * steps, "batches of eight");
        assert!(read(&folder.join("config.toml")).contains(&format!("\nsteps = {steps}\n")));
        assert!(!folder.join("pace").exists());
    }
    assert!(scenes.path("run/curves-pairs.png").exists());
    let longer = timed(&scenes, "run", &["--rows", "baselines", "--minutes", "2"]).output().unwrap();
    assert_refused(&longer, &["--minutes", "0.01", "2.0", "--output"]);
    let twice = ablating(&scenes, "none", &["--minutes", "2"]).output().unwrap();
    assert_refused(&twice, &["--set steps=3", "--minutes"]);
    let none = timed(&scenes, "none", &["--minutes", "0"]).output().unwrap();
    assert!(!none.status.success() && said(&none).contains("--minutes"), "{}", said(&none));
}

#[test]
fn what_would_not_be_a_comparison_is_refused() {
    let scenes = Scenes::new();
    let refused = |more: &[&str], words: &[&str]| {
        assert_refused(&timed(&scenes, "run", more).output().unwrap(), words);
    };
    refused(&["--set", "objectives=[\"itm\"]"], &["objectives", "the rows decide"]);
    refused(&["--set", "seed=4"], &["seed=4", "--seeds"]);
    refused(&["--seeds", "1,2,1"], &["--seeds", "1 is there twice"]);
    refused(&["--top-k", "0"], &["--top-k", "at least 1"]);
    refused(&["--set", "batch_size=1"], &["batch_size", "1", "at least 2"]);
    refused(&["--set", "learning_rate=1"], &["learning_rate", "unknown setting"]);
    refused(&["--dvae", "nowhere"], &["nowhere"]);
    assert!(!scenes.path("run").exists(), "refused before anything is left behind");
    for more in [&["--seeds", ""][..], &["--seeds", "one"]] {
        let output = timed(&scenes, "run", more).output().unwrap();
        assert!(!output.status.success() && said(&output).contains("--seeds"), "{}", said(&output));
    }
    let mut without = simla();
    without.args(["ablate", "--data", "a.json", "--output", "run"]);
    let output = without.output().unwrap();
    assert!(!output.status.success() && said(&output).contains("--eval-data"));

    let mut begun = timed(&scenes, "run", &[]).stderr(Stdio::null()).spawn().unwrap();
    wait_until("a run", || scenes.path("run/seed-0/1-itm/run.json").exists());
    begun.kill().unwrap();
    begun.wait().unwrap();
    refused(&["--set", "lr=0.5"], &["lr", "0.5", "0.001", "--output"]);
    refused(&["--vocabulary", "words.txt"], &["--vocabulary", "words.txt", "none", "--output"]);
}

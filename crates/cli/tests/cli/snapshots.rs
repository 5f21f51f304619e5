//! What people read, word for word: help, refusals, a run's page. After a change that is meant, `INSTA_UPDATE=always cargo test --test cli
//! snapshots` writes them anew, and `git diff` shows what people will read.

use std::fs;
use std::path::Path;

use crate::common::{Scenes, copy, pretraining, printed, refusal, simla};

#[test]
fn help() {
    let commands: [&[&str]; 3] = [&["--help"], &["eval", "grounding", "--help"], &["finetune", "retrieval", "-h"]];
    let shown = commands.map(|command| format!("$ simla {}\n{}", command.join(" "), printed(command)));
    insta::assert_snapshot!(shown.join("\n"));
}

/// What is wrong, where, what was expected, what to do: before anything is left behind.
#[test]
fn refusals() {
    let scenes = Scenes::new();
    let folder = scenes.train.parent().unwrap();
    fs::write(folder.join("empty.json"), "[]").unwrap();
    fs::write(folder.join("wrong.json"), r#"[{"picture": "a.png"}]"#).unwrap();
    let train = "train.json";
    let commands: [(&str, &[&str]); 13] = [
        ("nowhere.json", &[]),
        ("empty.json", &[]),
        ("wrong.json", &[]),
        (train, &["--set", "batch_size=1"]),
        (train, &["--set", "batch_size=49"]),
        (train, &["--set", "dvae_batch_size=49"]),
        (train, &["--set", "learning_rate=1"]),
        (train, &["--set", "lr=fast"]),
        (train, &["--config", "nowhere.toml"]),
        (train, &["--dvae", "nowhere"]),
        (train, &["--vocabulary", "nowhere.txt"]),
        (train, &["--eval-data", "nowhere.json"]),
        (train, &["--device", "tpu"]),
    ];
    let refused = commands.map(|(data, more)| {
        let mut command = pretraining(Path::new(data), Path::new("run"), more);
        let error = refusal(&command.current_dir(folder).output().unwrap());
        assert!(!folder.join("run/checkpoints").exists(), "{data} {more:?}");
        format!("$ simla pretrain --data {data} {}\n{error}\n", more.join(" "))
    });
    insta::assert_snapshot!(refused.join("\n").replace(folder.to_str().unwrap(), "FOLDER"));
}

/// The words of the page of a run that an older program made: pictures, styles and the time of its making aside.
#[test]
fn page() {
    let folder = tempfile::tempdir().unwrap();
    copy(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/old-run/run")), &folder.path().join("run"));
    let output = simla().args(["report", "run"]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success());
    let page = fs::read_to_string(folder.path().join("run/report.html")).unwrap();
    let mut words = String::new();
    for (nth, element) in page.split('<').enumerate() {
        let (tag, text) = element.split_once('>').unwrap_or(("", element));
        let text = text.trim();
        if !tag.starts_with("style") && !text.is_empty() && nth > 0 && !text.starts_with("Page made") {
            words += text;
            words.push('\n');
        }
    }
    insta::assert_snapshot!(words);
}

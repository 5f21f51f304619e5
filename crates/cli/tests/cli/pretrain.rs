//! The main road through the program: pre-train, evaluate, and be told clearly what is wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::common::{Scenes, assert_refused, metrics, pretraining, said, simla};

/// A file of records that is not the drawn one; images are relative to the scenes' folder.
fn file_of(scenes: &Scenes, name: &str, records: &Value) -> PathBuf {
    let path = scenes.train.with_file_name(name);
    fs::write(&path, records.to_string()).unwrap();
    path
}

fn pretrain(data: &Path, output: &Path, more: &[&str]) -> Output {
    pretraining(data, output, more).output().unwrap()
}

#[test]
fn a_run_trains_evaluates_and_repeats_bit_for_bit() {
    let scenes = Scenes::new();
    let test = scenes.test.display().to_string();
    let more = ["--set", "steps=12", "--set", "dropout=0.1", "--eval-data", &test];
    let first = scenes.pretrain("first", &more);
    assert!(first.status.success(), "{}", said(&first));
    // One worker draws what two drew.
    let second = scenes.pretrain("second", &[&more[..], &["--set", "workers=1"]].concat());
    assert!(second.status.success(), "{}", said(&second));

    let (first, second) = (scenes.path("first"), scenes.path("second"));
    let rows = metrics(&first);
    assert_eq!(rows.len(), 12);
    for (a, b) in rows.iter().zip(metrics(&second)) {
        for name in ["step", "loss", "itc", "itm", "mlm", "mim", "psl", "grad_norm"] {
            assert!(a[name].is_number(), "{name} in {a}");
            assert_eq!(a[name], b[name], "{name} at step {}", a["step"]);
        }
    }
    let weights = |run: &Path| {
        let folder = run.join("checkpoints/step-00000012");
        fs::read(folder.join("model.safetensors")).unwrap()
    };
    assert!(weights(&first) == weights(&second), "the models differ in some bit");

    let model = first.display().to_string();
    let eval = |more: &[&str]| {
        let arguments = ["eval", "retrieval", "--checkpoint", &model, "--data", &test, "--top-k", "4"];
        let output = simla().args(arguments).args(more).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let found: Value = serde_json::from_str(&eval(&["--json"])).unwrap();
    for name in ["txt_r1", "txt_r5", "txt_r10", "img_r1", "img_r5", "img_r10"] {
        let share = found[name].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&share), "{name} = {share}");
    }
    assert_eq!(found["images"], 12);
    let bf16: Value = serde_json::from_str(&eval(&["--json", "--dtype", "bf16"])).unwrap();
    assert!(bf16["itc"]["txt_r10"].is_number(), "{bf16}");
    let table = eval(&[]);
    assert!(table.contains("contrast (ITC)") && table.contains("re-ranked top 4 (ITM)"), "{table}");

    let again = scenes.pretrain("first", &[]);
    assert_refused(&again, &["there is a run in here", "--resume"]);
}

#[test]
fn plain_lines_tell_the_five_losses_the_speed_and_the_time_left() {
    let scenes = Scenes::new();
    let output = scenes.pretrain("run", &["--set", "steps=2"]);
    let said = said(&output);
    let last = said.lines().rfind(|line| line.starts_with("pre-training 2/2")).unwrap_or_else(|| panic!("{said}"));
    for part in ["left", "loss", "itc", "itm", "mlm", "mim", "psl", "pairs/s"] {
        assert!(last.contains(part), "{part} in {last}");
    }
    let saved = fs::read_to_string(scenes.path("run/config.toml")).unwrap();
    assert!(saved.contains("steps = 2") && saved.contains("lr = "), "{saved}");
}

#[test]
fn broken_records_are_counted_named_and_survived() {
    let scenes = Scenes::new();
    let mut records: Vec<Value> = serde_json::from_str(&fs::read_to_string(&scenes.train).unwrap()).unwrap();
    fs::write(scenes.train.with_file_name("torn.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    records[3]["image"] = "torn.png".into();
    records[7]["image"] = "nowhere.png".into();
    records[11]["caption"] = " ".into();
    let data = file_of(&scenes, "broken.json", &records.into());
    let output = pretrain(&data, &scenes.path("run"), &["--set", "steps=12"]);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    for name in ["torn.png", "nowhere.png", "caption"] {
        assert!(said.contains(name), "{name} in: {said}");
    }
    assert_eq!(metrics(&scenes.path("run")).len(), 12);
}

#[test]
fn too_many_broken_records_are_refused_before_hours_are_spent() {
    let scenes = Scenes::new();
    let mut records: Vec<Value> = serde_json::from_str(&fs::read_to_string(&scenes.train).unwrap()).unwrap();
    for record in &mut records[..16] {
        record["image"] = "nowhere.png".into();
    }
    let data = file_of(&scenes, "broken.json", &records.into());
    let refused = pretrain(&data, &scenes.path("run"), &["--set", "steps=12"]);
    assert_refused(&refused, &["nowhere.png", "max_bad_share"]);
    let allowed = ["--set", "steps=2", "--set", "max_bad_share=0.5"];
    let output = pretrain(&data, &scenes.path("allowed"), &allowed);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_given_vocabulary_and_tokenizer_are_used() {
    let scenes = Scenes::new();
    assert!(scenes.pretrain("first", &["--set", "steps=2"]).status.success());
    let pieces = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nred\nblue\ncircle\nsquare\nthe\n";
    let vocabulary = scenes.path("vocab.txt");
    fs::write(&vocabulary, pieces).unwrap();
    let (vocabulary, dvae) = (vocabulary.display().to_string(), scenes.path("first/dvae").display().to_string());
    let more = ["--set", "steps=2", "--vocabulary", &vocabulary, "--dvae", &dvae];
    let output = scenes.pretrain("second", &more);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("11 word pieces"), "{}", said(&output));
    assert!(!scenes.path("second/dvae").exists());
    let other = scenes.pretrain("third", &[&more[..], &["--set", "visual_vocab=16"]].concat());
    assert_refused(&other, &["32 codes", "visual_vocab = 16"]);
}

#[test]
fn a_run_leaves_what_people_look_at_and_a_page_of_it() {
    let scenes = Scenes::new();
    let test = scenes.test.display().to_string();
    let mut more = vec!["--eval-data", &test];
    for setting in ["steps=4", "eval_every_steps=2", "samples_every_steps=3"] {
        more.extend(["--set", setting]);
    }
    let output = scenes.pretrain("run", &more);
    assert!(output.status.success(), "{}", said(&output));
    let run = scenes.path("run");
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let read = |name: &str| fs::read_to_string(run.join(name)).unwrap();

    let evaluations: Vec<Value> = read("evaluation.jsonl").lines().map(json).collect();
    assert_eq!(evaluations.iter().map(|row| &row["step"]).collect::<Vec<_>>(), [2, 4]);
    for name in ["keywords_p5", "keywords_p5/constant", "keywords_p5/chance", "keywords_different"] {
        assert!(evaluations[1][format!("held_out/{name}")].is_number(), "{name} in {}", evaluations[1]);
    }
    let status = json(&read("status.json"));
    assert_eq!((&status["state"], &status["step"]), (&"finished".into(), &4.into()));
    for step in [3, 4] {
        let set = json(&read(&format!("samples/step-{step:08}.json")));
        let samples = set["samples"].as_array().unwrap();
        assert_eq!(samples.len(), 6);
        for sample in samples {
            assert!(sample["masked"].as_str().unwrap().contains("___"), "{sample}");
            assert!(!sample["words"].as_array().unwrap().is_empty(), "{sample}");
            assert_eq!(sample["keywords"].as_array().unwrap().len(), 6, "{sample}");
        }
    }
    let names = |step: u32| {
        let set = json(&read(&format!("samples/step-{step:08}.json")));
        set["samples"].as_array().unwrap().iter().map(|s| s["masked"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(3), names(4), "the same pairs and masks every time");

    let events = fs::read_dir(run.join("tensorboard")).unwrap();
    let events = fs::read(events.map(|entry| entry.unwrap().path()).next().unwrap()).unwrap();
    for tag in [
        "loss/total",
        "loss/itc",
        "loss/psl",
        "schedule/lr",
        "schedule/temperature",
        "schedule/alpha",
        "schedule/grad_norm",
        "batch/txt_r1",
        "batch/itm_accuracy",
        "batch/codes",
        "machine/pairs_per_s",
        "machine/memory_gib",
        "held_out/img_r10",
        "samples",
    ] {
        assert!(events.windows(tag.len()).any(|bytes| bytes == tag.as_bytes()), "{tag}");
    }

    let output = simla().arg("report").arg(&run).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let page = read("report.html");
    for part in ["finished", "<svg", "itm_accuracy", "txt_r1", "data:image/png", "batch_size = 8"] {
        assert!(page.contains(part), "{part}");
    }
    let nothing = simla().arg("report").arg(scenes.path(".")).output().unwrap();
    assert_refused(&nothing, &["is not a run folder"]);
}

//! Fine-tuning on retrieval through the program: a pre-trained model becomes a better one on larger pictures, and goes on where it was.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::common::{Scenes, assert_done, assert_refused, copy, metrics, output_of, printed, said};

/// Scenes and a model that has seen them for two steps.
struct Place {
    scenes: Scenes,
    model: String,
}

impl Place {
    fn new() -> Self {
        let scenes = Scenes::new();
        let trained = scenes.pretrain("run", &["--set", "steps=2"]);
        assert!(trained.status.success(), "{}", said(&trained));
        let model = scenes.path("run").display().to_string();
        Self { scenes, model }
    }

    fn path(&self, name: &str) -> String {
        self.scenes.path(name).display().to_string()
    }

    fn finetune(&self, checkpoint: &str, output: &str, settings: &[&str]) -> Output {
        let (data, output) = (self.scenes.train.display().to_string(), self.path(output));
        let mut arguments = vec!["finetune", "retrieval", "--checkpoint", checkpoint];
        arguments.extend(["--data", &data, "--output", &output]);
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        output_of(&arguments)
    }
}

#[test]
fn a_model_learns_retrieval_on_larger_pictures_and_is_used() {
    let place = Place::new();
    // 100 patches, more than there are positions of words. The rate of a model that is still new.
    let settings = ["image_size=80", "batch_size=8", "steps=60", "lr=1e-3"];
    let output = place.finetune(&place.model, "tuned", &settings);
    assert_done(&output);
    assert!(said(&output).contains("240 pairs") && said(&output).contains("fine-tuning 60/60"), "{}", said(&output));
    let tuned = place.path("tuned");
    assert!(!Path::new(&tuned).join("dvae").exists());

    let rows = metrics(Path::new(&tuned));
    assert!(["itc", "itm", "txt_r1"].iter().all(|name| rows[0][name].is_number()));
    assert!(["mlm", "mim", "psl", "codes"].iter().all(|name| rows[0].get(name).is_none()));
    let mean = |rows: &[Value], name: &str| {
        let sum: f64 = rows.iter().map(|row| row[name].as_f64().unwrap()).sum();
        sum / rows.len() as f64
    };
    for name in ["loss", "itc"] {
        let (first, last) = (mean(&rows[..10], name), mean(&rows[50..], name));
        assert!(last < first - 0.2, "{name}: {first} to {last}");
    }

    let test = place.scenes.test.display().to_string();
    let eval = ["eval", "retrieval", "--checkpoint", &tuned, "--data", &test, "--json"];
    let found: Value = serde_json::from_str(&printed(&eval)).unwrap();
    assert_eq!((&found["images"], &found["top_k"]), (&12.into(), &128.into()));
    let pictures = place.scenes.test.with_file_name("test").display().to_string();
    let picture = fs::read_dir(&pictures).unwrap().next().unwrap().unwrap().path();
    let (picture, heat) = (picture.display().to_string(), place.path("heat.png"));
    printed(&["search", "a red circle", "--images", &pictures, "--checkpoint", &tuned]);
    printed(&["ground", &picture, "a red circle", "--checkpoint", &tuned, "--output", &heat]);
    printed(&["keywords", &picture, "--checkpoint", &tuned]);
    printed(&["report", &tuned]);

    // Once more from there: its size of picture is kept.
    assert_done(&place.finetune(&tuned, "again", &["batch_size=8", "steps=1"]));
    let saved = fs::read_to_string(place.path("again/config.toml").as_str()).unwrap();
    assert!(saved.contains("image_size = 80") && saved.contains("lr = 0.0001"), "{saved}");
}

#[test]
fn a_resumed_run_computes_what_it_would_have_without_its_first_model() {
    let place = Place::new();
    let test = place.scenes.test.display().to_string();
    let settings = ["batch_size=8", "steps=6", "save_every_steps=3", "dropout=0.1", "queue_size=30"];
    assert_done(&place.finetune(&place.model, "whole", &settings));
    let (whole, part) = (place.scenes.path("whole"), place.scenes.path("part"));
    let saved = fs::read_to_string(whole.join("config.toml")).unwrap();
    assert!(saved.contains("image_size = 48"), "half as large again: {saved}");

    copy(&whole, &part);
    let checkpoints = part.join("checkpoints");
    fs::remove_dir_all(checkpoints.join("step-00000006")).unwrap();
    fs::write(checkpoints.join("latest"), "step-00000003").unwrap();
    fs::rename(&place.model, place.path("elsewhere")).unwrap();
    let folder = part.display().to_string();
    let resume = ["finetune", "retrieval", "--resume", &folder];
    assert_done(&output_of(&[&resume[..], &["--eval-data", &test]].concat()));
    for name in ["model.safetensors", "optimizer.safetensors"] {
        let read = |run: &Path| fs::read(run.join("checkpoints/step-00000006").join(name)).unwrap();
        assert!(read(&whole) == read(&part), "{name} differs");
    }
    assert!(part.join("evaluation.jsonl").exists());

    let refused = |more: &[&str], words: &[&str]| {
        assert_refused(&output_of(&[&resume[..], more].concat()), words);
    };
    refused(&["--set", "vision_width=64"], &["vision_width", "32"]);
    refused(&["--set", "image_size=64"], &["image_size", "48"]);
    refused(&["--set", "objectives=[\"mim\"]"], &["objectives", "itm"]);
    let other = output_of(&["pretrain", "--resume", &folder]);
    assert_refused(&other, &["simla finetune retrieval --resume"]);
    let other = output_of(&["finetune", "retrieval", "--resume", &place.path("elsewhere")]);
    assert_refused(&other, &["simla pretrain --resume"]);
}

#[test]
fn what_cannot_be_fine_tuned_is_refused_with_its_name() {
    let place = Place::new();
    let refused = |checkpoint: &str, setting: &str, words: &[&str]| {
        let output = place.finetune(checkpoint, "tuned", &["batch_size=8", setting]);
        assert_refused(&output, words);
        assert!(!place.scenes.path("tuned").exists(), "{words:?}");
    };
    let dvae = format!("{}/dvae", place.model);
    refused(&place.path("nowhere"), "steps=1", &["nowhere", "no checkpoint"]);
    refused(&dvae, "steps=1", &["task `dvae`", "expected a model"]);
    let model = &place.model;
    refused(model, "text_depth=3", &["text_depth` = 3", "expected the 2 of the model"]);
    refused(model, "preset=base", &["preset", "base", "tiny"]);
    refused(model, "dvae_steps=3", &["dvae_steps", "does nothing in fine-tuning"]);
    refused(model, "objectives=[\"itc\", \"psl\"]", &["objectives", "psl", "itc, itm or both"]);
    refused(model, "image_size=50", &["image_size", "50", "multiple"]);
    refused(model, "batch_size=241", &["batch_size", "241", "240"]);
}

/// Expressions of the scenes: what their boxes are called.
#[test]
fn a_model_is_tuned_on_expressions_and_measured_before_and_after() {
    let place = Place::new();
    let boxes = place.scenes.train.with_file_name("train-boxes.json");
    let pictures: Vec<Value> = serde_json::from_str(&fs::read_to_string(&boxes).unwrap()).unwrap();
    let mut expressions = Vec::new();
    for picture in &pictures {
        for object in picture["objects"].as_array().unwrap() {
            expressions.push(json!({"image": picture["image"], "text": object["phrase"]}));
        }
    }
    let data = boxes.with_file_name("expressions.json");
    fs::write(&data, Value::from(expressions.clone()).to_string()).unwrap();
    let (data, boxes, tuned) = (data.display().to_string(), boxes.display().to_string(), place.path("tuned"));
    let command = ["finetune", "grounding", "--checkpoint", &place.model, "--data", &data];
    let small = ["--set", "batch_size=8", "--set", "steps=2"];
    let output = output_of(&[&command[..], &["--eval-data", &data, "--output", &tuned], &small].concat());
    assert_done(&output);
    let said_so = [format!("{} expressions", expressions.len()), "simla eval grounding".into()];
    assert!(said_so.iter().all(|words| said(&output).contains(words)), "{}", said(&output));
    let inputs: Value = serde_json::from_str(&fs::read_to_string(Path::new(&tuned).join("run.json")).unwrap()).unwrap();
    assert_eq!(inputs["kind"], "grounding");
    assert!(fs::read_to_string(Path::new(&tuned).join("config.toml")).unwrap().contains("epochs = 5"));
    for checkpoint in [&place.model, &tuned] {
        let eval = ["eval", "grounding", "--checkpoint", checkpoint, "--data", &boxes, "--json"];
        let found: Value = serde_json::from_str(&printed(&eval)).unwrap();
        assert_eq!(found["phrases"], expressions.len());
    }
    let other = output_of(&["finetune", "retrieval", "--resume", &tuned]);
    assert_refused(&other, &["simla finetune grounding --resume"]);

    // Held-out expressions with boxes, in REFER's files: what chooses the best checkpoint is how many of them are found.
    let (mut refs, mut instances) = (Vec::new(), Vec::new());
    for (image, picture) in pictures[..4].iter().enumerate() {
        for object in picture["objects"].as_array().unwrap() {
            let id = instances.len();
            instances.push(json!({"id": id, "bbox": object["box"]}));
            refs.push(json!({"ref_id": id, "ann_id": id, "image_id": image, "split": "val",
                "sentences": [{"sent": object["phrase"]}]}));
        }
    }
    let images = (0..4).map(|i| json!({"id": i, "file_name": pictures[i]["image"]})).collect::<Vec<_>>();
    let whole = [[0, 0, 32, 32]];
    let root = place.scenes.train.parent().unwrap();
    let folder = place.scenes.path("refer");
    fs::create_dir(&folder).unwrap();
    for (name, value) in [
        ("refs.json", json!(refs)),
        ("instances.json", json!({"images": images, "annotations": instances})),
        ("dets.json", json!({"0": whole, "1": whole, "2": whole, "3": whole})),
    ] {
        fs::write(folder.join(name), value.to_string()).unwrap();
    }
    let (refs, judged) = (folder.join("refs.json").display().to_string(), place.path("judged"));
    let root = root.display().to_string();
    let boxes = ["--eval-data", &refs, "--image-root", &root, "--output", &judged, "--set", "eval_every_steps=1"];
    let output = output_of(&[&command[..], &boxes, &small].concat());
    assert_done(&output);
    assert_eq!(said(&output).matches("held-out expressions found").count(), 2, "{}", said(&output));
    let rows = fs::read_to_string(Path::new(&judged).join("evaluation.jsonl")).unwrap();
    let row: Value = serde_json::from_str(rows.lines().last().unwrap()).unwrap();
    for name in ["held_out/txt_r1", "held_out/txt_r1/chance", "grounding/proposals", "grounding/proposals/random"] {
        assert!(row[name].is_number(), "{name}: {row}");
    }
    let saved = simla_train::checkpoint::Checkpoint::open(Path::new(&judged)).unwrap();
    let scores =
        rows.lines().map(|row| serde_json::from_str::<Value>(row).unwrap()["grounding/proposals"].as_f64().unwrap());
    assert_eq!(saved.state.best, Some(scores.fold(0.0, f64::max)));
    assert_done(&output_of(&["finetune", "grounding", "--resume", &tuned]));
    let cropped = output_of(&[&command[..], &["--output", &place.path("other"), "--set", "min_scale=0.9"]].concat());
    assert_refused(&cropped, &["min_scale", "does nothing"]);
}

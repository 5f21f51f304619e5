//! Looking at what a model has learned: grounding, keywords, attention, and clear words about what cannot be looked at.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Scenes, assert_refused, metrics, output_of, printed, said};

/// Scenes with a micro model that was trained for two steps.
fn trained() -> (Scenes, String) {
    let scenes = Scenes::new();
    let output = scenes.pretrain("run", &["--set", "steps=2"]);
    assert!(output.status.success(), "{}", said(&output));
    let run = scenes.path("run");
    assert_eq!(metrics(&run).len(), 2);
    (scenes, shown(&run))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn printed_json(arguments: &[&str]) -> Value {
    let text = printed(&[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn everything_a_model_sees_can_be_looked_at() {
    let (scenes, run) = trained();
    let image = shown(&scenes.test.with_file_name("test/00000.png"));
    let png = |name: &str| scenes.path(name);
    let picture = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        simla_image::decode(&bytes, &simla_image::Limits::default()).unwrap()
    };

    let heat = png("heat.png");
    let ground = ["ground", &image, "the red circle", "--checkpoint", &run];
    let found = printed_json(&[&ground[..], &["--output", &shown(&heat)]].concat());
    assert_eq!((&found["width"], &found["layer"]), (&json!(32), &json!(1)));
    let probability = found["probability"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&probability));
    let words: Vec<&str> = found["words"].as_array().unwrap().iter().map(|w| w["word"].as_str().unwrap()).collect();
    assert_eq!(words, ["the", "red", "circle"]);
    assert_eq!(found["map"].as_array().unwrap().len(), 16, "a value a patch");
    assert!(picture(&heat).width() >= 640);
    let text = printed(&[&ground[..], &["--layer", "0"]].concat());
    assert!(text.contains("matches") && text.contains("layer 0"), "{text}");

    let sheet = png("keywords.png");
    let keywords = ["keywords", &image, "--checkpoint", &run, "--top", "3"];
    let found = printed_json(&[&keywords[..], &["--output", &shown(&sheet)]].concat());
    let scores: Vec<f64> = found["keywords"].as_array().unwrap().iter().map(|k| k["score"].as_f64().unwrap()).collect();
    assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    picture(&sheet);
    let test = shown(&scenes.test);
    let found = printed_json(&["keywords", "--data", &test, "--checkpoint", &run]);
    assert_eq!(found["pictures"].as_array().unwrap().len(), 12);
    assert!(found["pictures"][0]["keywords"][0]["in_caption"].is_boolean());
    assert!((0.0..=100.0).contains(&found["said_percent"].as_f64().unwrap()));

    let sheet = png("attention.png");
    let text = printed(&["attention", &image, "--checkpoint", &run, "--output", &shown(&sheet)]);
    assert!(text.contains("attention.png"));
    picture(&sheet);

    let boxes = shown(&scenes.test.with_file_name("test-boxes.json"));
    let evaluation = ["eval", "grounding", "--checkpoint", &run, "--data", &boxes];
    let found = printed_json(&evaluation);
    assert_eq!(found["pictures"], 12);
    for question in ["pointing", "window", "choice"] {
        for share in ["model", "centre", "random"] {
            let share = found[question][share].as_f64().unwrap();
            assert!((0.0..=100.0).contains(&share), "{question}: {share}");
        }
    }
    assert_eq!(found["proposals"], Value::Null, "there are none");
    let table = printed(&evaluation);
    assert!(table.contains("hottest point") && table.contains("random"), "{table}");
}

#[test]
fn proposals_are_judged_as_the_paper_does_and_by_split() {
    let (scenes, run) = trained();
    let write = |name: &str, value: Value| {
        let path = scenes.test.with_file_name(name);
        fs::write(&path, value.to_string()).unwrap();
        shown(&path)
    };
    let data = write(
        "refer.json",
        json!([
            {"image": "test/00000.png", "text": "the red circle", "ref_id": 1},
            {"image": "test/00001.png", "text": "a star", "ref_id": 2},
        ]),
    );
    let refs = write(
        "refs.json",
        json!([
            {"ref_id": 1, "ann_id": 10, "image_id": 100, "split": "testA"},
            {"ref_id": 2, "ann_id": 20, "image_id": 200, "split": "testB"},
        ]),
    );
    let instances = write(
        "instances.json",
        json!({"annotations": [{"id": 10, "bbox": [0, 0, 32, 32]}, {"id": 20, "bbox": [0, 0, 8, 8]}]}),
    );
    // One proposal each: right for the first wherever the heat is, wrong for the second.
    let whole = json!([[0, 0, 32, 32, 0.9]]);
    let detections = write("detections.json", json!({"100": whole, "200": whole}));
    let found = printed_json(&[
        "eval",
        "grounding",
        "--checkpoint",
        &run,
        "--data",
        &data,
        "--refs",
        &refs,
        "--instances",
        &instances,
        "--detections",
        &detections,
    ]);
    assert_eq!(found["proposals"]["model"], 50.0);
    assert_eq!(found["splits"]["testA"]["proposals"]["model"], 100.0);
    assert_eq!(found["splits"]["testB"]["proposals"]["random"], 0.0);

    // REFER's own pickle, with the instances beside it: only the expressions of the splits that are asked for, the missing picture's
    // among them as wrong.
    let (folder, root) = (scenes.test.with_file_name("refer"), shown(&scenes.test.with_file_name("test")));
    fs::create_dir(&folder).unwrap();
    let one = |ref_id: i64, image_id: i64, split: &str, sentences: &[&str]| {
        let sentences: String = sentences.iter().map(|sent| format!("(dS'sent'\nS'{sent}'\nsa")).collect();
        let numbers = format!("S'ref_id'\nI{ref_id}\nsS'ann_id'\nI{ref_id}0\nsS'image_id'\nI{image_id}\ns");
        format!("(d{numbers}S'split'\nS'{split}'\nsS'sentences'\n(l{sentences}sa")
    };
    let refs = [
        one(1, 100, "testA", &["the red circle", "a circle"]),
        one(2, 200, "testB", &["a star"]),
        one(3, 300, "testA", &["lost"]),
        one(4, 200, "train", &["a star that was trained on"]),
    ];
    fs::write(folder.join("refs(unc).p"), format!("(l{}.", refs.concat())).unwrap();
    let instances = json!({
        "images": [{"id": 100, "file_name": "00000.png"}, {"id": 200, "file_name": "00001.png"}, {"id": 300, "file_name": "none.png"}],
        "annotations": [{"id": 10, "bbox": [0, 0, 32, 32]}, {"id": 20, "bbox": [0, 0, 8, 8]}, {"id": 30, "bbox": [0, 0, 8, 8]}, {"id": 40, "bbox": [0, 0, 8, 8]}],
    });
    fs::write(folder.join("instances.json"), instances.to_string()).unwrap();
    let refs = shown(&folder.join("refs(unc).p"));
    let refer = ["eval", "grounding", "--checkpoint", &run, "--data", &refs, "--image-root", &root];
    let refer = [&refer[..], &["--detections", &detections]].concat();
    let found = printed_json(&refer);
    assert_eq!((&found["phrases"], &found["pictures"]), (&json!(4), &json!(2)));
    assert_eq!(found["splits"]["testA"]["proposals"]["phrases"], 3);
    assert_eq!(found["splits"]["testA"]["proposals"]["model"], 200.0 / 3.0);
    assert_eq!(found["splits"]["train"], Value::Null);
    let found = printed_json(&[&refer[..], &["--split", "train"]].concat());
    assert_eq!((&found["phrases"], &found["proposals"]["model"]), (&json!(1), &json!(0.0)));
    let output = output_of(&[&refer[..], &["--split", "minival"]].concat());
    assert_refused(&output, &["refs(unc).p", "split `minival`"]);
}

#[test]
fn what_cannot_be_looked_at_is_refused_with_its_name() {
    let (scenes, run) = trained();
    let image = shown(&scenes.test.with_file_name("test/00000.png"));
    let torn = shown(&scenes.path("torn.png"));
    fs::write(&torn, b"\x89PNG\r\n\x1a\n").unwrap();
    let bad_boxes = shown(&scenes.path("boxes.json"));
    fs::write(&bad_boxes, r#"[{"image": "a.png", "objects": [{"phrase": "a", "box": [0, 0, 0, 1]}]}]"#).unwrap();
    let output = shown(&scenes.path("out.png"));
    let refused = |arguments: &[&str], words: &[&str]| assert_refused(&output_of(arguments), words);
    let ground = |image: &str, phrase: &str, more: &[&str], words: &[&str]| {
        let arguments = ["ground", image, phrase, "--checkpoint", &run, "--output", &output];
        refused(&[&arguments[..], more].concat(), words);
        assert!(!Path::new(&output).exists());
    };
    ground("nowhere.png", "a circle", &[], &["nowhere.png"]);
    ground(&torn, "a circle", &[], &["torn.png"]);
    ground(&image, "犬 猫", &[], &["犬 猫", "no word of it"]);
    ground(&image, " ... ", &[], &["says nothing"]);
    ground(&image, "a circle", &["--layer", "2"], &["--layer 2", "0 to 1"]);
    refused(&["ground", &image, "a", "--checkpoint", "nowhere"], &["nowhere", "no checkpoint"]);
    refused(&["keywords", &torn, "--checkpoint", &run], &["torn.png"]);
    refused(&["keywords", "--data", "none.json", "--checkpoint", &run], &["none.json"]);
    refused(&["attention", "none.png", "--checkpoint", &run, "--output", &output], &["none.png"]);
    // What a user has is never written over, but by request; and a name says what is in the file.
    let (mine, other) = (shown(&scenes.path("mine.png")), shown(&scenes.path("other.png")));
    fs::copy(&image, &mine).unwrap();
    fs::write(&other, "mine too").unwrap();
    let records = format!(r#"[{{"image": "{mine}", "caption": "a circle"}}]"#);
    let data = shown(&scenes.path("one.json"));
    fs::write(&data, records).unwrap();
    let model = ["--checkpoint", run.as_str()];
    let ways: [&[&str]; 6] = [
        &["ground", &mine, "a circle", model[0], model[1], "--output"],
        &["attention", &mine, model[0], model[1], "--output"],
        &["keywords", &mine, model[0], model[1], "--output"],
        &["keywords", "--data", &data, model[0], model[1], "--output"],
        &["data", "inspect", &data, "--sheet"],
        &["search", "a circle", "--data", &data, model[0], model[1], "--sheet"],
    ];
    for way in ways {
        refused(&[way, &[&mine, "--force"]].concat(), &["mine.png", "never overwritten"]);
        refused(&[way, &["sheet.jpg"]].concat(), &["sheet.jpg", "must end in .png"]);
        refused(&[way, &[&other]].concat(), &["other.png", "--force"]);
    }
    assert_eq!(fs::read(&mine).unwrap(), fs::read(&image).unwrap());
    assert_eq!(fs::read(&other).unwrap(), b"mine too");
    printed(&[ways[0], &[&other, "--force"]].concat());
    assert!(fs::read(&other).unwrap().starts_with(b"\x89PNG"));

    let evaluate = |data: &str, words: &[&str]| {
        refused(&["eval", "grounding", "--checkpoint", &run, "--data", data], words);
    };
    evaluate("none.json", &["none.json"]);
    evaluate(&bad_boxes, &["boxes.json", "record 1", "above 0"]);
}

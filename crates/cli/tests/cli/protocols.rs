//! The field's protocols through the program: Karpathy's splits and folds, run files, products, classes, features for others.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{Scenes, assert_refused, left_out, output_of, printed, said};

/// Scenes with a micro model that was trained for two steps.
struct Place {
    scenes: Scenes,
    run: String,
    /// The records of the held-out scenes.
    test: Vec<Value>,
}

impl Place {
    fn new() -> Self {
        let scenes = Scenes::new();
        let output = scenes.pretrain("run", &["--set", "steps=2"]);
        assert!(output.status.success(), "{}", said(&output));
        let run = shown(&scenes.path("run"));
        let test = serde_json::from_str(&fs::read_to_string(&scenes.test).unwrap()).unwrap();
        Self { scenes, run, test }
    }

    fn write(&self, name: &str, value: &Value) -> String {
        let path = self.scenes.test.with_file_name(name);
        fs::write(&path, value.to_string()).unwrap();
        shown(&path)
    }

    fn printed(&self, arguments: &[&str]) -> String {
        printed(&[arguments, &["--checkpoint", &self.run]].concat())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.printed(&[arguments, &["--json"]].concat())).unwrap()
    }

    fn refused(&self, arguments: &[&str], words: &[&str]) {
        assert_refused(&output_of(&[arguments, &["--checkpoint", &self.run]].concat()), words);
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn karpathys_splits_folds_and_run_files() {
    let place = Place::new();
    // Twelve scenes: two to train on, four to choose by, six to measure on.
    let split = |i: usize| ["train", "restval", "val", "val", "val", "val"].get(i).copied().unwrap_or("test");
    let images: Vec<Value> = (0..)
        .zip(&place.test)
        .map(|(i, record)| {
            let (folder, file) = record["image"].as_str().unwrap().split_once('/').unwrap();
            let captions = record["caption"].as_array().unwrap();
            let sentences: Vec<Value> = captions.iter().map(|c| json!({"raw": c, "tokens": []})).collect();
            json!({"filepath": folder, "filename": file, "imgid": i, "split": split(i), "sentences": sentences})
        })
        .collect();
    let data = place.write("dataset_scenes.json", &json!({"images": images, "dataset": "scenes"}));
    let run_file = place.scenes.path("run.csv");
    let eval = ["eval", "retrieval", "--data", &data, "--top-k", "3"];
    let found = place.json(&[&eval[..], &["--folds", "3", "--run-file", &shown(&run_file)]].concat());
    let captions = found["captions"].as_u64().unwrap();
    assert_eq!((&found["images"], &found["items"], &found["top_k"]), (&json!(6), &json!(6), &json!(3)));
    let folds = &found["folds"];
    assert_eq!((&folds["count"], &folds["images"], folds["each"].as_array().unwrap().len()), (&json!(3), &json!(2), 3));
    let each: f64 = folds["each"].as_array().unwrap().iter().map(|fold| fold["img_r1"].as_f64().unwrap()).sum();
    assert!((folds["img_r1"].as_f64().unwrap() - each / 3.0).abs() < 1e-9);
    assert_eq!(folds["itm"]["img_r5"], 100.0, "of two pictures");

    let text = fs::read_to_string(&run_file).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0], ["query", "item", "rank", "score"]);
    assert_eq!(rows.len() as u64, 1 + 3 * (6 + captions), "three for every query");
    assert!(rows[1][0].starts_with("test/") && rows[1][1].contains(".png#") && rows[1][2] == "1", "{:?}", rows[1]);
    // What was measured can be measured again from it.
    let is_first_right = |row: &&Vec<&str>| row[2] == "1" && row[0].split('#').next() == row[1].split('#').next();
    let right = rows.iter().skip(1 + 3 * 6).filter(is_first_right).count();
    assert!((found["itm"]["img_r1"].as_f64().unwrap() - 100.0 * right as f64 / captions as f64).abs() < 1e-6);

    let table = place.printed(&[&eval[..], &["--split", "val", "--split", "train", "--folds", "5"]].concat());
    assert!(table.contains("5 images") && table.contains("mean of 5 folds, each of 1 images"), "{table}");
    place.refused(&[&eval[..], &["--split", "dev"]].concat(), &["dataset_scenes.json", "split `dev`"]);
    place.refused(&[&eval[..], &["--folds", "7"]].concat(), &["--folds 7", "6 items"]);
    place.refused(&[&eval[..], &["--run-file", "run.txt"]].concat(), &["run.txt", ".trec"]);

    // Training takes its own splits of the same file, and is measured on `val`.
    let output = place.scenes.path("tuned");
    let output = shown(&output);
    let tuned = output_of(&[
        "finetune",
        "retrieval",
        "--checkpoint",
        &place.run,
        "--data",
        &data,
        "--eval-data",
        &data,
        "--output",
        &output,
        "--set",
        "batch_size=2",
        "--set",
        "steps=1",
    ]);
    assert!(tuned.status.success(), "{}", said(&tuned));
    let trained_on: usize = (0..2).map(|i| place.test[i]["caption"].as_array().unwrap().len()).sum();
    assert!(said(&tuned).contains(&format!("{trained_on} pairs")), "{}", said(&tuned));
}

#[test]
fn products_are_found_among_look_alikes_and_classes_are_told() {
    let place = Place::new();
    // Twelve photographs of six products of two kinds.
    let records: Vec<Value> = (0..)
        .zip(&place.test)
        .map(|(i, record)| {
            json!({"image": record["image"], "caption": record["caption"][0], "image_id": i / 2,
                "subcategory": if i < 6 { "SHIRTS" } else { "SHOES" }})
        })
        .collect();
    let data = place.write("products.json", &json!(records));
    let lists = shown(&place.scenes.path("lists.json"));
    let eval = ["eval", "products", "--data", &data];
    let drawn = ["--queries", "5", "--wrong", "2", "--write-lists", &lists];
    let found = place.json(&[&eval[..], &drawn].concat());
    assert_eq!((&found["records"], &found["queries"], &found["candidates"]), (&json!(12), &json!([5, 5]), &json!(3)));
    assert_eq!((&found["txt_r5"], &found["chance"]["img_r5"]), (&json!(100.0), &json!(100.0)));
    let written: Value = serde_json::from_str(&fs::read_to_string(&lists).unwrap()).unwrap();
    let number =
        |image: &Value| image.as_str().unwrap().trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap();
    for list in written["image_to_text"].as_array().unwrap() {
        let (query, wrong) = (number(&list["query"]), list["wrong"].as_array().unwrap());
        assert!(wrong.iter().all(|w| number(w) / 6 == query / 6 && number(w) / 2 != query / 2), "{list}");
    }
    // The lists that were written give the same again, and the mean of both.
    let again = place.json(&[&eval[..], &["--lists", &lists, &lists]].concat());
    assert_eq!((&again["itm"], again["lists"].as_array().unwrap().len()), (&found["itm"], 2));
    let table = place.printed(&[&eval[..], &["--wrong", "4"]].concat());
    assert!(table.contains("put to 5 candidates") && table.contains("matching (ITM)"), "{table}");
    place.refused(&[&eval[..], &["--lists", &data]].concat(), &["products.json", "image_to_text"]);
    let alien = json!({"image_to_text": [{"query": "x.jpg", "right": "x.jpg", "wrong": []}], "text_to_image": []});
    let alien = place.write("alien.json", &alien);
    place.refused(&[&eval[..], &["--lists", &alien]].concat(), &["alien.json", "x.jpg"]);
    let image = &place.test[0]["image"];
    let both = json!({"image_to_text": [{"query": image, "right": image, "wrong": [image]}], "text_to_image": []});
    let both = place.write("both.json", &both);
    place.refused(&[&eval[..], &["--lists", &both]].concat(), &["both.json", "right and among the wrong ones"]);
    // With all of them as candidates: a product's photographs are one item, and what is said of them is right for both.
    let full = place.json(&["eval", "retrieval", "--data", &data, "--top-k", "2"]);
    assert_eq!((&full["images"], &full["items"]), (&json!(12), &json!(6)));

    let classes = place.scenes.path("classes");
    for (i, record) in place.test.iter().enumerate() {
        let folder = classes.join(if i < 5 { "red_circle" } else { "star" });
        fs::create_dir_all(&folder).unwrap();
        let image = place.scenes.test.with_file_name(record["image"].as_str().unwrap());
        fs::copy(image, folder.join(format!("{i}.png"))).unwrap();
    }
    let (data, picture) = (shown(&classes), place.scenes.path("confusion.png"));
    let eval = ["eval", "classes", "--data", &data, "--template", "a {}", "--template", "{} on a field"];
    let found = place.json(&[&eval[..], &["--picture", &shown(&picture)]].concat());
    assert_eq!((&found["pictures"], &found["classes"]), (&json!(12), &json!(["red circle", "star"])));
    assert_eq!((&found["top5"], &found["chance"]["top1"]), (&json!(100.0), &json!(50.0)));
    let counted: u64 = found["confusion"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(counted, 12);
    assert!(fs::metadata(&picture).unwrap().len() > 1000);
    let table = place.printed(&[&eval[..], &["--top-k", "0"]].concat());
    assert!(table.contains("contrast (ITC)") && !table.contains("ITM"), "{table}");
    place.refused(&["eval", "classes", "--data", &data, "--template", "a dog"], &["a dog", "{}"]);
}

#[test]
fn results_are_never_written_over_what_is_read() {
    let place = Place::new();
    let at = |name: &str| shown(&place.scenes.path(name));
    let pictures = shown(&place.scenes.test.with_file_name("test"));
    let record = |i: usize| {
        let record = &place.test[i];
        json!({"image": record["image"], "caption": record["caption"][0], "image_id": i})
    };
    let products = place.write("products.json", &(0..12).map(record).collect());
    let table = shown(&place.scenes.test.with_file_name("captions.csv"));
    let rows = (0..12).map(|i| format!("{},{}\n", record(i)["image"], record(i)["caption"]));
    fs::write(&table, format!("image,caption\n{}", rows.collect::<String>())).unwrap();
    let photograph = shown(&place.scenes.path("classes/a/0.png"));
    for class in ["a", "b"] {
        let folder = place.scenes.path("classes").join(class);
        fs::create_dir_all(&folder).unwrap();
        let image = place.scenes.test.with_file_name(place.test[0]["image"].as_str().unwrap());
        fs::copy(image, folder.join("0.png")).unwrap();
    }
    fs::write(at("phrases.npy"), "a red circle\n").unwrap();
    let latest = fs::read_to_string(place.scenes.path("run/checkpoints/latest")).unwrap();
    let weights = at(&format!("run/checkpoints/{}/model.safetensors", latest.trim()));
    let classes = at("classes");
    let phrases = at("phrases.npy");
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let embed = |of: [&str; 2], output: &str| owned(&["embed", of[0], of[1], "--output", output]);
    for (command, input) in [
        (embed(["--phrases", &phrases], &phrases), &phrases),
        (embed(["--phrases", &phrases], &weights), &weights),
        (owned(&["eval", "retrieval", "--data", &table, "--run-file", &table]), &table),
        (owned(&["eval", "products", "--data", &products, "--write-lists", &products]), &products),
        (owned(&["eval", "classes", "--data", &classes, "--picture", &photograph]), &photograph),
    ] {
        let (command, before) = (command.iter().map(String::as_str).collect::<Vec<_>>(), fs::read(input).unwrap());
        place.refused(&[&command[..], &["--force"]].concat(), &["never overwritten"]);
        assert_eq!(fs::read(input).unwrap(), before, "{command:?}");
    }
    for (command, other) in [
        (embed(["--images", &pictures], &at("other.npy")), "other.npy"),
        (embed(["--images", &pictures], &at("beside.npy")), "beside.names.json"),
        (owned(&["eval", "retrieval", "--data", &table, "--run-file", &at("other.csv")]), "other.csv"),
        (
            owned(&["eval", "products", "--data", &products, "--wrong", "2", "--write-lists", &at("other.json")]),
            "other.json",
        ),
        (owned(&["eval", "classes", "--data", &classes, "--picture", &at("other.png")]), "other.png"),
    ] {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        fs::write(at(other), "mine").unwrap();
        place.refused(&command, &[other, "--force"]);
        assert_eq!(fs::read(at(other)).unwrap(), b"mine", "{command:?}");
        place.printed(&[&command[..], &["--force"]].concat());
        assert_ne!(fs::read(at(other)).unwrap(), b"mine", "{command:?}");
    }
    let export = |more: &[&str]| output_of(&[&["export", "authors", &place.run, "--output", &weights], more].concat());
    assert_refused(&export(&["--force"]), &["never overwritten"]);
}

/// A program of Python that has these modules, if there is one: `SIMLA_PYTHON`, or what is called python3.
fn python(modules: &str) -> Option<PathBuf> {
    let program = std::env::var_os("SIMLA_PYTHON").map_or("python3".into(), PathBuf::from);
    let has = Command::new(&program).args(["-c", &format!("import {modules}")]).output();
    has.is_ok_and(|output| output.status.success()).then_some(program)
}

/// A picture of 20 x 10 pixels that was annotated at 40 x 20. Coordinates count from 1 and include the last pixel: (1, 1) to (20, 10) is
/// 20 x 10 from the corner, half of that here. Two men have a box each, (1, 1) to (4, 4) and (21, 11) to (40, 20): around both is all of it.
#[test]
fn entities_of_flickr30k_are_converted_with_their_boxes() {
    let Some(python) = python("PIL") else {
        return left_out("Flickr30k Entities are not converted: no Python with Pillow (SIMLA_PYTHON names one)");
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["Annotations", "Sentences", "images"] {
        fs::create_dir(at(name)).unwrap();
    }
    simla_image::RgbImage::new(20, 10).save(at("images/7.png")).unwrap();
    fs::rename(at("images/7.png"), at("images/7.jpg")).unwrap();
    let object = |chain: u32, [left, top, right, bottom]: [u32; 4]| {
        format!(
            "<object><name>{chain}</name><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>\
             <ymax>{bottom}</ymax></bndbox></object>"
        )
    };
    let boxes = [object(1, [1, 1, 20, 10]), object(2, [1, 1, 4, 4]), object(2, [21, 11, 40, 20])].concat();
    let scene = "<object><name>3</name><scene>1</scene><nobndbox>0</nobndbox></object>";
    let size = "<size><width>40</width><height>20</height></size>";
    fs::write(at("Annotations/7.xml"), format!("<annotation>{size}{boxes}{scene}</annotation>")).unwrap();
    let sentence =
        "[/EN#1/animals A dog] and [/EN#2/people/other two men] in [/EN#3/scene the snow] by [/EN#0/notvisual it] .\n";
    fs::write(at("Sentences/7.txt"), sentence).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flickr30k_entities.py");
    let mut command = Command::new(python);
    command.arg(script).arg(folder.path()).arg(at("images")).arg(at("boxes.json")).arg("--annotated-proposals");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let found: Value = serde_json::from_str(&fs::read_to_string(at("boxes.json")).unwrap()).unwrap();
    let objects = json!([{"phrase": "A dog", "box": [0.0, 0.0, 10.0, 5.0]}, {"phrase": "two men", "box": [0.0, 0.0, 20.0, 10.0]}]);
    let proposals = json!([[0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 2.0, 2.0], [10.0, 5.0, 10.0, 5.0]]);
    assert_eq!(found, json!([{"image": "7.jpg", "objects": objects, "proposals": proposals}]));
}

#[test]
fn features_are_the_same_in_every_file_and_in_pytorch() {
    let place = Place::new();
    let at = |name: &str| shown(&place.scenes.path(name));
    let pictures = shown(&place.scenes.test.with_file_name("test"));
    let test = shown(&place.scenes.test);
    let embed = |what: &[&str], output: &str| place.printed(&[&["embed", "--output", output][..], what].concat());
    let said = embed(&["--images", &pictures], &at("images.safetensors"));
    assert!(said.contains("12 features of 16 numbers"), "{said}");
    let (names, images) = features(&place.scenes.path("images.safetensors"));
    assert_eq!(names.iter().map(String::as_str).collect::<BTreeSet<_>>().len(), 12);
    embed(&["--data", &test], &at("data.safetensors"));
    let (by_path, same) = features(&place.scenes.path("data.safetensors"));
    let row = by_path.iter().position(|name| *name == format!("test/{}", names[0])).expect("the same picture");
    assert_eq!(same[row], images[0]);
    let length: f32 = images[0].iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-5);
    embed(&["--data", &test, "--captions"], &at("captions.npy"));
    let beside: Value = serde_json::from_str(&fs::read_to_string(at("captions.names.json")).unwrap()).unwrap();
    assert_eq!(beside["names"].as_array().unwrap().len(), beside["texts"].as_array().unwrap().len());
    assert!(beside["names"][0].as_str().unwrap().ends_with(".png#0"));
    embed(&["--images", &pictures], &at("images.parquet"));
    assert!(fs::read(at("images.parquet")).unwrap().starts_with(b"PAR1"));
    fs::write(at("phrases.txt"), "the red circle\n\na blue star\n").unwrap();
    embed(&["--phrases", &at("phrases.txt")], &at("phrases.safetensors"));
    let (names_of_phrases, phrases) = features(&place.scenes.path("phrases.safetensors"));
    assert_eq!(names_of_phrases, ["the red circle", "a blue star"]);
    place.refused(&["embed", "--images", &pictures, "--output", "features.csv"], &["features.csv", ".parquet"]);

    let Some(python) = python("torch, numpy, PIL, tokenizers") else {
        let modules = "no Python with torch, numpy, Pillow and tokenizers (SIMLA_PYTHON names one)";
        return left_out(&format!("features are not compared with PyTorch: {modules}"));
    };
    let weights = at("model.pth");
    printed(&["export", "authors", &place.run, "--output", &weights]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/features.py");
    let image = format!("{pictures}/{}", names[0]);
    let vocabulary = format!("{}/vocabulary.json", place.run);
    let arguments = [&weights, &vocabulary, "the red circle", &image, "--vision-heads", "2", "--text-heads", "2"];
    let output = Command::new(python).arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (name, ours) in [("image", &images[0]), ("text", &phrases[0])] {
        for (ours, theirs) in ours.iter().zip(theirs[name].as_array().unwrap()) {
            assert!((f64::from(*ours) - theirs.as_f64().unwrap()).abs() < 1e-5, "{name}: {ours} against {theirs}");
        }
    }
}

/// Names and rows of a file of features.
fn features(path: &Path) -> (Vec<String>, Vec<Vec<f32>>) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let names: Vec<String> = serde_json::from_str(header["__metadata__"]["names"].as_str().unwrap()).unwrap();
    let width = header["features"]["shape"][1].as_u64().unwrap() as usize;
    let values: Vec<f32> = bytes[8 + length..].as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    (names, values.chunks(width).map(<[f32]>::to_vec).collect())
}

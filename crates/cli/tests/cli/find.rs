//! `simla search` through the program: an index that is kept, answers of every kind, and refusals that leave it as it was.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::common::{Scenes, assert_refused, said, simla};
use serde_json::Value;

/// Pictures of their own in a folder with another in it, and a model.
struct Found {
    scenes: Scenes,
    pictures: PathBuf,
    run: PathBuf,
}

impl Found {
    fn new() -> Self {
        let scenes = Scenes::new();
        let trained = scenes.pretrain("run", &["--set", "steps=2"]);
        assert!(trained.status.success(), "{}", said(&trained));
        let records: Vec<Value> = serde_json::from_str(&fs::read_to_string(&scenes.test).unwrap()).unwrap();
        let pictures = scenes.path("pictures");
        fs::create_dir_all(pictures.join("more")).unwrap();
        for (i, record) in records.iter().enumerate() {
            let from = scenes.test.with_file_name(record["image"].as_str().unwrap());
            let name = match i {
                0..9 => format!("{i}.png"),
                _ => format!("more/{i}.png"),
            };
            fs::copy(from, pictures.join(name)).unwrap();
        }
        fs::write(pictures.join("notes.txt"), "not a picture").unwrap();
        Self { run: scenes.path("run"), scenes, pictures }
    }

    fn search_with(&self, run: &Path, more: &[&str]) -> Output {
        let mut command = simla();
        command.arg("search").args(more);
        command.arg("--checkpoint").arg(run).output().unwrap()
    }

    fn pictures(&self, more: &[&str]) -> Output {
        let folder = self.pictures.display().to_string();
        self.search_with(&self.run, &[&["--images", &folder, "--json"], more].concat())
    }

    fn index(&self) -> BTreeMap<String, Vec<u8>> {
        let files = fs::read_dir(self.pictures.join(".simla-index")).unwrap();
        files
            .map(|file| {
                let file = file.unwrap();
                let name = file.file_name().to_string_lossy().into_owned();
                (name, fs::read(file.path()).unwrap())
            })
            .collect()
    }
}

fn answer(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn images(answer: &Value) -> Vec<String> {
    let results = answer["results"].as_array().unwrap();
    results.iter().map(|found| found["image"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pictures_are_embedded_once_and_found_by_phrase_and_by_picture() {
    let found = Found::new();
    let sheet = found.scenes.path("sheet.png").display().to_string();
    let first = found.pictures(&["a red circle", "--sheet", &sheet]);
    assert!(said(&first).contains("12 of 12 embedded"), "{}", said(&first));
    let first = answer(&first);
    assert_eq!(first["searched"], 12);
    assert_eq!(images(&first).len(), 12);
    let matching: Vec<f64> =
        first["results"].as_array().unwrap().iter().map(|found| found["matching"].as_f64().unwrap()).collect();
    assert!(matching.is_sorted_by(|a, b| a >= b), "{matching:?}");
    let drawn = image::open(&sheet).unwrap();
    assert!(drawn.width() > 200 && drawn.height() > 200);

    // Nothing is embedded again, and both ways of searching agree.
    let kept = found.index();
    let again = found.pictures(&["a red circle", "--exact"]);
    assert!(!said(&again).contains("embedded"), "{}", said(&again));
    assert_eq!(images(&answer(&again)), images(&first));
    assert!(kept == found.index());

    // One changes, one goes, one comes.
    let path = |name: &str| found.pictures.join(name);
    fs::copy(path("1.png"), path("0.png")).unwrap();
    fs::remove_file(path("more/11.png")).unwrap();
    fs::copy(path("2.png"), path("more/twin.png")).unwrap();
    let changed = found.pictures(&["a red circle"]);
    assert!(said(&changed).contains("2 of 12 embedded"), "{}", said(&changed));
    assert!(!images(&answer(&changed)).iter().any(|name| name.ends_with("11.png")));

    // The twin is the most similar picture, and no picture is similar to itself.
    let own = path("2.png").display().to_string();
    let similar = answer(&found.pictures(&["--image", &own, "--top", "3"]));
    assert_eq!(images(&similar).len(), 3);
    assert!(images(&similar)[0].ends_with("twin.png"), "{similar}");
    assert!((similar["results"][0]["similarity"].as_f64().unwrap() - 1.0).abs() < 1e-4);
    assert!(!images(&similar).contains(&own));
}

#[test]
fn an_index_keeps_as_much_of_a_picture_as_is_asked_for() {
    let found = Found::new();
    let search = |kept: &str, more: &[&str]| {
        let index = found.scenes.path(kept).display().to_string();
        found.pictures(&[&["a red circle", "--index", &index], more].concat())
    };
    let bytes = |kept: &str| -> u64 {
        let files = fs::read_dir(found.scenes.path(kept)).unwrap().map(Result::unwrap);
        let rows = files.filter(|file| file.file_name().to_string_lossy().starts_with("rows-"));
        rows.map(|file| file.metadata().unwrap().len()).sum()
    };
    let half = search("half", &[]);
    assert!(said(&half).contains("--patches makes it smaller"), "{}", said(&half));
    // Twelve features of 16 numbers; patches of 32 values.
    let features = 12 * 4 * 16;
    let patches = (bytes("half") - features) / (2 * 32);
    for (kept, payload) in [("8bit", patches * (2 + 32)), ("none", 0)] {
        let made = search(kept, &["--patches", kept]);
        assert!(said(&made).contains("12 of 12 embedded"), "{}", said(&made));
        assert_eq!(bytes(kept), features + payload, "{kept}");
        // It stays as it is, whether that is said again or not.
        for more in [&["--patches", kept][..], &[]] {
            let again = search(kept, more);
            assert!(!said(&again).contains("embedded"), "{}", said(&again));
            assert_eq!(images(&answer(&again)), images(&answer(&made)), "{kept}");
        }
        let other = search(kept, &["--patches", "half"]);
        assert_refused(&other, &[&format!("index of pictures (patches: {kept})"), "--index"]);
    }
    assert_eq!(images(&answer(&search("none", &[]))), images(&answer(&half)), "looked at again, they are the same");
    assert_eq!(search("other", &["--patches", "4bit"]).status.code(), Some(2));
}

#[test]
fn captions_are_found_by_a_picture() {
    let found = Found::new();
    let data = found.scenes.test.display().to_string();
    let image = found.pictures.join("0.png").display().to_string();
    let output = found.search_with(&found.run, &["--image", &image, "--data", &data, "--json", "--top", "5"]);
    let captions = answer(&output);
    let results = captions["results"].as_array().unwrap();
    assert_eq!(results.len(), 5);
    for found in results {
        assert!(!found["caption"].as_str().unwrap().is_empty());
        assert!((0.0..=1.0).contains(&found["matching"].as_f64().unwrap()));
    }
}

#[test]
fn what_cannot_be_searched_is_refused_and_the_index_stays() {
    let found = Found::new();
    answer(&found.pictures(&["a red circle"]));
    let kept = found.index();
    let nowhere = found.scenes.path("nowhere.png").display().to_string();
    assert_refused(&found.pictures(&["--image", &nowhere]), &["nowhere.png"]);
    assert_refused(&found.pictures(&["жжж"]), &["жжж", "vocabulary"]);
    assert_refused(&found.pictures(&["  "]), &["says nothing"]);
    let text = found.pictures.join("notes.txt").display().to_string();
    assert_refused(&found.pictures(&["--image", &text]), &["notes.txt"]);

    let other = found.scenes.pretrain("other", &["--set", "steps=1"]);
    assert!(other.status.success(), "{}", said(&other));
    let folder = found.pictures.display().to_string();
    let refused = found.search_with(&found.scenes.path("other"), &["a red circle", "--images", &folder]);
    assert_refused(&refused, &["index of pictures", "--index", "remove"]);
    assert!(kept == found.index(), "the index is as it was");

    // A line that is no text is named, the others are answered.
    let folder = found.pictures.display().to_string();
    let mut asking = simla();
    asking.args(["search", "--images", &folder, "--top", "1", "--json", "--checkpoint"]).arg(&found.run);
    let mut asked = asking.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    asked.stdin.take().unwrap().write_all(b"a red circle\na r\xe9d circle\na blue circle\n").unwrap();
    let output = asked.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("standard input, line 2: not UTF-8"), "{}", said(&output));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);

    let empty = found.scenes.path("empty");
    fs::create_dir(&empty).unwrap();
    let empty = empty.display().to_string();
    let refused = found.search_with(&found.run, &["a red circle", "--images", &empty]);
    assert_refused(&refused, &["empty", "no pictures"]);
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}

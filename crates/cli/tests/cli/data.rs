//! Data through the program: every kind of source, a look at it, and its way into shards.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{MICRO, assert_refused, output_of, printed, said, simla};

const SCENES: usize = 24;

/// Drawn scenes: `train.json` names pictures of 32 x 32 pixels with their captions.
struct Scenes {
    folder: TempDir,
    train: PathBuf,
}

impl Scenes {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = simla_scenes::write(&folder.path().join("scenes"), SCENES, 2, 5, 32, |_| ()).unwrap();
        Self { train: files.train, folder }
    }

    /// A path in the folder, as an argument.
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn train(&self) -> String {
        self.train.display().to_string()
    }

    fn records(&self) -> Vec<Value> {
        serde_json::from_str(&fs::read_to_string(&self.train).unwrap()).unwrap()
    }

    /// The file of an image that `train.json` names.
    fn image(&self, record: &Value) -> PathBuf {
        self.train.with_file_name(record["image"].as_str().unwrap())
    }

    /// A file of other records beside the drawn one.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.train.with_file_name(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

fn inspected(arguments: &[&str]) -> Value {
    let all = [&["data", "inspect", "--json"], arguments].concat();
    serde_json::from_str(&printed(&all)).unwrap()
}

#[test]
fn a_look_counts_what_is_there_and_what_is_broken() {
    let scenes = Scenes::new();
    let mut records = scenes.records();
    fs::write(scenes.train.with_file_name("torn.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    records[3]["image"] = "torn.png".into();
    records[4]["image"] = "nowhere.png".into();
    records[5]["caption"] = "?!".into();
    records[6]["caption"] = "dog ".repeat(31).into();
    let captions: usize = records.iter().map(|record| record["caption"].as_array().map_or(1, Vec::len)).sum();
    let data = scenes.write("broken.json", &Value::from(records).to_string());
    let sheet = scenes.path("sheet.png");
    let arguments = [data.as_str(), "--samples", "3", "--sheet", &sheet];

    let seen = inspected(&arguments);
    assert_eq!(seen["records"], SCENES);
    assert_eq!(seen["captions"], captions - 1);
    assert_eq!(seen["words"][31], 1);
    assert_eq!(seen["images"]["decoded"], SCENES - 3);
    assert_eq!(seen["images"]["width"], json!([32, 32, 32]));
    assert_eq!(seen["report"]["bad"], 3);
    for fault in ["unreadable_image", "missing_image", "empty_caption"] {
        assert_eq!(seen["report"]["faults"][fault], 1, "{fault}");
    }
    assert_eq!(seen["samples"].as_array().unwrap().len(), 3);
    let size = |path: &str| {
        let picture = fs::read(path).unwrap();
        simla_image::decode(&picture, &simla_image::Limits::default()).unwrap().dimensions()
    };
    assert!(size(&sheet).0 >= 3 * 180);

    let text = printed(&[&["data", "inspect", "--force"], &arguments[..]].concat());
    for part in ["records   24", "torn.png", "nowhere.png", "caption", "sample"] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
    let few = inspected(&[&data, "--images", "5"]);
    assert!(few["images"]["decoded"].as_u64().unwrap() <= 5);
}

#[test]
fn every_kind_of_source_holds_the_same() {
    let scenes = Scenes::new();
    let records = scenes.records();
    let expected = inspected(&[&scenes.train()]);
    let same = |arguments: &[&str]| {
        let seen = inspected(arguments);
        for part in ["records", "captions", "words", "images"] {
            assert_eq!(seen[part], expected[part], "{part} of {arguments:?}");
        }
        assert_eq!(seen["report"]["bad"], 0, "{arguments:?}");
    };

    // A table holds one caption a line; the captions of a line share its image.
    let first = |record: &Value| match &record["caption"] {
        Value::Array(captions) => captions[0].as_str().unwrap().to_owned(),
        caption => caption.as_str().unwrap().to_owned(),
    };
    let table = |separator: &str, names: [&str; 2]| {
        let mut text = names.join(separator) + "\n";
        for record in &records {
            let (image, caption) = (record["image"].as_str().unwrap(), first(record));
            text += &format!("{image}{separator}\"{caption}\"\n");
        }
        text
    };
    let csv = scenes.write("pairs.csv", &table(",", ["image", "caption"]));
    let tsv = scenes.write("pairs.tsv", &table("\t", ["file", "words"]));
    let columns = ["--image-column", "file", "--caption-column", "words"];
    let of_csv = inspected(&[&csv]);
    assert_eq!(of_csv["records"], SCENES);
    assert_eq!(inspected(&[&[tsv.as_str()], &columns[..]].concat())["words"], of_csv["words"]);
    assert_refused(&output_of(&["data", "inspect", &tsv]), &["pairs.tsv", "\"image\"", "file, words"]);

    // Pictures with a caption file each.
    let folder = scenes.folder.path().join("photographs");
    fs::create_dir(&folder).unwrap();
    for (i, record) in records.iter().enumerate() {
        fs::copy(scenes.image(record), folder.join(format!("{i}.png"))).unwrap();
        let beside = json!({"caption": record["caption"]}).to_string();
        fs::write(folder.join(format!("{i}.json")), beside).unwrap();
    }
    same(&[&scenes.path("photographs")]);

    // Shards: a file, a pattern, a folder.
    let shards = scenes.path("shards");
    printed(&["data", "pack", &scenes.train(), "--output", &shards, "--shard-size", "10"]);
    same(&[&shards]);
    same(&[&format!("{shards}/{{00000..00002}}.tar")]);
    assert_eq!(inspected(&[&format!("{shards}/00002.tar")])["records"], SCENES - 20);

    // Elsewhere than the file says.
    let elsewhere = scenes.path("elsewhere.json");
    fs::copy(&scenes.train, &elsewhere).unwrap();
    let root = scenes.path("scenes");
    same(&[&elsewhere, "--image-root", &root]);
    assert_refused(&output_of(&["data", "inspect", &elsewhere, "--image-root", &scenes.path("no")]), &["image_root"]);
}

#[test]
fn a_shard_that_was_cut_off_is_named_and_the_rest_of_it_used() {
    let scenes = Scenes::new();
    let shards = scenes.path("shards");
    let train = scenes.train();
    let pack = ["data", "pack", &train, "--output", &shards];
    let packed = output_of(&[&pack[..], &["--shard-size", "2"]].concat());
    assert_eq!(said(&packed), "", "what takes no second needs no progress");
    let last = Path::new(&shards).join("00011.tar");
    let whole = fs::read(&last).unwrap();
    fs::write(&last, &whole[..whole.len() / 2]).unwrap();

    let output = output_of(&["data", "inspect", &shards]);
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["records   24", "record malformed: 1", "00011.tar, record 2"] {
        assert!(seen.contains(part), "{part} in: {seen}");
    }
    assert!(said(&output).starts_with("warning: "), "{}", said(&output));
    assert!(said(&output).contains("00011.tar: at byte"), "{}", said(&output));
    let again = scenes.path("again");
    let report = printed(&["data", "pack", &shards, "--output", &again, "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["records"], SCENES - 1);

    // Alone it is judged by its records: the rest is one of two, which is more than a tenth.
    let refused = output_of(&["data", "pack", last.to_str().unwrap(), "--output", &scenes.path("no")]);
    assert_refused(&refused, &["1 of 2 records are malformed", "is it truncated?", "max_bad_share"]);
}

#[test]
fn packing_is_all_or_nothing() {
    let scenes = Scenes::new();
    let mut records = scenes.records();
    records[0]["image"] = "nowhere.png".into();
    let one = scenes.write("one.json", &Value::from(records.clone()).to_string());
    let shards = scenes.path("shards");
    let report: Value = serde_json::from_str(&printed(&["data", "pack", &one, "--output", &shards, "--json"])).unwrap();
    assert_eq!((&report["records"], &report["report"]["bad"]), (&json!(SCENES - 1), &json!(1)));

    let again = output_of(&["data", "pack", &one, "--output", &shards]);
    assert_refused(&again, &["there is already", "00000.tar", "empty folder"]);

    for record in &mut records[..8] {
        record["image"] = "nowhere.png".into();
    }
    let many = scenes.write("many.json", &Value::from(records).to_string());
    let other = scenes.path("other");
    let refused = output_of(&["data", "pack", &many, "--output", &other]);
    assert_refused(&refused, &["max_bad_share", "nowhere.png"]);
    let left = fs::read_dir(scenes.folder.path()).unwrap();
    let mut left: Vec<_> = left.map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["scenes", "shards"]);
}

#[test]
fn shards_train_and_rank_as_their_source_does() {
    let scenes = Scenes::new();
    let (train, shards) = (scenes.train(), scenes.path("shards"));
    printed(&["data", "pack", &train, "--output", &shards, "--in-order", "--shard-size", "100"]);
    let records = scenes.records();
    let mut table = String::from("file,words\n");
    for record in &records {
        let caption = match &record["caption"] {
            Value::Array(captions) => captions[0].clone(),
            caption => caption.clone(),
        };
        table += &format!("{},{caption}\n", record["image"].as_str().unwrap());
    }
    let table = scenes.write("pairs.csv", &table);

    // Mixed with weights: 24 x 0.5 + 24 x 2 records an epoch, 7 batches of 8. The held-out table has the same columns.
    let folder = scenes.path("run");
    let (half, twice) = (format!("{table}@0.5"), format!("{shards}@2"));
    let columns = ["--image-column", "file", "--caption-column", "words"];
    let looked = printed(&[&["data", "inspect", &half, &twice], &columns[..]].concat());
    assert!(looked.contains("records   48 (60 an epoch)"), "{looked}");
    let mut arguments = vec!["pretrain", "--data", &half, &twice, "--output", &folder];
    arguments.extend(["--eval-data", &table]);
    let settings = [MICRO, &["epochs=1", "image_column=file", "caption_column=words"]].concat();
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    let output = output_of(&arguments);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("pre-training 7/7"), "{}", said(&output));

    let ranked = |data: &str| {
        let arguments = ["eval", "retrieval", "--checkpoint", &folder, "--data", data, "--json"];
        printed(&arguments)
    };
    assert_eq!(ranked(&train), ranked(&shards));

    let wrong = output_of(&["data", "inspect", &format!("{shards}@0")]);
    assert_refused(&wrong, &["weight 0", "above 0"]);
}

#[test]
fn a_tokenizer_needs_no_batch_of_the_model_and_is_measured_on_held_out_pictures() {
    let scenes = Scenes::new();
    let (train, dvae) = (scenes.train(), scenes.path("dvae"));
    let test = scenes.train.with_file_name("test.json").display().to_string();
    let mut arguments = vec!["dvae", "train", "--data", &train, "--output", &dvae, "--eval-data", &test];
    let settings = [MICRO, &["batch_size=500", "dvae_steps=6", "eval_every_steps=3"]].concat();
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    let output = output_of(&arguments);
    assert!(output.status.success(), "{}", said(&output));
    let curve = fs::read_to_string(Path::new(&dvae).join("metrics.jsonl")).unwrap();
    let measured: Vec<Value> = curve
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|row: &Value| row["held_out/error"].is_number())
        .collect();
    assert_eq!(measured.len(), 2, "at steps 3 and 6: {curve}");
    let page = printed(&["report", &dvae]);
    let page = fs::read_to_string(page.trim()).unwrap();
    for part in ["After step 3", "After step 6", "of 32 codes occur in 2 pictures", "codes_used"] {
        assert!(page.contains(part), "{part} on the page");
    }

    let sheet = scenes.path("sheet.png");
    let found: Value = serde_json::from_str(&printed(&[
        "dvae", "eval", "--dvae", &dvae, "--data", &test, "--json", "--sheet", &sheet,
    ]))
    .unwrap();
    assert_eq!((&found["images"], &found["codes"]), (&json!(2), &json!(32)));
    assert_eq!(found["error"], measured[1]["held_out/error"]);
    assert_eq!(found["perplexity"], measured[1]["held_out/perplexity"]);
    assert!(Path::new(&sheet).exists());
}

#[test]
fn what_is_on_a_store_that_is_not_there_is_refused_once_and_soon() {
    let cache = tempfile::tempdir().unwrap();
    let inspect = |address: &str| {
        let mut command = simla();
        command.args(["data", "inspect", address]).env("SIMLA_STORE_CACHE", cache.path());
        // Nobody listens there.
        command.envs([("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("SIMLA_STORE_PATIENCE", "0.5")]);
        command.envs([("AWS_ACCESS_KEY_ID", "someone"), ("AWS_SECRET_ACCESS_KEY", "a-secret")]);
        command.output().unwrap()
    };
    for address in ["s3://pairs/{000..041}.tar", "s3://pairs/"] {
        let output = inspect(address);
        assert_refused(&output, &["data s3://pairs/", "refused", "SIMLA_STORE_PATIENCE=0.5", "AWS_ENDPOINT_URL"]);
        let said = said(&output);
        assert!(said.matches("refused").count() == 1 && !said.contains("a-secret"), "{said}");
    }
    assert_refused(&inspect("s3://pairs/pairs.json"), &["the address s3://pairs/pairs.json; expected .tar shards"]);
    let signed = inspect("s3://pairs/0.tar?X-Amz-Signature=abcdef");
    assert_refused(&signed, &["s3://...: expected an address without user"]);
    assert!(!said(&signed).contains("abcdef"));
}

//! Every format gives the same records; what is wrong in a file is named.

use std::path::{Path, PathBuf};

use crate::common::Photos;
use serde_json::json;
use simla_data::{Dataset, OpenError, Options, Source};

fn open_with(path: &Path, options: &Options) -> Result<Dataset, OpenError> {
    Dataset::open(&[Source::from(path.to_path_buf())], options)
}

fn open(path: &Path) -> Result<Dataset, OpenError> {
    open_with(path, &Options::default())
}

fn refused(path: &Path) -> String {
    open(path).unwrap_err().to_string()
}

fn written(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Image bytes and captions of every record.
fn contents(dataset: &Dataset) -> Vec<(Vec<u8>, Vec<String>)> {
    (0..dataset.len()).map(|i| dataset.record(i).unwrap()).map(|r| (r.image, r.captions)).collect()
}

#[test]
fn json_records_are_what_is_written() {
    let photos = Photos::make(3);
    let folder = photos.folder.path();
    let absolute = photos.image(2);
    let list = json!([
        {"image": "images/0.png", "caption": "one", "image_id": 7},
        {"caption": ["two \u{1F415} \"quoted\" \\ [x] {y}", "zwei"], "more": [{"image": 5}], "image": "images/1.png", "image_id": "7"},
        {"image": absolute, "caption": ["drei"]},
        {"image": "images/0.png", "caption": "vier"},
        {"image": "./images/0.png", "caption": "five", "image_id": null},
    ]);
    for text in [list.to_string(), format!("  {list:#}\n"), format!("\u{feff}{list}")] {
        let dataset = open(&written(folder, "list.json", text)).unwrap();
        assert_eq!(dataset.len(), 5);
        let records: Vec<_> = (0..5).map(|i| dataset.record(i).unwrap()).collect();
        assert_eq!(records[1].captions, ["two \u{1F415} \"quoted\" \\ [x] {y}", "zwei"]);
        assert_eq!(records[2].image, std::fs::read(&absolute).unwrap());
        assert_eq!(records[0].image_id, records[1].image_id, "the same id as number and text");
        assert_ne!(records[0].image_id, records[3].image_id, "an id and a path are different names");
        assert_ne!(records[2].image_id, records[3].image_id);
        assert_eq!(records[3].name, format!("{}, record 4", folder.join("list.json").display()));
        assert_eq!(dataset.captions(|_| ()).collect::<Vec<_>>()[2], "zwei");
    }
}

#[test]
fn each_caption_becomes_a_record_of_the_same_image() {
    let photos = Photos::make(3);
    photos.set_captions(1, json!(["only", " "]));
    let pairs = Options { each_caption: true, max_bad_share: 0.5, ..Options::default() };
    let whole = open(&photos.json).unwrap();
    let dataset = open_with(&photos.json, &pairs).unwrap();
    let images: Vec<_> = (0..3).map(|i| whole.entry(i).unwrap().image_id).collect();
    let found: Vec<_> = (0..dataset.len())
        .map(|i| dataset.entry(i).unwrap())
        .map(|entry| (entry.image_id, entry.captions.concat()))
        .collect();
    let expected = [
        (images[0], "a red square number w0"),
        (images[0], "red!"),
        (images[0], "the mark at w0"),
        (images[1], "only"),
        (images[2], "a blue square number w2"),
        (images[2], "blue!"),
        (images[2], "the mark at w2"),
    ];
    assert_eq!(found, expected.map(|(id, text)| (id, text.to_owned())));

    // A record that cannot be used stays one, and is named.
    photos.set_captions(0, json!([]));
    let dataset = open_with(&photos.json, &pairs).unwrap();
    assert_eq!(dataset.len(), 5);
    let error = dataset.entry(0).unwrap_err().to_string();
    assert!(error.contains("record 1"), "{error}");
}

#[test]
fn images_are_found_from_the_image_root() {
    let photos = Photos::make(1);
    let elsewhere = tempfile::tempdir().unwrap();
    let list = written(elsewhere.path(), "list.json", r#"[{"image": "images/0.png", "caption": "one"}]"#);
    assert!(open(&list).unwrap().record(0).unwrap_err().to_string().contains("images/0.png: No such file"));
    let root = Options { image_root: Some(photos.folder.path().into()), ..Options::default() };
    assert!(open_with(&list, &root).unwrap().record(0).is_ok());
    let none = Options { image_root: Some("/no/such/folder".into()), ..Options::default() };
    let error = open_with(&list, &none).unwrap_err().to_string();
    assert!(error.starts_with("setting `image_root` = /no/such/folder: "), "{error}");
}

#[test]
fn json_errors_name_file_record_field_and_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let good = r#"{"image": "1.jpg", "caption": "one"}"#;
    for (text, expected) in [
        (
            "".into(),
            "record 1: EOF while parsing a value at line 1 column 0; expected a list of records like [{\"image\"",
        ),
        ("{}".into(), "record 1: invalid type: map, expected a list"),
        ("[]".into(), "no records in it"),
        (format!("[{good}, {good}"), "record 3: EOF while parsing a list"),
        (format!("[{good} {good}]"), "record 2: expected `,` or `]`"),
        (format!("[{good}, {{\"image\": \"2"), "record 2: EOF while parsing a string"),
        (format!("[{good}] x"), "trailing characters"),
        (format!("[{good},]"), "record 2: trailing comma"),
        (
            r#"[{"caption": "one"}]"#.into(),
            "record 1: field `image`: expected the path of an image file, found nothing",
        ),
        (
            r#"[{"image": "1.jpg"}]"#.into(),
            "record 1: field `caption`: expected a string or a list of strings, found nothing",
        ),
        (r#"[{"image": "1.jpg", "caption": {"en": "one"}}]"#.into(), "found an object: {\"en\":\"one\"}"),
        (
            r#"[{"image": "1.jpg", "caption": ["one", 2]}]"#.into(),
            "expected a list of nothing but strings, found a number: 2",
        ),
        (
            r#"[{"image": ["1.jpg"], "caption": "one"}]"#.into(),
            "field `image`: expected the path of an image file, found a list",
        ),
        (
            r#"[{"image": "1.jpg", "caption": "one", "image_id": [1]}]"#.into(),
            "field `image_id`: expected a number or a string",
        ),
        (r#"["1.jpg"]"#.into(), "record 1: invalid type: string \"1.jpg\", expected struct"),
        (r#"[{"image": "1.jpg", "image": "2.jpg", "caption": "one"}]"#.into(), "record 1: duplicate field `image`"),
        ("[1, 2, 3]".into(), "3 of 3 records are malformed"),
    ] {
        let path = written(folder.path(), "list.json", text);
        let error = refused(&path);
        assert!(error.starts_with(&format!("data {}: ", path.display())) && error.contains(expected), "{error}");
    }
    let deep = "[".repeat(100_000);
    assert!(refused(&written(folder.path(), "deep.json", deep)).contains("record 1: "));
    let long = format!("[{good}, {{\"image\": \"{}\"}}]", "x".repeat(3 << 20));
    assert!(refused(&written(folder.path(), "long.json", long)).contains("record 2: longer than 1048576 bytes"));
    let bytes =
        [b"[{\"image\": \"\xff\", \"caption\": \"a\"}]".as_slice(), b"[{\"image\": \"\\ud800\", \"caption\": \"a\"}]"];
    for text in bytes {
        assert!(refused(&written(folder.path(), "bytes.json", text)).contains("record 1: "));
    }
}

#[test]
fn a_few_malformed_records_are_no_reason_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let mut records = vec![json!({"image": "1.jpg", "caption": "one"}); 20];
    records[3] = json!({"image": "1.jpg"});
    records[4] = json!(null);
    let path = written(folder.path(), "list.json", serde_json::to_vec(&records).unwrap());
    let dataset = open(&path).unwrap();
    assert_eq!(dataset.len(), 20);
    assert!(dataset.entry(3).is_err() && dataset.entry(4).is_err() && dataset.entry(5).is_ok());
    records[5] = json!({"image": 1, "caption": "one"});
    let path = written(folder.path(), "list.json", serde_json::to_vec(&records).unwrap());
    let error = refused(&path);
    assert!(
        error.contains("3 of 20 records are malformed, more than the share of 0.1 that is allowed (`max_bad_share`)"),
        "{error}"
    );
    assert!(error.contains("record 4: field `caption`") && error.contains("record 6: field `image`"), "{error}");
}

#[test]
fn csv_and_tsv_with_chosen_columns() {
    let photos = Photos::make(3);
    let folder = photos.folder.path();
    let csv = "id,caption,image,image_id\n1,\"a \"\"dog\"\", two\nlines\",images/0.png,9\r\n2,katze,images/1.png,9\n\n3,x,images/2.png,8";
    let dataset = open(&written(folder, "list.csv", csv)).unwrap();
    let records: Vec<_> = (0..dataset.len()).map(|i| dataset.record(i).unwrap()).collect();
    assert_eq!(
        records.iter().map(|r| r.captions[0].as_str()).collect::<Vec<_>>(),
        ["a \"dog\", two\nlines", "katze", "x"]
    );
    assert_eq!((records[0].image_id == records[1].image_id, records[1].image_id == records[2].image_id), (true, false));
    assert_eq!(records[2].image, std::fs::read(photos.image(2)).unwrap());
    assert!(records[1].name.ends_with("list.csv, record 2"), "{}", records[1].name);

    let tsv = "title\tfilepath\nein hund, der läuft\timages/2.png\n";
    let path = written(folder, "list.tsv", tsv);
    let error = refused(&path);
    assert!(
        error.contains("there is no column \"image\" (setting `image_column`); the first line has: title, filepath"),
        "{error}"
    );
    let columns = Options { image_column: "filepath".into(), caption_column: "title".into(), ..Options::default() };
    assert_eq!(contents(&open_with(&path, &columns).unwrap())[0].1, ["ein hund, der läuft"]);
}

#[test]
fn csv_errors_are_named() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refused(&written(folder.path(), "a.csv", "")).contains("no column \"image\""));
    // Found by fuzzing: a first line of a megabyte came back as a message as long.
    assert!(refused(&written(folder.path(), "long.csv", "a,".repeat(10_000))).len() < 1000);
    assert!(refused(&written(folder.path(), "b.csv", "image,caption\n")).contains("no records in it"));
    let short = refused(&written(folder.path(), "c.csv", "caption,image\nonly a caption\n"));
    assert!(short.contains("c.csv, record 1: field `image`: expected a column more, found nothing"), "{short}");
    let open_quote = "caption,image\n\"a dog,1.jpg\na cat,2.jpg\n";
    let open_quote = refused(&written(folder.path(), "quote.csv", open_quote));
    assert!(
        open_quote.contains("record 1: field `image`") && open_quote.contains("a quote that nothing closes"),
        "{open_quote}"
    );
    let bytes = refused(&written(folder.path(), "d.csv", b"caption,image\n\xff,1.jpg\n"));
    assert!(bytes.contains("field `caption` is not UTF-8 text"), "{bytes}");
    let endless = format!("caption,image\n\"{}", "x".repeat(3 << 20));
    assert!(refused(&written(folder.path(), "e.csv", endless)).contains("longer than 1048576 bytes"));
}

#[test]
fn a_folder_of_photographs_with_captions_beside() {
    let photos = Photos::make(3);
    let folder = photos.folder.path().join("images");
    let error = refused(&folder);
    assert!(
        error.contains("3 of 3 records are malformed") && error.contains("0.png: no caption: expected a .txt file"),
        "{error}"
    );
    std::fs::write(folder.join("0.txt"), "a red square\n").unwrap();
    std::fs::write(folder.join("1.json"), r#"{"caption": ["green", "a square"]}"#).unwrap();
    std::fs::write(folder.join("2.txt"), "from the text").unwrap();
    std::fs::write(folder.join("2.json"), r#"{"width": 3}"#).unwrap();
    std::fs::rename(folder.join("2.png"), folder.join("2.PNG")).unwrap();
    let dataset = open(&folder).unwrap();
    let captions: Vec<_> = contents(&dataset).into_iter().map(|(_, captions)| captions).collect();
    assert_eq!(captions, [vec!["a red square"], vec!["green", "a square"], vec!["from the text"]]);
    assert!(refused(tempfile::tempdir().unwrap().path()).contains("no records in it"));

    // Folders in it count, hidden ones and what a Mac leaves beside a picture do not.
    for inner in ["2019/summer", ".cache"] {
        let inner = folder.join(inner);
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::copy(folder.join("0.png"), inner.join("0.png")).unwrap();
        std::fs::write(inner.join("0.txt"), "at the sea").unwrap();
    }
    std::fs::copy(folder.join("0.png"), folder.join("._0.png")).unwrap();
    let dataset = open(&folder).unwrap();
    assert_eq!(dataset.len(), 4);
    let first = dataset.record(1).unwrap();
    assert_eq!(first.captions, ["green", "a square"]);
    let inner = (0..4).map(|i| dataset.record(i).unwrap());
    let inner = inner.filter(|r| r.name.ends_with("2019/summer/0.png"));
    assert_eq!(inner.map(|r| r.captions).collect::<Vec<_>>(), [["at the sea"]]);
}

#[test]
fn whoever_waits_for_a_large_source_is_told_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let record = r#"{"image": "1.jpg", "caption": "one"}"#;
    let json = written(folder.path(), "list.json", format!("[{}]", [record; 5000].join(",")));
    let csv = written(folder.path(), "list.csv", "image,caption\n".to_owned() + &"1.jpg,one\n".repeat(5000));
    for path in [json, csv] {
        let length = std::fs::metadata(&path).unwrap().len();
        let mut told = Vec::new();
        let sources = [Source::from(path.clone())];
        Dataset::open_watched(&sources, &Options::default(), &mut |of, done, all| {
            assert_eq!((of, all), (path.as_path(), length));
            told.push(done);
        })
        .unwrap();
        assert!(told.len() >= 4 && told.is_sorted(), "{told:?}");
        assert!(told[0] < length / 4 && told[told.len() - 1] > length / 2);
    }
}

#[test]
fn wrong_paths_and_settings_are_refused() {
    let photos = Photos::make(2);
    let folder = photos.folder.path();
    assert!(refused(&folder.join("none.json")).contains("none.json: No such file"));
    assert!(
        refused(&written(folder, "a.xml", ""))
            .contains("a.xml: a .xml file; expected a .json, .csv, .tsv or .tar file")
    );
    assert!(refused(&written(folder, "data", "")).contains("a file without an ending"));
    assert!(refused(&folder.join("{0..3}.json")).contains("a pattern that stands for"));
    assert!(refused(&folder.join("{0..x}.tar")).contains("expected two numbers"));
    assert!(Dataset::open(&[], &Options::default()).unwrap_err().to_string().contains("no files were given"));
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        let source = Source { path: photos.json.clone(), weight };
        let error = Dataset::open(&[source], &Options::default()).unwrap_err().to_string();
        assert!(error.contains("photos.json: weight ") && error.contains("expected a number above 0"), "{error}");
    }
    let share = Options { max_bad_share: 1.5, ..Options::default() };
    assert!(open_with(&photos.json, &share).unwrap_err().to_string().contains("setting `max_bad_share` = 1.5"));
}

#[test]
fn an_image_that_is_no_file_is_a_missing_image() {
    let folder = tempfile::tempdir().unwrap();
    let list = json!([{"image": ".", "caption": "a folder"}, {"image": "/dev/zero", "caption": "without end"}]);
    let dataset = open(&written(folder.path(), "list.json", list.to_string())).unwrap();
    for index in 0..2 {
        assert!(dataset.record(index).unwrap_err().to_string().contains("not a file"));
    }
    let large = folder.path().join("large.jpg");
    std::fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    let dataset = open(&written(folder.path(), "list.json", r#"[{"image": "large.jpg", "caption": "a"}]"#)).unwrap();
    assert!(dataset.record(0).unwrap_err().to_string().contains("1099511627776 bytes, at most"));
}

#[test]
fn several_sources_follow_each_other() {
    let (a, b) = (Photos::make(3), Photos::make(4));
    let sources = [Source::from(a.json.clone()), Source { path: b.json.clone(), weight: 2.0 }];
    let dataset = Dataset::open(&sources, &Options::default()).unwrap();
    assert_eq!(dataset.len(), 7);
    let name = |i| dataset.record(i).unwrap().name;
    assert!(name(2).starts_with(a.json.to_str().unwrap()) && name(2).ends_with("record 3"));
    assert!(name(3).starts_with(b.json.to_str().unwrap()) && name(3).ends_with("record 1"));
    assert!(name(6).ends_with("record 4"));
    assert_eq!(dataset.sources().map(|(_, n)| n).collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn weights_are_written_after_the_path() {
    let parse = |text: &str| text.parse::<Source>().unwrap();
    assert_eq!(parse("a.json"), Source { path: "a.json".into(), weight: 1.0 });
    assert_eq!(parse("s/{0..3}.tar@0.5"), Source { path: "s/{0..3}.tar".into(), weight: 0.5 });
    assert_eq!(parse("me@home.json"), Source { path: "me@home.json".into(), weight: 1.0 });
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "odd@2", "");
    assert_eq!(parse(path.to_str().unwrap()), Source { path, weight: 1.0 });
}

/// How many records are used, and what is wrong with the others.
fn used(path: &Path) -> (usize, Vec<String>) {
    let dataset = open_with(path, &Options { max_bad_share: 1.0, ..Options::default() }).unwrap();
    let errors: Vec<String> = (0..dataset.len()).filter_map(|i| Some(dataset.entry(i).err()?.to_string())).collect();
    (dataset.len() as usize - errors.len(), errors)
}

#[test]
fn what_is_wrong_in_a_json_record_costs_that_record() {
    let folder = tempfile::tempdir().unwrap();
    let good = r#"{"image": "1.jpg", "caption": "one", "score": NaN}"#;
    let long = format!(r#"{{"image": "2.jpg", "caption": "two", "imageData": "{}"}}"#, "A".repeat(1_500_000));
    for (bad, words) in [
        (r#"{"image": "2.jpg", "caption": NaN}"#, "record 3: field `caption`: expected a string or a list of strings"),
        (r#"{"image": "2.jpg", "caption": nan}"#, "record 3: expected ident"),
        (long.as_str(), "record 3: longer than 1048576 bytes"),
        (r#"{"image": "2.jpg", "caption": "\ud800"}"#, "record 3: "),
        (r#"{"image": "2.jpg" "caption": "two"}"#, "record 3: expected `,` or `}`"),
        ("{]", "record 3: "),
        ("\"a [string\"", "record 3: invalid type: string"),
        ("12", "record 3: invalid type: integer"),
    ] {
        let list = written(folder.path(), "list.json", format!("[{good}, {good},{bad} ,\n{good}]"));
        let lines = written(folder.path(), "lines.jsonl", format!("{good}\n{good}\r\n\n{bad}\n{good}"));
        for path in [list, lines] {
            let (used, errors) = used(&path);
            assert_eq!((used, errors.len()), (3, 1), "{errors:?}");
            assert!(errors[0].contains(words), "{}", errors[0]);
        }
    }
    // Two stray quotes hide what lies between them: counted.
    let stray = r#"{"image": "2.jpg", "caption": "a dog}"#;
    let path = written(folder.path(), "list.json", format!("[{good}, {stray}, {good}, {good}, {stray}, {good}]"));
    let (used, errors) = used(&path);
    assert_eq!((used, errors.len()), (2, 4), "{errors:?}");
    let error = refused(&written(folder.path(), "list.json", format!("[{good}, {stray}, {good}]")));
    assert!(error.contains("record 2: EOF while parsing a string: a quote that nothing closes"), "{error}");
    // One object that is no record is no file of records.
    let coco = "{\n \"images\": [],\n \"annotations\": []\n}";
    let error = refused(&written(folder.path(), "coco.json", coco));
    assert!(error.contains("record 1: invalid type: map, expected a list, or a record a line"), "{error}");
}

#[test]
fn a_quote_takes_no_row_but_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |bad: &str| {
        let row = |i| if i == 4 { bad.to_owned() } else { format!("img/{i}.jpg,a cat {i}") };
        format!("image,caption\n{}\n", (0..12).map(row).collect::<Vec<_>>().join("\n"))
    };
    for (bad, words) in [
        ("img/4.jpg,\"a dog", "record 5: a quote that nothing closes"),
        ("img/4.jpg,\"a \"big\" dog\"", "expected it doubled"),
        (r#"img/4.jpg,"a \"big\" dog""#, r#"(\" is not read)"#),
        ("img/4.jpg,a dog, a cat, and a mouse", "record 5: 4 fields, but the first line names 2 columns"),
        ("\"img/4.jpg,a dog", "record 5: field `caption`: expected a column more (a quote that nothing closes"),
    ] {
        let (used, errors) = used(&written(folder.path(), "a.csv", rows(bad)));
        assert_eq!((used, errors.len()), (11, 1), "{errors:?}");
        assert!(errors[0].contains(words), "{}", errors[0]);
    }
    // Two such quotes, of which the second closes the first, also at its line's end.
    for second in ["img/7.jpg,\"another dog", "img/7.jpg,a dog\""] {
        let text = rows("img/4.jpg,\"a dog").replace("img/7.jpg,a cat 7", second);
        let (used, errors) = used(&written(folder.path(), "a.csv", text));
        assert!(used >= 10 && used + errors.len() == 12 && errors[0].contains("record 5: a quote"), "{errors:?}");
    }
    // What is quoted as it should be may have lines, separators and further empty fields.
    let fine = rows("img/4.jpg,\"a dog, img/9.jpg,\nand \"\"a cat\"\"\r\nagain\",,");
    assert_eq!(used(&written(folder.path(), "a.csv", fine)), (12, vec![]));
    let long = rows(&format!("img/4.jpg,{}", "x".repeat(9 << 20)));
    let (used, errors) = used(&written(folder.path(), "a.csv", long));
    assert!(used == 11 && errors[0].contains("record 5: longer than 1048576 bytes"), "{errors:?}");
}

#[test]
fn other_separators_and_encodings_are_read_or_named() {
    let photos = Photos::make(2);
    let folder = photos.folder.path();
    for text in ["image;caption\nimages/0.png;one, two\n", "image\tcaption\rimages/0.png\tone, two\r"] {
        assert_eq!(contents(&open(&written(folder, "a.csv", text)).unwrap())[0].1, ["one, two"]);
    }
    let utf16 = |text: &str| [b"\xff\xfe".to_vec(), text.encode_utf16().flat_map(u16::to_le_bytes).collect()].concat();
    for (name, text) in [("a.csv", "image,caption\nimages/0.png,one"), ("a.json", "[]")] {
        for bytes in [utf16(text), utf16(text)[2..].to_vec()] {
            let error = refused(&written(folder, name, bytes));
            assert!(error.contains("UTF-16 text; expected UTF-8: `iconv -f UTF-16"), "{error}");
        }
    }
    let json = b"[{\"image\": \"images/0.png\", \"caption\": \"caf\xe9\"}]";
    for (name, text) in [("a.csv", &b"image,caption\nimages/0.png,caf\xe9\n"[..]), ("a.json", json)] {
        let latin = refused(&written(folder, name, text));
        assert!(latin.contains("if it is Latin-1: `iconv -f LATIN1"), "{latin}");
    }
    let json = r#"[{"image": "images/0.png", "caption": "one"}]"#;
    for (name, text) in [("A.JSON", json), ("A.CSV", "image,caption\nimages/0.png,one"), ("a.ndjson", &json[1..44])] {
        assert_eq!(contents(&open(&written(folder, name, text)).unwrap())[0].1, ["one"], "{name}");
    }
    let images = folder.join("images");
    std::fs::rename(images.join("0.png"), images.join("0.JFIF")).unwrap();
    std::fs::rename(images.join("1.png"), images.join("1.jpe")).unwrap();
    written(&images, "0.TXT", "one");
    written(&images, "1.JSON", r#"{"caption": "two"}"#);
    assert_eq!(used(&images), (2, vec![]));
}

#[test]
fn links_are_followed_once_and_what_is_not_read_is_named() {
    use std::os::unix::fs::symlink;
    let (root, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (folder, far) = (root.path().join("photos"), far.path());
    std::fs::create_dir_all(folder.join("inner")).unwrap();
    for at in [&folder.join("inner"), far] {
        written(at, "1.jpg", "picture");
        written(at, "1.txt", "a caption");
    }
    symlink(far, folder.join("far")).unwrap();
    symlink(far, folder.join("far again")).unwrap();
    symlink(&folder, folder.join("inner/round")).unwrap();
    symlink("inner", folder.join("the same")).unwrap();
    symlink(root.path(), folder.join("above")).unwrap();
    symlink(far.join("1.jpg"), folder.join("one.jpg")).unwrap();
    symlink(far.join("none.jpg"), folder.join("none.jpg")).unwrap();
    written(&folder, "one.txt", "a link to a file");
    written(&folder, "none.txt", "a link to nothing");
    for name in ["x.heic", "y.HEIC", "z.gif", "x.txt", ".hidden.jpg"] {
        written(&folder, name, "x");
    }
    let walked = simla_data::sources::walk(&folder, usize::MAX).unwrap();
    let names: Vec<_> = walked.pictures.iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.contains(&"inner/1.jpg") && names.contains(&"one.jpg") && names.contains(&"none.jpg"), "{names:?}");
    assert_eq!(names.iter().filter(|name| name.starts_with("far")).count(), 1, "{names:?}");
    assert_eq!(walked.unread.to_string(), "1 .gif, 2 .heic");

    let dataset = open(&folder).unwrap();
    assert_eq!(dataset.len(), 4);
    assert_eq!((0..4).filter(|i| dataset.record(*i).is_err()).count(), 1);
    let warnings = dataset.warnings();
    let expected = "files that are no image or caption: 1 .gif, 2 .heic, 1 .txt without an image";
    assert!(warnings.len() == 1 && warnings[0].ends_with(expected), "{warnings:?}");
    std::fs::create_dir(folder.join("only")).unwrap();
    written(&folder.join("only"), "a.heic", "x");
    assert!(refused(&folder.join("only")).contains("no records in it, but 1 .heic; expected images (.jpg, "));
}

#[test]
fn a_path_that_finds_nothing_says_what_may_be_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["cafe\u{301}.jpg", "e\u{301}te\u{301}.jpg", "CAMERA.JPG"] {
        written(folder.path(), name, "picture");
    }
    for (image, words) in [
        ("img\\\\1.jpg", "backslashes, expected / between folders"),
        ("file:///img/1.jpg", "expected a path, not a file:// address"),
        ("https://example.org/1.jpg", "not an address: fetch it first"),
        ("caf\u{e9}.jpg", "a file whose name only looks the same is there"),
        ("CAMERA.jpg", "called CAMERA.JPG"),
        ("Camera.JPG", "called CAMERA.JPG"),
        ("1.jpg", "No such file or directory (os error 2)"),
    ] {
        let text = format!(r#"[{{"image": "{image}", "caption": "one"}}]"#);
        let dataset = open(&written(folder.path(), "list.json", text)).unwrap();
        let error = dataset.record(0).unwrap_err().to_string();
        assert!(error.contains("list.json, record 1: image file") && error.contains(words), "{error}");
    }
}

#[test]
fn words_of_a_file_steer_no_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let list = json!([
        {"image": "\u{1b}[31mred\u{1b}]0;title\u{7}.jpg", "caption": "one"},
        {"image": "1.jpg", "caption": {"\u{9b}": "\u{202e}"}},
        {"image": "1.jpg", "\u{1b}[2J": 1, "caption": "", "image_id": ["\u{202e}"]},
    ]);
    let path = written(folder.path(), "\u{1b}[0m.json", list.to_string());
    let dataset = open_with(&path, &Options { max_bad_share: 1.0, ..Options::default() }).unwrap();
    for index in 0..3 {
        let error = dataset.record(index).unwrap_err().to_string();
        assert!(
            error.contains(r"\u{1b}[0m.json") && !error.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']),
            "{error:?}"
        );
    }
    let error = refused(&path);
    assert!(error.contains("2 of 3 records") && !error.contains(['\u{1b}', '\u{202e}']), "{error:?}");
}

#[test]
fn a_temporary_folder_that_is_not_there_is_named() {
    let photos = Photos::make(2);
    let options = Options { index_folder: Some("/no/such/folder".into()), ..Options::default() };
    for each_caption in [false, true] {
        let error = open_with(&photos.json, &Options { each_caption, ..options.clone() }).unwrap_err().to_string();
        assert!(error.starts_with("temporary folder /no/such/folder: ") && error.contains("set TMPDIR"), "{error}");
        assert!(!error.contains("photos.json"), "{error}");
    }
}

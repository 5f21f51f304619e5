//! Small data sets, made for the test.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use simla_data::Vocabulary;

/// Pictures of one colour each with a mark, three captions each, described by `photos.json`.
pub struct Photos {
    pub folder: tempfile::TempDir,
    pub json: PathBuf,
}

const COLOURS: [(&str, [u8; 3]); 4] =
    [("red", [200, 30, 30]), ("green", [30, 180, 40]), ("blue", [40, 60, 220]), ("white", [240, 240, 240])];

impl Photos {
    pub fn make(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("images")).unwrap();
        let json = folder.path().join("photos.json");
        let photos = Photos { folder, json };
        photos.restore(count);
        let mut records = Vec::new();
        for i in 0..count {
            let (name, _) = COLOURS[i % 4];
            let captions =
                [format!("a {name} square number w{i}"), format!("{name}!"), format!("the mark at w{}", i % 40)];
            records.push(json!({"image": format!("images/{i}.png"), "caption": captions}));
        }
        photos.write(&Value::Array(records));
        photos
    }

    /// Draws the first `count` pictures.
    pub fn restore(&self, count: usize) {
        for i in 0..count {
            let (_, colour) = COLOURS[i % 4];
            let mut picture = image::RgbImage::from_pixel(40 + i as u32 % 7, 36, image::Rgb(colour));
            picture.put_pixel(i as u32 % 40, i as u32 % 36, image::Rgb([0, 0, 0]));
            picture.save(self.image(i)).unwrap();
        }
    }

    pub fn image(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("images/{index}.png"))
    }

    pub fn set_captions(&self, index: usize, captions: Value) {
        let mut records: Value = serde_json::from_slice(&std::fs::read(&self.json).unwrap()).unwrap();
        records[index]["caption"] = captions;
        self.write(&records);
    }

    fn write(&self, records: &Value) {
        std::fs::write(&self.json, serde_json::to_vec_pretty(records).unwrap()).unwrap();
    }
}

/// The words of the captions, opened from a file.
pub fn vocabulary() -> Vocabulary {
    let folder = tempfile::tempdir().unwrap();
    let path: &Path = &folder.path().join("vocab.txt");
    let words = ["a", "square", "number", "the", "mark", "at", "red", "green", "blue", "white"];
    let numbers: Vec<String> = (0..100).map(|i| format!("w{i}")).collect();
    let all = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .into_iter()
        .chain(words)
        .chain(numbers.iter().map(String::as_str));
    std::fs::write(path, all.collect::<Vec<_>>().join("\n")).unwrap();
    Vocabulary::open(path).unwrap()
}

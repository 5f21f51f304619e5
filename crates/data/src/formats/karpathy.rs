//! Karpathy's `dataset_coco.json`, `dataset_flickr30k.json` and `dataset_flickr8k.json`: pictures with sentences, each in a split:
//! `{"images": [{"filepath"?, "filename", "split", "sentences": [{"raw"}], "imgid"?}]}`.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

use super::pairs::{Pair, Pairs};
use super::{Format, Place};
use crate::loader::SettingError;
use crate::record::{Entry, Location, RecordError};
use crate::sources::fields;

/// How such pictures become rows: as pairs. Those of other splits than are asked for are passed over.
#[derive(Clone, Debug)]
pub(crate) struct Karpathy(pub Pairs);

/// The fields of a picture that matter.
#[derive(Deserialize)]
struct Fields {
    filepath: Option<Value>,
    filename: Option<Value>,
    split: Option<Value>,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

impl Format for Karpathy {
    type Entry = Entry;
    type Row = Pair;
    const EXAMPLE: &'static str =
        r#"[{"filepath": "val2014", "filename": "1.jpg", "split": "test", "sentences": [{"raw": "a dog"}]}]"#;
    const LIST: Option<&'static str> = Some("images");

    fn read(json: &[u8], place: &Place) -> Result<Vec<Entry>, RecordError> {
        let Fields { filepath, filename, split, sentences } = place.fields::<Self, _>(json)?;
        if !place.is_asked_for(fields::string("split", split.as_ref(), place)?) {
            return Ok(vec![]);
        }
        let file = fields::string("filename", filename.as_ref(), place)?;
        let name = match fields::optional_string("filepath", filepath.as_ref(), place)? {
            Some(folder) => format!("{folder}/{file}"),
            None => file.to_owned(),
        };
        let (image, image_id) = place.picture(&[name])?;
        let captions = sentences.into_iter().map(|sentence| sentence.raw).collect();
        Ok(vec![Entry::new(image, captions, place.name.clone(), image_id)?])
    }

    fn name(entry: &Entry) -> &str {
        &entry.name
    }

    fn texts(entry: Entry) -> Vec<String> {
        entry.captions
    }

    fn pictures(entry: &Entry) -> Vec<Location> {
        vec![entry.image.clone()]
    }

    fn check(&self, side: u32) -> Result<(), SettingError> {
        self.0.check(side)
    }

    fn row(&self, entry: Entry, rng: &mut ChaCha8Rng) -> Result<Pair, RecordError> {
        self.0.row(entry, rng)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::dataset::{Dataset, Source};
    use crate::sources::{OpenError, Options};

    const TEXT: &str = r#" {"dataset": "coco [\"images\": [", "images": [
        {"filepath": "val2014", "filename": "a.jpg", "imgid": 0, "split": "test", "sentids": [1, 2],
         "sentences": [{"tokens": ["a"], "raw": "A dog.", "sentid": 1}, {"raw": "One dog"}]},
        {"filename": "b.jpg", "split": "restval", "sentences": [{"raw": "a cat"}]},
        {"filename": "c.jpg", "split": "train", "sentences": [{"raw": "a cow"}]}], "more": [1]}"#;

    fn opened(path: &Path, splits: &[&str]) -> Result<Dataset, OpenError> {
        let splits = splits.iter().map(|&split| split.into()).collect();
        Dataset::open(&[Source::from(path.to_path_buf())], &Options { splits, ..Options::default() })
    }

    #[test]
    fn pictures_of_the_splits_that_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dataset_coco.json");
        std::fs::write(&path, TEXT).unwrap();
        let test = opened(&path, &["test"]).unwrap();
        assert_eq!(test.len(), 1);
        let entry = test.entry(0).unwrap();
        assert_eq!(entry.captions, ["A dog.", "One dog"]);
        assert_eq!(entry.image.to_string(), folder.path().join("val2014/a.jpg").display().to_string());
        let train = opened(&path, &["train", "restval"]).unwrap();
        let captions: Vec<String> = train.captions(|_| ()).collect();
        assert_eq!(captions, ["a cat", "a cow"]);
        assert_eq!(opened(&path, &[]).unwrap().len(), 3, "without a split: all");
        let error = opened(&path, &["val"]).unwrap_err().to_string();
        assert!(error.contains("dataset_coco.json") && error.contains("split `val`"), "{error}");
    }

    #[test]
    fn what_is_no_such_picture_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dataset.json");
        for (record, words) in [
            (r#"{"filename": "a.jpg", "split": "test", "sentences": [{}]}"#, "missing field `raw`"),
            (r#"{"filename": 3, "split": "test", "sentences": []}"#, "field `filename`"),
            (r#"{"filename": "a.jpg", "sentences": []}"#, "field `split`: expected a string, found nothing"),
        ] {
            std::fs::write(&path, format!(r#"{{"images": [{record}]}}"#)).unwrap();
            let error = opened(&path, &["test"]).unwrap_err().to_string();
            assert!(error.contains("dataset.json, record 1: ") && error.contains(words), "{record}: {error}");
        }
    }
}

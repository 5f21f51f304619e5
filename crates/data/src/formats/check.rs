//! For the tests of formats: small files and what becomes of them.

use std::path::Path;
use std::sync::Arc;

use super::Format;
use crate::dataset::{Dataset, Source};
use crate::loader::Loader;
use crate::sources::{OpenError, Options};

/// The records of a file.
pub(crate) fn opened<F: Format>(path: &Path) -> Result<Dataset<F>, OpenError> {
    let options = Options { max_bad_share: 0.5, ..Options::default() };
    Dataset::of(&[Source::from(path.to_path_buf())], &options, &mut |_, _, _| ())
}

/// The rows of a file with this text, which names these pictures, drawn for it beside it.
pub(crate) fn examples<F: Format>(format: F, name: &str, text: &str, pictures: &[&str]) -> Vec<F::Row> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    for picture in pictures {
        let path = folder.path().join(picture);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::new(20, 20).save(path).unwrap();
    }
    let loader = Loader::once(Arc::new(opened::<F>(&path).unwrap()), format, 16, 2, 1).unwrap();
    let mut rows = Vec::new();
    for batch in loader {
        let batch = batch.unwrap();
        assert_eq!(batch.pictures.len(), batch.len() * F::PICTURES * 16 * 16 * 3);
        rows.extend(batch.rows);
    }
    rows
}

/// Checks that each of these records is refused with its place and these words.
pub(crate) fn refusals<F: Format>(records: &[(&str, &str)]) {
    for (record, words) in records {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.json");
        std::fs::write(&path, format!("[{record}]")).unwrap();
        let error = opened::<F>(&path).err().expect(record).to_string();
        assert!(error.contains("bad.json, record 1: ") && error.contains(words), "{record}: {error}");
    }
}
